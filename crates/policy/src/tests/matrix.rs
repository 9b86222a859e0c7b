//! The permission matrix: who may do what to which class of resource, under the default policy.
//!
//! `matrix.txt` is reviewed like code. After a deliberate change, write it anew with
//! `UPDATE_GOLDEN=1 cargo test -p portcullis-policy matrix` and read the difference.

use std::fmt::Write as _;

use portcullis_model::Containment;

use super::sample::{actions, administrator, agent, host, human, request, service};
use super::{answer, embedded};
use crate::request::{Actor, AgentActor, CausedBy, Request};

type Vary = fn(Request) -> Request;

fn actors() -> Vec<(&'static str, Actor, Vary)> {
    let same: Vary = |request| request;
    let observed_agent = match agent() {
        Actor::Agent(actor) => Actor::Agent(AgentActor { run: None, ..actor }),
        other => other,
    };
    vec![
        ("owner", human("ada"), same),
        ("stranger", human("eve"), same),
        ("administrator", administrator("root"), same),
        ("agent contained", agent(), same),
        ("agent bound", agent(), |mut request| {
            request.circumstances.containment = Some(Containment::Bound);
            request
        }),
        ("agent observed", observed_agent, |mut request| {
            request.circumstances.containment = Some(Containment::Observed);
            request
        }),
        ("agent halted", agent(), |mut request| {
            request.circumstances.breaker = true;
            request
        }),
        ("service", service(), same),
        ("service by agent", service(), |mut request| {
            request.circumstances.caused_by = CausedBy::Agent;
            request
        }),
        ("host", host(), same),
        ("unknown", Actor::Unknown, same),
    ]
}

#[test]
fn the_matrix_is_as_reviewed() {
    let set = embedded();
    let mut matrix = String::from(
        "# Who may do what, under the base and the default policy. `run.start` and the like are asked\n\
         # with all facts in order unless the line says otherwise.\n",
    );
    for (what, action) in actions() {
        let _ = write!(matrix, "\n{what}\n");
        for (who, actor, vary) in actors() {
            let request = vary(request(actor, action.clone()));
            let (answer, rule) = answer(&set, &request);
            let _ = writeln!(matrix, "  {who:16} {answer:7} {rule}");
        }
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/tests/matrix.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &matrix).unwrap();
    }
    let golden = std::fs::read_to_string(path).unwrap_or_default();
    for (number, (have, want)) in matrix.lines().zip(golden.lines()).enumerate() {
        assert_eq!(have, want, "matrix.txt:{}", number + 1);
    }
    assert_eq!(matrix.lines().count(), golden.lines().count());
}
