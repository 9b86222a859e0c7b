//! Data that is missing, doubtful or hostile.

use portcullis_model::canonical;
use proptest::prelude::*;

use super::{at, config};
use crate::{
    Config, Counts, HoldReason, Look, Outcome, RollbackReason, State, Verdict, evidence, look,
};

fn begin(config: &Config) -> State {
    State::begin(config, 1).unwrap()
}

fn hold(outcome: &Outcome) -> HoldReason {
    let Verdict::Hold { reason } = outcome.verdict else {
        panic!("{:?}", outcome.verdict)
    };
    reason
}

#[test]
fn the_error_bound_rolls_back_at_once_and_for_good() {
    let mut config = config(&[100]);
    config.max_canary_errors = 5;
    let first = look(&config, &begin(&config), &at(1, 1, (900, 700), (100, 4)));
    assert_eq!(first.verdict, Verdict::Continue);
    let second = look(&config, &first.state, &at(1, 2, (910, 710), (101, 5)));
    let due = Verdict::Rollback {
        reason: RollbackReason::ErrorBound {
            errors: 5,
            bound: 5,
        },
    };
    assert_eq!(second.verdict, due);
    let third = look(&config, &second.state, &at(1, 60, (1, 0), (900_000, 5)));
    assert_eq!(third.verdict, due, "a good spell does not undo it");
    assert!(third.state.resume(2, 61_000).is_err());
}

#[test]
fn doubtful_looks_hold_and_teach_nothing() {
    let config = config(&[100]);
    let good = look(&config, &begin(&config), &at(1, 2, (900, 9), (100, 1))).state;
    let before = evidence(&config, &good);
    for (doubtful, expected) in [
        (
            at(2, 3, (1_000, 9), (200, 200)),
            HoldReason::EpochDiffers {
                expected: 1,
                received: 2,
            },
        ),
        (at(1, 1, (1_000, 9), (200, 200)), HoldReason::ClockWentBack),
        (
            at(1, 3, (1_000, 9), (200, 201)),
            HoldReason::ImpossibleCounts,
        ),
        (at(1, 3, (899, 9), (200, 200)), HoldReason::CountersWentBack),
        (at(1, 3, (1_000, 9), (200, 0)), HoldReason::CountersWentBack),
    ] {
        let outcome = look(&config, &good, &doubtful);
        assert_eq!(hold(&outcome), expected);
        assert_eq!(outcome.evidence.harm, before.harm, "{doubtful:?}");
        assert_eq!(outcome.evidence.promotion, before.promotion);
        assert_eq!(outcome.evidence.canary, before.canary);
    }
}

#[test]
fn a_restarted_counter_holds_once_and_goes_on() {
    let config = config(&[100]);
    let good = look(&config, &begin(&config), &at(1, 2, (900, 9), (100, 1))).state;
    let restarted = look(&config, &good, &at(1, 3, (90, 0), (10, 0)));
    assert_eq!(hold(&restarted), HoldReason::CountersWentBack);
    let after = look(&config, &restarted.state, &at(1, 4, (180, 0), (20, 0)));
    assert_eq!(after.verdict, Verdict::Continue);
    assert_eq!(after.evidence.canary.requests, 110);
}

#[test]
fn silence_holds_after_the_grace() {
    let config = config(&[100]);
    let state = begin(&config);
    let gap = look(&config, &state, &at(1, 6, (90, 0), (10, 0)));
    assert_eq!(hold(&gap), HoldReason::Gap { gap_ms: 6_000 });

    let mut state = state;
    let mut verdicts = Vec::new();
    for second in 1..=7 {
        let outcome = look(&config, &state, &at(1, second, (90 * second, 0), (10, 0)));
        verdicts.push(outcome.verdict);
        state = outcome.state;
    }
    assert_eq!(verdicts[5], Verdict::Continue);
    let reason = HoldReason::NoCanaryTraffic { since_ms: 6_000 };
    assert_eq!(verdicts[6], Verdict::Hold { reason });

    let mut state = begin(&config);
    let mut last = Verdict::Continue;
    for second in 1..=7 {
        let outcome = look(
            &config,
            &state,
            &at(1, second, (1, 0), (10 * second, second)),
        );
        last = outcome.verdict;
        state = outcome.state;
    }
    let reason = HoldReason::NoStableTraffic { since_ms: 6_000 };
    assert_eq!(last, Verdict::Hold { reason });
}

#[test]
fn a_gap_does_not_hide_harm_and_does_not_step_up() {
    let config = config(&[100]);
    let harm = look(&config, &begin(&config), &at(1, 60, (900, 9), (100, 100)));
    assert!(matches!(harm.verdict, Verdict::Rollback { .. }));
    let good = look(
        &config,
        &begin(&config),
        &at(1, 60, (90_000, 0), (10_000, 0)),
    );
    assert!(good.evidence.promotion.reached());
    assert_eq!(hold(&good), HoldReason::Gap { gap_ms: 60_000 });
}

#[test]
fn a_step_needs_its_time_its_requests_and_its_evidence() {
    let mut config = config(&[100, 200]);
    config.min_canary_requests = 20_000;
    config.missing_grace_ms = 20_000;
    config.steps[0].max_ms = 30_000;
    let mut state = begin(&config);
    for (second, canary, expected) in [
        (5, 15_000, Verdict::Continue),
        (12, 19_999, Verdict::Continue),
        (
            13,
            20_000,
            Verdict::StepUp {
                weight_per_mille: 200,
            },
        ),
    ] {
        let outcome = look(
            &config,
            &state,
            &at(1, second, (90_000 + second, 0), (canary, 0)),
        );
        assert_eq!(outcome.verdict, expected, "{second}");
        state = outcome.state;
    }
    let next = state.advance(&config, 2, 13_000).unwrap();
    assert_eq!(next.step(), 1);
    assert!(!evidence(&config, &next).promotion.reached(), "afresh");
    assert!(next.advance(&config, 3, 14_000).is_err(), "no third step");
    assert!(state.advance(&config, 1, 14_000).is_err(), "stale epoch");

    let few = (1..=4).fold(begin(&config), |state, ten| {
        look(&config, &state, &at(1, ten * 10, (9 * ten, 0), (ten, 0))).state
    });
    let outcome = look(&config, &few, &at(1, 41, (46, 0), (6, 0)));
    assert_eq!(hold(&outcome), HoldReason::Undecided);
}

#[test]
fn each_step_stakes_its_part_and_no_more() {
    let config = config(&[100, 200, 400]);
    let fresh = begin(&config);
    let milli = |state: &State| evidence(&config, state).harm.e_value_milli;
    assert!((999..=1_000).contains(&milli(&fresh)), "wealth starts at 1");
    let bad = look(&config, &fresh, &at(1, 1, (900, 0), (100, 3))).state;
    let after_first = milli(&bad);
    assert!(after_first > 1_500, "{after_first}");
    // A new step keeps what was won, and does not multiply it.
    let second = bad.advance(&config, 2, 1_000).unwrap();
    assert!(milli(&second).abs_diff(after_first) <= 1);
    // What this step loses is its own stake of a third; what was won before stays.
    let good = look(&config, &second, &at(2, 2, (90_000, 900), (10_000, 0))).state;
    let lost = after_first - milli(&good);
    assert!((1..=334).contains(&lost), "{lost}");
}

#[test]
fn thresholds_do_not_move_with_the_data() {
    let config = config(&[100]);
    let mut other = config.clone();
    other.max_canary_errors = 1;
    let outcome = look(&other, &begin(&config), &at(1, 1, (90, 0), (10, 1)));
    assert_eq!(hold(&outcome), HoldReason::ConfigChanged);
}

#[test]
fn configurations_out_of_bounds_are_refused_by_name() {
    type Break = (&'static str, fn(&mut Config));
    let breaks: [Break; 8] = [
        ("harm_alpha_ppm", |c| c.harm_alpha_ppm = 0),
        ("promotion_alpha_ppm", |c| c.promotion_alpha_ppm = 300_000),
        ("promotion_margin_ppm", |c| c.harm_tolerance_ppm = 10_000),
        ("max_canary_errors", |c| c.max_canary_errors = 0),
        ("min_canary_requests", |c| c.min_canary_requests = 0),
        ("weight_per_mille", |c| c.steps[0].weight_per_mille = 1_000),
        ("min_ms", |c| c.steps[0].min_ms = u64::MAX),
        ("steps", |c| c.steps.clear()),
    ];
    for (field, change) in breaks {
        let mut config = Config::default();
        config.check().unwrap();
        change(&mut config);
        let refusal = State::begin(&config, 1).unwrap_err();
        assert!(refusal.message.contains(field), "{field}: {refusal}");
    }
}

#[test]
fn the_stored_form_is_whole_numbers_and_versioned() {
    let config = config(&[100, 500]);
    let first = look(&config, &begin(&config), &at(1, 3, (900, 9), (100, 3)));
    let state = first.state.advance(&config, 2, 4_000).unwrap();
    for bytes in [
        canonical::to_vec(&state).unwrap(),
        canonical::to_vec(&first.evidence).unwrap(),
        canonical::to_vec(&first.verdict).unwrap(),
        canonical::to_vec(&config).unwrap(),
    ] {
        assert!(!bytes.is_empty());
    }
    let bytes = canonical::to_vec(&state).unwrap();
    assert_eq!(
        canonical::from_slice::<State>("state", &bytes).unwrap(),
        state
    );
    let text = String::from_utf8(bytes).unwrap();
    let later = text.replace(r#""version":1"#, r#""version":2"#);
    assert_ne!(later, text);
    let error = serde_json::from_str::<State>(&later).unwrap_err();
    assert!(error.to_string().contains("version 2"), "{error}");
}

#[test]
fn the_stored_form_does_not_change_unnoticed() {
    // Version 1 as written once; a reader for it must remain.
    let config = config(&[100]);
    let state = look(&config, &begin(&config), &at(1, 3, (900, 9), (100, 3))).state;
    let golden = include_str!("state-v1.json");
    assert_eq!(serde_json::to_string_pretty(&state).unwrap(), golden.trim());
    assert_eq!(serde_json::from_str::<State>(golden).unwrap(), state);
}

fn any_look() -> impl Strategy<Value = Look> {
    let count = prop_oneof![0..50u64, any::<u64>()];
    (
        0..3u64,
        prop_oneof![0..100_000u64, any::<u64>()],
        [count.clone(), count.clone(), count.clone(), count],
    )
        .prop_map(|(epoch, elapsed_ms, [a, b, c, d])| Look {
            epoch,
            elapsed_ms,
            stable: Counts::new(a, b),
            canary: Counts::new(c, d),
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_fold_is_total_and_repeatable(looks in prop::collection::vec(any_look(), 1..30)) {
        let config = config(&[100, 500]);
        let mut state = begin(&config);
        let mut rolled_back = false;
        for one in &looks {
            let outcome = look(&config, &state, one);
            prop_assert_eq!(&outcome, &look(&config, &state, one));
            let rolled_back_now = matches!(outcome.verdict, Verdict::Rollback { .. });
            prop_assert!(!rolled_back || rolled_back_now);
            rolled_back = rolled_back_now;
            prop_assert!(canonical::to_vec(&outcome.state).is_ok());
            prop_assert!(canonical::to_vec(&outcome.evidence).is_ok());
            state = outcome.state;
        }
    }

    #[test]
    fn errors_of_the_canary_never_help_it(
        stable in (1..500u64, 0..20u64), canary in (1..100u64, 0..10u64), more in 1..5u64,
    ) {
        let config = config(&[100]);
        let counts = |(n, e): (u64, u64)| (n.max(e), e);
        let fewer = at(1, 1, counts(stable), (canary.0 + canary.1 + more, canary.1));
        let mut worse = fewer;
        worse.canary.errors += more;
        let fewer = look(&config, &begin(&config), &fewer).evidence;
        let worse = look(&config, &begin(&config), &worse).evidence;
        prop_assert!(worse.harm.log_e_unats >= fewer.harm.log_e_unats);
        prop_assert!(worse.promotion.log_e_unats <= fewer.promotion.log_e_unats);
    }
}
