//! Whether a request was satisfied, from the signatures of those who approved.

use std::collections::BTreeSet;

use portcullis_model::event::{Body, Needed};
use portcullis_model::statement::{ApprovalSubject, Carry};
use portcullis_model::{
    Digest, Event, HumanId, KeyClass, LedgerIndex, Party, Refusal, RequestId, TaskId, Timestamp,
};

use super::book::{Book, one_line};

/// What was asked.
pub(super) struct Asked {
    pub(super) id: RequestId,
    pub(super) subject: ApprovalSubject,
    pub(super) task: Option<TaskId>,
    pub(super) checks: Option<Digest>,
    pub(super) needed: Needed,
    pub(super) party: Party,
    pub(super) expires: Timestamp,
    /// Whether it is used on a later base, where only approvals that carry count.
    pub(super) carried: bool,
}

/// Who answered.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    pub(super) humans: BTreeSet<HumanId>,
    /// Of those, who had no hand in it.
    pub(super) independent: BTreeSet<HumanId>,
    pub(super) least: Option<KeyClass>,
    pub(super) self_approved: bool,
    pub(super) entries: Vec<LedgerIndex>,
}

impl Answer {
    pub(super) fn says(&self) -> String {
        let names: Vec<_> = self.humans.iter().map(ToString::to_string).collect();
        let class = self
            .least
            .map_or_else(String::new, |class| format!(" with a {class} key"));
        let own = if self.self_approved {
            ", self-approved"
        } else {
            ""
        };
        format!("approved by {}{class}{own}", names.join(", "))
    }
}

impl Asked {
    /// The request that the entry `id` opened.
    pub(super) fn opened(book: &Book<'_>, id: RequestId) -> Result<Self, Refusal> {
        let event = book.sound(id.0)?;
        let Body::RequestOpened(body) = &event.body else {
            return Err(Refusal::denied(
                "not-a-request",
                format!("entry {} opens no request", id.0),
            )
            .received(event.body.type_name()));
        };
        Ok(Self {
            id,
            subject: body.subject.clone(),
            task: body.task,
            checks: body.checks,
            needed: body.needed.clone(),
            party: body.party.clone(),
            expires: body.expires,
            carried: false,
        })
    }

    /// What the approvals before the entry at `at` add up to at `now`, for what uses them there.
    ///
    /// # Errors
    /// Not enough of them count, with the reason of the first that doesn't.
    pub(super) fn answered(
        &self,
        book: &Book<'_>,
        at: LedgerIndex,
        now: Timestamp,
    ) -> Result<Answer, Refusal> {
        let mut answer = Answer::default();
        let mut why_not: Option<Refusal> = None;
        for event in book.events().filter(|event| event.index < at) {
            match &event.body {
                Body::ApprovalGiven(body) if body.statement.request == self.id => {
                    if let Err(refusal) = self.count(book, event, body, (at, now), &mut answer) {
                        why_not.get_or_insert(refusal);
                    }
                }
                Body::RequestRejected(body) if body.request == self.id => {
                    return Err(Refusal::denied(
                        "request-rejected",
                        format!("{} was rejected before it was used", self.id),
                    ));
                }
                Body::RequestWithdrawn(body) if body.request == self.id => {
                    return Err(Refusal::denied(
                        "request-withdrawn",
                        format!("{} was withdrawn before it was used", self.id),
                    ));
                }
                _ => {}
            }
        }
        let registry = book.registry_at(at)?;
        let wanted = |number: u32| usize::try_from(number.max(1)).unwrap_or(usize::MAX);
        if now < self.expires
            && answer.humans.len() >= wanted(self.needed.humans)
            && registry.parties(&answer.humans) >= wanted(self.needed.parties)
        {
            return Ok(answer);
        }
        let mut message = format!("{} was not satisfied when it was used", self.id);
        if let Some(refusal) = why_not {
            message = format!("{message}: {}", one_line(&refusal));
        }
        Err(Refusal::denied("approval-missing", message)
            .expected(&format!(
                "{} humans of {} parties before {}",
                self.needed.humans, self.needed.parties, self.expires
            ))
            .received(&format!("{:?}", answer.humans)))
    }

    fn count(
        &self,
        book: &Book<'_>,
        event: &Event,
        body: &portcullis_model::event::ApprovalGiven,
        (at, now): (LedgerIndex, Timestamp),
        answer: &mut Answer,
    ) -> Result<(), Refusal> {
        book.sound(event.index)?;
        let statement = &body.statement;
        let approver = &statement.approver;
        let refuse = |code: &str, message: String| Err(Refusal::denied(code, message));
        if statement.subject != self.subject
            || statement.task != self.task
            || statement.checks != self.checks
        {
            return refuse(
                "statement-mismatch",
                format!("{approver} approved something else than {} asks", self.id),
            );
        }
        if self.carried && statement.carry != Carry::SameDiff {
            return refuse(
                "approval-exact",
                format!("{approver} approved the exact base only, and the branch had moved"),
            );
        }
        if now >= statement.expires || at >= statement.expires_index {
            return refuse(
                "approval-expired",
                format!("{approver}'s approval had expired when it was used"),
            );
        }
        let proved = event.actor.key_class.unwrap_or(KeyClass::Software);
        if proved < self.needed.key_class {
            return refuse(
                "key-class-too-low",
                format!(
                    "{approver}'s key is of class {proved}, where {} takes {}",
                    self.id, self.needed.key_class
                ),
            );
        }
        let registry = book.registry_at(event.index)?;
        let person = registry.human(approver)?;
        book.registry_at(at)?.human(approver)?;
        if self.needed.administrators && !person.manifest.administrator {
            return refuse(
                "not-administrator",
                format!("{approver} is no administrator"),
            );
        }
        let own = registry.in_party(&self.party, approver);
        if own && !registry.solo {
            return refuse(
                "own-party",
                format!("{approver} had a hand in it and can't approve it"),
            );
        }
        answer.humans.insert(approver.clone());
        if !own {
            answer.independent.insert(approver.clone());
        }
        answer.least = Some(answer.least.map_or(proved, |least| least.min(proved)));
        answer.self_approved |= own;
        answer.entries.push(event.index);
        Ok(())
    }
}
