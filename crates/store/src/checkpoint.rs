//! Signed tree heads, as the sequencer makes and checks them.

use portcullis_evidence::checkpoint::{Checkpoint, UnverifiedCheckpoint};
use portcullis_evidence::note::{KeyName, UnverifiedNote, VerifierKey};
use portcullis_evidence::signer::Signer;
use portcullis_model::{Digest, Refusal};

/// A signed statement that the first `size` entries have this root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedCheckpoint {
    /// Number of entries.
    pub size: u64,
    /// RFC 6962 root over them.
    pub root: Digest,
    /// The signed note (C2SP tlog-checkpoint) with these two and the log's origin.
    pub note: String,
}

impl SignedCheckpoint {
    /// Reads a signed note of the log that `key` belongs to.
    ///
    /// # Errors
    /// Not a checkpoint, of another log, or the log's signature does not verify.
    pub fn verify(note: &str, key: &VerifierKey) -> Result<Self, Refusal> {
        let verified = UnverifiedCheckpoint::parse(note.as_bytes())?.verify(key)?;
        Ok(Self {
            size: verified.checkpoint().size,
            root: verified.checkpoint().root,
            note: note.to_owned(),
        })
    }

    /// Checks that the note says what stands beside it.
    pub(crate) fn check(&self, key: &VerifierKey) -> Result<(), Refusal> {
        let signed = Self::verify(&self.note, key)?;
        if signed == *self {
            return Ok(());
        }
        Err(Refusal::conflict(
            "checkpoint-altered",
            "a stored checkpoint is not the one that was signed",
        )
        .expected(&format!("size {}, root {}", signed.size, signed.root))
        .received(&format!("size {}, root {}", self.size, self.root)))
    }
}

/// Signs checkpoints with the log's key.
///
/// A trait because the key is held at the edge: in a file, in a token, in a test.
pub trait CheckpointSigner: Send + Sync + 'static {
    /// The signed note over `size` and `root`. It is asked only once those entries are durable.
    ///
    /// # Errors
    /// The key can't be used. The entries stand all the same, and the next commit is signed anew.
    fn sign(&self, size: u64, root: &Digest) -> Result<String, Refusal>;

    /// Signs the text of a snapshot's note (`snapshot.rs`), which begins with
    /// `portcullis snapshot v1` and can't be taken for a checkpoint, as the log.
    ///
    /// # Errors
    /// The key can't be used, or is kept where it signs checkpoints alone. Then there are no
    /// snapshots, and each start folds the whole log.
    fn sign_snapshot(&self, text: &str) -> Result<String, Refusal> {
        let _unsigned = text;
        Err(Refusal::unavailable(
            "snapshot-unsigned",
            "the log's key signs no snapshots",
        ))
    }

    /// The public half, with the log's origin as its name.
    fn verifier(&self) -> &VerifierKey;
}

/// The log's key held in memory.
#[derive(Debug)]
pub struct LogKey {
    signer: Signer,
    verifier: VerifierKey,
}

impl LogKey {
    /// The key `signer` for the log named `origin`.
    pub fn new(origin: KeyName, signer: Signer) -> Self {
        let verifier = VerifierKey::new(origin, *signer.public_bytes());
        Self { signer, verifier }
    }
}

impl CheckpointSigner for LogKey {
    fn sign(&self, size: u64, root: &Digest) -> Result<String, Refusal> {
        Checkpoint::new(self.verifier.name().clone(), size, *root)
            .sign(&self.signer)
            .map(|signed| signed.to_string())
    }

    fn sign_snapshot(&self, text: &str) -> Result<String, Refusal> {
        let mut note = UnverifiedNote::unsigned(text)?;
        note.sign(self.verifier.name(), &self.signer)?;
        Ok(note.to_string())
    }

    fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }
}
