//! A host socket through which one port inside can be reached, for released services.
//!
//! A process of its own: outside of the sandbox's pid namespace and mounts (so that nothing
//! inside can see or signal it), within its network namespace, without rights.

use std::fs;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use portcullis_model::Refusal;
use rustix::process::{
    DumpableBehavior, Pid, Signal, set_dumpable_behavior, set_parent_process_death_signal,
};

use super::confine;
use crate::plan::PlanExpose;
use crate::sys::{self, Fork, SingleThreaded};

/// Most connections at a time; each costs two threads with small stacks.
const CONNECTIONS_MAX: usize = 512;
/// Stack of a relaying thread in bytes: it holds one buffer.
const STACK_BYTES: usize = 128 * 1024;
/// Bytes moved at a time.
const BUFFER_BYTES: usize = 32 * 1024;
/// Longest that the port inside gets to accept.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// The namespaces of a run that a bridge joins.
pub(super) struct Namespaces {
    user: OwnedFd,
    network: OwnedFd,
}

impl Namespaces {
    /// Those of a process that hasn't yet been closed to looks from outside.
    pub(super) fn of(process: Pid) -> io::Result<Self> {
        let open = |name: &str| {
            let path = format!("/proc/{}/ns/{name}", process.as_raw_pid());
            fs::File::open(path).map(OwnedFd::from)
        };
        Ok(Self {
            user: open("user")?,
            network: open("net")?,
        })
    }
}

/// The listening end on the host; its path goes when it is dropped.
pub(super) struct Socket {
    listener: UnixListener,
    path: std::path::PathBuf,
}

impl Socket {
    /// Binds it. A dead socket in the way is removed; anything else refuses the start.
    pub(super) fn bind(expose: &PlanExpose) -> Result<Self, Refusal> {
        let path = expose.socket.to_path();
        let refused = |why: &str| {
            Refusal::conflict("expose-socket", "the socket of the service can't be opened")
                .expected("a path in a directory of yours where no living socket is")
                .received(&format!("{}: {why}", path.display()))
        };
        if let Ok(data) = fs::symlink_metadata(&path) {
            if !data.file_type().is_socket() {
                return Err(refused("something else is there"));
            }
            if UnixStream::connect(&path).is_ok() {
                return Err(refused("another process serves it"));
            }
            fs::remove_file(&path).map_err(|error| refused(&error.to_string()))?;
        }
        // Nobody but its owner may connect before the mode is set.
        let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
        let bound = UnixListener::bind(&path);
        rustix::process::umask(before);
        let listener = bound.map_err(|error| refused(&error.to_string()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(expose.mode & 0o777))
            .map_err(|error| refused(&error.to_string()))?;
        Ok(Self { listener, path })
    }

    /// Starts the relaying process.
    pub(super) fn serve(
        &self,
        single: SingleThreaded,
        inside: &Namespaces,
        inside_port: u16,
    ) -> io::Result<Pid> {
        let supervisor = rustix::process::getpid();
        match sys::fork(single, 0)? {
            Fork::Parent(child) => Ok(child),
            Fork::Child => {
                let relayed = relay(&self.listener, inside, inside_port, supervisor);
                let code = u8::from(relayed.is_err());
                sys::exit_now(code)
            }
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_file(Path::new(&self.path));
    }
}

fn relay(
    listener: &UnixListener,
    inside: &Namespaces,
    port: u16,
    supervisor: Pid,
) -> io::Result<()> {
    // The supervisor's other descriptors are none of its business.
    sys::close_all_but(&[
        listener.as_fd(),
        inside.user.as_fd(),
        inside.network.as_fd(),
    ])?;
    // Joining the network needs rights in the user namespace that owns it, which joining that
    // gives; they are dropped at once, and with them the supervisor's user.
    sys::join_namespace(inside.user.as_fd(), libc::CLONE_NEWUSER)?;
    sys::join_namespace(inside.network.as_fd(), libc::CLONE_NEWNET)?;
    confine::become_agent()?;
    confine::drop_capabilities()?;
    rustix::thread::set_no_new_privs(true)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if rustix::process::getppid() != Some(supervisor) {
        // It died before it could be noticed.
        return Err(io::ErrorKind::NotConnected.into());
    }
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let live = Arc::new(AtomicUsize::new(0));
    loop {
        let Ok((outside, _)) = listener.accept() else {
            // Out of descriptors, or a client that gave up: the next one may do better.
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        if live.fetch_add(1, Ordering::AcqRel) >= CONNECTIONS_MAX {
            live.fetch_sub(1, Ordering::AcqRel);
            continue;
        }
        let counter = Arc::clone(&live);
        let started = std::thread::Builder::new()
            .stack_size(STACK_BYTES)
            .spawn(move || {
                let _ = connect_through(outside, address);
                counter.fetch_sub(1, Ordering::AcqRel);
            });
        if started.is_err() {
            live.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// Joins one connection to one of the service's; closed with nothing said if that doesn't accept.
fn connect_through(outside: UnixStream, address: SocketAddr) -> io::Result<()> {
    let inside = TcpStream::connect_timeout(&address, CONNECT_PATIENCE)?;
    inside.set_nodelay(true)?;
    let (outside_again, inside_again) = (outside.try_clone()?, inside.try_clone()?);
    let back = std::thread::Builder::new()
        .stack_size(STACK_BYTES)
        .spawn(move || {
            copy(&inside_again, &outside_again);
            let _ = outside_again.shutdown(Shutdown::Write);
        })?;
    copy(&outside, &inside);
    let _ = inside.shutdown(Shutdown::Write);
    let _ = back.join();
    Ok(())
}

fn copy(mut from: impl io::Read, mut to: impl io::Write) {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => {
                let part = buffer.get(..count).unwrap_or_default();
                if to.write_all(part).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}
