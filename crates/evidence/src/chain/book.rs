//! A bundle, opened: every entry with what was found out about it, every blob by digest.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use portcullis_model::event::{Body, Effect, EffectConcluded, EffectIntended, EffectOutcome};
use portcullis_model::{Digest, Event, GitOid, LedgerIndex, Refusal, RepositoryId};

use super::audit::{Auditor, blob_altered};
use super::bundle::{Bundle, Bytes};
use super::git::{self, Commit, Tree};
use super::registry::Registry;
use super::{LinkName, Links, Said};
use crate::merkle::{leaf_hash, verify_inclusion};

/// An opened bundle.
pub(super) struct Book<'a> {
    bundle: &'a Bundle,
    entries: BTreeMap<LedgerIndex, Slot>,
    /// The registry from each entry on that changed it.
    registries: Vec<(LedgerIndex, Arc<Registry>)>,
    used_blobs: RefCell<BTreeSet<Digest>>,
    used_objects: RefCell<BTreeSet<GitOid>>,
    /// Whether an activation in it was approved by its own author.
    pub(super) self_approved: bool,
}

struct Slot {
    event: Option<Event>,
    broken: Option<Refusal>,
}

/// A landing that was concluded as done.
#[derive(Clone, Copy)]
pub(super) struct Landing<'a> {
    pub(super) intent: &'a Event,
    pub(super) body: &'a EffectIntended,
    pub(super) concluded: &'a Event,
}

impl<'a> Book<'a> {
    /// The bundle's checkpoint, as it stands there.
    pub(super) fn checkpoint(&self) -> &'a str {
        &self.bundle.checkpoint
    }

    /// Proves every entry to be in the tree and audits its signatures, in order. `root` is none
    /// where the checkpoint doesn't hold.
    pub(super) fn open(bundle: &'a Bundle, tree: Option<(u64, Digest)>, links: &mut Links) -> Self {
        let mut book = Self {
            bundle,
            entries: BTreeMap::new(),
            registries: Vec::new(),
            used_blobs: RefCell::default(),
            used_objects: RefCell::default(),
            self_approved: false,
        };
        let mut auditor = Auditor::new();
        let mut outside: Option<(LedgerIndex, String)> = None;
        let mut unkeyed: Option<(LedgerIndex, Refusal)> = None;
        let mut activations = 0_u64;
        for entry in &bundle.entries {
            let decoded = Event::decode(entry.index, entry.bytes.as_bytes());
            let proved = match tree {
                None => Err(Refusal::denied(
                    "no-checkpoint",
                    "the checkpoint that would prove it does not hold",
                )),
                Some((size, root)) => {
                    let leaf = leaf_hash(entry.bytes.as_bytes());
                    verify_inclusion(leaf, entry.index, size, &entry.proof, root).map_err(|_| {
                        Refusal::denied(
                            "not-in-log",
                            format!("entry {} is not what the log holds there", entry.index),
                        )
                    })
                }
            };
            let mut broken = proved.err();
            if let Some(refusal) = &broken
                && outside.is_none()
            {
                let kind = decoded
                    .as_ref()
                    .map_or("unreadable", |event| event.body.type_name());
                outside = Some((
                    entry.index,
                    format!("entry {} ({kind}): {}", entry.index, refusal.message),
                ));
            }
            let event = match decoded {
                Ok(event) => {
                    let lookup = |digest: &Digest| book.blob_bytes(digest);
                    if let Err(refusal) = auditor.take(&event, &lookup) {
                        let governs = matches!(
                            event.body,
                            Body::ActivationProposed(_)
                                | Body::ActivationCompleted(_)
                                | Body::PrincipalEnded(_)
                        );
                        if governs && unkeyed.is_none() {
                            unkeyed = Some((entry.index, refusal.clone()));
                        }
                        broken.get_or_insert(refusal);
                    } else {
                        activations +=
                            u64::from(matches!(event.body, Body::ActivationCompleted(_)));
                    }
                    Some(event)
                }
                Err(refusal) => {
                    broken.get_or_insert(refusal);
                    None
                }
            };
            if let Some(now) = auditor.registry()
                && book
                    .registries
                    .last()
                    .is_none_or(|(_, last)| !Arc::ptr_eq(last, now))
            {
                book.registries.push((entry.index, Arc::clone(now)));
            }
            book.entries.insert(entry.index, Slot { event, broken });
        }
        book.self_approved = auditor.self_approved();
        links.say(
            LinkName::Inclusion,
            match outside {
                None => Ok(Said::of(format!(
                    "all {} entries are in the log, each at its place",
                    bundle.entries.len()
                ))),
                Some((index, says)) => Err((Some(index), says)),
            },
        );
        links.say(
            LinkName::Keys,
            match unkeyed {
                None if book.registries.is_empty() => Err((None, "no genesis".to_owned())),
                None => Ok(Said::of(format!(
                    "keys come from the genesis, and from activations by a quorum: {activations}"
                ))),
                Some((index, refusal)) => Err((Some(index), one_line(&refusal))),
            },
        );
        book
    }

    /// All entries that could be read, in order.
    pub(super) fn events(&self) -> impl DoubleEndedIterator<Item = &Event> {
        self.entries.values().filter_map(|slot| slot.event.as_ref())
    }

    /// The entry at `index`, which must be in the log, with a signature that holds.
    pub(super) fn sound(&self, index: LedgerIndex) -> Result<&Event, Refusal> {
        let slot = self.entries.get(&index).ok_or_else(|| {
            Refusal::denied(
                "entry-missing",
                format!("entry {index} is not in the bundle"),
            )
        })?;
        match (&slot.broken, &slot.event) {
            (Some(refusal), _) => Err(refusal.clone()),
            (None, Some(event)) => Ok(event),
            (None, None) => Err(Refusal::internal("an entry without content or cause")),
        }
    }

    /// The registry as it was before the entry at `index`.
    pub(super) fn registry_at(&self, index: LedgerIndex) -> Result<&Registry, Refusal> {
        self.registries
            .iter()
            .rev()
            .find(|(from, _)| *from < index || *from == 0)
            .map(|(_, registry)| &**registry)
            .ok_or_else(|| Refusal::denied("no-genesis", "the bundle has no genesis"))
    }

    /// A body, whose bytes must be those that its digest names.
    pub(super) fn blob(&self, digest: &Digest) -> Result<&'a [u8], Refusal> {
        let Bytes(bytes) = self.bundle.blobs.get(digest).ok_or_else(|| {
            Refusal::denied(
                "blob-missing",
                format!("body {digest} is not in the bundle"),
            )
        })?;
        self.used_blobs.borrow_mut().insert(*digest);
        if Digest::of(bytes) == *digest {
            Ok(bytes)
        } else {
            Err(blob_altered(digest))
        }
    }

    /// As [`blob`](Self::blob), where it may be left out.
    pub(super) fn blob_if_there(&self, digest: &Digest) -> Result<Option<&'a [u8]>, Refusal> {
        if self.bundle.blobs.contains_key(digest) {
            self.blob(digest).map(Some)
        } else {
            Ok(None)
        }
    }

    fn blob_bytes(&self, digest: &Digest) -> Option<Vec<u8>> {
        self.bundle.blobs.get(digest).map(|bytes| bytes.0.clone())
    }

    /// A commit object.
    pub(super) fn commit(&self, oid: &GitOid) -> Result<Commit, Refusal> {
        git::commit(oid, self.object("commit", oid)?)
    }

    /// A tree object.
    pub(super) fn tree(&self, oid: &GitOid) -> Result<Tree, Refusal> {
        git::tree(oid, self.object("tree", oid)?)
    }

    fn object(&self, kind: &str, oid: &GitOid) -> Result<&'a [u8], Refusal> {
        let Bytes(bytes) = self.bundle.objects.get(oid).ok_or_else(|| {
            Refusal::denied(
                &format!("{kind}-missing"),
                format!("{kind} {oid} is not in the bundle"),
            )
        })?;
        self.used_objects.borrow_mut().insert(oid.clone());
        Ok(bytes)
    }

    /// What is wrong with the bodies and objects that no link looked at: one that is not what its
    /// name says, or that no entry names. Such bytes could say anything.
    pub(super) fn stray(&self) -> Option<String> {
        let used = self.used_blobs.borrow();
        for (id, Bytes(bytes)) in &self.bundle.blobs {
            if used.contains(id) {
                continue;
            }
            let name = id.to_string();
            let mut entries = self.bundle.entries.iter();
            if Digest::of(bytes) != *id || !entries.any(|entry| entry.bytes.contains(&name)) {
                return Some(format!("body {id}"));
            }
        }
        let used = self.used_objects.borrow();
        let mut objects = self.bundle.objects.keys();
        objects
            .find(|id| !used.contains(*id))
            .map(|id| format!("object {id}"))
    }

    /// Every landing that was concluded as done.
    pub(super) fn landings(&self) -> impl Iterator<Item = Landing<'_>> {
        self.events().filter_map(|concluded| {
            let Body::EffectConcluded(EffectConcluded {
                effect,
                outcome: EffectOutcome::Done,
                ..
            }) = &concluded.body
            else {
                return None;
            };
            let intent = self.entries.get(effect)?.event.as_ref()?;
            match &intent.body {
                Body::EffectIntended(body) if matches!(body.effect, Effect::Land { .. }) => {
                    Some(Landing {
                        intent,
                        body,
                        concluded,
                    })
                }
                _ => None,
            }
        })
    }

    /// The last landing of `commit` before the entry at `before`.
    pub(super) fn landing_of(
        &self,
        repository: &RepositoryId,
        commit: &GitOid,
        before: LedgerIndex,
    ) -> Option<Landing<'_>> {
        self.landings()
            .filter(|landing| {
                landing.concluded.index < before
                    && matches!(&landing.body.effect, Effect::Land { repository: at, new, .. }
                        if at == repository && new == commit)
            })
            .last()
    }
}

/// A refusal on one line.
pub(super) fn one_line(refusal: &Refusal) -> String {
    let mut text = refusal.message.clone();
    if let Some(expected) = &refusal.expected {
        text.push_str("; expected ");
        text.push_str(expected);
    }
    if let Some(received) = &refusal.received {
        text.push_str("; received ");
        text.push_str(received);
    }
    text
}
