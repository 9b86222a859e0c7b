//! Where the workspace is, and what is in it.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The workspace's root: the folder above this package.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// Where cargo puts what it builds.
pub(crate) fn target() -> Result<PathBuf, String> {
    let here = std::env::current_exe().map_err(|error| format!("own path: {error}"))?;
    // This program stands in `<target>/<profile>/xtask`.
    here.ancestors()
        .nth(2)
        .map(Path::to_owned)
        .ok_or_else(|| format!("{} is not below a target folder", here.display()))
}

/// Every file that git tracks or would track, relative to the root, with `/` between the parts.
pub(crate) fn files() -> Result<Vec<String>, String> {
    let output = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(root())
        .output()
        .map_err(|error| format!("`git ls-files` did not start: {error}"))?;
    if !output.status.success() {
        return Err(format!("`git ls-files` ended with {}", output.status));
    }
    let mut files: Vec<String> = output
        .stdout
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| String::from_utf8_lossy(name).into_owned())
        // Deleted in the work tree, but not yet in the index.
        .filter(|name| root().join(name).is_file())
        .collect();
    files.sort();
    files.dedup();
    Ok(files)
}

/// The text of a file of the workspace; `None` if it is not text.
pub(crate) fn text(name: &str) -> Result<Option<String>, String> {
    let bytes = std::fs::read(root().join(name)).map_err(|error| format!("{name}: {error}"))?;
    Ok(String::from_utf8(bytes).ok())
}
