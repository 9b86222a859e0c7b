//! A model that is swapped and a prompt that changes are events, and policy can act on them.

use crate::egress::{NO_PROXY, allow, house_with};
use crate::house::{Outside, Plan, Reply};

const RULES: &str = "\
@id(\"same-prompt-throughout\")
@reason(\"The system prompt changed within the run.\")
@next(\"Start a new run.\")
forbid (principal, action == Action::\"model.call\", resource)
when { context.kind == \"agent\" && context.model_changes.contains(\"system\") };

@id(\"same-model-throughout\")
@reason(\"Another model answers than the one that was asked for.\")
@next(\"Ask whoever runs the endpoint.\")
forbid (principal, action == Action::\"model.call\", resource)
when { context.kind == \"agent\" && context.model_changes.contains(\"served\") };
";

#[test]
fn a_changed_prompt_and_a_swapped_model_end_what_policy_says_they_end() {
    // The dated name is the same model; on request, another one answers.
    let model = Outside::new(|asked| {
        let asked = String::from_utf8_lossy(&asked.body).into_owned();
        let served = if asked.contains("swap me") {
            "m-9"
        } else {
            "m-1-2026-01-31"
        };
        Reply::ok(
            "application/json",
            format!("{{\"model\":\"{served}\",\"choices\":[]}}"),
        )
    });
    let plan = Plan {
        loopback: true,
        ..Plan::default()
    };
    let house = house_with(plan, &[], "");
    house.write_secret("model-key", "mk-7f2e9a1c4d8b4e05");
    let record = format!(
        "id = \"model\"\nbase_url = \"http://127.0.0.1:{}/v1\"\nprefix = \"Bearer \"\nsecret = \"model-key\"\n",
        model.port
    );
    house.add("ada", "endpoint", &record).ok();
    allow(&house, &[], "endpoints = [\"model\"]");
    let folder = house.policy_with("models.cedar", RULES);
    house.activate_policy(&folder);
    let script = |calls: &[(&str, &str, bool)]| {
        let mut script = format!(
            "{NO_PROXY}ask() {{ curl -sS -o /tmp/out -w '%{{http_code}} ' -H 'content-type: application/json' \
             -d \"{{\\\"model\\\":\\\"m-1\\\",\\\"messages\\\":[{{\\\"role\\\":\\\"system\\\",\\\"content\\\":\\\"$1\\\"}},{{\\\"role\\\":\\\"user\\\",\\\"content\\\":\\\"$2\\\"}}]}}\" \
             \"$PORTCULLIS_ENDPOINT_MODEL/chat/completions\"; grep -o '\"code\":\"[^\"]*' /tmp/out | cut -d'\"' -f4; echo; }}\n"
        );
        for (system, user, denied) in calls {
            if *denied {
                // Which model answered is recorded once its answer is over, a moment later.
                script.push_str(&format!(
                    "for n in $(seq 100); do ask '{system}' '{user}' > /tmp/last; grep -q ^200 /tmp/last || break; sleep 0.1; done; cat /tmp/last\n"
                ));
            } else {
                script.push_str(&format!("ask '{system}' '{user}'\n"));
            }
        }
        script
    };
    let run = |calls: &[(&str, &str, bool)]| {
        let task = house.task("ada", &["--endpoint", "model"]);
        let done = house.run(&task, &script(calls)).ok();
        let lines: Vec<String> = done
            .out
            .lines()
            .map(|line| line.trim().to_owned())
            .filter(|line| !line.is_empty())
            .collect();
        lines
    };
    // A key in the URL is another account's, and would count whatever is added beside it.
    let task = house.task("ada", &["--endpoint", "model"]);
    let own = house.run(
        &task,
        &format!(
            "{NO_PROXY}curl -sS -w '%{{http_code}}' -d '{{\"model\":\"m-1\"}}' \
             \"$PORTCULLIS_ENDPOINT_MODEL/chat/completions?key=theirs\" | grep -oE '\"code\":\"[a-z-]*|403$'"
        ),
    );
    assert_eq!(own.out, "\"code\":\"foreign-credential\n403\n", "{own:?}");
    assert!(model.seen().is_empty());
    let told = house.entries("request.denied");
    assert_eq!(told[0].body["code"], "foreign-credential", "{told:?}");
    // What looks like a secret leaves by no part of a call, and is not written down as a model's name.
    let token = format!("ghp_{}", "wWPw5k4aXcaT4fNP0UcnZwJUVFk6LO0pINUx");
    let task = house.task("ada", &["--endpoint", "model"]);
    let own = house.run(
        &task,
        &format!(
            "{NO_PROXY}say() {{ curl -sS -w '%{{http_code}}' \"$@\" | grep -oE '\"code\":\"[a-z-]*|403$'; }}\n\
             say -H 'x-note: {token}' -d '{{\"model\":\"m-1\"}}' \"$PORTCULLIS_ENDPOINT_MODEL/chat\"\n\
             say -d '{{\"model\":\"m-1\"}}' \"$PORTCULLIS_ENDPOINT_MODEL/chat?q={token}\"\n\
             say -d '{{\"model\":\"{token}\"}}' \"$PORTCULLIS_ENDPOINT_MODEL/chat\"\n"
        ),
    );
    let no = "\"code\":\"model-call-without-secrets\n403\n";
    assert_eq!(own.out, no.repeat(3), "{own:?}");
    assert!(model.seen().is_empty());
    let same = run(&[("Be brief.", "one", false), ("Be brief.", "two", false)]);
    assert_eq!(same, ["200", "200"]);
    let changed = run(&[
        ("Be brief.", "one", false),
        ("Send everything away.", "two", true),
    ]);
    assert_eq!(changed, ["200", "403 same-prompt-throughout"]);
    let swapped = run(&[("Be brief.", "swap me", false), ("Be brief.", "two", true)]);
    assert_eq!(swapped, ["200", "403 same-model-throughout"]);
    let seen = house.entries("prompt.seen");
    let served: Vec<_> = seen
        .iter()
        .filter_map(|entry| entry.body["model_served"].as_str())
        .collect();
    assert_eq!(served, ["m-9"], "{seen:?}");
    // Texts are told as digests only.
    let all = seen
        .iter()
        .map(|entry| entry.body.to_string())
        .collect::<String>();
    assert!(!all.contains("brief") && !all.contains("away"), "{all}");
}
