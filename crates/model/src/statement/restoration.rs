//! What a person signs when a ledger goes on from an older copy of itself.

use serde::{Deserialize, Serialize};

use super::LedgerPoint;
use crate::digest::Digest;
use crate::id::LedgerIndex;
use crate::refusal::Refusal;

/// Who knew of a point of a ledger beyond the copy that it goes on from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(
    deny_unknown_fields,
    rename_all = "kebab-case",
    tag = "kind",
    content = "name"
)]
pub enum KnownBy {
    /// A checkpoint that was held outside the data directory.
    Held,
    /// The data directory that the copy takes the place of.
    Replaced,
    /// A witness of this name.
    Witness(String),
}

impl std::fmt::Display for KnownBy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Held => f.write_str("a held checkpoint"),
            Self::Replaced => f.write_str("the replaced data directory"),
            Self::Witness(name) => write!(f, "the witness {name}"),
        }
    }
}

/// A point of a ledger that somebody knew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownPoint {
    /// Who.
    pub by: KnownBy,
    /// Number of entries.
    pub size: u64,
    /// Merkle root over them; a witness says none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<Digest>,
}

/// Entries by their indexes, both of them included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntryRange {
    /// The first one.
    pub from: LedgerIndex,
    /// The last one.
    pub to: LedgerIndex,
}

/// A ledger goes on from an older copy of itself, and this is what is lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restoration {
    /// All that the copy has; the entry that says so is the next one.
    pub from: LedgerPoint,
    /// What others knew of the ledger. Nobody, if it is empty: then what is lost is not known.
    pub known: Vec<KnownPoint>,
    /// Entries that were signed once and are not there now. From the first that may be another to
    /// the last that anybody knew of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<EntryRange>,
}

impl Restoration {
    /// Most points that it names: as many as a log has witnesses, and some held checkpoints.
    pub const KNOWN_MAX: usize = 64;
    /// Longest name of a witness in bytes.
    pub const NAME_MAX_BYTES: usize = 256;

    /// Whether agents may go on after it: somebody was asked, and nobody knew of more.
    pub fn loses_nothing(&self) -> bool {
        self.lost.is_none() && !self.known.is_empty()
    }

    /// Whether this point is one that it names as known beyond the copy.
    pub fn names(&self, by: &KnownBy, size: u64, root: Option<&Digest>) -> bool {
        let lost = self.lost.is_some_and(|lost| size > lost.from);
        lost && self.known.iter().any(|point| {
            point.by == *by && point.size == size && (root.is_none() || point.root.as_ref() == root)
        })
    }

    /// Checks that its parts fit together.
    ///
    /// # Errors
    /// `malformed-restoration`: too many points, a name that is none, or a range that does not
    /// follow from them.
    pub fn validate(&self) -> Result<(), Refusal> {
        let refused = |expected: String, received: String| {
            Err(Refusal::malformed("restoration")
                .expected(&expected)
                .received(&received))
        };
        if self.known.len() > Self::KNOWN_MAX {
            return refused(
                format!("at most {} known points", Self::KNOWN_MAX),
                self.known.len().to_string(),
            );
        }
        for point in &self.known {
            if let KnownBy::Witness(name) = &point.by
                && (name.is_empty()
                    || name.len() > Self::NAME_MAX_BYTES
                    || !name.bytes().all(|byte| byte.is_ascii_graphic()))
            {
                return refused("the name of a witness".to_owned(), name.clone());
            }
        }
        let newest = self.known.iter().map(|point| point.size).max().unwrap_or(0);
        match self.lost {
            None if newest <= self.from.size => Ok(()),
            Some(lost)
                if lost.from <= lost.to
                    && lost.from <= self.from.size
                    && newest.checked_sub(1) == Some(lost.to) =>
            {
                Ok(())
            }
            None => refused(
                format!(
                    "that entries {} to {} are lost",
                    self.from.size,
                    newest.saturating_sub(1)
                ),
                "that none are".to_owned(),
            ),
            Some(lost) => refused(
                format!(
                    "a range from at most {} to {}",
                    self.from.size,
                    newest.saturating_sub(1)
                ),
                format!("{} to {}", lost.from, lost.to),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(by: KnownBy, size: u64) -> KnownPoint {
        KnownPoint {
            by,
            size,
            root: Some(Digest::of(&size.to_be_bytes())),
        }
    }

    fn restoration(known: Vec<KnownPoint>, lost: Option<(u64, u64)>) -> Restoration {
        Restoration {
            from: LedgerPoint {
                origin: "ledger.example/shop".to_owned(),
                size: 25,
                root: Digest::of(b"root"),
            },
            known,
            lost: lost.map(|(from, to)| EntryRange { from, to }),
        }
    }

    #[test]
    fn the_range_follows_from_what_was_known() {
        let held = || vec![point(KnownBy::Held, 40), point(KnownBy::Replaced, 30)];
        restoration(held(), Some((25, 39))).validate().unwrap();
        // The log was written on elsewhere after entry 19.
        restoration(held(), Some((20, 39))).validate().unwrap();
        for (known, lost) in [
            (held(), None),
            (held(), Some((25, 38))),
            (held(), Some((26, 39))),
            (held(), Some((25, 40))),
            (vec![point(KnownBy::Held, 24)], Some((25, 24))),
            (Vec::new(), Some((25, 39))),
            (vec![point(KnownBy::Witness("a b".to_owned()), 3)], None),
            (vec![point(KnownBy::Held, 3); 65], None),
        ] {
            let refused = restoration(known, lost).validate().unwrap_err();
            assert_eq!(refused.code, "malformed-restoration", "{lost:?}");
        }
    }

    #[test]
    fn only_what_was_compared_loses_nothing() {
        assert!(!restoration(Vec::new(), None).loses_nothing());
        let whole = restoration(vec![point(KnownBy::Held, 25)], None);
        whole.validate().unwrap();
        assert!(whole.loses_nothing());
        assert!(!whole.names(&KnownBy::Held, 25, None));
        let lossy = restoration(vec![point(KnownBy::Held, 40)], Some((25, 39)));
        let root = Digest::of(&40_u64.to_be_bytes());
        assert!(lossy.names(&KnownBy::Held, 40, Some(&root)));
        assert!(!lossy.names(&KnownBy::Held, 40, Some(&Digest::of(b"other"))));
        assert!(!lossy.names(&KnownBy::Held, 39, None));
        assert!(!lossy.names(&KnownBy::Replaced, 40, None));
    }
}
