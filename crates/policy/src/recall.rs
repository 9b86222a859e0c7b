//! Permits that were given before, for questions that are asked again and again.
//!
//! A run asks the same of policy thousands of times: the same task, host and method. [`decide`] is
//! a pure function, so an equal question at the same policy has an equal answer. Two facts differ
//! each time though: the time, and often the path. They are left out of the comparison where no
//! rule that could apply reads them, which is found from the rules' syntax when a set is loaded. A
//! "no" is never remembered: it is told with the facts of its own request.
//!
//! [`decide`]: crate::decide

use std::collections::VecDeque;

use portcullis_model::{Digest, LedgerIndex, Mode};
use serde_json::Value;

use crate::action::{Action, NetConnect};
use crate::decision::{Basis, Permit, Standing};
use crate::request::{Actor, AgentActor, Circumstances, Request};
use crate::rule::RuleRef;
use crate::set::PolicySet;

/// Most questions of one asker that are remembered, the latest.
const QUESTIONS_MAX: usize = 32;

/// What one asker was permitted lately.
#[derive(Debug, Default)]
pub struct Recall(VecDeque<Given>);

#[derive(Debug)]
struct Given {
    policy: Digest,
    question: Request,
    request: Digest,
    rules: Vec<RuleRef>,
    reason: String,
}

impl Recall {
    /// The permit that [`decide`](crate::decide) would give at `at`, if it gave one to an equal
    /// question before. Its request digest is that of the question that was decided then.
    pub fn permit(&self, set: &PolicySet, request: &Request, at: LedgerIndex) -> Option<Permit> {
        let reads = recallable(set, request)?;
        let given = self
            .0
            .iter()
            .find(|given| given.policy == set.digest() && alike(&given.question, request, reads))?;
        let basis = Basis {
            at,
            policy: given.policy,
            request: given.request,
        };
        Some(Permit::new(
            basis,
            given.rules.clone(),
            given.reason.clone(),
            Standing::Permitted,
        ))
    }

    /// Remembers what [`decide`](crate::decide) answered to `request`.
    pub fn remember(&mut self, set: &PolicySet, request: &Request, permit: &Permit) {
        if permit.standing() != Standing::Permitted || permit.policy() != set.digest() {
            return;
        }
        if recallable(set, request).is_none() {
            return;
        }
        if self.0.len() >= QUESTIONS_MAX {
            self.0.pop_back();
        }
        self.0.push_front(Given {
            policy: permit.policy(),
            question: request.clone(),
            request: permit.request(),
            rules: permit.rules().to_vec(),
            reason: permit.summary().reason,
        });
    }
}

/// What the rules about a request read of the facts that differ each time; `None` for what is always
/// decided anew.
fn recallable(set: &PolicySet, request: &Request) -> Option<Reads> {
    if request.circumstances.mode != Mode::Enforce {
        return None;
    }
    let (Action::NetConnect(_), Actor::Agent(AgentActor { run: Some(_), .. })) =
        (&request.action, &request.actor)
    else {
        return None;
    };
    set.reads(request.action.name(), "Run")
}

/// Whether two requests are equal but for the facts that no rule about them reads. Each fact is
/// named, so that none that is added later goes without comparison.
fn alike(known: &Request, asked: &Request, reads: Reads) -> bool {
    let Request {
        actor,
        circumstances,
        action,
    } = known;
    let (Action::NetConnect(facts), Action::NetConnect(other)) = (action, &asked.action) else {
        return false;
    };
    *actor == asked.actor
        && alike_around(circumstances, &asked.circumstances, reads)
        && alike_facts(facts, other, reads)
}

fn alike_around(known: &Circumstances, asked: &Circumstances, reads: Reads) -> bool {
    let Circumstances {
        caused_by,
        containment,
        mode,
        taint,
        breaker,
        key_class,
        now,
        genesis,
    } = known;
    *caused_by == asked.caused_by
        && *containment == asked.containment
        && *mode == asked.mode
        && *taint == asked.taint
        && *breaker == asked.breaker
        && *key_class == asked.key_class
        && (*now == asked.now || !reads.time)
        && *genesis == asked.genesis
}

fn alike_facts(known: &NetConnect, asked: &NetConnect, reads: Reads) -> bool {
    let NetConnect {
        host,
        port,
        method,
        path,
        task,
        named_in_task,
        private_address,
        foreign_credential,
        opaque,
        secrets,
        kept_files,
    } = known;
    *host == asked.host
        && *port == asked.port
        && *method == asked.method
        && (*path == asked.path || !reads.path)
        && *task == asked.task
        && *named_in_task == asked.named_in_task
        && *private_address == asked.private_address
        && *foreign_credential == asked.foreign_credential
        && *opaque == asked.opaque
        && *secrets == asked.secrets
        && *kept_files == asked.kept_files
}

/// Which of the facts that differ from one request to the next are read by rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reads {
    /// `context.now_ms`.
    pub(crate) time: bool,
    /// `context.path`.
    pub(crate) path: bool,
}

impl Reads {
    pub(crate) const ALL: Self = Self {
        time: true,
        path: true,
    };

    const fn and(self, other: Self) -> Self {
        Self {
            time: self.time || other.time,
            path: self.path || other.path,
        }
    }

    /// Of a rule; of one whose syntax can't be had, all.
    pub(crate) fn of_rules<'a>(rules: impl Iterator<Item = &'a cedar_policy::Policy>) -> Self {
        rules.fold(Self::default(), |reads, rule| {
            reads.and(rule.to_json().as_ref().map_or(Self::ALL, Self::of_syntax))
        })
    }

    /// Cedar's JSON form: `context.x` is `{".": {"left": {"Var": "context"}, "attr": "x"}}`. The
    /// context as a whole may be compared or searched: that reads everything.
    pub(crate) fn of_syntax(syntax: &Value) -> Self {
        match syntax {
            Value::Object(fields) => fields.iter().fold(Self::default(), |reads, (key, inner)| {
                if key == "Var" && inner == "context" {
                    return Self::ALL;
                }
                let of_context = matches!(key.as_str(), "." | "has")
                    && inner.get("left").and_then(|left| left.get("Var"))
                        == Some(&Value::from("context"));
                let attribute = inner.get("attr").and_then(Value::as_str);
                reads.and(match attribute {
                    Some(name) if of_context => Self {
                        time: name == "now_ms",
                        path: name == "path",
                    },
                    Some(_) | None => Self::of_syntax(inner),
                })
            }),
            Value::Array(items) => items.iter().fold(Self::default(), |reads, item| {
                reads.and(Self::of_syntax(item))
            }),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Self::default(),
        }
    }
}
