//! The role `witness`: cosigns checkpoints of logs that it was told to watch (c2sp.org/tlog-witness).
//!
//! It is small on purpose: a key, the keys of some logs, and for each log the checkpoint that it
//! cosigned last. What it promises is never to cosign two checkpoints of a log of which the newer
//! doesn't contain the older, so that last checkpoint must never be lost or go back:
//!
//! 1. *A request is judged* against it, under a lock for all of the log's requests.
//! 2. *The new checkpoint is written* beside the old one, synced, renamed over it, the directory
//!    synced. A restart finds the old one or the new one, whole.
//! 3. *Only then it is signed and answered.* An answer that is lost is asked for again, from the
//!    size that is kept.
//!
//! A witness whose directory was copied back in time breaks its promise; keep it out of backups.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State as Shared};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use portcullis_evidence::checkpoint::{UnverifiedCheckpoint, VerifiedCheckpoint};
use portcullis_evidence::cosignature::{
    ADD_CHECKPOINT_MAX_BYTES, AddCheckpoint, SIZE_CONTENT_TYPE, WitnessKey, WitnessNo, cosign,
    judge, write_cosignatures,
};
use portcullis_evidence::note::{KeyName, NOTE_MAX_BYTES, VerifierKey};
use portcullis_evidence::signer::Signer;
use portcullis_evidence::tlog_proof::UnverifiedProof;
use portcullis_identity::custody::{self, Ed25519Purpose};
use portcullis_model::statement::KnownBy;
use portcullis_model::{Body, Digest, Event, Refusal};
use tokio::net::TcpListener;

use crate::app::{now, text};
use crate::home::Home;

/// Most logs that one witness watches.
const LOGS_MAX: usize = 1_024;
/// Largest list of logs in bytes.
const LOGS_MAX_BYTES: u64 = 512 * 1024;

/// A witness: its key, the logs that it watches, what it saw of each.
pub struct Witness {
    name: KeyName,
    signer: Signer,
    logs: BTreeMap<String, Log>,
}

struct Log {
    key: VerifierKey,
    file: PathBuf,
    /// Held from the comparison until the new checkpoint is durable.
    seen: Mutex<Option<(u64, Digest)>>,
}

/// Makes a witness's directory: a key, its name, an empty list of logs.
///
/// # Errors
/// Something stands there already, or can't be written.
pub fn init(dir: &Path, name: &KeyName) -> Result<WitnessKey, Refusal> {
    let made = |error: std::io::Error| unwritable(dir, &error);
    fs::create_dir_all(dir.join("seen")).map_err(made)?;
    let key = custody::create_ed25519(&dir.join("witness.key"), Ed25519Purpose::Witness)?;
    write_durably(&dir.join("name"), format!("{name}\n").as_bytes())?;
    let logs = "# The logs that this witness watches: a key each line, `name+id+key`, as `portcullis\n\
                # status` of the log's server says.\n";
    let list = dir.join("logs");
    if !list.exists() {
        write_durably(&list, logs.as_bytes())?;
    }
    Ok(WitnessKey::new(
        name.clone(),
        *Signer::from_seed(key.seed())?.public_bytes(),
    ))
}

/// What a witness set aside, and where it begins anew.
#[derive(Clone, Debug)]
pub struct BegunAnew {
    /// The log.
    pub origin: String,
    /// The entry that says what is lost.
    pub entry: u64,
    /// How many entries the witness had seen.
    pub seen: u64,
    /// How many the log has now, at least.
    pub size: u64,
    /// Where the checkpoint is kept that it had cosigned.
    pub aside: PathBuf,
}

/// Lets the witness in `dir` begin anew with a log that went on from an older copy of itself. What
/// it saw is kept aside: cosigned by it and not in the log, it proves what was lost.
///
/// A person decides that, who has looked at the entry; the witness must not run meanwhile. Its promise
/// is kept from here on: from the checkpoint that proves the entry.
///
/// # Errors
/// The proof does not hold for one of the logs that it watches, the entry is no such restoration, or
/// it does not name this witness and what it saw.
pub fn begin_anew(dir: &Path, proof: &UnverifiedProof) -> Result<BegunAnew, Refusal> {
    let witness = Witness::open(dir)?;
    let origin = proof.checkpoint.claim().origin.to_string();
    let log = witness.logs.get(&origin).ok_or_else(|| {
        Refusal::not_found("log", &origin).next("write its key into the file `logs` first")
    })?;
    let entry = proof.untrusted_extra.as_deref().ok_or_else(|| {
        Refusal::malformed("ledger proof")
            .expected("the entry's bytes in its `extra` line")
            .received("no such line")
            .next("make the file with `portcullis ledger proof`")
    })?;
    let logged = proof.verify(entry, &log.key)?;
    let event = Event::decode(logged.index(), entry)?;
    let Body::LedgerRestored(body) = &event.body else {
        return Err(Refusal::malformed("proof of a restoration")
            .expected("an entry of type ledger.restored")
            .received(event.body.type_name()));
    };
    let mut seen = log.seen.lock().unwrap_or_else(PoisonError::into_inner);
    let size = seen.map_or(0, |(size, _)| size);
    let by = KnownBy::Witness(witness.name.to_string());
    if size == 0 || !body.restoration.names(&by, size, None) {
        return Err(Refusal::denied(
            "restoration-of-other-entries",
            "this entry does not say that what the witness saw is lost",
        )
        .expected(&format!("{by} with {size} entries among what was known"))
        .received(&format!("{:?}", body.restoration.known)));
    }
    let aside = log.file.with_extension(format!("lost-{size}"));
    fs::copy(&log.file, &aside)
        .and_then(|_| File::open(&aside)?.sync_all())
        .map_err(|error| unwritable(&aside, &error))?;
    keep(&log.file, &proof.checkpoint, logged.checkpoint(), &mut seen)?;
    Ok(BegunAnew {
        origin,
        entry: logged.index(),
        seen: size,
        size: logged.checkpoint().checkpoint().size,
        aside,
    })
}

impl Witness {
    /// Opens a witness's directory.
    ///
    /// # Errors
    /// Something in it can't be read, or what it saw last is not a checkpoint of its log: a witness
    /// that does not know what it saw cosigns nothing.
    pub fn open(dir: &Path) -> Result<Self, Refusal> {
        let name: KeyName = text(&Home::read(&dir.join("name"), 1_024)?)?
            .trim()
            .parse()?;
        let key = custody::load_ed25519(&dir.join("witness.key"), Ed25519Purpose::Witness)?;
        let signer = Signer::from_seed(key.seed())?;
        let list = text(&Home::read(&dir.join("logs"), LOGS_MAX_BYTES)?)?;
        let mut logs = BTreeMap::new();
        for line in list.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let key: VerifierKey = line.parse()?;
            if *key.public_bytes() == *signer.public_bytes() {
                return Err(Refusal::denied(
                    "witness-of-itself",
                    "a witness's key is the log's own key",
                ));
            }
            let origin = key.name().to_string();
            let file = dir.join("seen").join(Digest::of(origin.as_bytes()).hex());
            let seen = read_seen(&file, &key)?;
            let log = Log {
                key,
                file,
                seen: Mutex::new(seen),
            };
            if logs.insert(origin.clone(), log).is_some() || logs.len() > LOGS_MAX {
                return Err(Refusal::malformed("list of logs")
                    .expected(&format!("each log once, at most {LOGS_MAX}"))
                    .received(&origin));
            }
        }
        Ok(Self { name, signer, logs })
    }

    /// The witness's name and public key.
    pub fn key(&self) -> WitnessKey {
        WitnessKey::new(self.name.clone(), *self.signer.public_bytes())
    }

    /// How many logs it watches.
    pub fn logs(&self) -> usize {
        self.logs.len()
    }

    /// Judges a request, keeps what it saw, and cosigns. `time_s` is its clock.
    ///
    /// # Errors
    /// Why it does not cosign; or, outermost, that it can't keep what it saw.
    pub fn add_checkpoint(
        &self,
        bytes: &[u8],
        time_s: u64,
    ) -> Result<Result<String, WitnessNo>, Refusal> {
        let request = match AddCheckpoint::parse(bytes) {
            Ok(request) => request,
            Err(refusal) => return Ok(Err(WitnessNo::Malformed(refusal.message))),
        };
        let log = self.logs.get(request.checkpoint.claim().origin.as_str());
        let Some(log) = log else {
            let origin = request.checkpoint.claim().origin.to_string();
            return Ok(Err(WitnessNo::UnknownLog(origin)));
        };
        // A thread that panicked with the lock held had not changed what it guards.
        let mut seen = log.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let verified = match judge(&request, Some(&log.key), *seen) {
            Ok(verified) => verified,
            Err(no) => return Ok(Err(no)),
        };
        keep(&log.file, &request.checkpoint, &verified, &mut seen)?;
        drop(seen);
        let line = cosign(
            &self.name,
            &self.signer,
            request.checkpoint.note().claimed_text(),
            time_s,
        )?;
        Ok(Ok(write_cosignatures(&[line])))
    }
}

/// Makes the new checkpoint durable, then the one that is compared with.
fn keep(
    file: &Path,
    checkpoint: &UnverifiedCheckpoint,
    verified: &VerifiedCheckpoint,
    seen: &mut Option<(u64, Digest)>,
) -> Result<(), Refusal> {
    let claim = verified.checkpoint();
    if *seen != Some((claim.size, claim.root)) {
        write_durably(file, checkpoint.to_string().as_bytes())?;
        *seen = Some((claim.size, claim.root));
    }
    Ok(())
}

fn read_seen(file: &Path, key: &VerifierKey) -> Result<Option<(u64, Digest)>, Refusal> {
    if !file.exists() {
        return Ok(None);
    }
    let bytes = Home::read(file, NOTE_MAX_BYTES as u64)?;
    let verified = UnverifiedCheckpoint::parse(&bytes)?.verify(key)?;
    let claim = verified.checkpoint();
    Ok(Some((claim.size, claim.root)))
}

/// Writes beside, syncs, renames, syncs the directory.
fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), Refusal> {
    let failed = |error: std::io::Error| unwritable(path, &error);
    let beside = path.with_extension("new");
    let mut file = File::create(&beside).map_err(failed)?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(failed)?;
    fs::rename(&beside, path).map_err(failed)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(failed)
}

fn unwritable(path: &Path, error: &std::io::Error) -> Refusal {
    Refusal::unavailable(
        "witness-unwritable",
        format!("{} can't be written", path.display()),
    )
    .received(&error.to_string())
    .next("nothing is cosigned until what was seen can be kept")
}

/// Serves the witness at `listener` until the task is aborted.
pub async fn serve(witness: Arc<Witness>, listener: TcpListener) {
    let router = Router::new()
        .route("/add-checkpoint", post(add_checkpoint))
        .with_state(witness);
    crate::log::serve_bounded(listener, router).await;
}

async fn add_checkpoint(Shared(witness): Shared<Arc<Witness>>, request: Request) -> Response {
    let plain = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    let Ok(body) = to_bytes(request.into_body(), ADD_CHECKPOINT_MAX_BYTES).await else {
        let no = "the request is too large or was cut off\n";
        return (StatusCode::BAD_REQUEST, plain, no).into_response();
    };
    let time_s = now().as_ms() / 1_000;
    let judged = tokio::task::spawn_blocking(move || witness.add_checkpoint(&body, time_s)).await;
    match judged {
        Ok(Ok(Ok(lines))) => (StatusCode::OK, plain, lines).into_response(),
        Ok(Ok(Err(no))) => {
            let status = match &no {
                WitnessNo::Malformed(_) => StatusCode::BAD_REQUEST,
                WitnessNo::UnknownLog(_) => StatusCode::NOT_FOUND,
                WitnessNo::NotSigned => StatusCode::FORBIDDEN,
                WitnessNo::Inconsistent => StatusCode::UNPROCESSABLE_ENTITY,
                WitnessNo::Conflict { known } => {
                    let kind = [(header::CONTENT_TYPE, SIZE_CONTENT_TYPE)];
                    return (StatusCode::CONFLICT, kind, format!("{known}\n")).into_response();
                }
            };
            tracing::warn!("not cosigned: {no}");
            (status, plain, format!("{no}\n")).into_response()
        }
        Ok(Err(refusal)) => {
            tracing::error!(error.code = refusal.code, "not cosigned: {refusal}");
            (
                StatusCode::INTERNAL_SERVER_ERROR,
                plain,
                "the witness can't keep what it sees\n",
            )
                .into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_evidence::checkpoint::Checkpoint;
    use portcullis_evidence::cosignature::cosigners;
    use portcullis_evidence::merkle::{MemoryTree, consistency_proof, leaf_hash};
    use portcullis_model::Secret;

    fn log() -> Signer {
        Signer::from_seed(&Secret::new([4; 32])).unwrap()
    }

    fn request(old: u64, new: u64, salt: u64) -> AddCheckpoint {
        let mut tree = MemoryTree::default();
        for at in 0..new {
            tree.append(leaf_hash(&(at + salt).to_be_bytes())).unwrap();
        }
        AddCheckpoint {
            old_size: old,
            proof: consistency_proof(&tree, old, new).unwrap(),
            checkpoint: Checkpoint::new("example.com/log".parse().unwrap(), new, tree.root())
                .sign(&log())
                .unwrap(),
        }
    }

    fn made() -> (tempfile::TempDir, WitnessKey) {
        let dir = tempfile::tempdir().unwrap();
        let key = init(dir.path(), &"w.example/1".parse().unwrap()).unwrap();
        let watched = VerifierKey::new("example.com/log".parse().unwrap(), *log().public_bytes());
        fs::write(dir.path().join("logs"), format!("# ours\n\n{watched}\n")).unwrap();
        (dir, key)
    }

    fn ask(witness: &Witness, request: &AddCheckpoint) -> Result<String, WitnessNo> {
        witness
            .add_checkpoint(request.to_string().as_bytes(), 1_700_000_000)
            .unwrap()
    }

    #[test]
    fn what_it_saw_survives_a_restart_and_is_never_contradicted() {
        let (dir, key) = made();
        let first = request(0, 5, 0);
        let lines = ask(&Witness::open(dir.path()).unwrap(), &first).unwrap();
        let whole = format!("{}{lines}", first.checkpoint);
        let cosigned = UnverifiedCheckpoint::parse(whole.as_bytes()).unwrap();
        assert_eq!(
            cosigners(&cosigned, &[key]).unwrap()[0].time_s,
            1_700_000_000
        );

        let witness = Witness::open(dir.path()).unwrap();
        let conflict = |known| WitnessNo::Conflict { known };
        assert_eq!(ask(&witness, &request(0, 9, 0)).unwrap_err(), conflict(5));
        assert_eq!(ask(&witness, &request(5, 5, 7)).unwrap_err(), conflict(5));
        assert_eq!(
            ask(&witness, &request(5, 9, 7)).unwrap_err(),
            WitnessNo::Inconsistent
        );
        ask(&witness, &request(5, 9, 0)).unwrap();
        ask(&witness, &request(9, 9, 0)).unwrap();
        assert_eq!(ask(&witness, &request(5, 9, 0)).unwrap_err(), conflict(9));
    }

    #[test]
    fn it_cosigns_nothing_that_it_cannot_keep_or_does_not_know() {
        let (dir, _) = made();
        let witness = Witness::open(dir.path()).unwrap();
        ask(&witness, &request(0, 5, 0)).unwrap();
        // The folder is gone: what would be seen could not be kept.
        fs::remove_dir_all(dir.path().join("seen")).unwrap();
        let next = request(5, 6, 0).to_string();
        assert!(witness.add_checkpoint(next.as_bytes(), 1).is_err());
        fs::create_dir(dir.path().join("seen")).unwrap();
        // It still knows in memory what it saw, and goes on from there.
        witness.add_checkpoint(next.as_bytes(), 1).unwrap().unwrap();
        for file in fs::read_dir(dir.path().join("seen")).unwrap() {
            fs::write(file.unwrap().path(), "noise").unwrap();
        }
        assert!(Witness::open(dir.path()).is_err());
    }

    #[test]
    fn requests_side_by_side_never_go_back() {
        let (dir, _) = made();
        let witness = Witness::open(dir.path()).unwrap();
        ask(&witness, &request(0, 5, 0)).unwrap();
        let taken: usize = std::thread::scope(|scope| {
            let asked: Vec<_> = (6..22)
                .map(|size| {
                    let witness = &witness;
                    scope.spawn(move || usize::from(ask(witness, &request(5, size, 0)).is_ok()))
                })
                .collect();
            asked.into_iter().map(|one| one.join().unwrap()).sum()
        });
        assert_eq!(taken, 1, "only one of them came from what was seen last");
    }
}
