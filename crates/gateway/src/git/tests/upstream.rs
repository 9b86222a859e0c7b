//! Upstreams over HTTPS and SSH: real servers on loopback, with `git http-backend` and `sshd`.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use portcullis_model::GitOid;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use super::server::{recorded, run, write};
use crate::git::land::{Land, Landed};
use crate::git::{Access, Git, Repository, Upstream};
use crate::http::Credential;

/// A bare repository far away with two commits on `main`, and a third prepared beside it.
struct Far {
    directory: tempfile::TempDir,
    /// The commit that shall land.
    next: String,
}

impl Far {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let work = directory.path().join("work");
        run(directory.path(), &["init", "-q", "-b", "main", "work"]);
        for n in 1..=2 {
            write(&work, "a.txt", &format!("{n}\n"));
            run(&work, &["add", "."]);
            run(&work, &["commit", "-qm", "far"]);
        }
        let far = directory.path().join("far/shop.git");
        run(
            directory.path(),
            &["clone", "-q", "--bare", "work", far.to_str().unwrap()],
        );
        run(&far, &["config", "http.receivepack", "true"]);
        write(&work, "b.txt", "next\n");
        run(&work, &["add", "."]);
        run(&work, &["commit", "-qm", "next"]);
        let next = run(&work, &["rev-parse", "HEAD"]);
        Self { directory, next }
    }

    fn root(&self) -> &Path {
        self.directory.path()
    }

    fn bare(&self) -> PathBuf {
        self.root().join("far/shop.git")
    }

    fn tip(&self) -> String {
        run(&self.bare(), &["rev-parse", "main"])
    }

    /// Brings the prepared commit to the mirror as an accepted proposal would be.
    async fn land_of(&self, mirror: &Repository) -> Land {
        let work = self.root().join("work");
        run(
            &mirror.changes_dir(),
            &[
                "-c",
                "core.hooksPath=/dev/null",
                "fetch",
                "-q",
                work.to_str().unwrap(),
                "main:refs/portcullis/changes/1/1",
            ],
        );
        let new: GitOid = self.next.parse().unwrap();
        Land {
            branch: "main".into(),
            old: mirror.tip("main").await.unwrap().unwrap(),
            tree: mirror.objects().commit_info(&new).await.unwrap().tree,
            new,
            diff_of: None,
        }
    }

    fn hook(&self, text: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        let hook = self.bare().join("hooks/pre-receive");
        std::fs::create_dir_all(hook.parent().unwrap()).unwrap();
        std::fs::write(&hook, text).unwrap();
        std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Everything that an upstream may do to a landing: refuse it, move meanwhile, take it.
    async fn try_everything(&self, mirror: &Repository, access: &Access) {
        let land = self.land_of(mirror).await;
        let before = self.tip();
        self.hook("#!/bin/sh\necho 'main is frozen till Monday' >&2\nexit 1\n");
        let refused = failed(mirror.land(recorded().await, &land, access).await);
        assert_eq!(refused.code, "upstream-refused", "{refused}");
        assert_eq!(self.tip(), before);
        std::fs::remove_file(self.bare().join("hooks/pre-receive")).unwrap();
        // Rewritten by somebody else: what we would overwrite is not what we saw.
        let tree = run(&self.bare(), &["rev-parse", "main^{tree}"]);
        let theirs = run(&self.bare(), &["commit-tree", &tree, "-m", "theirs"]);
        run(&self.bare(), &["update-ref", "refs/heads/main", &theirs]);
        let refused = failed(mirror.land(recorded().await, &land, access).await);
        assert_eq!(refused.code, "branch-moved", "{refused}");
        assert_eq!(self.tip(), theirs);
        run(&self.bare(), &["update-ref", "refs/heads/main", &before]);
        let landed = mirror.land(recorded().await, &land, access).await;
        assert_eq!(
            landed,
            Landed::Done {
                observed: land.new.clone()
            }
        );
        assert_eq!(self.tip(), self.next);
        assert_eq!(
            mirror.observe("main", access).await.unwrap(),
            Some(land.new)
        );
    }
}

fn failed(landed: Landed) -> portcullis_model::Refusal {
    match landed {
        Landed::Failed(refusal) => {
            assert!(refusal.next.is_some(), "{refusal}");
            refusal
        }
        Landed::Done { .. } | Landed::Unknown(_) => panic!("{landed:?}"),
    }
}

/// `git http-backend` behind TLS with a password, on loopback; its certificate is at `cert.pem`.
async fn https(far: &Far, authorization: &'static str) -> (String, tokio::task::JoinHandle<()>) {
    let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(far.root().join("cert.pem"), key.cert.pem()).unwrap();
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(
            vec![key.cert.der().clone()],
            rustls::pki_types::PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap(),
        )
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let root = far.root().join("far");
    let server = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, root) = (acceptor.clone(), root.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                let service = hyper::service::service_fn(move |request| {
                    let root = root.clone();
                    async move {
                        Ok::<_, std::convert::Infallible>(
                            backend(&root, authorization, request).await,
                        )
                    }
                });
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    (format!("https://localhost:{port}/shop.git"), server)
}

/// One request as a CGI would get it.
async fn backend(
    root: &Path,
    authorization: &str,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let header = |name: &str| {
        let value = request.headers().get(name);
        value.map_or("", |value| value.to_str().unwrap()).to_owned()
    };
    if header("authorization") != authorization {
        return Response::builder()
            .status(401)
            .header("www-authenticate", "Basic realm=\"far\"")
            .body(Full::default())
            .unwrap();
    }
    let mut child = tokio::process::Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("PATH_INFO", request.uri().path())
        .env("QUERY_STRING", request.uri().query().unwrap_or_default())
        .env("REQUEST_METHOD", request.method().as_str())
        .env("CONTENT_TYPE", header("content-type"))
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("HTTP_GIT_PROTOCOL", header("git-protocol"))
        .env("REMOTE_USER", "portcullis")
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let mut stdin = child.stdin.take().unwrap();
    tokio::spawn(async move {
        let _ = stdin.write_all(&body).await;
    });
    let output = child.wait_with_output().await.unwrap().stdout;
    let end = output
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .unwrap();
    let mut response = Response::builder();
    for line in std::str::from_utf8(&output[..end]).unwrap().lines() {
        let (name, value) = line.split_once(": ").unwrap();
        response = match name {
            "Status" => response.status(value.split(' ').next().unwrap()),
            name => response.header(name, value),
        };
    }
    response
        .body(Full::new(Bytes::copy_from_slice(&output[end + 4..])))
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn landing_over_https_takes_the_password_and_the_authority_that_the_server_holds() {
    let far = Far::new();
    // `user:hunter2` in base64.
    let (url, server) = https(&far, "Basic dXNlcjpodW50ZXIy").await;
    let upstream: Upstream = url.parse().unwrap();
    let password = |text: &str| Access::Password {
        username: "user".into(),
        password: Credential::new(text.into()),
    };
    let git = Git::open(&far.root().join("home")).await.unwrap();
    let dir = far.root().join("mirror");
    let right = password("hunter2");
    let strange = Repository::open_or_create(&git, &dir, upstream.clone(), &right).await;
    assert_eq!(strange.unwrap_err().code, "upstream-refused");
    let git = git.with_authorities(&far.root().join("cert.pem")).unwrap();
    let access = password("wrong");
    let wrong = Repository::open_or_create(&git, &dir, upstream.clone(), &access).await;
    assert_eq!(wrong.unwrap_err().code, "upstream-refused");
    let access = right;
    let mirror = Repository::open_or_create(&git, &dir, upstream, &access)
        .await
        .unwrap();
    far.try_everything(&mirror, &access).await;
    let found = std::process::Command::new("grep")
        .args(["-r", "hunter2"])
        .arg(far.root())
        .output()
        .unwrap();
    assert!(found.stdout.is_empty(), "{found:?}");
    // Down: nobody knows, and nothing is lost here.
    server.abort();
    let _ = server.await;
    let land = Land {
        old: mirror.tip("main").await.unwrap().unwrap(),
        ..far.land_of(&mirror).await
    };
    let landed = mirror.land(recorded().await, &land, &access).await;
    let Landed::Unknown(refusal) = landed else {
        panic!("{landed:?}")
    };
    assert_eq!(refusal.code, "upstream-unreachable", "{refusal}");
    assert_eq!(
        mirror.tip("main").await.unwrap().unwrap().as_str(),
        far.next
    );
}

/// An `sshd` for each connection, on a port of the system's choice.
async fn sshd(far: &Far) -> u16 {
    for name in ["host", "client", "stranger"] {
        let file = far.root().join(name);
        let made = std::process::Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(&file)
            .status()
            .unwrap();
        assert!(made.success());
    }
    let root = far.root().display();
    let config = format!(
        "HostKey {root}/host\nAuthorizedKeysFile {root}/client.pub\nStrictModes no\n\
         UsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\nAcceptEnv GIT_PROTOCOL\n"
    );
    std::fs::write(far.root().join("sshd_config"), config).unwrap();
    if rustix::process::geteuid().is_root() {
        // Debian makes it when its own service starts.
        std::fs::create_dir_all("/run/sshd").unwrap();
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let file = far.root().join("sshd_config");
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let stream = stream.into_std().unwrap();
            stream.set_nonblocking(false).unwrap();
            let output = stream.try_clone().unwrap();
            let child = tokio::process::Command::new("/usr/sbin/sshd")
                .args(["-i", "-e", "-f"])
                .arg(&file)
                .stdin(std::os::fd::OwnedFd::from(stream))
                .stdout(std::os::fd::OwnedFd::from(output))
                .stderr(Stdio::null())
                .kill_on_drop(true)
                .spawn();
            let mut child = child.unwrap();
            tokio::spawn(async move { child.wait().await });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn landing_over_ssh_takes_the_key_and_the_host_key_that_the_server_holds() {
    let far = Far::new();
    let port = sshd(&far).await;
    let user = std::process::Command::new("id")
        .arg("-un")
        .output()
        .unwrap();
    let user = String::from_utf8(user.stdout).unwrap().trim().to_owned();
    let url = format!("ssh://{user}@127.0.0.1:{port}{}", far.bare().display());
    let upstream: Upstream = url.parse().unwrap();
    let known = |name: &str, key: &str| {
        let public = std::fs::read_to_string(far.root().join(key)).unwrap();
        let file = far.root().join(name);
        std::fs::write(&file, format!("[127.0.0.1]:{port} {public}")).unwrap();
        file
    };
    let access = |key: &str, known_hosts: PathBuf| Access::SshKey {
        key_file: far.root().join(key),
        known_hosts,
    };
    let git = Git::open(&far.root().join("home")).await.unwrap();
    let dir = far.root().join("mirror");
    let right = known("known", "host.pub");
    for access in [
        access("client", known("other-host", "stranger.pub")),
        access("stranger", right.clone()),
    ] {
        let refused = Repository::open_or_create(&git, &dir, upstream.clone(), &access)
            .await
            .unwrap_err();
        assert_eq!(refused.code, "upstream-refused", "{refused}");
    }
    let access = access("client", right);
    let mirror = Repository::open_or_create(&git, &dir, upstream, &access)
        .await
        .unwrap();
    far.try_everything(&mirror, &access).await;
}
