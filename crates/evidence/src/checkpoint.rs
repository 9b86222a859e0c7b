//! Checkpoints: the log's statement "my tree of this size has this root", as a signed note.
//!
//! Source: c2sp.org/tlog-checkpoint.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use portcullis_model::{Digest, Refusal};

use crate::merkle::TREE_MAX_SIZE;
use crate::note::{KeyName, UnverifiedNote, VerifiedNote, VerifierKey};
use crate::signer::Signer;

/// Most extension lines that are read. We write none: the specification advises against them.
pub const EXTENSION_MAX_LINES: usize = 16;

/// What a checkpoint says.
///
/// We keep origins as strict as key names (no spaces), so that no checkpoint's text can begin
/// like the bytes that a DSSE envelope has signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log; also the name of its key.
    pub origin: KeyName,
    /// Number of leaves, at most [`TREE_MAX_SIZE`].
    pub size: u64,
    /// Root over those leaves.
    pub root: Digest,
    /// Opaque further lines, none of them empty.
    pub extensions: Vec<String>,
}

/// A checkpoint that was read; nothing of it is checked but its form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnverifiedCheckpoint {
    note: UnverifiedNote,
    claim: Checkpoint,
}

/// A checkpoint of the expected log, signed by its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedCheckpoint {
    checkpoint: Checkpoint,
    note: VerifiedNote,
}

impl Checkpoint {
    /// A checkpoint without extensions.
    pub const fn new(origin: KeyName, size: u64, root: Digest) -> Self {
        Self {
            origin,
            size,
            root,
            extensions: Vec::new(),
        }
    }

    /// Signs it as the log, with the origin as the key's name.
    ///
    /// A log must never sign two checkpoints that aren't consistent; that is for the caller to
    /// hold.
    ///
    /// # Errors
    /// An extension line is empty or has control characters, or the signer can't sign.
    pub fn sign(&self, signer: &Signer) -> Result<UnverifiedCheckpoint, Refusal> {
        let mut note = UnverifiedNote::unsigned(&self.to_string())?;
        // What can't be read back was never a checkpoint: bad extensions end here.
        let claim = parse_text(note.claimed_text())?;
        note.sign(&self.origin, signer)?;
        Ok(UnverifiedCheckpoint { note, claim })
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let root = STANDARD.encode(self.root.as_bytes());
        write!(f, "{}\n{}\n{root}\n", self.origin, self.size)?;
        for line in &self.extensions {
            writeln!(f, "{line}")?;
        }
        Ok(())
    }
}

impl UnverifiedCheckpoint {
    /// Reads a checkpoint with its signatures.
    ///
    /// # Errors
    /// Not a signed note, or its text isn't a checkpoint's.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        let note = UnverifiedNote::parse(bytes)?;
        let claim = parse_text(note.claimed_text())?;
        Ok(Self { note, claim })
    }

    /// Checks that the log whose key is `log_key` signed this. The key's name is the origin that is
    /// expected.
    ///
    /// # Errors
    /// Another origin, or no valid signature by that key.
    pub fn verify(&self, log_key: &VerifierKey) -> Result<VerifiedCheckpoint, Refusal> {
        self.verify_with_witnesses(log_key, &[])
    }

    /// As [`verify`](Self::verify), and checks signatures by other known keys too; whether there
    /// are enough of them is for the caller to say, by
    /// [`VerifiedCheckpoint::signers`].
    ///
    /// # Errors
    /// As [`verify`](Self::verify), or a known witness's signature doesn't verify.
    pub fn verify_with_witnesses(
        &self,
        log_key: &VerifierKey,
        witnesses: &[&VerifierKey],
    ) -> Result<VerifiedCheckpoint, Refusal> {
        if self.claim.origin != *log_key.name() {
            return Err(Refusal::denied(
                "checkpoint-of-another-log",
                "this checkpoint is of another log",
            )
            .expected(log_key.name().as_str())
            .received(self.claim.origin.as_str()));
        }
        self.note.verify(&[log_key])?;
        let mut known = vec![log_key];
        known.extend_from_slice(witnesses);
        Ok(VerifiedCheckpoint {
            checkpoint: self.claim.clone(),
            note: self.note.verify(&known)?,
        })
    }

    /// What it claims.
    pub const fn claim(&self) -> &Checkpoint {
        &self.claim
    }

    /// The signed note, to add witnesses' signatures to or to look at them.
    pub const fn note(&self) -> &UnverifiedNote {
        &self.note
    }

    /// Adds a witness's signature.
    ///
    /// # Errors
    /// As [`UnverifiedNote::add`].
    pub fn add_signature(&mut self, signature: crate::note::NoteSignature) -> Result<(), Refusal> {
        self.note.add(signature)
    }
}

/// The file: note text, empty line, signature lines.
impl fmt::Display for UnverifiedCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.note, f)
    }
}

impl VerifiedCheckpoint {
    /// What the log signed.
    pub const fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Which of the known keys signed, the log's first.
    pub fn signers(&self) -> &[KeyName] {
        self.note.signers()
    }
}

fn parse_text(text: &str) -> Result<Checkpoint, Refusal> {
    let malformed = |received: &str| {
        Refusal::malformed("checkpoint")
            .expected("lines of origin, size, base64 root, and no empty line")
            .received(received)
    };
    let mut lines = text
        .strip_suffix('\n')
        .ok_or_else(|| malformed("a text without a final newline"))?
        .split('\n');
    let mut line = || lines.next().ok_or_else(|| malformed("too few lines"));
    let origin: KeyName = line()?.parse()?;
    let size = parse_size(line()?).ok_or_else(|| malformed("another size"))?;
    let root = parse_hash(line()?).ok_or_else(|| malformed("another root"))?;
    let extensions: Vec<String> = lines.map(str::to_owned).collect();
    if extensions.len() > EXTENSION_MAX_LINES || extensions.iter().any(String::is_empty) {
        return Err(malformed("empty or too many extension lines"));
    }
    Ok(Checkpoint {
        origin,
        size,
        root,
        extensions,
    })
}

/// A decimal number in its one spelling, at most [`TREE_MAX_SIZE`].
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number <= TREE_MAX_SIZE && number.to_string() == text).then_some(number)
}

/// A SHA-256 hash in base64.
pub(crate) fn parse_hash(text: &str) -> Option<Digest> {
    let bytes: [u8; 32] = STANDARD.decode(text).ok()?.try_into().ok()?;
    Some(Digest::from_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_model::Secret;

    fn log(seed: u8, origin: &str) -> (Signer, VerifierKey) {
        let signer = Signer::from_seed(&Secret::new([seed; 32])).unwrap();
        let key = VerifierKey::new(origin.parse().unwrap(), *signer.public_bytes());
        (signer, key)
    }

    fn checkpoint() -> Checkpoint {
        Checkpoint::new(
            "example.com/log".parse().unwrap(),
            42,
            Digest::of(b"the root"),
        )
    }

    #[test]
    fn a_signed_checkpoint_is_read_back_and_verified() {
        let (signer, key) = log(1, "example.com/log");
        let text = checkpoint().sign(&signer).unwrap().to_string();
        assert!(text.starts_with("example.com/log\n42\n"), "{text}");
        let read = UnverifiedCheckpoint::parse(text.as_bytes()).unwrap();
        assert_eq!(read.to_string(), text);
        assert_eq!(read.verify(&key).unwrap().checkpoint(), &checkpoint());
    }

    #[test]
    fn another_log_or_key_is_refused() {
        let (signer, _) = log(1, "example.com/log");
        let signed = checkpoint().sign(&signer).unwrap();
        let (_, other_name) = log(1, "example.org/log");
        let (_, other_key) = log(2, "example.com/log");
        assert_eq!(
            signed.verify(&other_name).unwrap_err().code,
            "checkpoint-of-another-log"
        );
        assert!(signed.verify(&other_key).is_err());
    }

    #[test]
    fn a_witness_alone_is_not_the_log() {
        let (signer, key) = log(1, "example.com/log");
        let (witness, witness_key) = log(2, "witness.example");
        let mut note = UnverifiedNote::unsigned(&checkpoint().to_string()).unwrap();
        note.sign(witness_key.name(), &witness).unwrap();
        let alone = UnverifiedCheckpoint::parse(note.to_string().as_bytes()).unwrap();
        assert!(alone.verify_with_witnesses(&key, &[&witness_key]).is_err());
        note.sign(key.name(), &signer).unwrap();
        let both = UnverifiedCheckpoint::parse(note.to_string().as_bytes()).unwrap();
        let verified = both.verify_with_witnesses(&key, &[&witness_key]).unwrap();
        assert_eq!(verified.signers().len(), 2);
        assert_eq!(both.verify(&key).unwrap().signers().len(), 1);
    }

    #[test]
    fn each_changed_line_is_refused() {
        let (signer, key) = log(1, "example.com/log");
        let text = checkpoint().sign(&signer).unwrap().to_string();
        for (from, to) in [("\n42\n", "\n43\n"), ("\n42\n", "\n4\n")] {
            let changed = text.replace(from, to);
            let read = UnverifiedCheckpoint::parse(changed.as_bytes()).unwrap();
            assert!(read.verify(&key).is_err(), "{changed}");
        }
        for (from, to) in [
            ("\n42\n", "\n042\n"),
            ("\n42\n", "\n+42\n"),
            ("\n42\n", "\n-1\n"),
            ("\n42\n", "\n\n"),
            ("\n42\n", "\n9223372036854775808\n"),
            ("example.com/log\n42", "example.com log\n42"),
            ("=\n\n", "\n\n"),
            ("=\n\n", "=\n\nx\n\n"),
        ] {
            let changed = text.replacen(from, to, 1);
            assert!(
                UnverifiedCheckpoint::parse(changed.as_bytes()).is_err(),
                "{changed}"
            );
        }
    }

    #[test]
    fn an_extension_that_breaks_the_format_is_not_signed() {
        let (signer, key) = log(1, "example.com/log");
        let mut with = checkpoint();
        with.extensions = vec!["more".to_owned()];
        let read = UnverifiedCheckpoint::parse(with.sign(&signer).unwrap().to_string().as_bytes())
            .unwrap();
        assert_eq!(read.verify(&key).unwrap().checkpoint(), &with);
        for bad in ["", "a\n", "a\tb"] {
            with.extensions = vec![bad.to_owned()];
            assert!(with.sign(&signer).is_err(), "{bad:?}");
        }
    }
}
