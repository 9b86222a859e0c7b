//! Reading what a job made, from outside the sandbox.
//!
//! Every process of the job is gone when this runs, so nothing changes under the reader. What the
//! job left is not trusted: a name may be a link to a file of this machine, a device, a pipe that
//! never ends. So each part of a path is opened without following links, and only regular files of
//! bounded size are read. Hard links are regular files: builders such as cargo make them, and
//! inside the sandbox none can be made to a file outside its workspace.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::Path;

use portcullis_model::statement::Output;
use portcullis_model::{Digest, Refusal};
use rustix::fs::{Mode, OFlags, open, openat};

/// Reads one file below `tree`, of at most `max` bytes.
///
/// # Errors
/// `output-missing`, `output-not-a-file` (links, devices, pipes, directories), `output-too-large`;
/// `malformed-output-path` for one that isn't relative and plain.
pub fn read(tree: &Path, path: &str, max: u64) -> Result<Vec<u8>, Refusal> {
    let parts = parts(path)?;
    let Some((name, folders)) = parts.split_last() else {
        return Err(malformed(path));
    };
    let folder_flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let absent = |error: rustix::io::Errno| unreadable(path, error);
    let mut folder: OwnedFd = open(tree, folder_flags, Mode::empty()).map_err(absent)?;
    for part in folders {
        folder = openat(&folder, *part, folder_flags, Mode::empty()).map_err(absent)?;
    }
    // Without NONBLOCK a named pipe would hold us here for ever.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(openat(&folder, *name, flags, Mode::empty()).map_err(absent)?);
    let data = file.metadata().map_err(|error| broken(path, &error))?;
    if !data.is_file() {
        return Err(not_a_file(path, "something else"));
    }
    if data.len() > max {
        return Err(too_large(path, max, data.len()));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(data.len()).unwrap_or_default());
    file.take(max + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| broken(path, &error))?;
    if bytes.len() as u64 > max {
        return Err(too_large(path, max, bytes.len() as u64));
    }
    Ok(bytes)
}

/// What the attestation and the server are told of a file.
///
/// # Errors
/// The path is not a plain relative one.
pub fn describe(path: &str, bytes: &[u8]) -> Result<Output, Refusal> {
    let parts = parts(path)?;
    let name = parts.last().ok_or_else(|| malformed(path))?;
    Ok(Output {
        name: (*name).to_owned(),
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
    })
}

fn parts(path: &str) -> Result<Vec<&str>, Refusal> {
    let parts: Vec<&str> = path.split('/').collect();
    let plain =
        |part: &&str| !part.is_empty() && *part != "." && *part != ".." && !part.contains('\0');
    if parts.iter().all(plain) {
        Ok(parts)
    } else {
        Err(malformed(path))
    }
}

fn malformed(path: &str) -> Refusal {
    Refusal::malformed("output path")
        .expected("a path inside the tree, such as target/app")
        .received(path)
}

fn unreadable(path: &str, error: rustix::io::Errno) -> Refusal {
    match error {
        rustix::io::Errno::NOENT => {
            Refusal::denied("output-missing", format!("the command did not make {path}"))
                .next("correct `outputs` or `report` in .portcullis/jobs.toml, or the command")
        }
        rustix::io::Errno::LOOP | rustix::io::Errno::MLINK => {
            not_a_file(path, "a symbolic link on the way, which is not followed")
        }
        // A folder on the way that is a link or a file.
        rustix::io::Errno::NOTDIR => not_a_file(path, "a link or a file where a folder should be"),
        other => broken(path, &other.into()),
    }
}

fn not_a_file(path: &str, received: &str) -> Refusal {
    Refusal::denied("output-not-a-file", format!("{path} is not a regular file"))
        .expected("a regular file, reached without links")
        .received(received)
}

fn too_large(path: &str, max: u64, size: u64) -> Refusal {
    Refusal::limit("output-too-large", format!("{path} is too large"))
        .expected(&format!("at most {max} bytes"))
        .received(&format!("{size} bytes"))
}

fn broken(path: &str, error: &std::io::Error) -> Refusal {
    Refusal::denied("output-unreadable", format!("{path} can't be read"))
        .received(&error.to_string())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_a_job_left_is_read_without_following_anything() {
        let host = tempfile::tempdir().unwrap();
        std::fs::write(host.path().join("secret"), "secret").unwrap();
        let tree = tempfile::tempdir().unwrap();
        let at = |name: &str| tree.path().join(name);
        std::fs::create_dir_all(at("out/deep")).unwrap();
        std::fs::write(at("out/deep/app"), "app").unwrap();
        std::fs::hard_link(at("out/deep/app"), at("out/app")).unwrap();
        symlink(host.path().join("secret"), at("link")).unwrap();
        symlink(host.path(), at("folder")).unwrap();
        symlink("deep", at("out/inner")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, at("pipe"), 0o644.into()).unwrap();
        assert_eq!(read(tree.path(), "out/deep/app", 10).unwrap(), b"app");
        assert_eq!(read(tree.path(), "out/app", 3).unwrap(), b"app");
        for (path, code) in [
            ("link", "output-not-a-file"),
            ("folder/secret", "output-not-a-file"),
            ("out/inner/app", "output-not-a-file"),
            ("out/deep", "output-not-a-file"),
            ("pipe", "output-not-a-file"),
            ("out/deep/app/x", "output-not-a-file"),
            ("none", "output-missing"),
            ("../secret", "malformed-output-path"),
            ("/etc/passwd", "malformed-output-path"),
            ("", "malformed-output-path"),
        ] {
            assert_eq!(
                read(tree.path(), path, 10).unwrap_err().code,
                code,
                "{path}"
            );
        }
        assert_eq!(
            read(tree.path(), "out/app", 2).unwrap_err().code,
            "output-too-large"
        );
    }

    #[test]
    fn an_output_is_known_by_its_file_name() {
        let output = describe("target/release/app", b"x").unwrap();
        assert_eq!((output.name.as_str(), output.size), ("app", 1));
        assert_eq!(output.digest, Digest::of(b"x"));
    }
}
