//! What git's own files tell of a checkout: its remote, its default branch, what is missing in it.
//!
//! They are read here, with bounds, and not asked of git: a scan works without git, and a checkout
//! can't make git start something. Worktrees and submodules keep them elsewhere, which their
//! `.git` file names.

use std::path::{Path, PathBuf};

use crate::outside::read_small;

/// Where git keeps what belongs to this checkout (`HEAD`), and what its worktrees share (`config`).
struct GitFiles {
    own: PathBuf,
    shared: PathBuf,
}

fn git_files(root: &Path) -> Option<GitFiles> {
    let git = root.join(".git");
    if git.is_dir() {
        return Some(GitFiles {
            own: git.clone(),
            shared: git,
        });
    }
    let text = read_small(&git)?;
    let own = root.join(text.trim().strip_prefix("gitdir:")?.trim());
    let shared = read_small(&own.join("commondir"))
        .map_or_else(|| own.clone(), |common| own.join(common.trim()));
    Some(GitFiles { own, shared })
}

/// The default branch, as far as the checkout tells it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Head {
    /// `HEAD` of the remote names it.
    Remote(String),
    /// It is checked out and has a name that default branches have; another may be the default.
    CheckedOut(String),
}

/// The default branch from git's own files.
pub(crate) fn head_branch(root: &Path) -> Option<Head> {
    let git = git_files(root)?;
    let remote = read_small(&git.shared.join("refs/remotes/origin/HEAD")).and_then(|text| {
        text.trim()
            .strip_prefix("ref: refs/remotes/origin/")
            .map(str::to_owned)
    });
    if let Some(name) = remote {
        return Some(Head::Remote(name));
    }
    let name = read_small(&git.own.join("HEAD"))?
        .trim()
        .strip_prefix("ref: refs/heads/")?
        .to_owned();
    matches!(
        name.as_str(),
        "main" | "master" | "develop" | "trunk" | "dev" | "mainline" | "next" | "canary" | "devel"
    )
    .then_some(Head::CheckedOut(name))
}

/// The repository's `owner/name`, else `?/directory`.
pub(crate) fn guess_slug(root: Option<&Path>, shown: &str) -> Option<String> {
    if let Some(git) = root.and_then(git_files)
        && let Some(config) = read_small(&git.shared.join("config"))
        && let Some(slug) = remote_slug(&config)
    {
        return Some(slug);
    }
    let name = root
        .and_then(Path::file_name)
        .and_then(|name| name.to_str())
        .map_or_else(
            || shown.rsplit('/').next().unwrap_or_default().to_owned(),
            str::to_owned,
        );
    // Collections of checkouts often name directories `owner__name`.
    let name = name
        .rsplit_once("__")
        .map_or(name.as_str(), |(_, last)| last);
    (!name.is_empty()).then(|| format!("?/{name}"))
}

pub(crate) fn remote_slug(config: &str) -> Option<String> {
    let mut origin = false;
    for line in config.lines() {
        let line = line.trim();
        if line.starts_with('[') {
            origin = line == "[remote \"origin\"]";
        } else if origin
            && let Some(url) = line
                .strip_prefix("url")
                .map(|rest| rest.trim_start_matches([' ', '=']))
        {
            let path = url.trim_end_matches('/').trim_end_matches(".git");
            let mut parts = path.rsplit(['/', ':']);
            let (name, owner) = (parts.next()?, parts.next()?);
            let remote = url.contains("://") && !url.starts_with("file:") || url.contains('@');
            if remote && !name.is_empty() && !owner.is_empty() && !owner.contains('.') {
                return Some(format!("{owner}/{name}"));
            }
        }
    }
    None
}

/// What a reader of the report must know about a checkout that does not hold everything.
/// `pipelines` is how many were found.
pub(crate) fn cautions(root: &Path, pipelines: usize) -> Vec<String> {
    let mut out = Vec::new();
    let Some(git) = git_files(root) else {
        let above = root
            .ancestors()
            .skip(1)
            .find(|path| path.join(".git").exists());
        if let Some(above) = above
            && pipelines == 0
        {
            out.push(format!(
                "this is a directory inside the repository {}; its pipelines stand there: scan that",
                above.display()
            ));
        }
        return out;
    };
    if sparse(&git) {
        out.push(
            "the checkout is sparse: files that are not checked out were not read; git sparse-checkout disable brings them"
                .to_owned(),
        );
    }
    if read_small(&git.own.join("HEAD")).is_some() && is_empty(root) {
        out.push("the checkout holds no files: nothing is committed or checked out yet".to_owned());
    }
    if git.shared.join("shallow").is_file() {
        out.push(
            "the clone is shallow: the history before its oldest commit is not here; git fetch --unshallow brings it"
                .to_owned(),
        );
    }
    out
}

fn sparse(git: &GitFiles) -> bool {
    [git.own.join("config.worktree"), git.shared.join("config")]
        .iter()
        .filter_map(|path| read_small(path))
        .any(|text| asks_for_sparse(&text))
}

/// Whether a git configuration switches sparse checkouts on.
pub(crate) fn asks_for_sparse(config: &str) -> bool {
    config.lines().any(|line| {
        let line = line.trim().to_ascii_lowercase();
        line.strip_prefix("sparsecheckout")
            .is_some_and(|rest| rest.trim_start_matches([' ', '=']) == "true")
    })
}

/// Whether nothing but `.git` stands in a directory.
fn is_empty(root: &Path) -> bool {
    std::fs::read_dir(root).is_ok_and(|mut entries| {
        entries.all(|entry| entry.is_ok_and(|entry| entry.file_name() == ".git"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remote_names_the_repository() {
        for url in [
            "https://github.com/acme/widget.git",
            "git@github.com:acme/widget.git",
            "ssh://git@github.com/acme/widget/",
        ] {
            let config = format!("[core]\n\tbare = false\n[remote \"origin\"]\n\turl = {url}\n");
            assert_eq!(
                remote_slug(&config).as_deref(),
                Some("acme/widget"),
                "{url}"
            );
        }
        assert_eq!(
            remote_slug("[remote \"origin\"]\nurl = /srv/git/widget"),
            None
        );
        assert_eq!(
            remote_slug("[remote \"other\"]\nurl = https://x.y/a/b"),
            None
        );
    }
}
