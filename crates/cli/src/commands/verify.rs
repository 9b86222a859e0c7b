//! `verify`: the whole chain of an artifact or a commit, or the proof of one ledger entry; offline,
//! trusting the pinned genesis alone.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use portcullis_evidence::chain::{BUNDLE_MAX_BYTES, Report, Subject, verify};
use portcullis_evidence::note::VerifierKey;
use portcullis_evidence::tlog_proof::{TLOG_PROOF_MAX_BYTES, UnverifiedProof};
use portcullis_model::digest::Hasher;
use portcullis_model::{Digest, Event, GitOid, Refusal};
use serde_json::json;

use crate::commands::ledger_verify::{self, Genesis, Quorum};
use crate::context::Context;
use crate::exit::Exit;
use crate::output;
use crate::sentence::sentence;
use crate::task_file::read_bounded;

/// Verifies an artifact, a commit or a ledger entry offline.
#[derive(Debug, clap::Args)]
pub(crate) struct Verify {
    /// The artifact's file, its sha256:… digest, a commit's full id, or the proof file of a ledger
    /// entry
    #[arg(value_name = "ARTIFACT|COMMIT|PROOF")]
    what: String,
    /// Its evidence, as `portcullis artifact bundle` saves it; a proof file needs none
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,
    /// Entry 0, as you got it when the ledger began
    #[arg(long, value_name = "FILE", required_unless_present = "log_key")]
    genesis: Option<PathBuf>,
    /// For a proof file: the log's name and key, where you have no genesis
    #[arg(long, value_name = "NAME+ID+KEY", conflicts_with = "genesis")]
    log_key: Option<VerifierKey>,
    #[command(flatten)]
    quorum: Quorum,
}

impl Verify {
    /// Runs it.
    pub(crate) fn run(self, context: &Context) -> Result<Exit, Refusal> {
        if let Some(proof) = proof_file(Path::new(&self.what))? {
            return self.entry(context, &proof);
        }
        let (Some(bundle), Some(genesis)) = (&self.bundle, &self.genesis) else {
            return Err(Refusal::malformed("verification")
                .expected("--bundle and --genesis, or the proof file of a ledger entry")
                .received(&self.what)
                .next("save the evidence with `portcullis artifact bundle`"));
        };
        let subject = subject(&self.what)?;
        let bundle = read_bundle(bundle)?;
        let genesis = read_bounded(genesis, "genesis")?;
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

    /// Verifies that a log holds the entry in its proof file.
    fn entry(&self, context: &Context, proof: &UnverifiedProof) -> Result<Exit, Refusal> {
        let (key, known_by) = match (&self.genesis, &self.log_key) {
            (Some(path), _) => {
                let genesis = Genesis::read(&read_bounded(path, "genesis")?, "by the file")?;
                let known_by = format!("the genesis {}", genesis.digest());
                (genesis.key, known_by)
            }
            (None, Some(key)) => (key.clone(), format!("the key {key}")),
            (None, None) => {
                return Err(Refusal::malformed("verification").expected("--genesis or --log-key"));
            }
        };
        // Nothing says that these bytes are the entry but their hash, which the proof checks.
        let entry = proof.untrusted_extra.as_deref().ok_or_else(|| {
            Refusal::malformed("ledger proof")
                .expected("the entry's bytes in its `extra` line")
                .received("no such line")
                .next("make the file with `portcullis ledger proof`")
        })?;
        let logged = proof.verify(entry, &key)?;
        let cosigned = self.quorum.require(&proof.checkpoint)?;
        let names: Vec<&str> = cosigned.iter().map(|one| one.witness.as_str()).collect();
        let checkpoint = logged.checkpoint().checkpoint();
        let shown: serde_json::Value =
            serde_json::from_slice(entry).unwrap_or(serde_json::Value::Null);
        let answer = json!({
            "holds": true, "index": logged.index(), "leaf": logged.leaf_hash(),
            "origin": checkpoint.origin.as_str(), "size": checkpoint.size,
            "root": checkpoint.root, "cosigned_by": names, "entry": shown,
        });
        context.out().print(&answer, || {
            let told = match Event::decode(logged.index(), entry) {
                Ok(event) => format!("{} {}", event.time, sentence(&event)),
                Err(refusal) => format!("this version can't read it ({})", refusal.message),
            };
            format!(
                "entry {} of {}, which has {} entries: {}\nverified against {known_by}{}",
                logged.index(),
                checkpoint.origin,
                checkpoint.size,
                output::clean_line(&told),
                ledger_verify::told(&cosigned)
            )
        })?;
        Ok(Exit::Done)
    }
}

/// The proof in a file that begins as proof files do.
fn proof_file(path: &Path) -> Result<Option<UnverifiedProof>, Refusal> {
    if !path.is_file() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .map_err(|error| unreadable(path, &error))?
        .take(TLOG_PROOF_MAX_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| unreadable(path, &error))?;
    if !bytes.starts_with(b"c2sp.org/tlog-proof@") {
        return Ok(None);
    }
    UnverifiedProof::parse(&bytes).map(Some)
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
