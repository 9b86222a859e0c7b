//! `ssh-keygen -Y sign`, for keys that this program does not read: encrypted ones and hardware.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use portcullis_evidence::sshsig::{ARMOR_MAX_BYTES, UnverifiedSshSignature};
use portcullis_model::Refusal;

/// Signs `message` with the key of `file`. Its questions (passphrase, touch) go to the terminal.
///
/// # Errors
/// `ssh-keygen` is missing or refused, or what it wrote is no signature.
pub(crate) fn sign(
    file: &Path,
    namespace: &str,
    message: &[u8],
) -> Result<UnverifiedSshSignature, Refusal> {
    let mut child = Command::new("ssh-keygen")
        .args(["-Y", "sign", "-n", namespace, "-f"])
        .arg(file)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(|error| {
            Refusal::unavailable("ssh-keygen-missing", "ssh-keygen can't be started")
                .received(&error.to_string())
                .next("install OpenSSH's client, or use an unencrypted key or an ssh-agent")
        })?;
    let failed = |words: &str| {
        Refusal::unavailable("ssh-keygen-failed", "ssh-keygen did not sign")
            .received(words)
            .next(format!(
                "try it by hand: echo x | ssh-keygen -Y sign -n {namespace} -f {}",
                file.display()
            ))
    };
    if let Some(mut stdin) = child.stdin.take() {
        // When it refuses it stops reading; its exit status says so below.
        let _ = stdin.write_all(message);
    }
    let mut armored = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout
            .take(ARMOR_MAX_BYTES as u64)
            .read_to_end(&mut armored)
            .map_err(|error| failed(&error.to_string()))?;
    }
    let status = child.wait().map_err(|error| failed(&error.to_string()))?;
    if !status.success() {
        return Err(failed(&status.to_string()));
    }
    UnverifiedSshSignature::from_armored(&armored)
}
