//! The last steps of the command's own process, in an order that matters: rights are given up
//! first, then the layers that need none are put on, then the program takes over.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;

use portcullis_model::Refusal;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, Gid, Uid, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_capabilities_secure_bits,
    set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use super::{landlock, seccomp};
use crate::Protection;
use crate::plan::{Os, Plan};
use crate::spec::{AGENT_GID, AGENT_UID, WORKSPACE};
use crate::sys;

/// Takes on the run's user. It needs the capabilities of the run's user namespace, and changes
/// nothing where the process has that user already.
pub(super) fn become_agent() -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(AGENT_UID), Gid::from_raw(AGENT_GID));
    if rustix::process::getuid() == uid && rustix::process::getgid() == gid {
        return Ok(());
    }
    set_thread_groups(&[])?;
    set_thread_res_gid(gid, gid, gid)?;
    Ok(set_thread_res_uid(uid, uid, uid)?)
}

/// Gives up every capability for good: bounding, ambient, permitted, and the ways to regain them.
pub(super) fn drop_capabilities() -> io::Result<()> {
    for number in 0..64_u32 {
        let Some(capability) = CapabilitySet::from_bits(1 << number) else {
            continue;
        };
        match remove_capability_from_bounding_set(capability) {
            // Past the last one that this kernel knows.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    clear_ambient_capability_set()?;
    set_capabilities_secure_bits(
        CapabilitiesSecureBits::NO_ROOT
            | CapabilitiesSecureBits::NO_ROOT_LOCKED
            | CapabilitiesSecureBits::NO_SETUID_FIXUP
            | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
            | CapabilitiesSecureBits::KEEP_CAPS_LOCKED
            | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
            | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED,
    )?;
    drop_held_capabilities()
}

/// Empties the sets that a process holds; enough for init, which executes nothing.
pub(super) fn drop_held_capabilities() -> io::Result<()> {
    let none = CapabilitySet::empty();
    set_capabilities(
        None,
        CapabilitySets {
            effective: none,
            permitted: none,
            inheritable: none,
        },
    )?;
    Ok(())
}

/// Bounds that hold for each process; `by_cgroup` says what a cgroup bounds already.
pub(super) fn resource_limits(
    plan: &Plan,
    by_cgroup: impl Fn(Protection) -> bool,
) -> io::Result<()> {
    let lower = |resource: Resource, value: u64| -> io::Result<()> {
        let most = getrlimit(resource).maximum;
        let value = Some(most.map_or(value, |most| most.min(value)));
        setrlimit(
            resource,
            Rlimit {
                current: value,
                maximum: value,
            },
        )?;
        Ok(())
    };
    let limits = &plan.limits;
    // One byte, not none: with none, a host that pipes core dumps into a program of its own would
    // still start it, as root, over a file that the run wrote.
    lower(Resource::Core, 1)?;
    lower(Resource::Nofile, limits.open_files)?;
    lower(Resource::Fsize, limits.file_bytes)?;
    lower(Resource::Memlock, 8 * 1024 * 1024)?;
    lower(Resource::Rtprio, 0)?;
    lower(Resource::Nice, 0)?;
    lower(Resource::Sigpending, 4096)?;
    lower(Resource::Msgqueue, 819_200)?;
    if !by_cgroup(Protection::ProcessLimit) {
        // Init counts too.
        lower(Resource::Nproc, u64::from(limits.processes) + 1)?;
    }
    if !by_cgroup(Protection::MemoryLimit) {
        lower(Resource::Data, limits.memory_bytes)?;
    }
    Ok(())
}

/// What became of the attempt to start the command; written to init as JSON when it failed.
pub(super) fn exec(plan: &Plan, stdio: &[OwnedFd]) -> Refusal {
    match prepare(plan, stdio) {
        Ok(()) => start(plan),
        Err(refusal) => refusal,
    }
}

fn prepare(plan: &Plan, stdio: &[OwnedFd]) -> Result<(), Refusal> {
    let step = |what: &str, result: io::Result<()>| {
        result.map_err(|error| {
            Refusal::unavailable("sandbox-step", format!("the sandbox can't start: {what}"))
                .received(&error.to_string())
        })
    };
    let [stdin, stdout, stderr] = stdio else {
        return Err(Refusal::internal(
            "the command got no standard input and output",
        ));
    };
    step(
        "setsid",
        rustix::process::setsid().map(drop).map_err(io::Error::from),
    )?;
    if rustix::termios::isatty(stdin) {
        step(
            "its terminal",
            rustix::process::ioctl_tiocsctty(stdin).map_err(io::Error::from),
        )?;
    }
    for (what, result) in [
        ("standard input", rustix::stdio::dup2_stdin(stdin)),
        ("standard output", rustix::stdio::dup2_stdout(stdout)),
        ("standard error", rustix::stdio::dup2_stderr(stderr)),
    ] {
        step(what, result.map_err(io::Error::from))?;
    }
    step(
        "the working directory",
        rustix::process::chdir(WORKSPACE).map_err(io::Error::from),
    )?;
    step("dropping capabilities", drop_capabilities())?;
    set_no_new_privs(true)
        .map_err(|error| Protection::NoNewPrivileges.missing(&error.to_string()))?;
    let allowed = |protection| plan.allowed_gaps.contains(&protection);
    if let Err(error) = landlock::enter()
        && !(allowed(Protection::Landlock) && landlock::available().is_err())
    {
        return Err(Protection::Landlock.missing(&error.to_string()));
    }
    sys::signals_as_at_birth();
    // Set where no cgroup bounds memory, by `resource_limits`.
    let shared = match getrlimit(Resource::Data).maximum {
        None => seccomp::SharedMemory::ByCgroup,
        Some(_) => seccomp::SharedMemory::ByFilter,
    };
    if let Err(error) = sys::seccomp_install(&mut seccomp::filter(shared))
        && !allowed(Protection::Seccomp)
    {
        return Err(Protection::Seccomp.missing(&error.to_string()));
    }
    Ok(())
}

/// Looks the program up as `execvp` would, and executes it.
fn start(plan: &Plan) -> Refusal {
    let words = |list: &mut dyn Iterator<Item = Vec<u8>>| -> Vec<CString> {
        // Zero bytes were refused with the spec.
        list.filter_map(|word| CString::new(word).ok()).collect()
    };
    let bytes = |os: &Os| os.as_os_str().as_bytes().to_vec();
    let arguments = words(&mut plan.command.iter().map(bytes));
    let environment = words(
        &mut plan
            .environment
            .iter()
            .map(|(name, value)| [bytes(name), b"=".to_vec(), bytes(value)].concat()),
    );
    let program = plan.command.first().map(bytes).unwrap_or_default();
    let path = plan
        .environment
        .iter()
        .find(|(name, _)| name.as_os_str() == "PATH")
        .map_or_else(|| b"/usr/bin:/bin".to_vec(), |(_, value)| bytes(value));
    let candidates: Vec<Vec<u8>> = if program.contains(&b'/') {
        vec![program.clone()]
    } else {
        path.split(|byte| *byte == b':')
            .filter(|directory| directory.starts_with(b"/"))
            .map(|directory| [directory, b"/", &program].concat())
            .collect()
    };
    let mut last = io::Error::from_raw_os_error(libc::ENOENT);
    for candidate in &candidates {
        let Ok(file) = CString::new(candidate.clone()) else {
            continue;
        };
        let error = sys::exec(&file, &arguments, &environment);
        let seen = error.raw_os_error();
        if !matches!(seen, Some(libc::ENOENT | libc::ENOTDIR)) {
            last = error;
            // `execvp` goes on after "permission denied"; anything else is the answer.
            if seen != Some(libc::EACCES) {
                break;
            }
        }
    }
    not_started(&String::from_utf8_lossy(&program), &candidates, &last)
}

fn not_started(program: &str, candidates: &[Vec<u8>], error: &io::Error) -> Refusal {
    let interpreter = candidates.iter().any(|candidate| {
        fs::metadata(std::ffi::OsStr::from_bytes(candidate)).is_ok_and(|data| data.is_file())
    });
    match error.raw_os_error() {
        Some(libc::ENOENT) if interpreter => Refusal::denied(
            "command-not-executable",
            format!("the interpreter of `{program}` (its `#!` line or dynamic loader) isn't in the sandbox"),
        )
        .received(program)
        .next("declare the toolchain that holds it, or name an interpreter under /usr"),
        Some(libc::ENOENT) => Refusal::new(
            portcullis_model::RefusalKind::NotFound,
            "command-not-found",
            format!("there is no command `{program}` in the sandbox"),
        )
        .received(program)
        .next("check the spelling, declare the toolchain that holds it, or put it into the workspace"),
        Some(libc::EACCES) => Refusal::denied(
            "command-not-executable",
            format!("`{program}` can't be executed"),
        )
        .received(&error.to_string())
        .next("make it executable (chmod +x), or start it through its interpreter"),
        Some(libc::ENOEXEC) => Refusal::denied(
            "command-not-executable",
            format!("`{program}` is neither a program for this machine nor a script with a `#!` line"),
        )
        .received(program)
        .next("give it a `#!` line, or start it as `sh FILE`"),
        Some(libc::E2BIG) => Refusal::limit(
            "command-too-long",
            "command line and environment are longer than the kernel takes",
        ),
        Some(_) | None => Refusal::denied(
            "command-not-executable",
            format!("`{program}` can't be executed"),
        )
        .received(&error.to_string()),
    }
}
