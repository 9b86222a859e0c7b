//! Signed notes: a text and Ed25519 signatures under it, as C2SP's `signed-note` specifies them.
//!
//! Signatures by keys that the reader doesn't know are kept and ignored, so witnesses may add
//! theirs; a signature that claims a known key and doesn't verify spoils the whole note.
//!
//! Source: c2sp.org/signed-note v1.0.0. Why this isn't the `signed_note` crate stands in
//! `docs/decisions/0002-evidence-formats.md`.

#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use portcullis_model::digest::decode_hex;
use portcullis_model::{Digest, PublicKey, Refusal};

use crate::signer::{self, SIGNATURE_BYTES, Signer};

/// Largest note in bytes: room for a checkpoint and [`NOTE_MAX_SIGNATURES`] post-quantum
/// signatures of 5 kB by others.
pub const NOTE_MAX_BYTES: usize = 256 * 1024;
/// Most signature lines: the specification asks for at least 16 to be taken.
pub const NOTE_MAX_SIGNATURES: usize = 32;
/// Longest key name in bytes: a DNS name and a path.
pub const KEY_NAME_MAX_BYTES: usize = 255;

/// The signature type of plain Ed25519 in key ids and verifier keys.
const ED25519_TYPE: u8 = 0x01;
const SIGNATURE_PREFIX: &str = "— ";

/// A key name: not empty, no spaces, no `+`, no control characters. By custom a URL without its
/// scheme, such as `example.com/log`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyName(String);

/// A public key that notes are checked with: name, id and 32 bytes. Written
/// `name+id in hex+base64 of type and key`.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: KeyName,
    id: u32,
    public: [u8; 32],
}

/// A note that was read; none of its signatures is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnverifiedNote {
    text: String,
    signatures: Vec<NoteSignature>,
}

/// One signature line. `bytes` are as long as the key's algorithm has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteSignature {
    /// The name of the key that is claimed.
    pub name: KeyName,
    /// The id of the key that is claimed.
    pub key_id: u32,
    /// The signature itself.
    pub bytes: Vec<u8>,
}

/// A note that at least one known key signed, and no known key's signature was wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedNote {
    text: String,
    signers: Vec<KeyName>,
}

impl UnverifiedNote {
    /// A note with `text` and no signature yet.
    ///
    /// # Errors
    /// The text doesn't end in a newline, has other control characters, or is too long.
    pub fn unsigned(text: &str) -> Result<Self, Refusal> {
        check_text(text)?;
        Ok(Self {
            text: text.to_owned(),
            signatures: Vec::new(),
        })
    }

    /// Adds a signature by `signer` under `name`.
    ///
    /// # Errors
    /// There are [`NOTE_MAX_SIGNATURES`] already, or the signer can't sign.
    pub fn sign(&mut self, name: &KeyName, signer: &Signer) -> Result<(), Refusal> {
        let key = VerifierKey::new(name.clone(), *signer.public_bytes());
        let bytes = signer.sign(self.text.as_bytes())?.to_vec();
        self.add(NoteSignature {
            name: key.name,
            key_id: key.id,
            bytes,
        })
    }

    /// Adds a signature that somebody else made, a witness for instance.
    ///
    /// # Errors
    /// There are [`NOTE_MAX_SIGNATURES`] already.
    pub fn add(&mut self, signature: NoteSignature) -> Result<(), Refusal> {
        if self.signatures.len() >= NOTE_MAX_SIGNATURES {
            return Err(Refusal::limit(
                "note-signatures",
                format!("a note takes at most {NOTE_MAX_SIGNATURES} signatures"),
            ));
        }
        self.signatures.push(signature);
        Ok(())
    }

    /// Reads a signed note.
    ///
    /// # Errors
    /// Longer than [`NOTE_MAX_BYTES`], more than [`NOTE_MAX_SIGNATURES`] signatures or none, or any
    /// departure from the format.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        if bytes.len() > NOTE_MAX_BYTES {
            return Err(malformed("a note that is too large"));
        }
        let note = std::str::from_utf8(bytes).map_err(|_| malformed("bytes that are not UTF-8"))?;
        // The last empty line parts text and signatures; the text keeps its own newline.
        let (text_lines, signature_lines) = note
            .rsplit_once("\n\n")
            .ok_or_else(|| malformed("a note without an empty line before its signatures"))?;
        let text = format!("{text_lines}\n");
        check_text(&text)?;
        let lines = signature_lines
            .strip_suffix('\n')
            .ok_or_else(|| malformed("a note without a newline at its end"))?;
        let mut parsed = Self {
            text,
            signatures: Vec::new(),
        };
        for line in lines.split('\n') {
            parsed.add(parse_signature(line)?)?;
        }
        Ok(parsed)
    }

    /// Checks the note against `known` keys.
    ///
    /// # Errors
    /// No known key signed, a known key's signature doesn't verify, or a known key signed twice.
    pub fn verify(&self, known: &[&VerifierKey]) -> Result<VerifiedNote, Refusal> {
        let mut signers: Vec<KeyName> = Vec::new();
        for key in known {
            let mut claims = self
                .signatures
                .iter()
                .filter(|signature| signature.name == key.name && signature.key_id == key.id);
            let Some(claim) = claims.next() else { continue };
            if claims.next().is_some() {
                return Err(Refusal::denied(
                    "note-signed-twice",
                    format!("the note has two signatures by {}", key.name),
                ));
            }
            signer::verify_bytes(&key.public, self.text.as_bytes(), &claim.bytes)
                .map_err(|refusal| refusal.expected(&format!("a signature by {}", key.name)))?;
            if !signers.contains(&key.name) {
                signers.push(key.name.clone());
            }
        }
        if signers.is_empty() {
            let names = |keys: Vec<String>| keys.join(", ");
            return Err(Refusal::denied(
                "note-not-signed",
                "none of the keys that you trust signed this note",
            )
            .expected(&names(known.iter().map(|key| key.to_string()).collect()))
            .received(&names(
                self.signatures
                    .iter()
                    .map(|signature| signature.name.to_string())
                    .collect(),
            )));
        }
        Ok(VerifiedNote {
            text: self.text.clone(),
            signers,
        })
    }

    /// The text that is claimed to be signed, its final newline included.
    pub fn claimed_text(&self) -> &str {
        &self.text
    }

    /// All signature lines, checked or not.
    pub fn signatures(&self) -> &[NoteSignature] {
        &self.signatures
    }
}

impl fmt::Display for UnverifiedNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        for signature in &self.signatures {
            writeln!(f, "{signature}")?;
        }
        Ok(())
    }
}

/// The signature line, without its newline.
impl fmt::Display for NoteSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.key_id.to_be_bytes().to_vec();
        bytes.extend_from_slice(&self.bytes);
        write!(
            f,
            "{SIGNATURE_PREFIX}{} {}",
            self.name,
            STANDARD.encode(bytes)
        )
    }
}

impl VerifiedNote {
    /// The signed text, its final newline included.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Which of the known keys signed, each once.
    pub fn signers(&self) -> &[KeyName] {
        &self.signers
    }
}

impl VerifierKey {
    /// The key with its id, which follows from name and bytes.
    pub fn new(name: KeyName, public: [u8; 32]) -> Self {
        let id = key_id(&name, ED25519_TYPE, &public);
        Self { name, id, public }
    }

    /// The key of an `ssh-ed25519` public key under `name`.
    ///
    /// # Errors
    /// The key is of another algorithm.
    pub fn from_public_key(name: KeyName, key: &PublicKey) -> Result<Self, Refusal> {
        Ok(Self::new(name, signer::public_bytes_of(key)?))
    }

    /// The key's name.
    pub const fn name(&self) -> &KeyName {
        &self.name
    }

    /// The key's id: a hint to find it by, not a strong digest.
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// The 32 bytes of the Ed25519 key.
    pub const fn public_bytes(&self) -> &[u8; 32] {
        &self.public
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_key(f, &self.name, self.id, ED25519_TYPE, &self.public)
    }
}

impl fmt::Debug for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for VerifierKey {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let malformed = || {
            Refusal::malformed("verifier key")
                .expected("name+8 hex digits+base64 of an Ed25519 key, such as the log prints")
                .received(text)
        };
        let (name, id, public) = split_key(text, ED25519_TYPE).ok_or_else(malformed)?;
        let key = Self::new(name.parse()?, public);
        if key.id != id {
            return Err(malformed().expected(&format!("the id that name and key give, {key}")));
        }
        Ok(key)
    }
}

/// Writes a key as `name+id in hex+base64 of type and key`.
pub(crate) fn write_key(
    f: &mut fmt::Formatter<'_>,
    name: &KeyName,
    id: u32,
    kind: u8,
    public: &[u8; 32],
) -> fmt::Result {
    let mut typed = vec![kind];
    typed.extend_from_slice(public);
    write!(f, "{name}+{id:08x}+{}", STANDARD.encode(typed))
}

/// Name, id and bytes of a key of this `kind`, as [`write_key`] writes them.
pub(crate) fn split_key(text: &str, kind: u8) -> Option<(&str, u32, [u8; 32])> {
    // Base64 may hold `+` too; names and ids may not.
    let mut parts = text.splitn(3, '+');
    let (name, id, typed) = (parts.next()?, parts.next()?, parts.next()?);
    let id = u32::from_be_bytes(decode_hex(id)?.try_into().ok()?);
    let typed = STANDARD.decode(typed).ok()?;
    let (first, public) = typed.split_first()?;
    (*first == kind).then_some((name, id, public.try_into().ok()?))
}

impl KeyName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyName {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let bad = |c: char| c.is_whitespace() || c.is_control() || c == '+';
        if text.is_empty() || text.len() > KEY_NAME_MAX_BYTES || text.contains(bad) {
            return Err(Refusal::malformed("key name")
                .expected(&format!(
                    "1 to {KEY_NAME_MAX_BYTES} bytes without spaces and `+`, such as example.com/log"
                ))
                .received(text));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The id of a key of this signature type.
pub(crate) fn key_id(name: &KeyName, signature_type: u8, public: &[u8; 32]) -> u32 {
    let digest = Digest::of_parts(&[name.0.as_bytes(), b"\n", &[signature_type], public]);
    let [a, b, c, d, ..] = *digest.as_bytes();
    u32::from_be_bytes([a, b, c, d])
}

/// Reads one signature line, without its newline.
pub(crate) fn parse_signature(line: &str) -> Result<NoteSignature, Refusal> {
    let (name, base64) = line
        .strip_prefix(SIGNATURE_PREFIX)
        .and_then(|rest| rest.split_once(' '))
        .ok_or_else(|| malformed("a signature line of another form"))?;
    let bytes = STANDARD
        .decode(base64)
        .map_err(|_| malformed("a signature that is not base64"))?;
    let (key_id, bytes) = bytes
        .split_first_chunk::<4>()
        .filter(|(_, bytes)| !bytes.is_empty())
        .ok_or_else(|| malformed("a signature that is too short"))?;
    Ok(NoteSignature {
        name: name.parse()?,
        key_id: u32::from_be_bytes(*key_id),
        bytes: bytes.to_vec(),
    })
}

fn check_text(text: &str) -> Result<(), Refusal> {
    if !text.ends_with('\n') {
        return Err(malformed("a text without a newline at its end"));
    }
    if text.len() > NOTE_MAX_BYTES - NOTE_MAX_SIGNATURES * SIGNATURE_BYTES * 2 {
        return Err(malformed("a text that is too long"));
    }
    if text.chars().any(|c| c < ' ' && c != '\n') {
        return Err(malformed("a text with control characters"));
    }
    Ok(())
}

fn malformed(received: &str) -> Refusal {
    Refusal::malformed("signed note")
        .expected("text, an empty line, and lines of `— name base64`, as c2sp.org/signed-note says")
        .received(received)
}
