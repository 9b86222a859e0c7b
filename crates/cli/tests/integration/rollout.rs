//! Rollouts by the server's own worker, with real processes and real traffic: promoted on
//! evidence, across a restart; taken back on evidence; taken back by the breaker.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::indexing_slicing,
    reason = "a test that can't go on says so by panicking"
)]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use portcullis_flow::release::coverage;
use portcullis_flow::rollout::{Rollout, RolloutStatus};
use portcullis_flow::{Command as Recording, State};
use portcullis_model::event::{
    ApprovalGiven, ArtifactBuilt, Body, BreakerTripped, CommitsUnproven, DecisionRecord,
    EnvironmentReverted, JobClaimed, JobFinished, JobKind, JobOutcome, JobRequested, KeyFloor,
    ReleaseAdmitted, RolloutStepped, Step,
};
use portcullis_model::manifest::{Canary, Environment, Repository, Sensitivity};
use portcullis_model::statement::{
    Approval, BreakerScope, Carry, Command, Envelope, EnvelopeSignature, LedgerPoint, Output,
    SignedCommand,
};
use portcullis_model::{
    Actor, ArtifactId, Digest, EnvironmentId, GitOid, JobId, KeyClass, Mode, Principal, ReleaseId,
    RepositoryId, RequestId, RolloutId, canonical,
};
use portcullis_proxy::ProxyControl;
use portcullis_server::app::{App, control, now};
use portcullis_server::environments::{self, Place, process};
use portcullis_server::home::Home;
use portcullis_server::init::{InitPlan, init};
use portcullis_server::worker::{self, rollout};
use portcullis_store::Ledger;
use serde_json::json;
use tokio::task::JoinHandle;

/// Longest that anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(40);
const ORIGIN: &str = "ledger.test/rollout";

struct World {
    home: Home,
    port: u16,
    running: Option<Running>,
    nonce: u64,
}

struct Running {
    app: Arc<App>,
    ledger: Ledger<State>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for World {
    fn drop(&mut self) {
        for task in self.running.iter().flat_map(|running| &running.tasks) {
            task.abort();
        }
        environments::stop_all(&self.home).unwrap();
    }
}

impl World {
    async fn new(root: &std::path::Path) -> Self {
        process::start_from(env!("CARGO_BIN_EXE_portcullis"));
        let port = std::net::TcpListener::bind(("127.0.0.1", 0))
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let home = Home::new(root.join("home"));
        let plan = InitPlan {
            administrators: vec![(
                "ada".parse().unwrap(),
                vec![
                    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIF6BBf7zzqyVgIGrLa+DqF2zHjRuz1tMGX6fqEAlOlAl"
                        .parse()
                        .unwrap(),
                ],
            )],
            quorum: 1,
            solo: true,
            origin: ORIGIN.to_owned(),
            trust_domain: "rollout.test".to_owned(),
            repositories: vec![Repository {
                id: repository(),
                upstream: root.join("none").display().to_string(),
                default_branch: "main".to_owned(),
                baseline: Some(commit("a")),
                protected: vec!["**".to_owned()],
                deploys_on_landing: None,
                max_pack_bytes: 1024,
                mode: Mode::Enforce,
            }],
            environments: vec![Environment {
                id: staging(),
                repository: repository(),
                sensitivity: Sensitivity::Staging,
                deployers: Default::default(),
                port,
                service_port: 8080,
                canary: Canary {
                    steps: vec![200, 500],
                    alpha_ppm: 50_000,
                    margin_per_mille: 200,
                    max_errors: 15,
                    min_requests: 20,
                    min_step_ms: 1_000,
                    max_step_ms: 60_000,
                },
                witnesses: Default::default(),
            }],
            agents: Vec::new(),
            store: None,
        listen: None,
            key_floor: KeyFloor {
                production: KeyClass::Software,
                breaker_reset: KeyClass::Software,
                policy: KeyClass::Software,
                keys: KeyClass::Software,
            },
        };
        init(&home, &plan, now()).unwrap();
        let mut world = Self {
            home,
            port,
            running: None,
            nonce: 0,
        };
        world.open().await;
        world
    }

    async fn open(&mut self) {
        let (app, ledger, _) = App::open(self.home.clone(), portcullis_server::app::Role::Lead)
            .await
            .unwrap();
        self.running = Some(Running {
            app,
            ledger,
            tasks: Vec::new(),
        });
    }

    fn work(&mut self) {
        let app = self.app();
        let running = self.running.as_mut().unwrap();
        running.tasks = vec![
            tokio::spawn(worker::run(Arc::clone(&app))),
            tokio::spawn(rollout::keep(app)),
        ];
    }

    /// Ends all that this server is, and opens another on the same data.
    async fn restart(&mut self) {
        let running = self.running.take().unwrap();
        for task in running.tasks {
            task.abort();
            let _aborted = task.await;
        }
        // Pieces of work that were under way end with the task that had them.
        let app = running.app;
        eventually("all work has ended", || Arc::strong_count(&app) == 1);
        drop(app);
        running.ledger.close().unwrap();
        self.open().await;
        self.work();
    }

    fn app(&self) -> Arc<App> {
        Arc::clone(&self.running.as_ref().unwrap().app)
    }

    fn state(&self) -> Arc<State> {
        self.app().state()
    }

    async fn record(&self, actor: Actor, body: impl Into<Body>) -> u64 {
        self.app()
            .ledger
            .submit(Recording::one(actor, body))
            .await
            .unwrap()
            .first
    }

    fn next_nonce(&mut self) -> String {
        self.nonce += 1;
        format!("{:032x}", self.nonce)
    }

    fn signed(&mut self, principal: Principal, command: Command) -> (Actor, Envelope) {
        let command = SignedCommand {
            version: SignedCommand::VERSION,
            origin: ORIGIN.to_owned(),
            principal: principal.clone(),
            issued: now(),
            expires: now().plus_ms(60_000),
            nonce: self.next_nonce(),
            command,
        };
        let bytes = canonical::to_vec(&command).unwrap();
        (
            by_key(principal),
            envelope(SignedCommand::PAYLOAD_TYPE, &bytes),
        )
    }

    /// An artifact as a build makes it.
    async fn artifact(&mut self, from: &str, script: &str) -> ArtifactId {
        let bytes = script.as_bytes();
        let digest = self.app().ledger.blobs().put(bytes).unwrap();
        let output = Output {
            name: "service".to_owned(),
            digest,
            size: bytes.len() as u64,
        };
        let job = JobId(
            self.record(
                control(),
                JobRequested {
                    kind: JobKind::Build,
                    repository: repository(),
                    commit: commit(from),
                    configured_by: commit(from),
                    configuration: digest,
                    change: None,
                },
            )
            .await,
        );
        let builder = Principal::Service("builder".parse().unwrap());
        let (actor, envelope) = self.signed(builder.clone(), Command::ClaimJob { job: Some(job) });
        let service = "builder".parse().unwrap();
        self.record(
            actor,
            JobClaimed {
                job,
                service,
                envelope,
            },
        )
        .await;
        let outputs = vec![output.clone()];
        let (actor, envelope) = self.signed(
            builder,
            Command::FinishJob {
                job,
                succeeded: true,
                attestation: digest,
                report: digest,
                outputs: outputs.clone(),
            },
        );
        let finished = JobFinished {
            job,
            outcome: JobOutcome::Succeeded,
            attestation: Some(digest),
            report: Some(digest),
            outputs,
            envelope: Some(envelope),
        };
        self.record(actor, finished).await;
        let built = ArtifactBuilt {
            job,
            repository: repository(),
            commit: commit(from),
            output,
            provenance: digest,
        };
        ArtifactId(self.record(control(), built).await)
    }

    /// A commit of unknown cause, which counts as an agent's; a person accepts it.
    async fn commit_past_us(&mut self, from: &str, to: &str) {
        let body = CommitsUnproven {
            repository: repository(),
            branch: "main".to_owned(),
            from: Some(commit(from)),
            to: commit(to),
            commits: 1,
        };
        let request = RequestId(self.record(control(), body).await);
        let state = self.state();
        let known = &state.requests[&request];
        let statement = Approval {
            ledger: LedgerPoint {
                origin: ORIGIN.to_owned(),
                size: state.size(),
                root: Digest::of(b""),
            },
            request,
            subject: known.subject.clone(),
            task: None,
            checks: None,
            policy: state.policy().unwrap(),
            shown: Digest::of(b""),
            count: 1,
            carry: Carry::Exact,
            approver: "ada".parse().unwrap(),
            key_class: KeyClass::Software,
            expires_index: 1_000_000,
            expires: now().plus_ms(60_000),
            nonce: self.next_nonce(),
        };
        let payload = json!({
            "predicateType": portcullis_model::statement::APPROVAL_TYPE,
            "predicate": statement,
        });
        let envelope = envelope(
            "application/vnd.in-toto+json",
            &canonical::to_vec(&payload).unwrap(),
        );
        let ada = by_key(Principal::Human("ada".parse().unwrap()));
        self.record(
            ada,
            ApprovalGiven {
                statement,
                envelope,
            },
        )
        .await;
    }

    /// A person pauses or resumes.
    async fn step(&mut self, id: RolloutId, step: Step) {
        let why = Digest::of(b"test");
        let command = if step == Step::Pause {
            Command::PauseRollout { rollout: id, why }
        } else {
            Command::ResumeRollout { rollout: id, why }
        };
        let (actor, envelope) = self.signed(Principal::Human("ada".parse().unwrap()), command);
        let rollout = self.state().rollouts[&id].clone();
        let body = RolloutStepped {
            rollout: id,
            step,
            weight: rollout.weight,
            epoch: rollout.epoch,
            code: "test".to_owned(),
            evidence: Default::default(),
            state: serde_json::Value::Null,
            envelope: Some(envelope),
        };
        self.record(actor, body).await;
    }

    async fn admit(&self, artifact: ArtifactId) -> ReleaseId {
        let state = self.state();
        let covered = coverage(&state, artifact, &staging()).unwrap();
        let body = ReleaseAdmitted {
            artifact,
            environment: staging(),
            request: None,
            changes: covered.changes,
            agent_work: covered.agent_work,
            verification: Digest::of(b""),
            decision: DecisionRecord {
                policy: state.policy().unwrap(),
                at: state.size(),
                rules: Vec::new(),
            },
        };
        ReleaseId(self.record(control(), body).await)
    }

    fn rollout(&self, release: ReleaseId) -> Option<Arc<Rollout>> {
        self.state()
            .rollouts
            .values()
            .find(|rollout| rollout.release == release)
            .cloned()
    }

    fn ended(&self, release: ReleaseId) -> Arc<Rollout> {
        eventually("the rollout ends", || {
            self.rollout(release)
                .is_some_and(|rollout| !rollout.status.is_active())
        });
        self.rollout(release).unwrap()
    }

    fn stable(&self) -> Option<ReleaseId> {
        self.state().environments[&staging()].stable
    }

    fn lives(&self, release: ReleaseId) -> bool {
        environments::lives(&Place::new(&self.home, &staging()).release(release))
    }
}

fn repository() -> RepositoryId {
    "shop".parse().unwrap()
}

fn staging() -> EnvironmentId {
    "staging".parse().unwrap()
}

fn commit(letter: &str) -> GitOid {
    letter.repeat(40).parse().unwrap()
}

fn by_key(principal: Principal) -> Actor {
    Actor {
        key: Some("SHA256:test".to_owned()),
        key_class: Some(KeyClass::Software),
        ..Actor::unsigned(principal)
    }
}

fn envelope(payload_type: &str, bytes: &[u8]) -> Envelope {
    let text = base64::engine::general_purpose::STANDARD.encode(bytes);
    let signature = EnvelopeSignature {
        keyid: String::new(),
        sig: String::new(),
    };
    Envelope {
        payload_type: payload_type.to_owned(),
        payload: text,
        signatures: vec![signature],
    }
}

fn service(name: &str, status: u16) -> String {
    format!(
        r#"#!/usr/bin/env python3
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response({status})
        self.send_header("content-length", "1")
        self.end_headers()
        self.wfile.write(b"{name}")
    def log_message(self, *words):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"#
    )
}

fn get(port: u16) -> Option<(String, bool)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .ok()?;
    write!(
        stream,
        "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((body.to_owned(), head.contains(" 200 ")))
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// People who use the service all the while.
struct Users {
    stop: Arc<AtomicBool>,
    failed: Arc<AtomicU64>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Users {
    fn of(port: u16) -> Self {
        let (stop, failed) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let threads = (0..2).map(|_| {
            let (stop, failed) = (Arc::clone(&stop), Arc::clone(&failed));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    if !get(port).is_some_and(|(_, good)| good) {
                        failed.fetch_add(1, Ordering::Relaxed);
                    }
                    std::thread::sleep(Duration::from_millis(8));
                }
            })
        });
        let threads = threads.collect();
        Self {
            stop,
            failed,
            threads,
        }
    }

    fn leave(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        self.failed.load(Ordering::Relaxed)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_good_release_is_promoted_a_bad_one_taken_back_and_the_breaker_reverts() {
    let directory = tempfile::tempdir().unwrap();
    let mut world = World::new(directory.path()).await;
    world.commit_past_us("a", "b").await;
    world.commit_past_us("b", "c").await;
    let first = world.artifact("a", &service("a", 200)).await;
    let good = world.artifact("b", &service("b", 200)).await;
    let bad = world.artifact("c", &service("c", 500)).await;
    world.work();

    // Nothing serves yet and no agent had a hand in it: all traffic at once.
    let first = world.admit(first).await;
    assert_eq!(world.ended(first).status, RolloutStatus::Completed);
    assert_eq!(get(world.port), Some(("a".to_owned(), true)));

    // A canary, step by step; a server that is replaced in the middle changes nothing.
    let users = Users::of(world.port);
    let good = world.admit(good).await;
    eventually("the first step", || {
        world
            .rollout(good)
            .is_some_and(|rollout| rollout.weight == 200 && rollout.applied)
    });
    assert!(world.rollout(good).unwrap().canary);
    // Paused, it stays where it is, and is watched all the while.
    let id = world.rollout(good).unwrap().id;
    world.step(id, Step::Pause).await;
    tokio::time::sleep(Duration::from_millis(3_500)).await;
    let proxy = ProxyControl::new(Place::new(&world.home, &staging()).proxy_socket());
    let stats = proxy.stats().await.unwrap();
    assert_eq!(stats.effective_weight_per_mille, 200);
    assert!(stats.heartbeat_age_ms.unwrap() < 3_000, "{stats:?}");
    assert_eq!(world.rollout(good).unwrap().weight, 200);
    world.step(id, Step::Resume).await;
    world.restart().await;
    let ended = world.ended(good);
    assert_eq!(
        (ended.status, ended.code.as_str()),
        (RolloutStatus::Completed, "complete")
    );
    assert_eq!(users.leave(), 0);
    assert_eq!(get(world.port), Some(("b".to_owned(), true)));
    assert!(world.lives(first), "the way back stays warm");

    // Harm is seen and bounded.
    let users = Users::of(world.port);
    let bad = world.admit(bad).await;
    let ended = world.ended(bad);
    assert_eq!(ended.status, RolloutStatus::RolledBack);
    assert!(
        ["harm", "errors"].contains(&ended.code.as_str()),
        "{}",
        ended.code
    );
    assert_eq!(get(world.port), Some(("b".to_owned(), true)));
    let failed = users.leave();
    assert!(failed > 0 && failed < 60, "{failed} requests failed");
    assert_eq!(world.stable(), Some(good));
    eventually("the bad one is stopped", || !world.lives(bad));

    // The breaker, told to revert, goes back to before the agents' work.
    let body = BreakerTripped {
        scope: BreakerScope::Everywhere,
        why: Digest::of(b"test"),
        revert: true,
        envelope: None,
    };
    world.record(control(), body).await;
    eventually("reverted", || world.stable() == Some(first));
    assert_eq!(get(world.port), Some(("a".to_owned(), true)));
    eventually("what nobody needs is stopped", || !world.lives(good));

    // A process that is killed comes back, and it is told.
    let place = Place::new(&world.home, &staging()).release(first);
    let supervisor = process::owner_of(&place.control_socket()).unwrap();
    kill_9(supervisor.as_raw_nonzero().get());
    eventually("an incident", || {
        world
            .state()
            .incidents
            .iter()
            .any(|(_, incident)| incident.code == "release-died")
    });
    eventually("it serves again", || {
        get(world.port) == Some(("a".to_owned(), true))
    });
}

fn kill_9(pid: i32) {
    let killed = std::process::Command::new("kill")
        .args(["-9", &pid.to_string()])
        .status();
    assert!(killed.is_ok_and(|status| status.success()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_full_disk_stops_no_way_back() {
    let directory = tempfile::tempdir().unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=64m,mode=700", "tmpfs"])
        .arg(directory.path())
        .status()
        .is_ok_and(|status| status.success());
    if !mounted {
        eprintln!("skipped: only root mounts a small disk");
        return;
    }
    {
        let mut world = World::new(directory.path()).await;
        world.commit_past_us("a", "b").await;
        world.commit_past_us("b", "c").await;
        let first = world.artifact("a", &service("a", 200)).await;
        let second = world.artifact("b", &service("b", 200)).await;
        let third = world.artifact("c", &service("c", 200)).await;
        world.work();
        let first = world.admit(first).await;
        assert_eq!(world.ended(first).status, RolloutStatus::Completed);
        let users = Users::of(world.port);
        let second = world.admit(second).await;
        assert_eq!(world.ended(second).status, RolloutStatus::Completed);
        let third = world.admit(third).await;
        eventually("the first step", || {
            world
                .rollout(third)
                .is_some_and(|rollout| rollout.weight == 200 && rollout.applied)
        });
        fill(directory.path());

        // The breaker is recorded from the reserve, and takes the rollout back.
        let body = BreakerTripped {
            scope: BreakerScope::Everywhere,
            why: Digest::of(b"test"),
            revert: false,
            envelope: None,
        };
        world.record(control(), body).await;
        let ended = world.ended(third);
        assert_eq!(
            (ended.status, ended.code.as_str()),
            (RolloutStatus::RolledBack, "breaker")
        );
        assert_eq!(
            (world.stable(), get(world.port)),
            (Some(second), Some(("b".to_owned(), true)))
        );

        // And so is a way back to the release before.
        let app = world.app();
        let epoch = world.state().environments[&staging()].epoch + 1;
        rollout::serve_alone(&app, &staging(), first, epoch)
            .await
            .unwrap();
        assert_eq!(get(world.port), Some(("a".to_owned(), true)));
        let body = EnvironmentReverted {
            environment: staging(),
            to: Some(first),
            epoch,
            why: Digest::of(b"test"),
            envelope: None,
        };
        world.record(control(), body).await;
        assert_eq!(world.stable(), Some(first));
        assert_eq!(users.leave(), 0);
        std::fs::remove_file(directory.path().join("filler")).unwrap();
        let running = world.running.take().unwrap();
        for task in running.tasks {
            task.abort();
            let _aborted = task.await;
        }
        drop(app);
        eventually("all work has ended", || {
            Arc::strong_count(&running.app) == 1
        });
        drop(running.app);
        running.ledger.close().unwrap();
    }
    let unmounted = std::process::Command::new("umount")
        .arg(directory.path())
        .status();
    assert!(unmounted.is_ok_and(|status| status.success()));
}

/// Takes all space there is.
fn fill(directory: &std::path::Path) {
    let mut file = std::fs::File::create(directory.join("filler")).unwrap();
    let mut size = 1024 * 1024;
    while size > 0 {
        if file.write_all(&vec![1; size]).is_err() {
            size /= 2;
        }
    }
}
