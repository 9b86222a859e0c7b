//! `restore`: a backup takes the place of the server's ledger, while no server runs.
//!
//! A copy that goes back in time takes away entries that were signed: revocations, approvals, what
//! landed. So what others know of the ledger is asked first (held checkpoints, the witnesses, the
//! directory that is replaced), and where that is more than the copy has, or nobody can be asked, an
//! administrator signs what is lost. The entry that says so is the next one of the copy, and halts
//! what agents do until people reset the breaker.
//!
//! 1. *The server's directory is held,* so that none starts. A stop before 5 leaves everything as it
//!    was, and a folder `ledger.restoring` that the next `restore` removes.
//! 2. *The copy is made beside it, synced, and verified* from its first byte, with every signature.
//! 3. *What others know is compared with it.*
//! 4. *The signed entry is recorded in the copy,* by the same sequencer as ever.
//! 5. *The two directories change places,* in one step. A restart finds the old one or the new one.
//! 6. *The old one gets the name `ledger.replaced-SIZE`.* Nothing is removed.

mod known;
mod stage;

use std::path::{Path, PathBuf};

use portcullis_evidence::dsse::UnverifiedEnvelope;
use portcullis_evidence::sshsig::Attestation;
use portcullis_evidence::statement::{self, StatementType, TrustedKey};
use portcullis_flow::inventory::Standing;
use portcullis_flow::{Command as Recording, State};
use portcullis_model::event::LedgerRestored;
use portcullis_model::manifest::Human;
use portcullis_model::statement::{Command, KnownBy, Restoration};
use portcullis_model::{Actor, Principal, Refusal, RefusalKind};
use portcullis_server::home::Home;
use portcullis_store::LedgerHandle;
use serde_json::json;

use crate::commands::backup::FILE_MAX_BYTES;
use crate::context::{Context, Record, sign_command};
use crate::exit::Exit;
use crate::progress;
use crate::reason::Reason;
use crate::task_file::read_text;
use stage::{Staged, stage};

/// Puts a backup in the place of the server's ledger; the server must not run.
#[derive(Debug, clap::Args)]
pub(crate) struct Restore {
    /// The backup, as `portcullis backup` made it
    #[arg(value_name = "BACKUP")]
    from: PathBuf,
    /// A checkpoint of this ledger that was kept elsewhere, beside the one that the configuration
    /// holds; may be repeated
    #[arg(long, value_name = "FILE")]
    held: Vec<PathBuf>,
    /// Sign that the entries which the backup does not have are lost
    #[arg(long, requires = "why")]
    sign: bool,
    /// Why; whoever reads the ledger later sees it
    #[arg(long, value_name = "TEXT")]
    why: Option<Reason>,
}

impl Restore {
    /// Runs it.
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Refusal> {
        let (from, home) = (Home::new(&self.from), Home::new(context.home()));
        let staging = {
            let (from, home) = (from.clone(), home.clone());
            tokio::task::spawn_blocking(move || stage(&from, &home))
        };
        let staged = progress::during("copying and verifying the backup", staging)
            .await
            .map_err(|error| Refusal::internal(format!("the copy was cut off: {error}")))??;
        let (found, signed) = match self.decide(context, &staged).await {
            Ok(decided) => decided,
            Err(refusal) => {
                staged.abandon();
                return Err(refusal);
            }
        };
        let size = staged.ledger.handle().size();
        let replaced = staged.finish(size)?;
        self.tell(context, &home, &found, signed, replaced.as_deref())
    }

    /// Compares, and records what a person signs; gives the entry, if there is one.
    async fn decide(
        &self,
        context: &Context,
        staged: &Staged,
    ) -> Result<(known::Found, Option<u64>), Refusal> {
        let mut held = Vec::new();
        for path in &self.held {
            held.push(read_text(path, "checkpoint")?);
        }
        if let Some(path) = staged
            .config
            .held_checkpoint
            .as_ref()
            .filter(|path| path.exists())
        {
            let bytes = Home::read(path, FILE_MAX_BYTES)?;
            held.push(String::from_utf8_lossy(&bytes).into_owned());
        }
        let found = known::compare(staged, &held).await?;
        let signed = match (&self.why, self.sign) {
            (Some(why), true) => Some(record(context, staged, &found.restoration, why).await?),
            (_, _) if found.restoration.loses_nothing() => None,
            (_, _) => return Err(unsigned(&found.restoration)),
        };
        Ok((found, signed))
    }

    fn tell(
        &self,
        context: &Context,
        home: &Home,
        found: &known::Found,
        signed: Option<u64>,
        replaced: Option<&Path>,
    ) -> Result<Exit, Refusal> {
        let restoration = &found.restoration;
        let warnings: Vec<String> = found.warnings.iter().map(ToString::to_string).collect();
        let answer = json!({
            "home": home.root().display().to_string(),
            "from": restoration.from, "known": restoration.known, "lost": restoration.lost,
            "entry": signed, "halted": signed.is_some() && !restoration.loses_nothing(),
            "replaced": replaced.map(|path| path.display().to_string()),
            "warnings": warnings,
        });
        context.out().print(&answer, || {
            let mut says = format!(
                "{} entries from {} are the ledger of {}: {}",
                restoration.from.size,
                self.from.display(),
                home.root().display(),
                loss(restoration)
            );
            if let Some(entry) = signed {
                says.push_str(&format!("\nentry {entry} says so, signed"));
            }
            if let Some(replaced) = replaced {
                says.push_str(&format!("\nwhat it replaced is in {}", replaced.display()));
            }
            for warning in &warnings {
                says.push_str(&format!("\nwarning: {warning}"));
            }
            if let Some(entry) = signed.filter(|_| !restoration.loses_nothing()) {
                says.push_str(
                    "\nnext: start the server; what agents do is halted until `portcullis breaker reset` is approved",
                );
                let ahead = restoration.known.iter().filter_map(|point| match &point.by {
                    KnownBy::Witness(name) if point.size > restoration.from.size => Some(name),
                    KnownBy::Witness(_) | KnownBy::Held | KnownBy::Replaced => None,
                });
                for name in ahead {
                    says.push_str(&format!(
                        "\n{name} saw more and will not cosign this ledger: send its operator the proof of entry {entry} (`portcullis ledger proof {entry} --to FILE`), for `portcullis witness restored`"
                    ));
                }
            }
            says
        })?;
        Ok(Exit::Done)
    }
}

/// What is lost, in words.
fn loss(restoration: &Restoration) -> String {
    match restoration.lost {
        None if restoration.known.is_empty() => {
            "nobody could be asked what the ledger had, so what is lost is not known".to_owned()
        }
        None => "nobody knew of more".to_owned(),
        Some(lost) => {
            let most = restoration.known.iter().max_by_key(|point| point.size);
            let by = most.map(|point| point.by.to_string()).unwrap_or_default();
            let others = if lost.from < restoration.from.size {
                "were others"
            } else {
                "are lost"
            };
            format!(
                "entries {} to {} {others}, of which {by} knew",
                lost.from, lost.to
            )
        }
    }
}

/// Refused without a signature.
fn unsigned(restoration: &Restoration) -> Refusal {
    Refusal::new(
        RefusalKind::Denied,
        "restore-loses-entries",
        format!(
            "with this backup of {} entries {}",
            restoration.from.size,
            match restoration.lost {
                Some(lost) => format!("entries {} to {} are lost", lost.from, lost.to),
                None => "nobody can tell what is lost".to_owned(),
            }
        ),
    )
    .expected("the signature of an administrator over what is lost")
    .received(&loss(restoration))
    .next("if there is no newer copy, give the command again with --sign and --why TEXT; nothing was changed")
}

/// Records the entry that says what is lost, signed by a person; gives its index.
async fn record(
    context: &Context,
    staged: &Staged,
    restoration: &Restoration,
    why: &Reason,
) -> Result<u64, Refusal> {
    let handle: LedgerHandle<State> = staged.ledger.handle();
    let state = handle.state();
    let humans: Vec<Record<Human>> = state
        .inventory
        .humans
        .values()
        .map(|person| Record {
            record: person.manifest.clone(),
            standing: (person.standing != Standing::Active).then(|| "ended".to_owned()),
        })
        .collect();
    let signer = context.signer_among(&humans)?;
    let command = Command::RestoreLedger {
        restoration: restoration.clone(),
        why: why.digest(),
    };
    let envelope = sign_command(&signer, restoration.from.origin.clone(), command)?;
    let proof = statement::verify(
        &UnverifiedEnvelope::try_from(envelope.clone())?,
        StatementType::Command,
        &[TrustedKey {
            key: signer.key.public(),
            attestation: Attestation::None,
        }],
    )?;
    let actor = Actor::signed(
        Principal::Human(signer.human.clone()),
        proof.key().fingerprint().to_owned(),
        proof.class(),
    );
    let text = why.text().as_bytes().to_vec();
    let blobs = handle.clone();
    tokio::task::spawn_blocking(move || blobs.blobs().put(&text))
        .await
        .map_err(|error| Refusal::internal(format!("the reason was not kept: {error}")))??;
    let body = LedgerRestored {
        restoration: restoration.clone(),
        why: why.digest(),
        envelope,
    };
    Ok(handle.submit(Recording::one(actor, body)).await?.first)
}
