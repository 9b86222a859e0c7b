//! The log's witnesses: asked after each new checkpoint, off the way of whoever waits for an entry.
//!
//! A round takes the newest checkpoint to every witness at once. What comes back is checked and
//! kept; once as many have cosigned as the configuration wants, that checkpoint is what readers of
//! the log get. A witness that fails is asked again later and later, and holds nobody up.
//!
//! 1. *A checkpoint is signed.* It is durable by itself; nobody waits for a witness, except what
//!    demands a quorum.
//! 2. *Witnesses answer.* Each kept it durably before. A restart asks again: the same checkpoint is
//!    cosigned again, a newer one with a proof from there.
//! 3. *The cosigned checkpoint is kept* among the local values. Lost, the next round makes another.
//!
//! A witness that saw more of this log than the log has now, or other entries, is the sign that
//! the data directory went back in time or that its key is used elsewhere. Then everything halts,
//! until a person has looked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use portcullis_evidence::checkpoint::UnverifiedCheckpoint;
use portcullis_evidence::cosignature::{
    AddCheckpoint, COSIGNATURES_MAX_BYTES, Cosigned, WitnessKey, cosigners, parse_cosignatures,
    parse_known_size,
};
use portcullis_evidence::note::NoteSignature;
use portcullis_gateway::http::plain::{Ask, PlainClient, check_url};
use portcullis_model::event::IncidentOpened;
use portcullis_model::statement::{BreakerScope, KnownBy};
use portcullis_model::{Digest, Refusal};
use portcullis_store::SignedCheckpoint;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::api::ledger::blocking;
use crate::app::App;
use crate::config::WitnessConfig;
use crate::worker;

/// Most witnesses: a checkpoint has room for their signatures beside others.
pub const WITNESSES_MAX: usize = 16;
/// How long one witness may take to answer.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// Least time between the beginnings of two rounds: a busy ledger signs hundreds of checkpoints a
/// second, and one of them is enough.
const ROUND_EVERY: Duration = Duration::from_millis(250);
/// How long a witness that failed is left alone at first, and at most.
const BACKOFF: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// How often a question is put anew because the witness had seen another size.
const CONFLICTS_MAX: u32 = 3;
/// Name of the local value that keeps the newest cosigned checkpoint.
pub const COSIGNED: &str = "log.cosigned";

/// The log's witnesses, and what they said.
pub struct Witnesses {
    known: Vec<Known>,
    quorum: usize,
    client: PlainClient,
    cosigned: ArcSwapOption<CosignedCheckpoint>,
    news: tokio::sync::watch::Sender<u64>,
}

/// A checkpoint that as many witnesses cosigned as the configuration wants, or more.
#[derive(Clone, Debug)]
pub struct CosignedCheckpoint {
    /// Number of entries.
    pub size: u64,
    /// RFC 6962 root over them.
    pub root: Digest,
    /// The note with the log's signature and theirs.
    pub checkpoint: UnverifiedCheckpoint,
    /// Who, and when.
    pub by: Vec<Cosigned>,
}

struct Known {
    key: WitnessKey,
    url: String,
    standing: Mutex<Standing>,
}

/// What is known of one witness.
#[derive(Clone, Debug, Default)]
struct Standing {
    /// The size that it saw last.
    seen: u64,
    /// When it cosigned that, in seconds since 1970.
    time_s: Option<u64>,
    /// Why it did not cosign, if it didn't.
    failed: Option<Refusal>,
    failures: u32,
    not_before: Option<Instant>,
}

impl Witnesses {
    /// The configured witnesses.
    ///
    /// # Errors
    /// A key or URL can't be read, there are too many, or the quorum is none.
    pub fn new(
        configured: &[WitnessConfig],
        quorum: Option<usize>,
        client: PlainClient,
    ) -> Result<Self, Refusal> {
        let mut known = Vec::new();
        for one in configured {
            let key: WitnessKey = one.key.parse()?;
            check_url(&one.url)?;
            known.push(Known {
                key,
                url: one.url.trim_end_matches('/').to_owned(),
                standing: Mutex::default(),
            });
        }
        let quorum = quorum.unwrap_or(known.len());
        let fits = known.is_empty() || (1..=known.len()).contains(&quorum);
        if known.len() > WITNESSES_MAX || !fits {
            return Err(Refusal::malformed("configuration")
                .expected(&format!(
                    "at most {WITNESSES_MAX} witnesses, and a quorum from 1 to their number"
                ))
                .received(&format!("{} witnesses, quorum {quorum}", known.len())));
        }
        Ok(Self {
            known,
            quorum,
            client,
            cosigned: ArcSwapOption::empty(),
            news: tokio::sync::watch::Sender::new(0),
        })
    }

    /// Whether there are any.
    pub fn are_configured(&self) -> bool {
        !self.known.is_empty()
    }

    /// The newest checkpoint that enough of them cosigned.
    pub fn newest(&self) -> Option<Arc<CosignedCheckpoint>> {
        self.cosigned.load_full()
    }

    /// Told of each newly cosigned size.
    pub fn subscribe(&self) -> tokio::sync::watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// What they said, for people.
    pub fn shown(&self) -> Value {
        let each: Vec<Value> = self
            .known
            .iter()
            .map(|one| {
                let standing = one.standing();
                json!({
                    "name": one.key.name().as_str(),
                    "key": one.key.to_string(),
                    "size": standing.seen,
                    "cosigned_s": standing.time_s,
                    "failed": standing.failed.map(|refusal| refusal.message),
                })
            })
            .collect();
        let cosigned = self.newest().map(|newest| {
            let by: Vec<&str> = newest.by.iter().map(|one| one.witness.as_str()).collect();
            json!({ "size": newest.size, "root": newest.root, "by": by })
        });
        json!({ "quorum": self.quorum, "cosigned": cosigned, "known": each })
    }

    /// Takes up what was kept before a restart, if it still is of this log.
    fn restore(&self, app: &App) {
        let Ok(Some(kept)) = app.ledger.private().local(COSIGNED) else {
            return;
        };
        let read = || {
            let checkpoint = UnverifiedCheckpoint::parse(&kept)?;
            checkpoint.verify(&app.log_key)?;
            self.publish(checkpoint)
        };
        if let Err(refusal) = read() {
            tracing::warn!(
                error.code = refusal.code,
                "the kept cosigned checkpoint is of no use: {}",
                refusal.message
            );
        }
    }

    /// Shows readers a checkpoint, if enough cosigned it and it is not older than what they have.
    fn publish(&self, checkpoint: UnverifiedCheckpoint) -> Result<(), Refusal> {
        let keys: Vec<WitnessKey> = self.known.iter().map(|one| one.key.clone()).collect();
        let by = cosigners(&checkpoint, &keys)?;
        let (size, root) = (checkpoint.claim().size, checkpoint.claim().root);
        let shown = self.newest();
        let newer = shown.is_none_or(|shown| {
            size > shown.size || (size == shown.size && by.len() >= shown.by.len())
        });
        if by.len() >= self.quorum && newer {
            self.cosigned.store(Some(Arc::new(CosignedCheckpoint {
                size,
                root,
                checkpoint,
                by,
            })));
            self.news.send_replace(size);
        }
        Ok(())
    }
}

impl Known {
    fn standing(&self) -> Standing {
        self.standing
            .lock()
            .map(|standing| standing.clone())
            .unwrap_or_default()
    }

    fn note(&self, change: impl FnOnce(&mut Standing)) {
        if let Ok(mut standing) = self.standing.lock() {
            change(&mut standing);
        }
    }

    fn is_due(&self) -> bool {
        self.standing()
            .not_before
            .is_none_or(|time| Instant::now() >= time)
    }

    fn failed(&self, refusal: &Refusal) {
        let name = self.key.name();
        tracing::warn!(
            error.code = refusal.code,
            "the witness {name} did not cosign: {}",
            refusal.message
        );
        self.note(|standing| {
            let wait = BACKOFF.saturating_mul(1 << standing.failures.min(6));
            standing.failures = standing.failures.saturating_add(1);
            standing.failed = Some(refusal.clone());
            standing.not_before = Some(Instant::now() + wait.min(BACKOFF_MAX));
        });
    }
}

/// Asks the witnesses until the ledger ends.
pub async fn run(app: Arc<App>) {
    if !app.witnesses.are_configured() {
        return;
    }
    app.witnesses.restore(&app);
    let mut news = app.ledger.subscribe();
    loop {
        let began = Instant::now();
        round(&app).await;
        tokio::time::sleep(ROUND_EVERY.saturating_sub(began.elapsed())).await;
        let waits = app
            .witnesses
            .known
            .iter()
            .any(|one| one.standing().not_before.is_some());
        let idle = if waits { BACKOFF } else { BACKOFF_MAX };
        tokio::select! {
            changed = news.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(idle) => {}
        }
    }
}

/// Takes the newest checkpoint to every witness that is due.
async fn round(app: &Arc<App>) {
    let signed = app.ledger.checkpoint();
    let Ok(checkpoint) = UnverifiedCheckpoint::parse(signed.note.as_bytes()) else {
        return;
    };
    let mut gathered: BTreeMap<String, NoteSignature> = BTreeMap::new();
    let enough = app
        .witnesses
        .newest()
        .filter(|newest| newest.size == signed.size);
    if let Some(newest) = &enough {
        // Stragglers may still add theirs.
        for line in newest.checkpoint.note().signatures().iter().skip(1) {
            gathered.insert(line.name.to_string(), line.clone());
        }
    }
    let mut asked = JoinSet::new();
    for place in 0..app.witnesses.known.len() {
        let Some(known) = app.witnesses.known.get(place) else {
            continue;
        };
        if known.is_due() && !gathered.contains_key(known.key.name().as_str()) {
            let (app, signed) = (Arc::clone(app), Arc::clone(&signed));
            asked.spawn(async move { (place, ask(&app, place, &signed).await) });
        }
    }
    while let Some(done) = asked.join_next().await {
        let Ok((place, answer)) = done else { continue };
        let Some(known) = app.witnesses.known.get(place) else {
            continue;
        };
        match answer {
            Ok((line, cosigned)) => {
                known.note(|standing| {
                    *standing = Standing {
                        seen: signed.size,
                        time_s: Some(cosigned.time_s),
                        ..Standing::default()
                    };
                });
                gathered.insert(known.key.name().to_string(), line);
                show(app, &checkpoint, &gathered).await;
            }
            Err(refusal) => {
                known.failed(&refusal);
                if matches!(
                    refusal.code.as_str(),
                    "ledger-behind-witness" | "ledger-forked"
                ) {
                    halt(app, &refusal).await;
                }
            }
        }
    }
}

/// Shows the checkpoint with the cosignatures so far, and keeps it.
async fn show(
    app: &Arc<App>,
    checkpoint: &UnverifiedCheckpoint,
    gathered: &BTreeMap<String, NoteSignature>,
) {
    let mut cosigned = checkpoint.clone();
    for line in gathered.values() {
        if cosigned.add_signature(line.clone()).is_err() {
            return;
        }
    }
    let note = cosigned.to_string().into_bytes();
    if let Err(refusal) = app.witnesses.publish(cosigned) {
        tracing::warn!(error.code = refusal.code, "{refusal}");
        return;
    }
    if gathered.len() >= app.witnesses.quorum {
        let ledger = app.ledger.clone();
        let kept = blocking(move || ledger.private().set_local(COSIGNED, Some(&note))).await;
        if let Err(refusal) = kept {
            tracing::warn!(
                error.code = refusal.code,
                "a cosigned checkpoint was not kept: {}",
                refusal.message
            );
        }
    }
}

/// Puts one checkpoint to one witness; again with what it says it saw, where that is another size.
async fn ask(
    app: &Arc<App>,
    place: usize,
    signed: &Arc<SignedCheckpoint>,
) -> Result<(NoteSignature, Cosigned), Refusal> {
    let known = app
        .witnesses
        .known
        .get(place)
        .ok_or_else(|| Refusal::internal("no such witness"))?;
    let name = known.key.name();
    let mut old_size = known.standing().seen.min(signed.size);
    for _ in 0..CONFLICTS_MAX {
        let request = {
            let (ledger, signed) = (app.ledger.clone(), Arc::clone(signed));
            blocking(move || {
                Ok(AddCheckpoint {
                    old_size,
                    proof: ledger.consistency_proof(old_size, signed.size)?,
                    checkpoint: UnverifiedCheckpoint::parse(signed.note.as_bytes())?,
                })
            })
            .await?
        };
        let url = format!("{}/add-checkpoint", known.url);
        let reply = app
            .witnesses
            .client
            .send(Ask {
                url: &url,
                post: Some((
                    "text/plain; charset=utf-8",
                    request.to_string().into_bytes(),
                )),
                token: None,
                gzip: false,
                max_bytes: COSIGNATURES_MAX_BYTES,
                time: ANSWER_TIME,
            })
            .await?;
        match reply.status.as_u16() {
            200 => {
                let text = request.checkpoint.note().claimed_text();
                return parse_cosignatures(&reply.body)?
                    .into_iter()
                    // Lines by keys that we don't know are ignored, as the specification says.
                    .find_map(|line| {
                        let cosigned = known.key.verify(text, &line).ok()?;
                        Some((line, cosigned))
                    })
                    .ok_or_else(|| {
                        Refusal::denied(
                            "cosignature-missing",
                            format!("{name} answered without a cosignature by its key"),
                        )
                        .expected(&known.key.to_string())
                    });
            }
            409 => {
                let seen = match parse_known_size(&reply.body) {
                    Ok(seen) => seen,
                    // About the very size that it saw last: only the root can differ.
                    Err(_) if old_size == signed.size => {
                        return Err(forked(app, name.as_str(), old_size));
                    }
                    Err(refusal) => return Err(refusal),
                };
                if seen > signed.size {
                    return Err(behind(app, name.as_str(), seen, signed.size));
                }
                if seen == old_size {
                    return Err(forked(app, name.as_str(), seen));
                }
                old_size = seen;
            }
            422 => return Err(forked(app, name.as_str(), old_size)),
            404 => {
                return Err(Refusal::denied(
                    "log-unknown-to-witness",
                    format!("{name} does not watch this log"),
                )
                .next(format!("give its operator the log's key: {}", app.log_key)));
            }
            status => {
                return Err(Refusal::unavailable(
                    "witness-answer",
                    format!("{name} does not answer as a witness does"),
                )
                .expected("200, 409 or 422 (c2sp.org/tlog-witness)")
                .received(&format!("status {status}")));
            }
        }
    }
    Err(Refusal::unavailable(
        "witness-conflicts",
        format!("{name} says another size each time"),
    )
    .expected("that nobody else shows it this log's checkpoints"))
}

/// What a witness saw of a log, compared with a checkpoint that is shown to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It cosigned the checkpoint, and nothing beyond.
    This,
    /// It cosigned one of so many entries last.
    Entries(u64),
    /// It cosigned another checkpoint of the same size.
    Another,
}

/// Asks a witness what it saw of a log, by showing it a checkpoint of that log.
///
/// # Errors
/// It can't be asked, does not watch the log, or does not answer as a witness does.
pub async fn seen(
    client: &PlainClient,
    witness: &WitnessConfig,
    checkpoint: &str,
) -> Result<Seen, Refusal> {
    let checkpoint = UnverifiedCheckpoint::parse(checkpoint.as_bytes())?;
    let size = checkpoint.claim().size;
    let request = AddCheckpoint {
        old_size: size,
        proof: Vec::new(),
        checkpoint,
    };
    let url = format!("{}/add-checkpoint", witness.url.trim_end_matches('/'));
    let body = request.to_string().into_bytes();
    let reply = client
        .send(Ask {
            url: &url,
            post: Some(("text/plain; charset=utf-8", body)),
            token: None,
            gzip: false,
            max_bytes: COSIGNATURES_MAX_BYTES,
            time: ANSWER_TIME,
        })
        .await?;
    match reply.status.as_u16() {
        200 => Ok(Seen::This),
        409 => match parse_known_size(&reply.body) {
            Ok(seen) if seen != size => Ok(Seen::Entries(seen)),
            Ok(_) | Err(_) => Ok(Seen::Another),
        },
        422 => Ok(Seen::Another),
        status => Err(Refusal::unavailable(
            "witness-answer",
            format!("the witness at {url} does not say what it saw"),
        )
        .expected("200, 409 or 422 (c2sp.org/tlog-witness)")
        .received(&format!("status {status}"))),
    }
}

/// The witness saw more than this checkpoint has. Is that more than the ledger has by now?
fn behind(app: &App, name: &str, seen: u64, asked: u64) -> Refusal {
    let has = app.ledger.checkpoint().size;
    if seen <= has {
        return Refusal::unavailable(
            "witness-conflicts",
            format!("{name} saw {seen} entries meanwhile, and was asked about {asked}"),
        );
    }
    if let Some(told) = lost(app, name, seen) {
        return told;
    }
    Refusal::conflict(
        "ledger-behind-witness",
        format!("the witness {name} saw {seen} entries of this ledger, which has {has}"),
    )
    .expected(&format!("at least {seen} entries"))
    .received(&format!("{has} entries"))
    .next("the data directory went back in time: bring back a newer copy, or restore it as such")
}

/// What is said where people signed that what this witness saw is lost: nothing halts for it again,
/// and it does not cosign.
fn lost(app: &App, name: &str, seen: u64) -> Option<Refusal> {
    let entry = app
        .state()
        .lost_by(&KnownBy::Witness(name.to_owned()), seen, None)?;
    Some(
        Refusal::conflict(
            "witness-before-restore",
            format!("the witness {name} saw {seen} entries, and entry {entry} says that the last of them are lost"),
        )
        .next(format!(
            "send its operator the file that `portcullis ledger proof {entry} --to FILE` writes; `portcullis witness restored DIR FILE` lets it begin anew"
        )),
    )
}

fn forked(app: &App, name: &str, seen: u64) -> Refusal {
    if let Some(told) = lost(app, name, seen) {
        return told;
    }
    Refusal::conflict(
        "ledger-forked",
        format!("the witness {name} saw other entries of this ledger than it has: its first {seen} are not these"),
    )
    .next("the data directory went back in time and was written on, or the log's key is used elsewhere; look before anything is granted")
}

/// Everything halts, in memory at once and in the ledger's record once.
async fn halt(app: &Arc<App>, refusal: &Refusal) {
    tracing::error!(error.code = refusal.code, "halted: {refusal}");
    app.halt(&BreakerScope::Everywhere);
    let told = app
        .state()
        .incidents
        .iter()
        .any(|(_, incident)| incident.code == refusal.code);
    if told {
        return;
    }
    let incident = IncidentOpened {
        code: refusal.code.clone(),
        about: None,
        facts: [("what".to_owned(), refusal.message.clone())].into(),
    };
    if let Err(refusal) = worker::record(app, incident).await {
        tracing::error!(
            error.code = refusal.code,
            "an incident was not recorded: {refusal}"
        );
    }
}
