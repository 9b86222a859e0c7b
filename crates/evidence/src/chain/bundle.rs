//! The file that a verifier gets: entries with their proofs, and what they name by digest.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use portcullis_model::{
    Digest, EnvironmentId, GitOid, LedgerIndex, Refusal, ReleaseId, RepositoryId, canonical,
};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::merkle::PROOF_MAX_HASHES;

/// The format version that this code writes and reads.
pub const BUNDLE_VERSION: u32 = 1;
/// Largest bundle in bytes: a year of changes with their reports still fits.
pub const BUNDLE_MAX_BYTES: usize = 64 * 1024 * 1024;
/// Most entries in one bundle: about thirty for each change since the last release.
pub const ENTRIES_MAX: usize = 65_536;
/// Most blobs in one bundle: about six for each change.
pub const BLOBS_MAX: usize = 16_384;
/// Most commit and tree objects in one bundle.
pub const OBJECTS_MAX: usize = 65_536;

/// Everything that it takes to verify one artifact or commit offline. Written in canonical JSON, so
/// that a changed byte never means the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    /// Format version: [`BUNDLE_VERSION`].
    pub version: u32,
    /// What it is about; a claim that verification checks.
    pub about: About,
    /// The log's signed checkpoint (a C2SP signed note) that every proof leads to.
    pub checkpoint: String,
    /// Entries by rising index, the genesis first.
    pub entries: Vec<BundledEntry>,
    /// What entries name by digest: attestations, reports, policy files, task texts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub blobs: BTreeMap<Digest, Bytes>,
    /// Commit objects (without git's header) by id; where a change landed on a later base, also the
    /// tree objects in which the two diffs differ from their bases.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub objects: BTreeMap<GitOid, Bytes>,
}

/// What a bundle is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", tag = "kind")]
pub enum About {
    /// An artifact, and where it is or shall be released.
    Artifact {
        /// Its SHA-256.
        digest: Digest,
        /// The environment; none asks for everything since the repository's baseline.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        environment: Option<EnvironmentId>,
        /// The release that serves there before it; none if it is the first.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        previous: Option<ReleaseId>,
        /// Its own release there, if it was admitted already.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        release: Option<ReleaseId>,
    },
    /// A landed commit.
    Commit {
        /// Where.
        repository: RepositoryId,
        /// Which.
        commit: GitOid,
    },
}

/// An entry, and the proof that the log holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundledEntry {
    /// Its position.
    pub index: LedgerIndex,
    /// Its exact bytes, which are canonical JSON.
    pub bytes: String,
    /// Sibling hashes from the leaf up to the checkpoint's root (RFC 6962 section 2.1.1).
    pub proof: Vec<Digest>,
}

/// Bytes, written in standard base64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        STANDARD.decode(&*text).map(Self).map_err(D::Error::custom)
    }
}

impl Bundle {
    /// Reads a bundle. Nothing of it is verified yet.
    ///
    /// # Errors
    /// Too large, not canonical JSON of this version, entries not by rising index from 0 on, or
    /// more than the bounds of this module.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        if bytes.len() > BUNDLE_MAX_BYTES {
            return Err(
                Refusal::limit("bundle-too-large", "the bundle is too large")
                    .expected(&format!("at most {BUNDLE_MAX_BYTES} bytes"))
                    .received(&format!("{} bytes", bytes.len())),
            );
        }
        let bundle: Self = canonical::from_slice("evidence bundle", bytes)?;
        let malformed = |expected: &str, received: &str| {
            Err(Refusal::malformed("evidence bundle")
                .expected(expected)
                .received(received))
        };
        if bundle.version != BUNDLE_VERSION {
            return malformed(
                &format!("version {BUNDLE_VERSION}"),
                &format!("version {}", bundle.version),
            );
        }
        let mut wanted = 0;
        for (place, entry) in bundle.entries.iter().enumerate() {
            if (place == 0) != (entry.index == 0) || entry.index < wanted {
                return malformed(
                    "entries by rising index, the genesis first",
                    &format!("entry {} at place {place}", entry.index),
                );
            }
            if entry.proof.len() > PROOF_MAX_HASHES {
                return malformed("a proof of at most 64 hashes", "more");
            }
            wanted = entry.index.saturating_add(1);
        }
        if bundle.entries.is_empty()
            || bundle.entries.len() > ENTRIES_MAX
            || bundle.blobs.len() > BLOBS_MAX
            || bundle.objects.len() > OBJECTS_MAX
        {
            return malformed(
                &format!(
                    "1 to {ENTRIES_MAX} entries, at most {BLOBS_MAX} blobs and {OBJECTS_MAX} objects"
                ),
                &format!(
                    "{} entries, {} blobs, {} objects",
                    bundle.entries.len(),
                    bundle.blobs.len(),
                    bundle.objects.len()
                ),
            );
        }
        Ok(bundle)
    }

    /// The bundle's bytes, in the one spelling that [`parse`](Self::parse) takes.
    ///
    /// # Errors
    /// None in practice; the canonical writer's signature has one.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Refusal> {
        canonical::to_vec(self)
    }
}
