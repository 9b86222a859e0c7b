//! The first look at an upstream, before it is mirrored.

use std::path::Path;

use portcullis_model::Refusal;

use super::command::{Git, QUICK, unwritable};
use super::names::BRANCH_PREFIX;
use super::repository::{ls_remote, upstream_failure};
use super::tree::ObjectFormat;
use super::upstream::{Access, Upstream};

/// What an upstream says of itself before it is mirrored.
pub(super) struct Seen {
    pub(super) format: ObjectFormat,
    /// Its default branch, if it names one.
    pub(super) branch: Option<String>,
    pub(super) has_branches: bool,
}

pub(super) async fn look(
    git: &Git,
    upstream: &Upstream,
    access: &Access,
    mirror: &Path,
) -> Result<Seen, Refusal> {
    if *upstream == Upstream::Embedded {
        return Ok(Seen {
            format: ObjectFormat::Sha1,
            branch: Some("main".to_owned()),
            has_branches: false,
        });
    }
    let text = ls_remote(git, upstream, access, mirror, &["--symref"], &[]).await?;
    if text.is_empty() {
        return look_at_empty(git, upstream, access, mirror).await;
    }
    let branch = text
        .lines()
        .find_map(|line| {
            line.strip_prefix("ref: refs/heads/")?
                .strip_suffix("\tHEAD")
        })
        .map(str::to_owned);
    let sha256 = text
        .lines()
        .filter(|line| !line.starts_with("ref: "))
        .filter_map(|line| line.split('\t').next())
        .any(|oid| oid.len() == 64);
    Ok(Seen {
        format: if sha256 {
            ObjectFormat::Sha256
        } else {
            ObjectFormat::Sha1
        },
        branch,
        has_branches: text.contains("\trefs/heads/"),
    })
}

/// A list of no refs says neither how objects are named nor which branch is to come; a clone of
/// nothing does.
async fn look_at_empty(
    git: &Git,
    upstream: &Upstream,
    access: &Access,
    mirror: &Path,
) -> Result<Seen, Refusal> {
    if let Upstream::Path(path) = upstream {
        let asked = |what, args: [&'static str; 2]| {
            git.bare(what)
                .args([Path::new("-C"), path])
                .args(args)
                .text()
        };
        let format = asked("rev-parse", ["rev-parse", "--show-object-format"]).await?;
        let head = asked("symbolic-ref", ["symbolic-ref", "HEAD"]).await?;
        return seen_empty(&format, &head);
    }
    let beside = mirror.parent().unwrap_or(mirror);
    let place = tempfile::Builder::new()
        .prefix("look-")
        .tempdir_in(beside)
        .map_err(|error| unwritable(beside, &error))?;
    let copy = place.path().join("copy.git");
    let done = git
        .bare("clone")
        .args(["clone", "--bare", "--quiet", "--template="])
        .args([upstream.argument(mirror)])
        .args([&copy])
        .transport(upstream.protocols(), access, git)
        .time(QUICK)
        .finish(&[])
        .await?;
    if !done.status.success() {
        return Err(upstream_failure("ask", &done.stderr));
    }
    let asked = |what, args: [&'static str; 2]| git.on(&copy, what).args(args).text();
    let format = asked("rev-parse", ["rev-parse", "--show-object-format"]).await?;
    let head = asked("symbolic-ref", ["symbolic-ref", "HEAD"]).await?;
    seen_empty(&format, &head)
}

fn seen_empty(format: &str, head: &str) -> Result<Seen, Refusal> {
    Ok(Seen {
        format: ObjectFormat::named(format)?,
        branch: head.strip_prefix(BRANCH_PREFIX).map(str::to_owned),
        has_branches: false,
    })
}

pub(super) fn shallow_upstream() -> Refusal {
    Refusal::unavailable(
        "upstream-shallow",
        "the upstream has branches, and none of them came over",
    )
    .expected("a repository with its whole history")
    .received("a shallow clone, as it seems")
    .next("run `git fetch --unshallow` in the upstream, or name the repository that it was cloned from")
}
