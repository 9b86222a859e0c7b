//! Who approved, and what a rule may count of it.

use std::collections::{BTreeMap, BTreeSet};

use portcullis_model::{HumanId, KeyClass, Kind};
use serde::{Deserialize, Serialize};

use crate::facts::Value;
use crate::request::{Actor, Request};

/// The approvals that stand for exactly the thing asked, as verified signatures.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Approvals(pub Vec<Approval>);

/// One person's approval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// Who signed.
    pub human: HumanId,
    /// The party they belong to, seen from the thing approved.
    pub party: Party,
    /// The class of the key that signed.
    pub key_class: KeyClass,
    /// Whether they are an administrator.
    #[serde(default)]
    pub administrator: bool,
}

/// The party of an approver.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Party {
    /// Had a hand in what is approved: author, contributor, agent's owner, task's signer,
    /// instigator.
    Own,
    /// Had none. Two approvers with the same name here count as one party.
    Other(String),
}

/// What would have to be added to the approvals that stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Needed {
    /// Further distinct people.
    pub humans: u32,
    /// How many of them must be of further parties that had no hand in it.
    pub parties: u32,
    /// The least key class of each.
    pub key_class: KeyClass,
    /// Whether each must be an administrator.
    pub administrators: bool,
}

impl std::fmt::Display for Needed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let who = match (self.administrators, self.humans) {
            (true, 1) => "administrator",
            (true, _) => "administrators",
            (false, 1) => "person",
            (false, _) => "people",
        };
        write!(f, "approval by {} more {who}", self.humans)?;
        if self.parties > 0 && self.parties == self.humans {
            write!(f, " who had no hand in it")?;
        } else if self.parties > 0 {
            write!(f, ", {} of whom had no hand in it", self.parties)?;
        }
        match self.key_class {
            KeyClass::Software => Ok(()),
            KeyClass::Presence => write!(f, ", with a hardware key"),
            KeyClass::Verified => write!(f, ", with a key that verifies its user"),
        }
    }
}

/// Most further approvals that are tried when looking for the smallest that would permit. More
/// can't be gathered in practice, and each costs an evaluation.
pub(crate) const HYPOTHETICAL_MAX: u32 = 5;

/// What would be needed, from least to most: fewer people first, then fewer parties, then weaker
/// keys.
pub(crate) fn hypotheses(administrators: bool) -> impl Iterator<Item = Needed> {
    const CLASSES: [KeyClass; 3] = [KeyClass::Software, KeyClass::Presence, KeyClass::Verified];
    (1..=HYPOTHETICAL_MAX).flat_map(move |humans| {
        (0..=humans).flat_map(move |parties| {
            CLASSES.into_iter().map(move |key_class| Needed {
                humans,
                parties,
                key_class,
                administrators,
            })
        })
    })
}

/// The most that [`hypotheses`] contains. If this does not permit, none of them does: rules count
/// approvals from below.
pub(crate) const fn strongest(administrators: bool) -> Needed {
    Needed {
        humans: HYPOTHETICAL_MAX,
        parties: HYPOTHETICAL_MAX,
        key_class: KeyClass::Verified,
        administrators,
    }
}

/// The approvals of `request` as the record that rules see, with `more` added to those that stand.
pub(crate) fn facts(approvals: &Approvals, request: &Request, more: Option<Needed>) -> Value {
    let floor = request
        .action
        .key_floor(&request.circumstances.genesis.key_floor);
    let given = Best::of(approvals, request);
    let at_least = |class: KeyClass| given.count(class, more);
    let (humans, parties) = at_least(KeyClass::Software);
    let (presence_humans, presence_parties) = at_least(KeyClass::Presence);
    let (verified_humans, verified_parties) = at_least(KeyClass::Verified);
    let (strong_humans, strong_parties) = at_least(floor);
    let (administrators, administrators_or_author) = given.administrators(floor, more);
    Value::Record(vec![
        ("humans", Value::Long(humans)),
        ("parties", Value::Long(parties)),
        ("presence_humans", Value::Long(presence_humans)),
        ("presence_parties", Value::Long(presence_parties)),
        ("verified_humans", Value::Long(verified_humans)),
        ("verified_parties", Value::Long(verified_parties)),
        ("strong_humans", Value::Long(strong_humans)),
        ("strong_parties", Value::Long(strong_parties)),
        ("administrators", Value::Long(administrators)),
        (
            "administrators_or_author",
            Value::Long(administrators_or_author),
        ),
    ])
}

/// Each person once, with their best key; a person who counts as of the own party anywhere, or
/// who is the actor, is of the own party.
struct Best<'a> {
    people: BTreeMap<&'a HumanId, Person<'a>>,
    /// The key class of the actor's own signature, where the actor is an administrator.
    author: Option<(&'a HumanId, KeyClass)>,
}

struct Person<'a> {
    party: Option<&'a str>,
    key_class: KeyClass,
    administrator: bool,
}

impl<'a> Best<'a> {
    fn of(approvals: &'a Approvals, request: &'a Request) -> Self {
        let actor = match &request.actor {
            Actor::Human(human) => Some(human),
            Actor::Agent(_) | Actor::Service(_) | Actor::Host(_) | Actor::Unknown => None,
        };
        let mut people: BTreeMap<&HumanId, Person<'_>> = BTreeMap::new();
        for approval in &approvals.0 {
            let own = actor.is_some_and(|actor| actor.id == approval.human);
            let party = match &approval.party {
                Party::Other(name) if !own => Some(name.as_str()),
                Party::Other(_) | Party::Own => None,
            };
            people
                .entry(&approval.human)
                .and_modify(|person| {
                    person.key_class = person.key_class.max(approval.key_class);
                    person.party = person.party.and(party);
                    person.administrator &= approval.administrator;
                })
                .or_insert(Person {
                    party,
                    key_class: approval.key_class,
                    administrator: approval.administrator,
                });
        }
        let author = actor
            .filter(|actor| actor.administrator && request.kind() == Kind::Human)
            .map(|actor| (&actor.id, request.circumstances.key_class));
        Self { people, author }
    }

    /// Distinct people and distinct other parties with keys of at least `class`.
    fn count(&self, class: KeyClass, more: Option<Needed>) -> (i64, i64) {
        let counted = || self.people.values().filter(|p| p.key_class >= class);
        let parties: BTreeSet<&str> = counted().filter_map(|person| person.party).collect();
        let more = more.filter(|more| more.key_class >= class);
        (
            length(counted().count()) + more.map_or(0, |more| i64::from(more.humans)),
            length(parties.len()) + more.map_or(0, |more| i64::from(more.parties)),
        )
    }

    /// Administrators with keys of at least `floor`: of other parties, and with the author.
    fn administrators(&self, floor: KeyClass, more: Option<Needed>) -> (i64, i64) {
        let counted = || {
            self.people
                .iter()
                .filter(|(_, p)| p.administrator && p.key_class >= floor)
        };
        let more = more.filter(|more| more.administrators && more.key_class >= floor);
        let others = counted().filter(|(_, p)| p.party.is_some()).count();
        let mut all: BTreeSet<&HumanId> = counted().map(|(id, _)| *id).collect();
        all.extend(
            self.author
                .filter(|(_, key_class)| *key_class >= floor)
                .map(|(id, _)| id),
        );
        (
            length(others) + more.map_or(0, |more| i64::from(more.parties)),
            length(all.len()) + more.map_or(0, |more| i64::from(more.humans)),
        )
    }
}

fn length(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
