//! The real binary, killed, restarted, and on a disk without room.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use portcullis_proxy::{Fallback, ProxyControl};

use crate::support::{Release, eventually, get, routing};

struct Process {
    child: Child,
    address: SocketAddr,
    control: ProxyControl,
}

impl Process {
    /// `wrapper` is a command that gets the proxy's as its arguments.
    async fn start(dir: &Path, state: &Path, wrapper: &[&str]) -> Self {
        let address = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let socket = dir.join("control.sock");
        let file = dir.join("proxy.toml");
        let text = format!(
            "listen = {:?}\ncontrol_socket = {socket:?}\nstate_file = {state:?}\n",
            address.to_string()
        );
        std::fs::write(&file, text).unwrap();
        let binary = env!("CARGO_BIN_EXE_portcullis-proxy");
        let mut command = match wrapper {
            [] => Command::new(binary),
            [program, arguments @ ..] => {
                let mut command = Command::new(program);
                command.args(arguments).arg(binary);
                command
            }
        };
        let child = command.arg(&file).stderr(Stdio::null()).spawn().unwrap();
        let control = ProxyControl::new(socket);
        eventually("the proxy answers", || async {
            control.stats().await.is_ok()
        })
        .await;
        Self {
            child,
            address,
            control,
        }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    async fn page(&self) -> String {
        get(self.address, "/", &[]).await.1
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[tokio::test]
async fn killed_it_comes_back_to_the_last_configuration() {
    let (stable, canary) = (Release::tcp("stable").await, Release::tcp("canary").await);
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let mut last = routing(3, &stable.backend, Some(&canary.backend), 1000);
    last.heartbeat_ttl_ms = 5_000;
    let mut proxy = Process::start(dir.path(), &state, &[]).await;
    assert!(proxy.control.configure(&last).await.unwrap().persisted);
    proxy.control.heartbeat(3).await.unwrap();
    assert_eq!(proxy.page().await, "canary");
    // The heartbeat is written behind the answer's back.
    tokio::time::sleep(Duration::from_millis(100)).await;
    proxy.kill();

    let mut proxy = Process::start(dir.path(), &state, &[]).await;
    let stats = proxy.control.stats().await.unwrap();
    assert_eq!(stats.routing.as_ref(), Some(&last));
    assert_eq!(stats.fallback, None, "the heartbeat is fresh");
    assert_eq!(proxy.page().await, "canary");
    let stale = proxy
        .control
        .configure(&routing(3, &stable.backend, None, 0))
        .await;
    assert_eq!(stale.unwrap_err().code, "proxy-epoch-stale");

    // Commanded to stable, killed at once: it stays there.
    assert!(proxy.control.to_stable(Some(9)).await.unwrap().persisted);
    proxy.kill();
    let proxy = Process::start(dir.path(), &state, &[]).await;
    assert_eq!(proxy.page().await, "stable");
    let stats = proxy.control.stats().await.unwrap();
    assert_eq!(stats.fallback, Some(Fallback::Commanded));
    assert_eq!(stats.epoch_floor, 9);
}

#[tokio::test]
async fn killed_with_a_stale_heartbeat_it_serves_stable() {
    let (stable, canary) = (Release::tcp("stable").await, Release::tcp("canary").await);
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let mut watched = routing(1, &stable.backend, Some(&canary.backend), 1000);
    watched.heartbeat_ttl_ms = 300;
    let mut proxy = Process::start(dir.path(), &state, &[]).await;
    proxy.control.configure(&watched).await.unwrap();
    proxy.kill();
    tokio::time::sleep(Duration::from_millis(400)).await;
    let proxy = Process::start(dir.path(), &state, &[]).await;
    assert_eq!(proxy.page().await, "stable");
    let stats = proxy.control.stats().await.unwrap();
    assert_eq!(stats.fallback, Some(Fallback::HeartbeatLapsed));
}

#[tokio::test]
async fn without_room_for_its_state_it_still_obeys() {
    // Every write to a file fails; the signal that comes with it is ignored.
    let (stable, canary) = (Release::tcp("stable").await, Release::tcp("canary").await);
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let limited = ["sh", "-c", "trap '' XFSZ; ulimit -f 0; exec \"$@\"", "sh"];
    let proxy = Process::start(dir.path(), &state, &limited).await;
    let watched = routing(1, &stable.backend, Some(&canary.backend), 1000);
    let ack = proxy.control.configure(&watched).await.unwrap();
    assert!(!ack.persisted, "it does not claim what is not so");
    assert_eq!(proxy.page().await, "canary");
    proxy.control.heartbeat(1).await.unwrap();
    let ack = proxy.control.to_stable(None).await.unwrap();
    assert!(!ack.persisted);
    assert_eq!(proxy.page().await, "stable");
    assert!(!proxy.control.stats().await.unwrap().persisted);
}

#[tokio::test]
async fn on_a_full_disk_changes_are_durable_all_the_same() {
    use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
    let (stable, canary) = (Release::tcp("stable").await, Release::tcp("canary").await);
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    if let Err(error) = mount(
        "tmpfs",
        &disk,
        "tmpfs",
        MountFlags::empty(),
        Some(c"size=64k"),
    ) {
        // The test before this one covers what an ordinary user can arrange.
        eprintln!("no small disk can be mounted here: {error}");
        return;
    }
    let outcome = tokio::spawn(full_disk(
        dir.path().to_owned(),
        disk.clone(),
        routing(1, &stable.backend, Some(&canary.backend), 1000),
    ))
    .await;
    unmount(&disk, UnmountFlags::DETACH).unwrap();
    outcome.unwrap();
}

async fn full_disk(
    dir: std::path::PathBuf,
    disk: std::path::PathBuf,
    watched: portcullis_proxy::Routing,
) {
    let state = disk.join("state");
    let mut proxy = Process::start(&dir, &state, &[]).await;
    let filler = disk.join("filler");
    assert!(std::fs::write(&filler, vec![1; 1 << 20]).is_err());
    assert!(
        std::fs::write(disk.join("more"), [1; 4_096]).is_err(),
        "full"
    );
    for _ in 0..3 {
        assert!(proxy.control.configure(&watched).await.unwrap().persisted);
    }
    assert_eq!(proxy.page().await, "canary");
    assert!(proxy.control.to_stable(None).await.unwrap().persisted);
    proxy.kill();
    let proxy = Process::start(&dir, &state, &[]).await;
    assert_eq!(proxy.page().await, "stable");
}
