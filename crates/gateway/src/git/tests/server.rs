//! A tiny server that wires the blocks as a handler does, and a client that is stock git.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use portcullis_model::{ChangeId, LedgerIndex, Recorded, Recorder, Refusal};

use crate::git::body::BodyReader;
use crate::git::fetch::{self, FETCH_REQUEST_MAX_BYTES, FetchView, ViewRef};
use crate::git::quarantine::{PackLimits, Quarantine, RevisionRef};
use crate::git::receive::{self, PushRequest};
use crate::git::report::{RefReport, RefResult, Report, refusal_lines};
use crate::git::rules::{FirstLook, UpdateKind, classify};
use crate::git::{Access, Git, Repository, Upstream};

/// What the handler was allowed to do.
pub(crate) struct Permit;

/// A ledger that takes everything.
pub(crate) struct Ledger;

impl Recorder for Ledger {
    type Command = ();

    async fn append(&self, (): ()) -> Result<LedgerIndex, Refusal> {
        Ok(1)
    }
}

pub(crate) async fn recorded() -> Recorded<Permit> {
    Ledger.record(Permit, ()).await.unwrap()
}

/// What a test may turn.
#[derive(Clone)]
pub(crate) struct Knobs {
    pub(crate) limits: PackLimits,
    pub(crate) nonce: Option<String>,
    /// `Authorization` that every request must bear.
    pub(crate) authorization: Option<String>,
}

pub(crate) struct World {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) git: Git,
    pub(crate) repository: Repository,
    pub(crate) view: FetchView,
    pub(crate) url: String,
    pub(crate) knobs: Arc<Mutex<Knobs>>,
    pub(crate) pushes: Arc<Mutex<Vec<crate::git::push::PushHeader>>>,
}

impl World {
    /// An upstream with three commits on `main`, a mirror, a view, a server.
    pub(crate) async fn new() -> Self {
        Self::with_format("sha1").await
    }

    pub(crate) async fn with_format(format: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let upstream = root.join("upstream");
        let format = format!("--object-format={format}");
        run(root, &["init", "-q", "-b", "main", &format, "upstream"]);
        for n in 1..=3 {
            write(
                &upstream,
                &format!("dir/file{n}.txt"),
                &format!("content {n}\n"),
            );
            write(&upstream, "readme.md", &format!("version {n}\n"));
            run(&upstream, &["add", "."]);
            run(&upstream, &["commit", "-qm", &format!("commit {n}")]);
        }
        run(&upstream, &["tag", "v1"]);
        let git = Git::open(&root.join("home")).await.unwrap();
        let repository = Repository::open_or_create(
            &git,
            &root.join("repository"),
            Upstream::Path(upstream),
            &Access::None,
        )
        .await
        .unwrap();
        let tip = repository.tip("main").await.unwrap().unwrap();
        let refs = [ViewRef::branch("main", tip).unwrap()];
        let view = FetchView::create(&repository, "run-7", "main", &refs)
            .await
            .unwrap();
        let knobs = Arc::new(Mutex::new(Knobs {
            limits: PackLimits::default(),
            nonce: None,
            authorization: None,
        }));
        let pushes = Arc::new(Mutex::new(Vec::new()));
        let url = serve(view.clone(), knobs.clone(), pushes.clone()).await;
        Self {
            directory,
            git,
            repository,
            view,
            url,
            knobs,
            pushes,
        }
    }

    pub(crate) fn root(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn upstream(&self) -> PathBuf {
        self.root().join("upstream")
    }

    /// A clone by the stock client.
    pub(crate) async fn clone_into(&self, name: &str, options: &[&str]) -> PathBuf {
        let mut args = vec!["clone", "-q"];
        args.extend(options);
        args.extend([self.url.as_str(), name]);
        ok(&client(self.root(), &args).await);
        self.root().join(name)
    }

    /// One commit in a clone.
    pub(crate) fn commit(&self, clone: &Path, path: &str, content: &str) -> String {
        write(clone, path, content);
        run(clone, &["add", "."]);
        run(clone, &["commit", "-qm", "work"]);
        run(clone, &["rev-parse", "HEAD"])
    }

    /// Every object file below the repository's directory.
    pub(crate) fn object_files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut waiting = vec![self.repository.dir().to_owned()];
        while let Some(dir) = waiting.pop() {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    waiting.push(path);
                } else if path
                    .components()
                    .any(|c| c.as_os_str() == "objects" || c.as_os_str() == "quarantine")
                {
                    found.push(path);
                }
            }
        }
        found.sort();
        found
    }
}

pub(crate) fn write(dir: &Path, path: &str, content: &str) {
    let file = dir.join(path);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, content).unwrap();
}

/// Stock git, as somebody, on this machine.
fn command(dir: &Path, args: &[&str]) -> tokio::process::Command {
    command_by(Path::new("git"), dir, args)
}

fn command_by(program: &Path, dir: &Path, args: &[&str]) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(program);
    command
        .current_dir(dir)
        .args(args)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env_remove("http_proxy")
        .env_remove("HTTP_PROXY")
        .env("no_proxy", "*")
        .env("GIT_AUTHOR_NAME", "Agent")
        .env("GIT_AUTHOR_EMAIL", "agent@example")
        .env("GIT_COMMITTER_NAME", "Agent")
        .env("GIT_COMMITTER_EMAIL", "agent@example")
        .kill_on_drop(true);
    command
}

/// A certain git, as somebody.
pub(crate) async fn client_by(program: &Path, dir: &Path, args: &[&str]) -> Output {
    command_by(program, dir, args).output().await.unwrap()
}

pub(crate) async fn client(dir: &Path, args: &[&str]) -> Output {
    command(dir, args).output().await.unwrap()
}

/// Git that must succeed, with no server in it.
pub(crate) fn run(dir: &Path, args: &[&str]) -> String {
    let output = command(dir, args).into_std().output().unwrap();
    ok(&output);
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

pub(crate) fn ok(output: &Output) {
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

pub(crate) fn said(output: &Output) -> String {
    assert!(!output.status.success(), "it should have been refused");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

type Answer = Response<BoxBody<Bytes, std::io::Error>>;

pub(crate) async fn serve(
    view: FetchView,
    knobs: Arc<Mutex<Knobs>>,
    pushes: Arc<Mutex<Vec<crate::git::push::PushHeader>>>,
) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/r", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (view, knobs, pushes) = (view.clone(), knobs.clone(), pushes.clone());
            let service = hyper::service::service_fn(move |request| {
                let (view, knobs) = (view.clone(), knobs.lock().unwrap().clone());
                let pushes = pushes.clone();
                async move { Ok::<_, Infallible>(handle(&view, &knobs, &pushes, request).await) }
            });
            tokio::spawn(async move {
                let _ = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    url
}

async fn handle(
    view: &FetchView,
    knobs: &Knobs,
    pushes: &Mutex<Vec<crate::git::push::PushHeader>>,
    request: Request<Incoming>,
) -> Answer {
    let header = |name: &str| {
        let value = request.headers().get(name)?;
        value.to_str().ok().map(str::to_owned)
    };
    if knobs.authorization.is_some() && header("authorization") != knobs.authorization {
        return Response::builder()
            .status(StatusCode::UNAUTHORIZED)
            .header("www-authenticate", "Basic realm=\"r\"")
            .body(whole(Vec::new()))
            .unwrap();
    }
    let (protocol, encoding) = (header("git-protocol"), header("content-encoding"));
    let query = request.uri().query().unwrap_or_default().to_owned();
    let format = view.repository().format();
    let result = match (request.method(), request.uri().path()) {
        (&Method::GET, "/r/info/refs") if query == "service=git-upload-pack" => view
            .advertise(protocol.as_deref())
            .await
            .map(|body| (fetch::ADVERTISEMENT_TYPE, whole(body))),
        (&Method::GET, "/r/info/refs") if query == "service=git-receive-pack" => {
            let refs = view.refs().unwrap();
            let body = receive::advertise(format, &refs, knobs.nonce.as_deref());
            Ok((receive::ADVERTISEMENT_TYPE, whole(body)))
        }
        (&Method::POST, "/r/git-upload-pack") => {
            let body = BodyReader::new(
                request.into_body(),
                encoding.as_deref(),
                FETCH_REQUEST_MAX_BYTES,
            )
            .unwrap();
            view.serve(recorded().await, protocol.as_deref(), body)
                .map(|served| (fetch::RESULT_TYPE, served.body.boxed()))
        }
        (&Method::POST, "/r/git-receive-pack") => {
            let body = BodyReader::new(request.into_body(), encoding.as_deref(), 1 << 30).unwrap();
            push(view, knobs, pushes, body)
                .await
                .map(|body| (receive::RESULT_TYPE, whole(body)))
        }
        _ => Err(Refusal::not_found("route", request.uri())),
    };
    let (status, kind, body) = match result {
        Ok((kind, body)) => (StatusCode::OK, kind, body),
        Err(refusal) => (
            StatusCode::BAD_REQUEST,
            "text/plain",
            whole(refusal.to_string().into_bytes()),
        ),
    };
    let mut answer = Response::builder().status(status);
    for (name, value) in fetch::NOT_KEPT {
        answer = answer.header(name, value);
    }
    answer.header("content-type", kind).body(body).unwrap()
}

fn whole(body: Vec<u8>) -> BoxBody<Bytes, std::io::Error> {
    Full::new(Bytes::from(body))
        .map_err(|never| match never {})
        .boxed()
}

/// Decides like a small policy: only proposals, nothing in anyone else's name.
async fn push<R: tokio::io::AsyncRead + Unpin>(
    view: &FetchView,
    knobs: &Knobs,
    pushes: &Mutex<Vec<crate::git::push::PushHeader>>,
    body: R,
) -> Result<Vec<u8>, Refusal> {
    let mut request = PushRequest::read(view.repository().format(), body).await?;
    if request.header.is_probe() {
        return Ok(Vec::new());
    }
    let number = {
        let mut pushes = pushes.lock().unwrap();
        pushes.push(request.header.clone());
        pushes.len() as u64
    };
    let denied = request
        .header
        .commands
        .iter()
        .find_map(|command| match classify(command) {
            (FirstLook::Settled(UpdateKind::Propose), _) => None,
            (FirstLook::Settled(kind), name) => Some((kind.as_str(), name.to_owned())),
            (FirstLook::Moves, name) => Some(("move", name.to_owned())),
        });
    if let Some((kind, name)) = denied {
        let refusal = Refusal::denied("update-denied", format!("{kind} of `{name}` is denied"))
            .rule("base.cedar:12 no-direct-updates")
            .next("push to refs/for/main instead");
        return Ok(request.deny(&refusal).await);
    }
    let commands = request.header.commands.clone();
    let received = Quarantine::receive(view, &commands, &mut request.pack, knobs.limits).await;
    let quarantine = match received {
        Ok(quarantine) => quarantine,
        Err(refusal) => return Ok(request.deny(&refusal).await),
    };
    if request.header.is_question() {
        let refusal = Refusal::denied("dry-run", "it would be accepted; nothing was changed");
        drop(quarantine);
        return Ok(request.deny(&refusal).await);
    }
    let head = commands[0].new.clone();
    let revision = RevisionRef {
        change: ChangeId(number),
        revision: 1,
        head: head.clone(),
    };
    match quarantine.migrate(recorded().await, &[revision]).await {
        Ok(names) => {
            let shown = ViewRef {
                name: names[0].clone(),
                oid: head.clone(),
            };
            view.update(&[shown], &[]).await?;
            let report = Report {
                refs: commands
                    .iter()
                    .map(|command| RefReport {
                        name: command.name.clone(),
                        result: RefResult::DoneAs {
                            name: names[0].clone(),
                            old: None,
                            new: head.clone(),
                        },
                    })
                    .collect(),
                lines: vec![format!("change {number}, revision 1")],
                unpack_failed: None,
            };
            Ok(request.answer(&report).await)
        }
        Err(refusal) => {
            let mut report = Report::refused(&request.header, &refusal);
            report.lines = refusal_lines(&refusal);
            Ok(request.answer(&report).await)
        }
    }
}
