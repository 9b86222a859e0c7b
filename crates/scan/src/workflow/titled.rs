//! What is told of a program that can't be read by the name of its step or job.
//!
//! `Upload assets` above `./tool upload` with the forge's token makes a release: a reader would say
//! so, too. A name alone says nothing; with a credential that could serve something else, what is
//! done *depends*.

use super::held::Held;
use super::unread::{Rights, Unread};
use super::{Job, Pairs, Step};
use crate::acts::catalog::With;
use crate::acts::headings::{self, Heading};
use crate::acts::inputs;
use crate::acts::strange::REQUEST;
use crate::acts::words::{self, Claim};
use crate::acts::{Act, Op, Token, is_rehearsal};

/// What a job's name says, and what else is in the job.
pub(super) struct Titles {
    heading: Option<Heading>,
    rehearsal: bool,
    /// Something that the job does is known to be production or to be none.
    ships: bool,
}

impl Titles {
    pub(super) fn of(job: &Job) -> Self {
        let names = format!("{} {}", job.id, job.name.as_deref().unwrap_or_default());
        let heading = headings::read(&job.id).or_else(|| headings::read(job.name.as_deref()?));
        Self {
            heading,
            rehearsal: is_rehearsal(&names),
            ships: job.steps.iter().any(ships),
        }
    }

    /// Whether names say anything here at all.
    pub(super) fn is_silent(&self, step: &Step) -> bool {
        self.heading.is_none() && step.name.as_deref().and_then(headings::read).is_none()
    }
}

/// Whether a step does something that such a name would speak of.
pub(super) fn ships(step: &Step) -> bool {
    let known = |act: &Act| {
        matches!(
            act.op,
            Op::Publish
                | Op::Deploy { .. }
                | Op::Release { .. }
                | Op::Tag(_)
                | Op::Push(_)
                | Op::Merge { .. }
                | Op::CreatePr(_)
                | Op::Dispatch { .. }
                | Op::RepositoryDispatch { .. }
        )
    };
    step.acts.iter().any(known)
        || !step.agents.is_empty()
        || step
            .inner
            .as_ref()
            .is_some_and(|inner| inner.steps.iter().any(ships))
}

/// What the names say that a step does with what it holds. `fact` is what decides where they leave
/// it open.
pub(super) fn acts(
    step: &Step,
    unread: &Unread,
    titles: &Titles,
    (held, wide, login): (Held, Held, bool),
    rights: &Rights,
) -> Vec<Act> {
    let of_step = step.name.as_deref().and_then(headings::read);
    // A step of another name in a job of such a name may do something else.
    let unnamed = step.name.is_none();
    let Some(heading) = of_step.or(titles.heading) else {
        return Vec::new();
    };
    if step.name.as_deref().is_some_and(words::is_quiet) {
        return Vec::new();
    }
    let own = of_step.is_some();
    let ambient = own && !titles.ships;
    let what = unread.what.as_str();
    // An address may be the secret, or the request's own words say what it is for.
    let request = unread.name == REQUEST;
    let hook = request
        && own
        && (what.to_lowercase().contains("deploy")
            || step
                .run
                .as_ref()
                .is_some_and(|(text, _)| text.contains("secrets."))
            || step.env.iter().any(|(_, value)| value.contains("secrets.")));
    let forge = held.token || held.own;
    let mut claim = heading.claim;
    if claim == Claim::Release && (heading.aimed || !forge) && (held.registry || login) {
        claim = Claim::Publish;
    }
    let (sure, open) = match claim {
        Claim::Deploy => (
            hook || held.place
                || own && held.other
                || ambient && (wide.place || login || rights.identity),
            held.place || held.own || held.registry || held.other || wide.place || login,
        ),
        Claim::Publish => (
            held.registry
                || heading.aimed && held.other
                || ambient && (wide.registry || login)
                || own && rights.packages && held.token,
            held.other || held.place || forge || wide.registry || login || rights.identity,
        ),
        Claim::Release => (
            own && forge || ambient && (wide.token || wide.own),
            forge || wide.own || ambient && rights.contents && rights.free,
        ),
        Claim::Merge { .. } => (own && forge, false),
        _ => (false, false),
    };
    if request && !matches!(claim, Claim::Deploy | Claim::Publish) {
        return Vec::new();
    }
    let sure = sure && (own || unnamed && !titles.ships);
    let open = open && (own || !titles.ships && (held.place || held.registry || forge));
    if !sure && !open {
        return Vec::new();
    }
    let mut out = inputs::acts(claim, what, &With(&step.with));
    if claim == Claim::Release && held.registry {
        out.append(&mut inputs::acts(Claim::Publish, what, &With(&step.with)));
    }
    let token = forge_token(&step.env);
    for act in &mut out {
        if !sure {
            act.unsure = Some(unread.fact());
        }
        if titles.rehearsal && matches!(act.op, Op::Deploy { .. }) {
            act.benign = Some("the job's name says that it is not production");
        }
        if let (Token::Env(_), Some(value)) = (&act.token, &token) {
            act.token = Token::Value(value.clone());
        }
    }
    out
}

/// The token of the forge that an environment holds, whatever its name.
fn forge_token(env: &Pairs) -> Option<String> {
    let found = env.iter().find(|(name, value)| {
        let mut held = Held::default();
        held.take(name, value);
        held.token || held.own
    });
    found.map(|(_, value)| value.clone())
}
