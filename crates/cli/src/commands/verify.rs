//! `verify`: the whole chain of an artifact or a commit, offline, trusting the pinned genesis alone.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use portcullis_evidence::chain::{BUNDLE_MAX_BYTES, Report, Subject, verify};
use portcullis_model::digest::Hasher;
use portcullis_model::{Digest, GitOid, Refusal};

use crate::context::Context;
use crate::exit::Exit;
use crate::output;
use crate::task_file::read_bounded;

/// Verifies an artifact or a commit offline.
#[derive(Debug, clap::Args)]
pub(crate) struct Verify {
    /// The artifact's file, its sha256:… digest, or a commit's full id
    #[arg(value_name = "ARTIFACT|COMMIT")]
    what: String,
    /// Its evidence, as `portcullis artifact bundle` saves it
    #[arg(long, value_name = "FILE")]
    bundle: PathBuf,
    /// Entry 0, as you got it when the ledger began
    #[arg(long, value_name = "FILE")]
    genesis: PathBuf,
}

impl Verify {
    /// Runs it.
    pub(crate) fn run(self, context: &Context) -> Result<Exit, Refusal> {
        let subject = subject(&self.what)?;
        let bundle = read_bundle(&self.bundle)?;
        let genesis = read_bounded(&self.genesis, "genesis")?;
        let started = Instant::now();
        let report = verify(&bundle, &genesis, &subject)?;
        let took_ms = started.elapsed().as_secs_f64() * 1_000.0;
        context.out().print(&report, || {
            format!(
                "{}\nverified in {took_ms:.1} ms against the genesis {}",
                describe(&report),
                Digest::of(&genesis)
            )
        })?;
        Ok(if report.holds() {
            Exit::Done
        } else {
            Exit::Denied
        })
    }
}

/// A file that is there is an artifact; otherwise the word is a digest or a commit.
fn subject(what: &str) -> Result<Subject, Refusal> {
    let path = Path::new(what);
    if path.is_file() {
        return Ok(Subject::Artifact {
            digest: digest_of(path)?,
        });
    }
    if let Ok(digest) = what.parse::<Digest>() {
        return Ok(Subject::Artifact { digest });
    }
    match what.parse::<GitOid>() {
        Ok(oid) => Ok(Subject::Commit { oid }),
        Err(_) => Err(Refusal::malformed("artifact or commit")
            .expected("a file that is there, a sha256:… digest, or a commit's full id")
            .received(what)),
    }
}

fn digest_of(path: &Path) -> Result<Digest, Refusal> {
    let mut file = std::fs::File::open(path).map_err(|error| unreadable(path, &error))?;
    let mut hasher = Hasher::default();
    let mut buffer = vec![0_u8; 64 * 1024];
    loop {
        let size = file
            .read(&mut buffer)
            .map_err(|error| unreadable(path, &error))?;
        match buffer.get(..size) {
            Some([]) | None => return Ok(hasher.finish()),
            Some(bytes) => hasher.update(bytes),
        }
    }
}

fn read_bundle(path: &Path) -> Result<Vec<u8>, Refusal> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .map_err(|error| unreadable(path, &error))?
        .take(BUNDLE_MAX_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| unreadable(path, &error))?;
    if bytes.len() > BUNDLE_MAX_BYTES {
        return Err(
            Refusal::limit("bundle-too-large", "this bundle is too large")
                .expected(&format!("at most {BUNDLE_MAX_BYTES} bytes")),
        );
    }
    Ok(bytes)
}

fn unreadable(path: &Path, error: &std::io::Error) -> Refusal {
    Refusal::new(
        portcullis_model::RefusalKind::NotFound,
        "file-unreadable",
        format!("{} can't be read", path.display()),
    )
    .received(&error.to_string())
}

fn describe(report: &Report) -> String {
    let mut out = String::new();
    for link in &report.links {
        let holds = if link.holds { "holds " } else { "BROKEN" };
        let entry = link
            .entry
            .map(|entry| format!(" (entry {entry})"))
            .unwrap_or_default();
        let name = link.name.as_str();
        out.push_str(&format!(
            "{holds}  {name:<10}  {}{entry}\n",
            output::clean_line(&link.says)
        ));
    }
    for (heading, lines) in [
        ("It proves", &report.proves),
        ("It does not prove", &report.does_not_prove),
    ] {
        if !lines.is_empty() {
            out.push_str(&format!("\n{heading}\n"));
            for line in lines {
                out.push_str(&format!("  - {}\n", output::clean_line(line)));
            }
        }
    }
    if report.self_approved {
        out.push_str("\nself-approved: somebody's approval of own work counted\n");
    }
    match &report.first_broken {
        Some(link) => out.push_str(&format!(
            "\nThe chain is broken at `{}`: {}",
            link.name,
            output::clean_line(&link.says)
        )),
        None => out.push_str("\nThe chain holds."),
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_a_file_a_digest_or_a_commit() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("shop");
        std::fs::write(&file, b"bytes").unwrap();
        let digest = Digest::of(b"bytes");
        let artifact = Subject::Artifact { digest };
        assert_eq!(subject(file.to_str().unwrap()).unwrap(), artifact);
        assert_eq!(subject(&digest.to_string()).unwrap(), artifact);
        let oid = "a".repeat(40);
        assert_eq!(
            subject(&oid).unwrap(),
            Subject::Commit {
                oid: oid.parse().unwrap()
            }
        );
        for bad in ["", "main", "abcdef", "sha256:00"] {
            assert!(subject(bad).is_err(), "{bad}");
        }
    }
}
