//! Tries each protection in a child of its own.

use std::fs;
use std::io;

use rustix::process::{WaitOptions, getegid, geteuid, waitpid};
use rustix::thread::{CapabilitySet, capabilities};

use super::cgroup::Cgroups;
use super::{landlock, network};
use crate::Protection;
use crate::plan::Probed;
use crate::spec::{Limits, RunAs};
use crate::sys::{self, Fork, SingleThreaded};

/// Tries all, in their order.
pub(super) fn all(single: SingleThreaded) -> Vec<Probed> {
    let limits = Limits {
        cpu_percent: Some(100),
        ..Limits::default()
    };
    let cgroups = Cgroups::create(&limits);
    Protection::ALL
        .into_iter()
        .map(|protection| Probed {
            protection,
            found: one(single, protection, &cgroups),
        })
        .collect()
}

fn one(
    single: SingleThreaded,
    protection: Protection,
    cgroups: &Cgroups,
) -> Result<String, String> {
    let namespace = |flags| {
        in_child(single, || {
            sys::leave_namespaces(libc::CLONE_NEWUSER | flags)
        })
        .map(|()| "namespace".to_owned())
        .map_err(|error| explained(&error))
    };
    match protection {
        Protection::UserNamespace => namespace(0),
        Protection::MountNamespace => in_child(single, mounts)
            .map(|()| "namespace".to_owned())
            .map_err(|error| explained(&error)),
        Protection::PidNamespace => namespace(libc::CLONE_NEWPID),
        Protection::NetworkNamespace => namespace(libc::CLONE_NEWNET),
        Protection::EveryPort => in_child(single, || {
            sys::leave_namespaces(libc::CLONE_NEWUSER | libc::CLONE_NEWNET)?;
            network::would_capture()
        })
        .map(|()| network::BY_FILTER.to_owned())
        .map_err(|error| network::unseen(&error)),
        Protection::IpcNamespace => namespace(libc::CLONE_NEWIPC),
        Protection::UtsNamespace => namespace(libc::CLONE_NEWUTS),
        Protection::CgroupNamespace => namespace(libc::CLONE_NEWCGROUP),
        Protection::NoNewPrivileges => in_child(single, || {
            rustix::thread::set_no_new_privs(true).map_err(io::Error::from)
        })
        .map(|()| "prctl".to_owned())
        .map_err(|error| error.to_string()),
        Protection::Seccomp => sys::seccomp_available()
            .map(|()| "filter".to_owned())
            .map_err(|error| error.to_string()),
        Protection::Landlock => landlock::available()
            .map(|version| format!("version {version}"))
            .map_err(|error| error.to_string()),
        Protection::OwnUser => own_user(),
        Protection::ProcessLimit | Protection::MemoryLimit | Protection::CpuLimit => {
            limit(protection, cgroups)
        }
    }
}

/// Whether a run of this caller has a user that nobody else has.
fn own_user() -> Result<String, String> {
    if privileged() {
        return Ok("a user id for each run".to_owned());
    }
    if geteuid().is_root() {
        return Err("root without CAP_SYS_ADMIN, CAP_SETUID and CAP_SETGID".to_owned());
    }
    Ok("the caller's own user, without its rights".to_owned())
}

/// Whether this process may give runs other users than its own.
pub(super) fn privileged() -> bool {
    let needed = CapabilitySet::SYS_ADMIN | CapabilitySet::SETUID | CapabilitySet::SETGID;
    geteuid().is_root() && capabilities(None).is_ok_and(|held| held.effective.contains(needed))
}

/// What holds a limit: a cgroup, else the process's own limits where they are of use.
pub(super) fn limit(protection: Protection, cgroups: &Cgroups) -> Result<String, String> {
    if let Some(by) = cgroups.by.get(&protection) {
        return Ok(by.clone());
    }
    let why = cgroups
        .missing
        .get(&protection)
        .cloned()
        .unwrap_or_default();
    match protection {
        Protection::ProcessLimit if processes_are_counted_by_namespace() => Ok(format!(
            "RLIMIT_NPROC, counted in the run's user namespace ({why})"
        )),
        Protection::MemoryLimit => Ok(format!(
            "RLIMIT_DATA, for each process alone; what processes map together is not bounded ({why})"
        )),
        Protection::ProcessLimit | Protection::CpuLimit => Err(why),
        Protection::UserNamespace
        | Protection::MountNamespace
        | Protection::PidNamespace
        | Protection::NetworkNamespace
        | Protection::EveryPort
        | Protection::IpcNamespace
        | Protection::UtsNamespace
        | Protection::CgroupNamespace
        | Protection::NoNewPrivileges
        | Protection::Seccomp
        | Protection::Landlock
        | Protection::OwnUser => Err(format!("{protection} is not a limit")),
    }
}

/// Since Linux 5.14; before, the limit counts all processes of the user on the machine.
fn processes_are_counted_by_namespace() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release
        .split(|character: char| !character.is_ascii_digit())
        .map_while(|number| number.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(5), Some(14))
}

/// The mounts that a start makes, in small.
fn mounts() -> io::Result<()> {
    use rustix::mount::{
        MountFlags, MountPropagationFlags, OpenTreeFlags, mount, mount_change, open_tree,
    };
    let ids = RunAs {
        uid: geteuid().as_raw(),
        gid: getegid().as_raw(),
    };
    sys::leave_namespaces(libc::CLONE_NEWUSER | libc::CLONE_NEWNS)?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("1000 {} 1", ids.uid))?;
    fs::write("/proc/self/gid_map", format!("1000 {} 1", ids.gid))?;
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(rustix::fs::CWD, "/usr", flags)?;
    sys::mount_attributes(
        std::os::fd::AsFd::as_fd(&tree),
        sys::MOUNT_READ_ONLY | sys::MOUNT_NO_SUID,
        None,
        true,
    )?;
    mount(
        c"tmpfs",
        c"/tmp",
        c"tmpfs",
        MountFlags::NOSUID,
        c"size=65536",
    )?;
    Ok(())
}

fn in_child(single: SingleThreaded, attempt: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    match sys::fork(single, 0)? {
        Fork::Child => {
            let code = attempt().map_or_else(
                |error| {
                    error
                        .raw_os_error()
                        .and_then(|code| u8::try_from(code).ok())
                        .unwrap_or(255)
                },
                |()| 0,
            );
            sys::exit_now(code)
        }
        Fork::Parent(child) => {
            let status = waitpid(Some(child), WaitOptions::empty())?;
            match status.and_then(|(_, status)| status.exit_status()) {
                Some(0) => Ok(()),
                Some(255) | None => Err(io::Error::other("the attempt failed")),
                Some(code) => Err(io::Error::from_raw_os_error(code)),
            }
        }
    }
}

/// The error, and the setting of this machine that explains it.
fn explained(error: &io::Error) -> String {
    let setting = [
        ("/proc/sys/user/max_user_namespaces", "0"),
        ("/proc/sys/kernel/unprivileged_userns_clone", "0"),
        (
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            "1",
        ),
    ]
    .into_iter()
    .find(|(file, closed)| fs::read_to_string(file).is_ok_and(|text| text.trim() == *closed));
    setting.map_or_else(
        || error.to_string(),
        |(file, value)| format!("{error}; {file} is {value}"),
    )
}
