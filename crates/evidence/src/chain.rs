//! The one unbroken chain: from the signed task to the running release, verified offline from a
//! pinned genesis and one file.
//!
//! [`verify`] trusts the genesis' bytes and nothing else. It takes a [`Bundle`] of ledger entries
//! with their proofs and says of each link in a fixed order whether it holds, in plain words; what
//! the whole proves; and what it doesn't. A byte changed anywhere breaks a link, which is named.
//! [`Auditor`] does the part about signatures for a whole ledger.
//!
//! How the parts fit: `bundle` is the file, `registry` whose keys count when, `audit` every
//! signature, `book` the opened bundle, `change` the links up to a landing, `artifact` those up to
//! the release, `level` the words.

mod approvals;
mod artifact;
mod audit;
mod book;
mod bundle;
mod change;
mod diff;
mod git;
mod level;
mod registry;
mod tested;
mod together;

pub use audit::{Audited, Auditor, BlobLookup, PAYLOAD_PUSH_CERTIFICATE, Signed};
pub use bundle::{
    About, BLOBS_MAX, BUNDLE_MAX_BYTES, BUNDLE_VERSION, Bundle, BundledEntry, Bytes, ENTRIES_MAX,
    OBJECTS_MAX,
};
pub use level::SourceLevel;

use std::fmt;

use portcullis_model::event::{Body, GenesisCreated};
use portcullis_model::{Digest, Event, GitOid, LedgerIndex, Refusal};
use serde::{Deserialize, Serialize};

use crate::checkpoint::UnverifiedCheckpoint;
use crate::note::{KeyName, VerifierKey};
use book::{Book, one_line};

/// What is verified: what the verifier has in hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A file, by its SHA-256.
    Artifact {
        /// The digest that the verifier computed itself.
        digest: Digest,
    },
    /// A commit.
    Commit {
        /// Its id.
        oid: GitOid,
    },
}

/// A link of the chain, in the order of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkName {
    /// The bundle holds nothing that no link uses.
    Bundle,
    /// Entry 0 is the pinned one.
    Genesis,
    /// The log's signed tree head.
    Checkpoint,
    /// Who else saw that history, where the environment demands it.
    Witnesses,
    /// Every entry is in the tree.
    Inclusion,
    /// Every key came from the genesis or a quorum.
    Keys,
    /// A person signed the order.
    Task,
    /// A host signed for the run under it.
    Run,
    /// What was pushed, by whom.
    Revision,
    /// What analyses said.
    Checks,
    /// What tests said.
    Tests,
    /// Who approved exactly this.
    Approvals,
    /// Exactly this moved the branch.
    Landing,
    /// The artifact came from the landed commit.
    Build,
    /// No commit is left out.
    Coverage,
    /// Under which policy all was decided.
    Policy,
    /// It was let into the environment.
    Admission,
    /// What became of it.
    Rollout,
}

impl LinkName {
    /// The stable name, as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bundle => "bundle",
            Self::Genesis => "genesis",
            Self::Checkpoint => "checkpoint",
            Self::Witnesses => "witnesses",
            Self::Inclusion => "inclusion",
            Self::Keys => "keys",
            Self::Task => "task",
            Self::Run => "run",
            Self::Revision => "revision",
            Self::Checks => "checks",
            Self::Tests => "tests",
            Self::Approvals => "approvals",
            Self::Landing => "landing",
            Self::Build => "build",
            Self::Coverage => "coverage",
            Self::Policy => "policy",
            Self::Admission => "admission",
            Self::Rollout => "rollout",
        }
    }
}

impl fmt::Display for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One link: whether it holds, and what it says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// Which; the links of several changes share a name.
    pub name: LinkName,
    /// Whether it holds.
    pub holds: bool,
    /// What it shows, or why it doesn't hold, in a sentence.
    pub says: String,
    /// The entry that it hangs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<LedgerIndex>,
}

/// What a verification found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// Every link, in the order of the chain.
    pub links: Vec<Link>,
    /// What holds, in plain words; empty if a link is broken.
    pub proves: Vec<String>,
    /// What nobody should read into it.
    pub does_not_prove: Vec<String>,
    /// Whether somebody's approval of own work counted.
    pub self_approved: bool,
    /// The level of SLSA's source track that the evidence supports.
    pub source_level: SourceLevel,
    /// The first link that is broken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_broken: Option<Link>,
}

impl Report {
    /// Whether the whole chain holds.
    pub const fn holds(&self) -> bool {
        self.first_broken.is_none()
    }

    /// Nothing if the chain holds, else the words of the first broken link.
    ///
    /// # Errors
    /// `chain-broken`: a link is broken.
    pub fn require(&self) -> Result<(), Refusal> {
        match &self.first_broken {
            None => Ok(()),
            Some(link) => Err(Refusal::denied(
                "chain-broken",
                format!("the chain is broken at `{}`: {}", link.name, link.says),
            )
            .expected("evidence for every step from the task to here")),
        }
    }
}

/// Verifies a bundle about `subject`, trusting only `genesis`: the exact bytes of entry 0, which
/// the verifier got on a way of its own. Pure; milliseconds.
///
/// # Errors
/// The bundle can't be read at all, or is about something else. What can be read and doesn't hold
/// is in the report.
pub fn verify(bundle: &[u8], genesis: &[u8], subject: &Subject) -> Result<Report, Refusal> {
    let bundle = Bundle::parse(bundle)?;
    about(&bundle, subject)?;
    let mut links = Links::default();
    let root = pinned(&bundle, genesis, &mut links);
    let tree = root.and_then(|genesis| checkpoint(&bundle, &genesis, &mut links));
    let book = Book::open(&bundle, tree, &mut links);
    let shown = match &bundle.about {
        About::Artifact { .. } => artifact::artifact(&book, &mut links, &bundle.about),
        About::Commit { repository, commit } => {
            artifact::commit(&book, &mut links, repository, commit)
        }
    };
    if let Some(stray) = book.stray()
        && links.all_hold()
    {
        links.check(
            LinkName::Bundle,
            None,
            Err(Refusal::denied(
                "bundle-holds-more",
                format!("the bundle holds {stray}, which nothing in it names so"),
            )),
        );
    }
    let counted = shown.changes.iter().map(|one| &one.answer);
    let self_approved = book.self_approved
        || counted
            .chain(&shown.unproven)
            .chain(&shown.release)
            .any(|answer| answer.self_approved);
    let links = links.finish();
    let first_broken = links.iter().find(|link| !link.holds).cloned();
    let holds = first_broken.is_none();
    Ok(Report {
        proves: if holds {
            level::proves(&shown, self_approved)
        } else {
            Vec::new()
        },
        does_not_prove: level::does_not_prove(&shown, self_approved),
        self_approved,
        source_level: level::of(&shown, holds),
        first_broken,
        links,
    })
}

fn about(bundle: &Bundle, subject: &Subject) -> Result<(), Refusal> {
    let (same, received) = match (&bundle.about, subject) {
        (About::Artifact { digest, .. }, Subject::Artifact { digest: wanted }) => {
            (digest == wanted, digest.to_string())
        }
        (About::Commit { commit, .. }, Subject::Commit { oid }) => {
            (commit == oid, commit.to_string())
        }
        (About::Artifact { digest, .. }, Subject::Commit { .. }) => (false, digest.to_string()),
        (About::Commit { commit, .. }, Subject::Artifact { .. }) => (false, commit.to_string()),
    };
    if same {
        return Ok(());
    }
    let wanted = match subject {
        Subject::Artifact { digest } => digest.to_string(),
        Subject::Commit { oid } => oid.to_string(),
    };
    Err(Refusal::denied(
        "bundle-about-something-else",
        "the bundle is about something else than what you have",
    )
    .expected(&wanted)
    .received(&received)
    .next("ask the server for the bundle of exactly this artifact or commit"))
}

/// Entry 0 is the pinned genesis, byte for byte.
fn pinned(bundle: &Bundle, genesis: &[u8], links: &mut Links) -> Option<GenesisCreated> {
    let read = || {
        let given = bundle
            .entries
            .first()
            .map(|entry| entry.bytes.as_bytes())
            .unwrap_or_default();
        if given != genesis {
            return Err(Refusal::denied(
                "genesis-not-pinned",
                "the bundle's first entry is not the genesis that you pinned",
            )
            .expected(&Digest::of(genesis).to_string())
            .received(&Digest::of(given).to_string()));
        }
        match Event::decode(0, genesis)?.body {
            Body::GenesisCreated(body) => Ok(body),
            other => Err(
                Refusal::denied("no-genesis", "the pinned entry is no genesis")
                    .received(other.type_name()),
            ),
        }
    };
    match read() {
        Ok(body) => {
            let administrators = body.humans.iter().filter(|one| one.administrator).count();
            let solo = if body.solo { ", one person alone" } else { "" };
            links.check(
                LinkName::Genesis,
                Some(0),
                Ok(format!(
                    "{} is the pinned genesis of {}: {administrators} administrators, quorum {}{solo}, log key {}",
                    Digest::of(genesis).short(),
                    body.origin,
                    body.quorum,
                    body.log_key.fingerprint()
                )),
            );
            Some(body)
        }
        Err(refusal) => {
            links.check(LinkName::Genesis, Some(0), Err(refusal));
            None
        }
    }
}

/// The checkpoint is the genesis' log's, signed by it once, and covers every entry. Signatures of
/// others are looked at once it is known whose count ([`artifact`]).
fn checkpoint(
    bundle: &Bundle,
    genesis: &GenesisCreated,
    links: &mut Links,
) -> Option<(u64, Digest)> {
    let read = || {
        let origin: KeyName = genesis.origin.parse()?;
        let key = VerifierKey::from_public_key(origin, &genesis.log_key)?;
        let unverified = UnverifiedCheckpoint::parse(bundle.checkpoint.as_bytes())?;
        let verified = unverified.verify(&key)?;
        let claim = verified.checkpoint();
        Ok((claim.size, claim.root))
    };
    let read = read();
    links.check(
        LinkName::Checkpoint,
        None,
        read.as_ref()
            .map(|(size, root)| format!("the log signed {size} entries with root {}", root.short()))
            .map_err(Refusal::clone),
    );
    read.ok()
}

/// Links as they are found.
#[derive(Default)]
struct Links(Vec<Link>);

/// What a link that holds says.
struct Said(String);

impl Said {
    const fn of(says: String) -> Self {
        Self(says)
    }
}

impl Links {
    fn check(
        &mut self,
        name: LinkName,
        entry: Option<LedgerIndex>,
        result: Result<String, Refusal>,
    ) {
        let (holds, says) = match result {
            Ok(says) => (true, says),
            Err(refusal) => (false, one_line(&refusal)),
        };
        self.0.push(Link {
            name,
            holds,
            says,
            entry,
        });
    }

    fn say(&mut self, name: LinkName, result: Result<Said, (Option<LedgerIndex>, String)>) {
        let (holds, says, entry) = match result {
            Ok(Said(says)) => (true, says, None),
            Err((entry, says)) => (false, says, entry),
        };
        self.0.push(Link {
            name,
            holds,
            says,
            entry,
        });
    }

    fn holds_so_far(&self, name: LinkName) -> bool {
        self.0.iter().all(|link| link.holds || link.name != name)
    }

    fn all_hold(&self) -> bool {
        self.0.iter().all(|link| link.holds)
    }

    /// In the order of the chain; within one name in the order found.
    fn finish(mut self) -> Vec<Link> {
        self.0.sort_by_key(|link| link.name);
        self.0
    }
}
