//! A release's workspace, made anew from checked bytes before each start.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, lchown, symlink};
use std::path::{Component, Path, PathBuf};

use portcullis_model::{Digest, Refusal};
use portcullis_store::limits::BLOB_MAX_BYTES;

use super::{TargetSpec, disk, private_directory};

/// Most bytes that an archive may unpack to: four times the largest artifact.
pub const UNPACKED_MAX_BYTES: u64 = 512 * 1024 * 1024;
/// Most files, folders and links of an archive: a service, not a file server.
pub const ENTRIES_MAX: usize = 20_000;
/// Deepest folder within an archive.
const DEPTH_MAX: usize = 64;
/// Longest file name in bytes, as file systems have it.
const NAME_MAX_BYTES: usize = 255;
/// Where the sandbox shows the workspace.
const INSIDE: &str = "/workspace";

/// Checks the artifact's bytes, makes the workspace from them, and answers with the command.
/// Blocks.
///
/// # Errors
/// `artifact-altered`: the bytes are not those that were admitted. `malformed-archive`: it would
/// reach out of the workspace, is too large, or has no `run`. Else the disk can't be written.
pub fn workspace(spec: &TargetSpec) -> Result<Vec<OsString>, Refusal> {
    check_name(&spec.name)?;
    let bytes = read_artifact(spec)?;
    let root = &spec.workspace;
    if root.exists() {
        fs::remove_dir_all(root).map_err(|error| disk("empty", root, &error))?;
    }
    private_directory(root)?;
    let command = if spec.name.ends_with(".tar") {
        unpack(&bytes, root, spec.user)?;
        let run = root.join("run");
        if !fs::symlink_metadata(&run).is_ok_and(|data| data.is_file()) {
            return Err(bad("a file `run` at its top", "none"));
        }
        "./run".into()
    } else {
        let file = root.join(&spec.name);
        write(&file, 0o755, &mut bytes.as_slice()).map_err(|error| disk("write", &file, &error))?;
        own(&file, spec.user)?;
        Path::new(INSIDE).join(&spec.name).into_os_string()
    };
    own(root, spec.user)?;
    Ok(vec![command])
}

/// The artifact's bytes, if they are the right ones.
pub(super) fn read_artifact(spec: &TargetSpec) -> Result<Vec<u8>, Refusal> {
    let bytes = crate::home::Home::read(&spec.artifact, BLOB_MAX_BYTES as u64)?;
    let found = Digest::of(&bytes);
    if found == spec.digest {
        Ok(bytes)
    } else {
        Err(altered(&spec.digest, &found))
    }
}

pub(super) fn altered(expected: &Digest, received: &Digest) -> Refusal {
    Refusal::denied("artifact-altered", "the artifact's bytes are not those that were admitted")
        .expected(&expected.to_string())
        .received(&received.to_string())
        .next("remove the release's folder below `environments`; it is written again from the ledger's blobs")
}

/// An artifact's name is one plain file name.
pub(super) fn check_name(name: &str) -> Result<(), Refusal> {
    let plain = !name.is_empty()
        && name.len() <= NAME_MAX_BYTES
        && ![".", ".."].contains(&name)
        && !name.contains(['/', '\0']);
    if plain {
        return Ok(());
    }
    Err(Refusal::malformed("artifact name")
        .expected("one file name without folders")
        .received(name))
}

fn bad(expected: &str, received: &str) -> Refusal {
    Refusal::malformed("archive")
        .expected(expected)
        .received(received)
}

/// Unpacks a tar archive into the empty directory `root`. Nothing is ever written through a link:
/// every folder on the way is looked at first, and every file is created anew.
fn unpack(bytes: &[u8], root: &Path, user: Option<u32>) -> Result<(), Refusal> {
    let unreadable = |error: io::Error| bad("a readable tar archive", &error.to_string());
    let mut archive = tar::Archive::new(bytes);
    let mut left = UNPACKED_MAX_BYTES;
    for (number, entry) in archive.entries().map_err(unreadable)?.enumerate() {
        let mut entry = entry.map_err(unreadable)?;
        if number >= ENTRIES_MAX {
            return Err(bad(&format!("at most {ENTRIES_MAX} entries"), "more"));
        }
        let kind = entry.header().entry_type();
        if kind.is_pax_global_extensions() {
            continue;
        }
        let name = entry.path().map_err(unreadable)?.into_owned();
        let Some(inside) = plain_path(&name)? else {
            continue;
        };
        let path = root.join(&inside);
        folders(root, inside.parent().unwrap_or(Path::new("")), user)?;
        if kind.is_dir() {
            folders(root, &inside, user)?;
        } else if kind.is_file() {
            let size = entry.header().size().map_err(unreadable)?;
            left = left.checked_sub(size).ok_or_else(|| {
                bad(
                    &format!("at most {UNPACKED_MAX_BYTES} bytes unpacked"),
                    "more",
                )
            })?;
            let executable = entry.header().mode().map_err(unreadable)? & 0o111 != 0;
            let mode = if executable { 0o755 } else { 0o644 };
            write(&path, mode, &mut entry).map_err(|error| disk("write", &path, &error))?;
            own(&path, user)?;
        } else if kind.is_symlink() {
            let target = entry
                .link_name()
                .map_err(unreadable)?
                .unwrap_or_default()
                .into_owned();
            if !stays_inside(inside.parent().unwrap_or(Path::new("")), &target) {
                return Err(bad("links that stay inside", &name.display().to_string()));
            }
            symlink(&target, &path).map_err(|error| disk("link", &path, &error))?;
            own(&path, user)?;
        } else {
            return Err(bad(
                "files, folders and symbolic links",
                &format!("{kind:?} {}", name.display()),
            ));
        }
    }
    Ok(())
}

/// A path of plain components; `None` for the top itself.
fn plain_path(path: &Path) -> Result<Option<PathBuf>, Refusal> {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => plain.push(name),
            Component::CurDir => {}
            Component::RootDir | Component::ParentDir | Component::Prefix(_) => {
                return Err(bad("paths below its top", &path.display().to_string()));
            }
        }
    }
    if plain.components().count() > DEPTH_MAX {
        return Err(bad(
            &format!("at most {DEPTH_MAX} folders deep"),
            &path.display().to_string(),
        ));
    }
    Ok((plain.components().next().is_some()).then_some(plain))
}

/// Whether a link in `folder` leads to somewhere below the top, going by its text.
fn stays_inside(folder: &Path, target: &Path) -> bool {
    let mut depth = folder.components().count();
    !target.as_os_str().is_empty()
        && target.components().all(|part| match part {
            Component::Normal(_) => {
                depth += 1;
                true
            }
            Component::CurDir => true,
            Component::ParentDir => {
                let inside = depth > 0;
                depth = depth.saturating_sub(1);
                inside
            }
            Component::RootDir | Component::Prefix(_) => false,
        })
}

/// Makes the folders of `inside` below `root`; a link on the way is refused.
fn folders(root: &Path, inside: &Path, user: Option<u32>) -> Result<(), Refusal> {
    let mut path = root.to_owned();
    for part in inside.components() {
        path.push(part);
        match fs::symlink_metadata(&path) {
            Ok(data) if data.is_dir() => {}
            Ok(_) => {
                return Err(bad(
                    "folders that are folders",
                    &inside.display().to_string(),
                ));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir(&path).map_err(|error| disk("make", &path, &error))?;
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
                    .map_err(|error| disk("make", &path, &error))?;
                own(&path, user)?;
            }
            Err(error) => return Err(disk("read", &path, &error)),
        }
    }
    Ok(())
}

/// Creates a file; what stands there already is never touched.
fn write(path: &Path, mode: u32, from: &mut dyn Read) -> io::Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    io::copy(from, &mut file)?;
    file.flush()?;
    // The process's umask had its say on `mode`.
    file.set_permissions(fs::Permissions::from_mode(mode))
}

fn own(path: &Path, user: Option<u32>) -> Result<(), Refusal> {
    match user {
        Some(user) => {
            lchown(path, Some(user), Some(user)).map_err(|error| disk("give away", path, &error))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
