//! What it takes to make ready what would land, in a repository of many files: by
//! `Repository::prepare`, and beside it the tree alone by git's index, which holds every path.
//!
//! `cargo run --release -p portcullis-gateway --example prepare -- [--files 100000] [--rounds 5]`
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::error::Error;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use portcullis_gateway::git::commit::Ident;
use portcullis_gateway::git::prepare::Preparation;
use portcullis_gateway::git::{Access, Git, Repository, Upstream};
use portcullis_model::event::LandingMethod;
use portcullis_model::{ChangeId, GitOid};

type Outcome<T> = Result<T, Box<dyn Error>>;

#[tokio::main]
async fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |name: &str, usual: usize| {
        let at = arguments.iter().position(|one| one == name);
        let value = at.and_then(|at| arguments.get(at + 1));
        value.map_or(Ok(usual), |value| value.parse())
    };
    let (files, rounds) = (number("--files", 100_000)?, number("--rounds", 5)?);
    let place = tempfile::tempdir()?;
    make(place.path(), files)?;
    let git = Git::open(&place.path().join("home")).await?;
    let upstream = Upstream::Path(place.path().join("upstream"));
    let folder = place.path().join("repository");
    let repository = Repository::open_or_create(&git, &folder, upstream, &Access::None).await?;
    let tip = async |branch: &str| -> Outcome<GitOid> {
        Ok(repository.tip(branch).await?.ok_or("no such branch")?)
    };
    let order = Preparation {
        change: ChangeId(1),
        revision: 1,
        method: LandingMethod::Squash,
        base: tip("base").await?,
        head: tip("change").await?,
        onto: tip("main").await?,
        committer: Ident {
            name: "Portcullis".to_owned(),
            email: "landing@example.com".to_owned(),
        },
    };
    let (mut ours, mut index) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let begin = Instant::now();
        let made = repository.prepare(&order).await?;
        ours.push(begin.elapsed());
        let begin = Instant::now();
        let tree = by_index(&repository.changes_dir(), place.path(), &order)?;
        index.push(begin.elapsed());
        if tree.trim() != made.tree.as_str() {
            return Err("the two differ".into());
        }
    }
    println!(
        "{files} files, one changed on each side, median of {rounds}: all of a preparation {:.1} ms; \
         the tree alone by git's index {:.1} ms",
        median(ours).as_secs_f64() * 1e3,
        median(index).as_secs_f64() * 1e3
    );
    Ok(())
}

/// A branch of so many files, and two of one change each on it.
fn make(place: &Path, files: usize) -> Outcome<()> {
    let upstream = place.join("upstream");
    run(
        place,
        &["init", "-q", "--bare", "-b", "main", "upstream"],
        &[],
    )?;
    let mut import = Command::new("git")
        .args(["-c", "fastimport.unpackLimit=0", "fast-import", "--quiet"])
        .current_dir(&upstream)
        .stdin(Stdio::piped())
        .spawn()?;
    let mut input = BufWriter::new(import.stdin.take().ok_or("no input")?);
    let commit = |branch: &str| {
        format!(
            "commit refs/heads/{branch}\ncommitter Ada <ada@example.com> 1700000000 +0000\ndata 5\nBegin\n"
        )
    };
    write!(input, "{}", commit("base"))?;
    for n in 0..files {
        let (folder, file) = (n / 500, n % 500);
        let (upper, lower) = (folder / 40, folder % 40);
        writeln!(
            input,
            "M 100644 inline f{upper}/d{lower}/file-{file}\ndata 8\n{n:08}"
        )?;
    }
    for (branch, path) in [("main", "f0/d0/file-1"), ("change", "f0/d0/file-2")] {
        write!(
            input,
            "{}from refs/heads/base\nM 100644 inline {path}\ndata 3\nnew\n",
            commit(branch)
        )?;
    }
    input.flush()?;
    drop(input);
    if import.wait()?.success() {
        Ok(())
    } else {
        Err("the repository was not made".into())
    }
}

/// The tree as an index makes it: every path is read and written once.
fn by_index(store: &Path, place: &Path, order: &Preparation) -> Outcome<String> {
    let file = place.join("index");
    let index = [("GIT_INDEX_FILE", file.as_path())];
    run(store, &["read-tree", order.onto.as_str()], &index)?;
    let blob = format!("{}:f0/d0/file-2", order.head);
    let blob = run(store, &["rev-parse", &blob], &[])?;
    let entry = format!("100644,{},f0/d0/file-2", blob.trim());
    run(store, &["update-index", "--cacheinfo", &entry], &index)?;
    let tree = run(store, &["write-tree"], &index)?;
    std::fs::remove_file(file)?;
    Ok(tree)
}

fn run(folder: &Path, arguments: &[&str], variables: &[(&str, &Path)]) -> Outcome<String> {
    let output = Command::new("git")
        .args(arguments)
        .envs(variables.iter().copied())
        .current_dir(folder)
        .output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let error = String::from_utf8_lossy(&output.stderr);
    Err(format!("git {arguments:?}: {error}").into())
}

fn median(mut all: Vec<Duration>) -> Duration {
    all.sort();
    all.get(all.len() / 2).copied().unwrap_or_default()
}
