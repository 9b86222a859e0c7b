//! The root that the command sees: built on a tmpfs, entered by `pivot_root`, then read-only.
//!
//! The host's paths are opened as detached mounts first ([`Sources`]), by the supervisor where it
//! is privileged (it may reach what the run's user may not, such as a toolchain below a private
//! home directory), else by init with the rights of the user. Only then is anything mounted.

use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use portcullis_model::Refusal;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, open, openat, openat2, symlinkat};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount,
    mount_change, move_mount, open_tree, unmount,
};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use crate::Protection;
use crate::plan::Plan;
use crate::spec::{AGENT_GID, AGENT_UID, HOME, Limits, RunAs, WORKSPACE};
use crate::sys::{
    self, Fork, MOUNT_NO_DEVICES, MOUNT_NO_EXEC, MOUNT_NO_SUID, MOUNT_READ_ONLY, SingleThreaded,
};

/// Device nodes that are visible inside; all harmless to everybody.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// Files of `/proc` that tell about the machine or steer it: covered by an empty one.
const PROC_COVERED: [&str; 20] = [
    "cmdline",
    "config.gz",
    "diskstats",
    "iomem",
    "ioports",
    "modules",
    "partitions",
    "softirqs",
    "interrupts",
    "latency_stats",
    "timer_stats",
    "kcore",
    "keys",
    "key-users",
    "kallsyms",
    "kmsg",
    "timer_list",
    "sched_debug",
    "sysrq-trigger",
    "slabinfo",
];
/// Directories of `/proc` that tell about the machine: covered by an empty one.
const PROC_EMPTIED: [&str; 4] = ["acpi", "scsi", "asound", "driver"];
/// Directories of `/proc` that steer the machine: read-only.
const PROC_READ_ONLY: [&str; 4] = ["sys", "fs", "irq", "bus"];
/// Terminals of the run's own: their number is bounded, since the kernel has one supply for all but
/// the host's own reserve.
const TERMINALS: &CStr = c"newinstance,ptmxmode=0666,mode=0620,max=256";
/// Size of the tmpfs that is the root itself: mount points and a few small files.
const ROOT_BYTES: u64 = 4 * 1024 * 1024;
/// Most files on one of the run's tmpfs, so that empty files can't eat the kernel's memory.
const TMPFS_FILES: u64 = 1_000_000;

/// Everything of the host that will be visible, as mounts that are attached nowhere yet.
pub(super) struct Sources {
    workspace: OwnedFd,
    binds: Vec<Source>,
    devices: Vec<(&'static str, OwnedFd)>,
}

struct Source {
    inside: PathBuf,
    what: SourceKind,
}

enum SourceKind {
    Mount {
        tree: OwnedFd,
        directory: bool,
    },
    /// A link of the host's own layout (`/bin` → `usr/bin`), made again inside.
    Link(PathBuf),
}

impl Sources {
    /// Opens all. `owner`: the run's user, where the opener is privileged.
    pub(super) fn open(
        plan: &Plan,
        owner: Option<(SingleThreaded, RunAs)>,
    ) -> Result<Self, Refusal> {
        let mut binds = Vec::new();
        for bind in &plan.binds {
            let (host, inside) = (bind.host.to_path(), bind.inside.to_path());
            match Source::open(&host, &inside) {
                Ok(source) => binds.push(source),
                Err(error) if error.kind() == io::ErrorKind::NotFound && !bind.required => {}
                // The call is missing or forbidden as such; of a path alone it would be EACCES.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
                    let why = format!("{}: {error}", host.display());
                    return Err(Protection::MountNamespace.missing(&why));
                }
                Err(error) => {
                    return Err(Refusal::not_found("bind", host.display())
                        .received(&error.to_string())
                        .next("correct the path, or declare it as one that may be missing"));
                }
            }
        }
        // Outer ones first, so that a bind can lie inside another.
        binds.sort_by_key(|source| source.inside.components().count());
        let devices = DEVICES
            .into_iter()
            .map(|name| {
                let tree = detach(&Path::new("/dev").join(name), false)?;
                sys::mount_attributes(tree.as_fd(), MOUNT_NO_SUID | MOUNT_NO_EXEC, None, false)?;
                Ok((name, tree))
            })
            .collect::<io::Result<_>>()
            .map_err(|error| Protection::MountNamespace.missing(&format!("/dev: {error}")))?;
        Ok(Self {
            workspace: open_workspace(plan, owner)?,
            binds,
            devices,
        })
    }
}

impl Source {
    fn open(host: &Path, inside: &Path) -> io::Result<Self> {
        let inside = inside.to_owned();
        let data = fs::symlink_metadata(host)?;
        if data.is_symlink() && host == inside && host.parent() == Some(Path::new("/")) {
            let what = SourceKind::Link(fs::read_link(host)?);
            return Ok(Self { inside, what });
        }
        let data = fs::metadata(host)?;
        if !data.is_dir() && !data.is_file() {
            return Err(io::Error::other("neither a directory nor a regular file"));
        }
        let tree = detach(host, true)?;
        let attributes = MOUNT_READ_ONLY | MOUNT_NO_SUID | MOUNT_NO_DEVICES;
        sys::mount_attributes(tree.as_fd(), attributes, None, true)?;
        let what = SourceKind::Mount {
            tree,
            directory: data.is_dir(),
        };
        Ok(Self { inside, what })
    }
}

fn detach(path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    Ok(open_tree(CWD, path, flags)?)
}

/// The workspace. For a run with a host user of its own the files of the directory's
/// owner are shown as that user's (an id-mapped mount), so that nothing on disk changes hands.
fn open_workspace(plan: &Plan, owner: Option<(SingleThreaded, RunAs)>) -> Result<OwnedFd, Refusal> {
    let path = &plan.workspace.to_path();
    let refused = |error: io::Error| {
        Refusal::not_found("workspace", path.display())
            .expected("a directory that can be mounted")
            .received(&error.to_string())
    };
    let data = fs::metadata(path).map_err(refused)?;
    if !data.is_dir() {
        return Err(refused(io::ErrorKind::NotADirectory.into()));
    }
    let tree = detach(path, owner.is_none()).map_err(refused)?;
    let access = if plan.workspace_read_only {
        MOUNT_READ_ONLY
    } else {
        0
    };
    let attributes = access | MOUNT_NO_SUID | MOUNT_NO_DEVICES;
    let Some((single, run_as)) = owner else {
        sys::mount_attributes(tree.as_fd(), attributes, None, true).map_err(refused)?;
        return Ok(tree);
    };
    if (data.uid(), data.gid()) == (run_as.uid, run_as.gid) {
        sys::mount_attributes(tree.as_fd(), attributes, None, false).map_err(refused)?;
        return Ok(tree);
    }
    let on_disk = RunAs {
        uid: data.uid(),
        gid: data.gid(),
    };
    let ids = id_map(single, on_disk, run_as)
        .map_err(|error| Protection::UserNamespace.missing(&error.to_string()))?;
    sys::mount_attributes(tree.as_fd(), attributes, Some(ids.as_fd()), false)
        .map_err(|error| {
            Refusal::unavailable(
                "workspace-owner",
                "the workspace can't be given to the run's own user: its file system has no id-mapped mounts",
            )
            .expected(&format!("a workspace that belongs to {}:{}", run_as.uid, run_as.gid))
            .received(&format!("owner {}:{} ({error})", on_disk.uid, on_disk.gid))
            .next("put workspaces on ext4, xfs, btrfs or tmpfs (Linux 6.3), or chown the directory and name that user in run_as")
        })?;
    Ok(tree)
}

/// A user namespace that maps one pair of ids to another, made in a child that does nothing.
fn id_map(single: SingleThreaded, from: RunAs, to: RunAs) -> io::Result<OwnedFd> {
    let child = match sys::fork(single, libc::CLONE_NEWUSER)? {
        Fork::Child => loop {
            // Killed by the parent below; by the kernel if the parent is killed first.
            let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
            std::thread::sleep(std::time::Duration::from_secs(1));
            if rustix::process::getppid().is_none_or(Pid::is_init) {
                sys::exit_now(0);
            }
        },
        Fork::Parent(child) => child,
    };
    let of = |file: &str| format!("/proc/{}/{file}", child.as_raw_pid());
    let made = fs::write(of("uid_map"), format!("{} {} 1\n", from.uid, to.uid))
        .and_then(|()| fs::write(of("gid_map"), format!("{} {} 1\n", from.gid, to.gid)))
        .and_then(|()| {
            Ok(open(
                of("ns/user"),
                OFlags::RDONLY | OFlags::CLOEXEC,
                Mode::empty(),
            )?)
        });
    let _ = kill_process(child, Signal::KILL);
    let _ = waitpid(Some(child), WaitOptions::empty());
    made
}

/// Builds the root and enters it. Runs in init, in all its namespaces, as the run's user with
/// the capabilities of the user namespace.
pub(super) fn enter(sources: Sources, limits: &Limits) -> Result<(), Refusal> {
    let at = |step: &'static str| {
        move |error: io::Error| Protection::MountNamespace.missing(&format!("{step}: {error}"))
    };
    // Nothing that is mounted here may travel back to the host.
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .map_err(|error| at("private mounts")(error.into()))?;
    let root = ["/tmp", "/run", "/mnt", "/home"]
        .into_iter()
        .map(Path::new)
        .find(|path| path.is_dir())
        .ok_or_else(|| Protection::MountNamespace.missing("no directory to build the root at"))?;
    tmpfs(root, ROOT_BYTES, 0o755).map_err(at("root"))?;
    let place = |path: &str| root.join(path.trim_start_matches('/'));
    for directory in [
        "proc",
        "dev",
        "etc",
        "home",
        "run",
        "tmp",
        "usr",
        "var",
        "workspace",
    ] {
        directory_at(&place(directory)).map_err(at("directories"))?;
    }
    proc_at(&place("proc"))
        .map_err(|error| Protection::PidNamespace.missing(&format!("/proc: {error}")))?;
    devices_at(&place("dev"), sources.devices, limits.shm_bytes).map_err(at("/dev"))?;
    tmpfs(&place("tmp"), limits.tmp_bytes, 0o1777).map_err(at("/tmp"))?;
    directory_at(&place("home/agent")).map_err(at("home"))?;
    tmpfs(&place(HOME), limits.home_bytes, 0o700).map_err(at("home"))?;
    tmpfs(&place("run"), ROOT_BYTES, 0o755).map_err(at("/run"))?;
    std::os::unix::fs::symlink("/tmp", place("var/tmp")).map_err(at("/var/tmp"))?;
    std::os::unix::fs::symlink("/run", place("var/run")).map_err(at("/var/run"))?;
    files_of_etc(&place("etc")).map_err(at("/etc"))?;
    let top = open(
        root,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|error| at("root")(error.into()))?;
    for source in sources.binds {
        attach(&top, source.what, &source.inside).map_err(|error| {
            Refusal::unavailable("sandbox-bind", "a bind can't be mounted in the sandbox")
                .expected("a mount point that exists or can be made")
                .received(&format!("{}: {error}", source.inside.display()))
        })?;
    }
    attach_tree(&sources.workspace, &place(WORKSPACE)).map_err(at("workspace"))?;
    switch_root(root).map_err(at("pivot_root"))
}

fn switch_root(root: &Path) -> io::Result<()> {
    rustix::process::chdir(root)?;
    sys::pivot_root_here()?;
    // The old root is stacked on the new one at the same place; taking it away leaves the new.
    unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;
    // The root of the mount itself, not a mount made of it: the one in use becomes read-only.
    let top = open(
        "/",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let attributes = MOUNT_READ_ONLY | MOUNT_NO_SUID | MOUNT_NO_DEVICES;
    sys::mount_attributes(top.as_fd(), attributes, None, false)
}

/// Second-layer bound: no user namespace below this one, whatever the filter lets through. Needs
/// a writable `/proc/sys`, so it comes before it is made read-only.
fn no_nested_users(proc: &Path) {
    // Older kernels lack the file; the filter holds alone there.
    let _ = fs::write(proc.join("sys/user/max_user_namespaces"), "0");
}

fn proc_at(place: &Path) -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount(c"proc", place, c"proc", flags, None::<&CStr>)?;
    no_nested_users(place);
    for name in PROC_COVERED {
        let file = place.join(name);
        if file.exists() {
            let null = detach(Path::new("/dev/null"), false)?;
            attach_tree(&null, &file)?;
        }
    }
    for name in PROC_EMPTIED {
        let directory = place.join(name);
        if directory.is_dir() {
            tmpfs(&directory, 4096, 0o555)?;
            let top = open(&directory, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
            sys::mount_attributes(top.as_fd(), MOUNT_READ_ONLY, None, false)?;
        }
    }
    for name in PROC_READ_ONLY {
        let directory = place.join(name);
        if directory.is_dir() {
            let tree = detach(&directory, true)?;
            let attributes = MOUNT_READ_ONLY | MOUNT_NO_SUID | MOUNT_NO_DEVICES | MOUNT_NO_EXEC;
            sys::mount_attributes(tree.as_fd(), attributes, None, true)?;
            attach_tree(&tree, &directory)?;
        }
    }
    Ok(())
}

fn devices_at(
    place: &Path,
    devices: Vec<(&'static str, OwnedFd)>,
    shm_bytes: u64,
) -> io::Result<()> {
    for (name, tree) in devices {
        let node = place.join(name);
        fs::write(&node, "")?;
        attach_tree(&tree, &node)?;
    }
    let (pts, shm) = (place.join("pts"), place.join("shm"));
    directory_at(&pts)?;
    mount(
        c"devpts",
        &pts,
        c"devpts",
        MountFlags::NOSUID | MountFlags::NOEXEC,
        TERMINALS,
    )?;
    directory_at(&shm)?;
    tmpfs(&shm, shm_bytes, 0o1777)?;
    for (name, target) in [
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        std::os::unix::fs::symlink(target, place.join(name))?;
    }
    Ok(())
}

/// What programs look up about names: the one user, the one host.
fn files_of_etc(place: &Path) -> io::Result<()> {
    let files = [
        (
            "passwd",
            format!(
                "root:x:0:0:root:/:/usr/sbin/nologin\nagent:x:{AGENT_UID}:{AGENT_GID}:agent:{HOME}:/bin/sh\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n"
            ),
        ),
        (
            "group",
            format!("root:x:0:\nagent:x:{AGENT_GID}:\nnogroup:x:65534:\n"),
        ),
        (
            "hosts",
            "127.0.0.1 localhost sandbox\n::1 localhost\n".to_owned(),
        ),
        ("hostname", "sandbox\n".to_owned()),
        (
            "nsswitch.conf",
            "passwd: files\ngroup: files\nhosts: files dns\n".to_owned(),
        ),
        // Nothing answers there; a look-up fails at once instead of after a timeout.
        (
            "resolv.conf",
            "nameserver 127.0.0.1\noptions attempts:1 timeout:1\n".to_owned(),
        ),
    ];
    for (name, text) in files {
        fs::write(place.join(name), text)?;
    }
    Ok(())
}

/// Mounts what the host gives at a place below the new root.
fn attach(root: &OwnedFd, what: SourceKind, inside: &Path) -> io::Result<()> {
    match what {
        SourceKind::Link(target) => {
            let name = inside.strip_prefix("/").unwrap_or(inside);
            match symlinkat(target, root, name) {
                Ok(()) | Err(Errno::EXIST) => Ok(()),
                Err(error) => Err(error.into()),
            }
        }
        SourceKind::Mount { tree, directory } => {
            let place = mount_point(root, inside, directory)?;
            let flags =
                MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
            Ok(move_mount(&tree, c"", &place, c"", flags)?)
        }
    }
}

/// A place to mount at, made where there is none. What the host gives may hold links, and until the
/// root is entered the host's own files are there: links are followed as the command will, below the
/// new root.
fn mount_point(root: &OwnedFd, inside: &Path, directory: bool) -> io::Result<OwnedFd> {
    let path = inside.strip_prefix("/").unwrap_or(inside);
    match below(root, path) {
        Err(Errno::NOENT) => {}
        other => return Ok(other?),
    }
    let mode = Mode::from_raw_mode(0o755);
    let (mut at, mut walked) = (below(root, Path::new("."))?, PathBuf::new());
    let mut parts = path.components().peekable();
    while let Some(part) = parts.next() {
        walked.push(part);
        at = match below(root, &walked) {
            Err(Errno::NOENT) => {
                if parts.peek().is_some() || directory {
                    mkdirat(&at, part.as_os_str(), mode)?;
                } else {
                    let new = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                    openat(&at, part.as_os_str(), new, mode)?;
                }
                below(root, &walked)?
            }
            other => other?,
        };
    }
    Ok(at)
}

fn below(root: &OwnedFd, path: &Path) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    openat2(
        root,
        path,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        resolve,
    )
}

fn attach_tree(tree: &OwnedFd, place: &Path) -> io::Result<()> {
    move_mount(
        tree,
        c"",
        CWD,
        place,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )?;
    Ok(())
}

fn directory_at(place: &Path) -> io::Result<()> {
    if place.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(place)
}

fn tmpfs(place: &Path, bytes: u64, mode: u32) -> io::Result<()> {
    let options = CString::new(format!(
        "size={bytes},nr_inodes={},mode={mode:o},uid={AGENT_UID},gid={AGENT_GID}",
        TMPFS_FILES.min(bytes / 1024 + 16)
    ))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount(c"tmpfs", place, c"tmpfs", flags, options.as_c_str())?;
    Ok(())
}
