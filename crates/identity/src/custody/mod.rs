//! Key files: made once, readable by their owner alone, never overwritten.
//!
//! A file is two things one after the other: a line that says what the key is for, and a PEM
//! block. The line keeps a key from being used for anything but its purpose; programs such as
//! `openssl` skip it.
//!
//! ```text
//! portcullis-key: token-signing
//! -----BEGIN PRIVATE KEY-----
//! …
//! ```
//!
//! A crash while a file is written leaves a short file behind, which loading refuses by name; it
//! held a key that nothing has used yet, so it may be removed.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use portcullis_model::{Refusal, RefusalKind, Secret};
use rustix::fs::OFlags;

use crate::key::{Ed25519Key, P256Key};

/// Largest key file in bytes: several times what any of our keys needs.
const KEY_FILE_MAX_BYTES: u64 = 4096;
/// The mode of every key file: read and write for the owner, nothing for anybody else.
const KEY_FILE_MODE: u32 = 0o600;
/// Mode bits that no key file may have: anything for the group or for others.
const FORBIDDEN_MODE: u32 = 0o077;
/// PEM label of a P-256 key (RFC 5958, RFC 7468 §10).
const PKCS8_LABEL: &str = "PRIVATE KEY";
/// PEM label of an Ed25519 seed. Not a registered one: the body is the seed alone.
const SEED_LABEL: &str = "PORTCULLIS ED25519 SEED";
/// What the first line of a key file begins with.
const PURPOSE_PREFIX: &str = "portcullis-key: ";

/// What a P-256 key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum P256Purpose {
    /// Signs the trust domain's certificates.
    TrustDomainCa,
    /// Signs tokens.
    TokenSigning,
}

/// What an Ed25519 key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ed25519Purpose {
    /// Signs the ledger's checkpoints.
    Log,
    /// Signs what a service (builder, test runner) attests.
    Service,
    /// Signs which runs a host starts.
    Host,
    /// Cosigns checkpoints of other logs.
    Witness,
}

/// Makes a P-256 key and its file.
///
/// # Errors
/// Something stands at `path` already (code `key-file-exists`; it is left as it is), or the file
/// can't be written (then none is left behind).
pub fn create_p256(path: &Path, purpose: P256Purpose) -> Result<P256Key, Refusal> {
    let key = P256Key::generate()?;
    write_new(
        path,
        &render(p256_name(purpose), PKCS8_LABEL, key.pkcs8().expose()),
    )?;
    Ok(key)
}

/// Makes an Ed25519 key and its file.
///
/// # Errors
/// As [`create_p256`].
pub fn create_ed25519(path: &Path, purpose: Ed25519Purpose) -> Result<Ed25519Key, Refusal> {
    let key = Ed25519Key::generate()?;
    write_new(
        path,
        &render(ed25519_name(purpose), SEED_LABEL, key.seed().expose()),
    )?;
    Ok(key)
}

/// Reads a P-256 key made for `purpose`.
///
/// # Errors
/// No such file (kind `NotFound`); others can read it (`key-file-mode`); it belongs to somebody
/// else (`key-file-owner`); it holds a key for another purpose (`key-file-purpose`); it is a
/// symbolic link, not a plain file, or no key file.
pub fn load_p256(path: &Path, purpose: P256Purpose) -> Result<P256Key, Refusal> {
    P256Key::from_pkcs8(load(path, p256_name(purpose), PKCS8_LABEL)?)
}

/// Reads an Ed25519 key made for `purpose`.
///
/// # Errors
/// As [`load_p256`].
pub fn load_ed25519(path: &Path, purpose: Ed25519Purpose) -> Result<Ed25519Key, Refusal> {
    let bytes = load(path, ed25519_name(purpose), SEED_LABEL)?;
    let seed = bytes
        .expose()
        .as_slice()
        .try_into()
        .map_err(|_| malformed(path, "a seed of 32 bytes"))?;
    Ed25519Key::from_seed(Secret::new(seed))
}

const fn p256_name(purpose: P256Purpose) -> &'static str {
    match purpose {
        P256Purpose::TrustDomainCa => "trust-domain-ca",
        P256Purpose::TokenSigning => "token-signing",
    }
}

const fn ed25519_name(purpose: Ed25519Purpose) -> &'static str {
    match purpose {
        Ed25519Purpose::Log => "log",
        Ed25519Purpose::Service => "service",
        Ed25519Purpose::Host => "host",
        Ed25519Purpose::Witness => "witness",
    }
}

fn render(purpose: &str, label: &str, bytes: &[u8]) -> Secret<String> {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    let block = pem::encode_config(&pem::Pem::new(label, bytes), config);
    Secret::new(format!("{PURPOSE_PREFIX}{purpose}\n{block}"))
}

/// Writes a file that did not exist, durably: its bytes first, then its name.
fn write_new(path: &Path, text: &Secret<String>) -> Result<(), Refusal> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(KEY_FILE_MODE)
        .custom_flags(flags(OFlags::NOFOLLOW))
        .open(path)
        .map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => Refusal::conflict(
                "key-file-exists",
                format!("{} exists, and a key is never overwritten", path.display()),
            )
            .next("use the key that stands, or move the file away first"),
            _ => unwritable(path, &error),
        })?;
    let written = file
        // The process's umask may have taken bits away.
        .set_permissions(std::fs::Permissions::from_mode(KEY_FILE_MODE))
        .and_then(|()| file.write_all(text.expose().as_bytes()))
        .and_then(|()| file.sync_all())
        .and_then(|()| sync_directory(path));
    written.map_err(|error| {
        // We made this file a moment ago and nobody has its key; a failure to remove it shows up
        // as `key-file-exists` at the next attempt.
        let _ = std::fs::remove_file(path);
        unwritable(path, &error)
    })
}

fn sync_directory(path: &Path) -> std::io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(directory)?.sync_all()
}

/// Opens, judges and reads a key file. The judgement is on the opened file, not on its name, so
/// it can't be swapped in between.
fn load(path: &Path, purpose: &str, label: &str) -> Result<Secret<Vec<u8>>, Refusal> {
    let file = OpenOptions::new()
        .read(true)
        // Without NONBLOCK a named pipe would hold us here for ever.
        .custom_flags(flags(OFlags::NOFOLLOW | OFlags::NONBLOCK))
        .open(path)
        .map_err(|error| unreadable(path, &error))?;
    let metadata = file.metadata().map_err(|error| unreadable(path, &error))?;
    judge(
        path,
        metadata.is_file(),
        metadata.mode(),
        metadata.uid(),
        rustix::process::geteuid().as_raw(),
    )?;
    let mut text = String::new();
    file.take(KEY_FILE_MAX_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(|error| unreadable(path, &error))?;
    if text.len() as u64 > KEY_FILE_MAX_BYTES {
        return Err(malformed(path, "at most 4096 bytes"));
    }
    parse(path, &text, purpose, label)
}

/// Whether a file may hold a key of the user `us`.
fn judge(path: &Path, plain: bool, mode: u32, owner: u32, us: u32) -> Result<(), Refusal> {
    if !plain {
        return Err(malformed(path, "a plain file"));
    }
    if owner != us {
        return Err(Refusal::denied(
            "key-file-owner",
            format!("the key file {} belongs to another user", path.display()),
        )
        .expected(&format!("owner {us}"))
        .received(&format!("owner {owner}"))
        .next(format!("chown {us} {0} && chmod 600 {0}", path.display())));
    }
    if mode & FORBIDDEN_MODE != 0 {
        return Err(Refusal::denied(
            "key-file-mode",
            format!(
                "others than its owner can use the key file {}",
                path.display()
            ),
        )
        .expected("mode 0600")
        .received(&format!("mode {:04o}", mode & 0o7777))
        .next(format!(
            "chmod 600 {}; if others may have read it, replace the key",
            path.display()
        )));
    }
    Ok(())
}

fn parse(path: &Path, text: &str, purpose: &str, label: &str) -> Result<Secret<Vec<u8>>, Refusal> {
    let (first, rest) = text
        .split_once('\n')
        .ok_or_else(|| malformed(path, "two lines or more"))?;
    let found = first.strip_prefix(PURPOSE_PREFIX).ok_or_else(|| {
        malformed(
            path,
            &format!("`{PURPOSE_PREFIX}{purpose}` as the first line"),
        )
    })?;
    if found != purpose {
        return Err(Refusal::denied(
            "key-file-purpose",
            format!("the key in {} is for something else", path.display()),
        )
        .expected(purpose)
        .received(found)
        .next("name the file of the right key in the configuration"));
    }
    // The parser skips what stands before a block; ours is alone.
    let block = Some(rest)
        .filter(|rest| rest.starts_with("-----BEGIN ") && rest.trim_end().ends_with("-----"))
        .and_then(|rest| pem::parse(rest).ok())
        .filter(|block| block.tag() == label)
        .ok_or_else(|| {
            malformed(
                path,
                &format!("one whole PEM block `{label}` after the first line"),
            )
            .next("a file cut short by a crash may be removed; else restore it from a backup")
        })?;
    Ok(Secret::new(block.into_contents()))
}

fn flags(flags: OFlags) -> i32 {
    i32::try_from(flags.bits()).unwrap_or_default()
}

fn malformed(path: &Path, expected: &str) -> Refusal {
    let mut refusal = Refusal::malformed("key file").expected(expected);
    refusal.message = format!("{} is not a valid key file", path.display());
    refusal
}

fn unreadable(path: &Path, error: &std::io::Error) -> Refusal {
    if error.kind() == ErrorKind::NotFound {
        return Refusal::not_found("key-file", path.display())
            .next("`portcullis init` makes the server's keys");
    }
    // O_NOFOLLOW answers a symbolic link with ELOOP.
    if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) {
        return malformed(path, "a plain file, not a symbolic link");
    }
    Refusal::new(
        RefusalKind::Unavailable,
        "key-file-unreadable",
        format!("the key file {} can't be read: {error}", path.display()),
    )
}

fn unwritable(path: &Path, error: &std::io::Error) -> Refusal {
    Refusal::new(
        RefusalKind::Unavailable,
        "key-file-unwritable",
        format!("the key file {} can't be written: {error}", path.display()),
    )
}

#[cfg(test)]
mod tests;
