//! Releases and proxies as real processes: they outlive whoever started them, are found again,
//! start again when they die, go back to stable on a full disk, and end when told to.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::indexing_slicing,
    reason = "a test that can't go on says so by panicking"
)]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use portcullis_model::statement::Output;
use portcullis_model::{Digest, ReleaseId};
use portcullis_proxy::Routing;
use portcullis_server::environments::control::{self, Phase};
use portcullis_server::environments::{
    self, Place, healthy, install, process, proxy_up, release_down, release_up,
};
use portcullis_server::home::Home;
use portcullis_server::worker::rollout::traffic::{alone, last_of, proxy_epoch, take_over};
use tempfile::TempDir;

/// Longest that anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A home with one environment; dropped, everything in it is stopped.
struct Site {
    home: Home,
    place: Place,
    port: u16,
    directory: Option<TempDir>,
}

impl Site {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let root = directory.path().to_owned();
        let mut site = Self::at(&root, free_port());
        site.directory = Some(directory);
        site
    }

    fn at(root: &Path, port: u16) -> Self {
        let home = Home::new(root);
        let program = env!("CARGO_BIN_EXE_portcullis");
        let place = Place::with_program(home.environments().join("staging"), program);
        Self {
            home,
            place,
            port,
            directory: None,
        }
    }

    /// Installs and starts a release; waits until it answers.
    async fn release(&self, id: u64, script: &str) -> environments::ReleasePlace {
        let release = self.install(id, script);
        release_up(&release).await.unwrap();
        healthy(&release, PATIENCE).await.unwrap_or_else(|refusal| {
            panic!(
                "{refusal}\n{}",
                fs::read_to_string(release.directory().join("service.log")).unwrap_or_default()
            )
        });
        release
    }

    fn install(&self, id: u64, script: &str) -> environments::ReleasePlace {
        let release = self.place.release(ReleaseId(id));
        let bytes = script.as_bytes();
        let output = Output {
            name: "service".into(),
            digest: Digest::of(bytes),
            size: bytes.len() as u64,
        };
        install(&release, &output, 8080, || Ok(bytes.to_vec())).unwrap();
        release
    }

    fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        head.contains(" 200 ").then(|| body.to_owned())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if self.directory.is_some() {
            environments::stop_all(&self.home).unwrap();
        }
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind(("127.0.0.1", 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// A small web service that says its name, and dies or tells about its surroundings when asked.
fn service(name: &str) -> String {
    format!(
        r#"#!/usr/bin/env python3
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/die":
            os._exit(3)
        text = "{name}"
        if self.path == "/around":
            devices = [line.split(":")[0].strip() for line in open("/proc/net/dev") if ":" in line]
            text = repr((sorted(os.listdir("/workspace")), devices, os.path.exists("/root/.ssh"), len([p for p in os.listdir("/proc") if p.isdigit()])))
        self.send_response(200)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())
    def log_message(self, *words):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"#
    )
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The part of a server in `kill_9_of_the_starter_leaves_traffic_flowing`: starts all, and waits
/// to be killed.
#[tokio::test]
#[ignore = "a process of another test"]
async fn starter() {
    let Ok(root) = std::env::var("PORTCULLIS_TEST_STARTER") else {
        return;
    };
    let (root, port) = root.rsplit_once(':').unwrap();
    let site = Site::at(Path::new(root), port.parse().unwrap());
    let release = site.release(11, &service("eleven")).await;
    let proxy = proxy_up(&site.place, site.port).await.unwrap();
    proxy
        .configure(&alone(release.backend(), proxy_epoch(1), 7))
        .await
        .unwrap();
    println!("started");
    std::thread::sleep(PATIENCE * 4);
}

#[tokio::test]
async fn kill_9_of_the_starter_leaves_traffic_flowing() {
    let site = Site::new();
    let mut starter = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "environment::starter",
            "--ignored",
            "--nocapture",
        ])
        .env(
            "PORTCULLIS_TEST_STARTER",
            format!("{}:{}", site.home.root().display(), site.port),
        )
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = std::io::BufReader::new(starter.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("started") {
        line.clear();
        let read = std::io::BufRead::read_line(&mut output, &mut line).unwrap();
        assert_ne!(read, 0, "the starter failed");
    }
    assert_eq!(site.get("/").as_deref(), Some("eleven"));
    starter.kill().unwrap();
    starter.wait().unwrap();
    assert_eq!(site.get("/").as_deref(), Some("eleven"));
    // Nothing of the starter's is held by what it left behind.
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();

    let release = site.place.release(ReleaseId(11));
    let before = (
        process::owner_of(&release.control_socket()).unwrap(),
        process::owner_of(&site.place.proxy_socket()).unwrap(),
    );
    // A server that comes back starts the same again, and several at once.
    let again = site.install(11, &service("eleven"));
    let (one, two, proxy, other) = tokio::join!(
        release_up(&again),
        release_up(&release),
        proxy_up(&site.place, site.port),
        proxy_up(&site.place, site.port)
    );
    one.and(two)
        .and(proxy.map(|_| ()))
        .and(other.map(|_| ()))
        .unwrap();
    let after = (
        process::owner_of(&release.control_socket()).unwrap(),
        process::owner_of(&site.place.proxy_socket()).unwrap(),
    );
    assert_eq!(before, after);
    assert_eq!(site.get("/").as_deref(), Some("eleven"));

    let stopped = environments::stop_all(&site.home).unwrap();
    assert_eq!(stopped, ["staging/proxy", "staging/release-11"]);
    assert_eq!(site.get("/"), None);
    assert!(!environments::lives(&release));
    assert_eq!(
        environments::stop_all(&site.home).unwrap(),
        Vec::<String>::new()
    );
}

#[tokio::test]
async fn many_starts_at_once_are_one_process() {
    let site = Site::new();
    let release = site.install(5, &service("five"));
    let starts = (0..6).map(|_| {
        let (release, place) = (release.clone(), site.place.clone());
        let port = site.port;
        tokio::spawn(async move {
            release_up(&release).await.unwrap();
            proxy_up(&place, port).await.unwrap();
        })
    });
    for start in starts.collect::<Vec<_>>() {
        start.await.unwrap();
    }
    healthy(&release, PATIENCE).await.unwrap();
    let words = |needle: &str| {
        fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok())
            .filter(|line| {
                let line = String::from_utf8_lossy(line).into_owned();
                line.contains(&*site.home.root().to_string_lossy()) && line.contains(needle)
            })
            .count()
    };
    eventually("the surplus ones end", || {
        words("\0target\0") == 1 && words("\0proxy\0") == 1
    });
}

#[tokio::test]
async fn a_service_that_dies_is_started_again_and_one_that_cannot_start_is_given_up() {
    let site = Site::new();
    let release = site.release(21, &service("twenty-one")).await;
    let proxy = proxy_up(&site.place, site.port).await.unwrap();
    proxy
        .configure(&alone(release.backend(), proxy_epoch(1), 7))
        .await
        .unwrap();
    assert_eq!(site.get("/die"), None);
    eventually("it is back", || site.get("/").is_some());
    let status = control::status(&release.control_socket()).await.unwrap();
    assert_eq!(
        (status.deaths, status.code.as_deref()),
        (1, Some("exited-3"))
    );

    let broken = site.install(22, "#!/bin/sh\nexit 4\n");
    release_up(&broken).await.unwrap();
    let refusal = healthy(&broken, PATIENCE).await.unwrap_err();
    assert_eq!(
        (refusal.code.as_str(), refusal.received.as_deref()),
        ("start-failed", Some("exited-4"))
    );
    let unreadable = site.install(23, "no program at all");
    release_up(&unreadable).await.unwrap();
    let refusal = healthy(&unreadable, PATIENCE).await.unwrap_err();
    assert_eq!(refusal.code, "start-failed", "{refusal}");
    // A supervisor that gave up is replaced, not kept.
    let before = process::owner_of(&broken.control_socket());
    release_up(&broken).await.unwrap();
    assert_ne!(before, process::owner_of(&broken.control_socket()));
    release_down(&broken).await.unwrap();
    assert!(!environments::lives(&broken));
    assert!(environments::lives(&release));
}

#[tokio::test]
async fn bytes_that_were_altered_are_not_started() {
    let site = Site::new();
    let release = site.release(31, &service("thirty-one")).await;
    release_down(&release).await.unwrap();
    let artifact = release.directory().join("artifact");
    fs::set_permissions(&artifact, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&artifact, service("something else")).unwrap();
    release_up(&release).await.unwrap();
    let refusal = healthy(&release, PATIENCE).await.unwrap_err();
    assert_eq!(refusal.received.as_deref(), Some("artifact-altered"));
    assert_eq!(
        control::status(&release.control_socket())
            .await
            .unwrap()
            .phase,
        Phase::Failed
    );
}

#[tokio::test]
async fn a_release_is_alone_with_its_user_and_its_port() {
    let site = Site::new();
    let release = site.release(41, &service("forty-one")).await;
    let status = control::status(&release.control_socket()).await.unwrap();
    let root = fs::metadata("/proc/self").map(|data| std::os::unix::fs::MetadataExt::uid(&data));
    if root.unwrap() == 0 {
        assert_eq!(status.user, Some(environments::RELEASE_USERS_FROM + 41));
    }
    let proxy = proxy_up(&site.place, site.port).await.unwrap();
    proxy
        .configure(&alone(release.backend(), proxy_epoch(1), 7))
        .await
        .unwrap();
    let around = site.get("/around").unwrap();
    assert!(
        around.starts_with("(['service'], ['lo'], False, "),
        "{around}"
    );
    let processes: usize = around
        .rsplit_once(' ')
        .unwrap()
        .1
        .trim_end_matches(')')
        .parse()
        .unwrap();
    assert!(processes <= 3, "{around}");
}

#[tokio::test]
async fn going_back_works_on_a_full_disk() {
    let directory = TempDir::new().unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=4m,mode=700", "tmpfs"])
        .arg(directory.path())
        .status()
        .is_ok_and(|status| status.success());
    if !mounted {
        eprintln!("skipped: only root mounts a small disk");
        return;
    }
    let site = Site::at(directory.path(), free_port());
    let (stable, canary) = (
        site.release(51, &service("stable")).await,
        site.release(52, &service("canary")).await,
    );
    let proxy = proxy_up(&site.place, site.port).await.unwrap();
    let routing = Routing {
        canary: Some(canary.backend()),
        weight_per_mille: 1_000,
        ..alone(stable.backend(), proxy_epoch(3), 7)
    };
    proxy.configure(&routing).await.unwrap();
    assert_eq!(site.get("/").as_deref(), Some("canary"));

    fill(directory.path());
    proxy.to_stable(Some(last_of(3))).await.unwrap();
    assert_eq!(site.get("/").as_deref(), Some("stable"));
    // What was still on its way comes too late.
    assert!(
        proxy
            .configure(&Routing {
                epoch: proxy_epoch(3) + 1,
                ..routing
            })
            .await
            .is_err()
    );
    // Forward for good, and back again by taking over from a release that is called stable.
    let forward = alone(canary.backend(), proxy_epoch(4), 7);
    proxy.configure(&forward).await.unwrap();
    assert_eq!(site.get("/").as_deref(), Some("canary"));
    release_up(&stable).await.unwrap();
    take_over(&proxy, &stable.backend(), last_of(4))
        .await
        .unwrap();
    assert_eq!(site.get("/").as_deref(), Some("stable"));
    // Saying it again changes nothing, and the next recorded epoch is above it.
    let told = take_over(&proxy, &stable.backend(), last_of(4))
        .await
        .unwrap();
    assert_eq!(told, last_of(4));
    assert!(told < proxy_epoch(5));
    // A service that dies on the full disk comes back too.
    assert_eq!(site.get("/die"), None);
    eventually("it is back", || site.get("/").as_deref() == Some("stable"));

    environments::stop_all(&site.home).unwrap();
    let unmounted = Command::new("umount").arg(directory.path()).status();
    assert!(unmounted.is_ok_and(|status| status.success()));
}

/// Takes all space there is.
fn fill(directory: &Path) {
    let mut file = fs::File::create(directory.join("filler")).unwrap();
    let mut size = 64 * 1024;
    while size > 0 {
        if file.write_all(&vec![1; size]).is_err() {
            size /= 2;
        }
    }
    assert!(fs::write(directory.join("more"), [1; 4096]).is_err());
}
