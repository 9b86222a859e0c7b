//! The filter over system calls: what an agent has no business with.
//!
//! A list of what is denied, with everything newer than the list answered by "not there", which
//! programs take as an old kernel. Written here rather than with a library because one program
//! needs several answers (`EPERM`, `ENOSYS`, `EAFNOSUPPORT`), and because the second numbering of
//! x86-64 (x32) must be shut, or every number could be called by another name.

use libc::sock_filter;

/// Number of the newest system call that this list was made with (`file_setattr`, Linux 6.17).
const NEWEST: u32 = 469;

const EPERM: u32 = libc::EPERM as u32;
const ENOSYS: u32 = libc::ENOSYS as u32;
const EAFNOSUPPORT: u32 = libc::EAFNOSUPPORT as u32;

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// Namespace flags of `clone` and `unshare`: all `CLONE_NEW…`.
const NEW_NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u32
    | 0x80; // CLONE_NEWTIME; for `clone` part of the exit signal, which never has this bit

/// Denied whatever the arguments: rights over the machine, other processes' memory, kernel
/// surface that no build tool needs.
#[rustfmt::skip]
const DENIED: &[i64] = &[
    // Other processes, keyrings.
    libc::SYS_process_vm_readv, libc::SYS_process_vm_writev, libc::SYS_pidfd_getfd,
    libc::SYS_kcmp, libc::SYS_process_madvise, libc::SYS_add_key, libc::SYS_request_key,
    libc::SYS_keyctl,
    // Kernel programs, tracing, faults served by programs.
    libc::SYS_bpf, libc::SYS_perf_event_open, libc::SYS_userfaultfd, libc::SYS_syslog,
    libc::SYS_lookup_dcookie,
    // Mounts, roots, namespaces, file handles, quotas.
    libc::SYS_mount, libc::SYS_umount2, libc::SYS_pivot_root, libc::SYS_chroot,
    libc::SYS_open_tree, libc::SYS_move_mount, libc::SYS_fsopen, libc::SYS_fsconfig,
    libc::SYS_fsmount, libc::SYS_fspick, libc::SYS_mount_setattr, OPEN_TREE_ATTR,
    libc::SYS_setns, libc::SYS_open_by_handle_at, libc::SYS_name_to_handle_at,
    libc::SYS_fanotify_init, libc::SYS_fanotify_mark, libc::SYS_quotactl, libc::SYS_quotactl_fd,
    libc::SYS_acct, libc::SYS_swapon, libc::SYS_swapoff, libc::SYS_nfsservctl,
    // Modules, other kernels, clocks, power, consoles.
    libc::SYS_init_module, libc::SYS_finit_module, libc::SYS_delete_module,
    libc::SYS_kexec_load, libc::SYS_kexec_file_load, libc::SYS_reboot, libc::SYS_settimeofday,
    libc::SYS_clock_settime, libc::SYS_clock_adjtime, libc::SYS_adjtimex, libc::SYS_vhangup,
    libc::SYS_sethostname, libc::SYS_setdomainname,
    // Memory of other nodes and processes.
    libc::SYS_move_pages, libc::SYS_migrate_pages,
];
const OPEN_TREE_ATTR: i64 = 467;
const FCHMODAT2: i64 = 452;
/// The bits by which a program runs as its owner or group.
const SET_IDS: u32 = libc::S_ISUID | libc::S_ISGID;

#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const DENIED_HERE: &[i64] = &[
    libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_modify_ldt, libc::SYS_uselib, libc::SYS_ustat,
    libc::SYS_sysfs, libc::SYS__sysctl, 174, 177, 178, // create_module, get_kernel_syms, query_module
];
#[cfg(target_arch = "aarch64")]
const DENIED_HERE: &[i64] = &[];

/// Answered as if the kernel had them not, so that programs take their other way: `clone3` hides
/// its flags from any filter, io_uring does its work past it.
const ABSENT: &[i64] = &[
    libc::SYS_clone3,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
];

/// What bounds the memory that processes share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SharedMemory {
    /// The cgroup that bounds all memory.
    ByCgroup,
    /// This filter, as far as it can: see [`small_segments`].
    ByFilter,
}

/// The program; the tests run it over each kind of call.
pub(super) fn filter(shared: SharedMemory) -> Vec<sock_filter> {
    let mut program = vec![load(OFFSET_ARCHITECTURE)];
    program.extend([
        jump(EQUAL, ARCHITECTURE, 1, 0),
        answer(libc::SECCOMP_RET_KILL_PROCESS),
    ]);
    program.push(load(OFFSET_NUMBER));
    program.extend([jump(GREATER, NEWEST, 0, 1), refuse(ENOSYS)]);
    for number in ABSENT {
        program.extend([jump(EQUAL, call(*number), 0, 1), refuse(ENOSYS)]);
    }
    for number in DENIED.iter().chain(DENIED_HERE) {
        program.extend([jump(EQUAL, call(*number), 0, 1), refuse(EPERM)]);
    }
    if shared == SharedMemory::ByFilter {
        // Files in memory without a size: programs take one on a tmpfs instead, which has one.
        program.extend([
            jump(EQUAL, call(libc::SYS_memfd_create), 0, 1),
            refuse(ENOSYS),
        ]);
    }
    for (number, check) in by_argument(shared) {
        // The jump past a block is relative and at most 255; each block ends with a return, so
        // the number is still loaded only where the block was passed over.
        let length = u8::try_from(check.len()).unwrap_or(u8::MAX);
        program.push(jump(EQUAL, call(number), 0, length));
        program.extend(check);
    }
    program.push(answer(libc::SECCOMP_RET_ALLOW));
    program
}

/// Calls that are denied for some arguments. Each block returns.
fn by_argument(shared: SharedMemory) -> Vec<(i64, Vec<sock_filter>)> {
    let allow = || answer(libc::SECCOMP_RET_ALLOW);
    let deny_bits = |argument: u32, bits: u32| {
        vec![
            load(low(argument)),
            jump(ANY_BIT, bits, 0, 1),
            refuse(EPERM),
            allow(),
        ]
    };
    let deny_values = |argument: u32, values: &[u32]| {
        let mut block = vec![load(low(argument))];
        for value in values {
            block.extend([jump(EQUAL, *value, 0, 1), refuse(EPERM)]);
        }
        block.push(allow());
        block
    };
    let allow_values = |argument: u32, values: &[u32], error: u32| {
        let mut block = vec![load(low(argument))];
        for value in values {
            block.extend([jump(EQUAL, *value, 0, 1), allow()]);
        }
        block.push(refuse(error));
        block
    };
    // Huge pages come from a pool of the host's that no limit of memory counts.
    const MFD_HUGETLB: u32 = 4;
    const PTRACE_ATTACH: u32 = 16;
    const PTRACE_SEIZE: u32 = 0x4206;
    const TIOCSTI: u32 = 0x5412;
    const TIOCSETD: u32 = 0x5423;
    const TIOCLINUX: u32 = 0x541c;
    const TIOCCONS: u32 = 0x541d;
    vec![
        (libc::SYS_clone, deny_bits(0, NEW_NAMESPACES & !0xff)),
        (libc::SYS_unshare, deny_bits(0, NEW_NAMESPACES)),
        // A child that asks to be traced may be; nobody can lay hands on a running process.
        (
            libc::SYS_ptrace,
            deny_values(0, &[PTRACE_ATTACH, PTRACE_SEIZE]),
        ),
        // The kernel reads 32 bits of the request, so we do.
        (
            libc::SYS_ioctl,
            deny_values(1, &[TIOCSTI, TIOCSETD, TIOCLINUX, TIOCCONS]),
        ),
        (libc::SYS_prlimit64, limits_of_processes()),
        (libc::SYS_setrlimit, swallow(0, RLIMIT_CORE)),
        // Init has our user id, but is not for slowing down: it stops and starts the others.
        (libc::SYS_sched_setaffinity, deny_values(0, &[1])),
        (libc::SYS_sched_setscheduler, deny_values(0, &[1])),
        (libc::SYS_sched_setparam, deny_values(0, &[1])),
        (libc::SYS_sched_setattr, deny_values(0, &[1])),
        (libc::SYS_setpriority, not_of_init(PRIORITY_OF_USER)),
        (libc::SYS_ioprio_set, not_of_init(IO_PRIORITY_OF_USER)),
        // Protocols of the kernel's own on top of TCP: TLS, RDMA and others, each a module.
        (libc::SYS_setsockopt, no_upper_protocol()),
        (
            libc::SYS_personality,
            allow_values(0, &[0, 8, 0x20000, 0x20008, 0x4_0000, u32::MAX], EPERM),
        ),
        // No program that others would run as whoever owns the workspace. Where one is made with
        // these bits by other calls, the kernel takes them away as soon as it is written.
        (libc::SYS_fchmod, deny_bits(1, SET_IDS)),
        (libc::SYS_fchmodat, deny_bits(2, SET_IDS)),
        (FCHMODAT2, deny_bits(2, SET_IDS)),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_chmod, deny_bits(1, SET_IDS)),
        (
            libc::SYS_socketpair,
            allow_values(0, &[libc::AF_UNIX as u32], EAFNOSUPPORT),
        ),
        (libc::SYS_socket, sockets()),
        (libc::SYS_mmap, no_huge_pages()),
        (libc::SYS_memfd_create, deny_bits(1, MFD_HUGETLB)),
        (libc::SYS_shmget, small_segments(shared)),
    ]
}

/// As where the host has set none aside.
fn no_huge_pages() -> Vec<sock_filter> {
    vec![
        load(low(3)),
        jump(ANY_BIT, libc::MAP_HUGETLB as u32, 0, 1),
        refuse(libc::ENOMEM as u32),
        answer(libc::SECCOMP_RET_ALLOW),
    ]
}

/// System V segments without huge pages, and where no cgroup bounds memory small ones alone: with the
/// kernel's bound of 4,096 segments in a namespace they then take 256 MiB at most. Databases that
/// hold a segment to know each other by take some bytes.
fn small_segments(shared: SharedMemory) -> Vec<sock_filter> {
    const SEGMENT_MAX_BYTES: u32 = 64 * 1024;
    let mut block = vec![
        load(low(2)),
        jump(ANY_BIT, libc::SHM_HUGETLB as u32, 0, 1),
        refuse(EPERM),
    ];
    if shared == SharedMemory::ByFilter {
        // More than the most that a segment may have; its upper half counts too.
        let too_large = || refuse(libc::EINVAL as u32);
        block.extend([
            load(low(1) + 4),
            jump(EQUAL, 0, 1, 0),
            too_large(),
            load(low(1)),
            jump(GREATER, SEGMENT_MAX_BYTES, 0, 1),
            too_large(),
        ]);
    }
    block.push(answer(libc::SECCOMP_RET_ALLOW));
    block
}

const RLIMIT_CORE: u32 = libc::RLIMIT_CORE;
/// `PRIO_USER`: all processes of a user, init among them.
const PRIORITY_OF_USER: u32 = 2;
/// `IOPRIO_WHO_USER`.
const IO_PRIORITY_OF_USER: u32 = 3;

/// The limit of core dumps is one byte for good: with none a host that pipes dumps into a program
/// of its own would start it over ours. Who asks for less is told that it has it, and does not dump.
fn swallow(argument: u32, value: u32) -> Vec<sock_filter> {
    vec![
        load(low(argument)),
        jump(EQUAL, value, 0, 1),
        refuse(0),
        answer(libc::SECCOMP_RET_ALLOW),
    ]
}

/// `prlimit64`: not init's limits, and not that of core dumps; reading them is free.
fn limits_of_processes() -> Vec<sock_filter> {
    vec![
        load(low(0)),
        jump(EQUAL, 1, 0, 1),
        refuse(EPERM),
        load(low(1)),
        jump(EQUAL, RLIMIT_CORE, 0, 5),
        // A null pointer, in both halves: nothing is to be set.
        load(low(2)),
        jump(EQUAL, 0, 0, 2),
        load(low(2) + 4),
        jump(EQUAL, 0, 1, 0),
        refuse(0),
        answer(libc::SECCOMP_RET_ALLOW),
    ]
}

/// Priorities of one's own process or group, or another's, but not of init's nor of a whole user's.
fn not_of_init(of_user: u32) -> Vec<sock_filter> {
    vec![
        load(low(0)),
        jump(EQUAL, of_user, 2, 0),
        load(low(1)),
        jump(EQUAL, 1, 0, 1),
        refuse(EPERM),
        answer(libc::SECCOMP_RET_ALLOW),
    ]
}

fn no_upper_protocol() -> Vec<sock_filter> {
    const TCP_ULP: u32 = 31;
    vec![
        load(low(1)),
        jump(EQUAL, libc::IPPROTO_TCP as u32, 0, 3),
        load(low(2)),
        jump(EQUAL, TCP_ULP, 0, 1),
        refuse(libc::ENOENT as u32),
        answer(libc::SECCOMP_RET_ALLOW),
    ]
}

/// Unix, TCP and UDP, route netlink. Nothing else: no raw or packet sockets, no ICMP, no vsock.
fn sockets() -> Vec<sock_filter> {
    const TYPE_MASK: u32 = 0xf;
    const SOCK_PACKET: u32 = 10;
    const EPROTONOSUPPORT: u32 = libc::EPROTONOSUPPORT as u32;
    let allow = || answer(libc::SECCOMP_RET_ALLOW);
    vec![
        load(low(0)),
        jump(EQUAL, libc::AF_UNIX as u32, 0, 1),
        allow(),
        jump(EQUAL, libc::AF_NETLINK as u32, 0, 4),
        load(low(2)),
        jump(EQUAL, libc::NETLINK_ROUTE as u32, 0, 1),
        allow(),
        refuse(EPROTONOSUPPORT),
        jump(EQUAL, libc::AF_INET as u32, 2, 0),
        jump(EQUAL, libc::AF_INET6 as u32, 1, 0),
        refuse(EAFNOSUPPORT),
        load(low(1)),
        statement(
            (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16,
            TYPE_MASK,
        ),
        jump(EQUAL, libc::SOCK_RAW as u32, 0, 1),
        refuse(EPERM),
        jump(EQUAL, SOCK_PACKET, 0, 1),
        refuse(EPERM),
        load(low(2)),
        jump(EQUAL, 0, 2, 0),
        jump(EQUAL, libc::IPPROTO_TCP as u32, 1, 0),
        jump(EQUAL, libc::IPPROTO_UDP as u32, 0, 1),
        allow(),
        refuse(EPROTONOSUPPORT),
    ]
}

const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCHITECTURE: u32 = 4;
const OFFSET_ARGUMENTS: u32 = 16;

/// Offset of the low half of an argument; both architectures are little-endian.
const fn low(argument: u32) -> u32 {
    OFFSET_ARGUMENTS + 8 * argument
}

const EQUAL: u32 = libc::BPF_JEQ;
const GREATER: u32 = libc::BPF_JGT;
const ANY_BIT: u32 = libc::BPF_JSET;

const fn call(number: i64) -> u32 {
    number as u32
}

const fn load(offset: u32) -> sock_filter {
    statement((libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16, offset)
}

const fn jump(test: u32, value: u32, yes: u8, no: u8) -> sock_filter {
    sock_filter {
        code: (libc::BPF_JMP | test | libc::BPF_K) as u16,
        jt: yes,
        jf: no,
        k: value,
    }
}

const fn answer(action: u32) -> sock_filter {
    statement((libc::BPF_RET | libc::BPF_K) as u16, action)
}

const fn refuse(error: u32) -> sock_filter {
    answer(libc::SECCOMP_RET_ERRNO | error)
}

const fn statement(code: u16, value: u32) -> sock_filter {
    sock_filter {
        code,
        jt: 0,
        jf: 0,
        k: value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;

    /// Runs the program as the kernel would over one call; the error it is answered, or 0.
    fn answered(architecture: u32, number: i64, arguments: [u64; 6]) -> u32 {
        told(verdict(architecture, number, arguments))
    }

    fn told(verdict: u32) -> u32 {
        match verdict {
            libc::SECCOMP_RET_ALLOW => 0,
            KILL => KILL,
            other => other & 0xffff,
        }
    }

    fn verdict(architecture: u32, number: i64, arguments: [u64; 6]) -> u32 {
        run(
            &filter(SharedMemory::ByCgroup),
            architecture,
            number,
            arguments,
        )
    }

    fn run(program: &[sock_filter], architecture: u32, number: i64, arguments: [u64; 6]) -> u32 {
        let mut data = Vec::new();
        data.extend((number as u32).to_le_bytes());
        data.extend(architecture.to_le_bytes());
        data.extend([0; 8]);
        data.extend(arguments.iter().flat_map(|argument| argument.to_le_bytes()));
        let (mut at, mut loaded) = (0, 0_u32);
        loop {
            let step = program[at];
            at += 1;
            let code = u32::from(step.code);
            if code == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS {
                let offset = step.k as usize;
                loaded = u32::from_le_bytes(data[offset..offset + 4].try_into().expect("word"));
            } else if code == libc::BPF_ALU | libc::BPF_AND | libc::BPF_K {
                loaded &= step.k;
            } else if code == libc::BPF_RET | libc::BPF_K {
                return step.k;
            } else {
                let test = code & !(libc::BPF_JMP | libc::BPF_K);
                let yes = match test {
                    EQUAL => loaded == step.k,
                    GREATER => loaded > step.k,
                    ANY_BIT => loaded & step.k != 0,
                    other => panic!("unknown test {other}"),
                };
                at += usize::from(if yes { step.jt } else { step.jf });
            }
        }
    }

    fn call_with(number: i64, arguments: &[u64]) -> u32 {
        let mut all = [0; 6];
        all[..arguments.len()].copy_from_slice(arguments);
        answered(ARCHITECTURE, number, all)
    }

    #[test]
    fn what_has_no_business_here_is_denied_and_the_rest_is_not() {
        for number in DENIED.iter().chain(DENIED_HERE) {
            assert_eq!(call_with(*number, &[]), EPERM, "{number}");
        }
        for number in ABSENT {
            assert_eq!(call_with(*number, &[]), ENOSYS, "{number}");
        }
        for number in [
            libc::SYS_read,
            libc::SYS_openat,
            libc::SYS_execve,
            libc::SYS_futex,
            libc::SYS_mmap,
            libc::SYS_wait4,
            libc::SYS_kill,
            libc::SYS_landlock_create_ruleset,
            libc::SYS_rseq,
        ] {
            assert_eq!(call_with(number, &[]), 0, "{number}");
        }
    }

    #[test]
    fn other_numberings_and_future_calls_lead_nowhere() {
        assert_eq!(answered(0x4000_0003, 11, [0; 6]), KILL);
        assert_eq!(call_with(0x4000_0000 | libc::SYS_mount, &[]), ENOSYS);
        assert_eq!(call_with(i64::from(NEWEST) + 1, &[]), ENOSYS);
        assert_eq!(call_with(-1, &[]), ENOSYS);
    }

    #[test]
    fn arguments_are_read_as_the_kernel_reads_them() {
        let high = 0xdead_beef_0000_0000_u64;
        for request in [0x5412, 0x541c, 0x5423] {
            assert_eq!(call_with(libc::SYS_ioctl, &[0, request]), EPERM);
            assert_eq!(call_with(libc::SYS_ioctl, &[0, high | request]), EPERM);
        }
        assert_eq!(call_with(libc::SYS_ioctl, &[0, 0x5401]), 0);
        let user = libc::CLONE_NEWUSER as u64;
        assert_eq!(call_with(libc::SYS_clone, &[user | 17]), EPERM);
        assert_eq!(
            call_with(libc::SYS_clone, &[(libc::CLONE_VM | libc::SIGCHLD) as u64]),
            0
        );
        assert_eq!(call_with(libc::SYS_unshare, &[user]), EPERM);
        assert_eq!(call_with(libc::SYS_unshare, &[libc::CLONE_FILES as u64]), 0);
        assert_eq!(call_with(libc::SYS_ptrace, &[16, 1]), EPERM);
        assert_eq!(call_with(libc::SYS_ptrace, &[0]), 0);
        assert_eq!(call_with(libc::SYS_prlimit64, &[1, 7]), EPERM);
        assert_eq!(call_with(libc::SYS_prlimit64, &[0, 7]), 0);
        for (call, user) in [
            (libc::SYS_setpriority, PRIORITY_OF_USER),
            (libc::SYS_ioprio_set, IO_PRIORITY_OF_USER),
        ] {
            assert_eq!(call_with(call, &[user.into(), 1000, 19]), EPERM, "{call}");
            assert_eq!(call_with(call, &[0, high | 1, 19]), EPERM, "{call}");
            assert_eq!(call_with(call, &[0, 0, 19]), 0, "{call}");
        }
        for call in [
            libc::SYS_sched_setaffinity,
            libc::SYS_sched_setscheduler,
            libc::SYS_sched_setparam,
            libc::SYS_sched_setattr,
        ] {
            assert_eq!(call_with(call, &[1]), EPERM, "{call}");
            assert_eq!(call_with(call, &[0]), 0, "{call}");
        }
        assert_ne!(call_with(libc::SYS_setsockopt, &[3, 6, 31]), 0);
        assert_eq!(call_with(libc::SYS_setsockopt, &[3, 6, 1]), 0);
        assert_eq!(call_with(libc::SYS_setsockopt, &[3, 1, 31]), 0);
        for (number, before) in [
            (libc::SYS_fchmod, 1),
            (libc::SYS_fchmodat, 2),
            (FCHMODAT2, 2),
        ] {
            let with = |mode: u64| {
                let mut arguments = [0; 3];
                arguments[before] = mode;
                call_with(number, &arguments)
            };
            assert_eq!((with(0o755), with(0o1777)), (0, 0), "{number}");
            for mode in [0o4755, 0o2755, 0o6000] {
                assert_eq!(with(mode), EPERM, "{number}");
            }
        }
    }

    #[test]
    fn the_limit_of_core_dumps_stays_and_nobody_is_told_so() {
        let core = u64::from(RLIMIT_CORE);
        // "Done", without being done: the emulation below can't tell this from being let pass.
        let action = |number: i64, arguments: &[u64]| {
            let mut all = [0; 6];
            all[..arguments.len()].copy_from_slice(arguments);
            verdict(ARCHITECTURE, number, all)
        };
        let swallowed = libc::SECCOMP_RET_ERRNO;
        // One of them is null in the half that is looked at first.
        for pointer in [1, 0x7fff_0000_1000, 0x1_0000_0000] {
            assert_eq!(action(libc::SYS_prlimit64, &[0, core, pointer]), swallowed);
        }
        assert_eq!(action(libc::SYS_setrlimit, &[core, 1]), swallowed);
        let allowed = libc::SECCOMP_RET_ALLOW;
        assert_eq!(action(libc::SYS_prlimit64, &[0, core, 0, 1]), allowed);
        assert_eq!(action(libc::SYS_prlimit64, &[0, 7, 1]), allowed);
        assert_eq!(action(libc::SYS_setrlimit, &[7, 1]), allowed);
    }

    #[test]
    fn shared_memory_is_small_where_nothing_else_bounds_it_and_never_of_huge_pages() {
        let huge_segment = libc::SHM_HUGETLB as u64;
        let huge_map = libc::MAP_HUGETLB as u64 | libc::MAP_SHARED as u64;
        for shared in [SharedMemory::ByCgroup, SharedMemory::ByFilter] {
            let program = filter(shared);
            let call = |number: i64, arguments: [u64; 6]| {
                told(run(&program, ARCHITECTURE, number, arguments))
            };
            assert_ne!(call(libc::SYS_mmap, [0, 4096, 3, huge_map, 0, 0]), 0);
            assert_eq!(call(libc::SYS_mmap, [0, 1 << 40, 3, 0x4022, 0, 0]), 0);
            assert_ne!(call(libc::SYS_memfd_create, [1, 4, 0, 0, 0, 0]), 0);
            assert_ne!(call(libc::SYS_shmget, [0, 56, huge_segment, 0, 0, 0]), 0);
            for size in [0, 56, 64 * 1024] {
                assert_eq!(call(libc::SYS_shmget, [0, size, 0o1600, 0, 0, 0]), 0);
            }
            let bounded = shared == SharedMemory::ByFilter;
            for size in [64 * 1024 + 1, 1 << 32, (1 << 32) + 56, u64::MAX] {
                let answered = call(libc::SYS_shmget, [0, size, 0o1600, 0, 0, 0]);
                assert_eq!(answered != 0, bounded, "{size}");
            }
            let answered = call(libc::SYS_memfd_create, [1, 1, 0, 0, 0, 0]);
            assert_eq!(answered, if bounded { ENOSYS } else { 0 });
        }
    }

    #[test]
    fn only_plain_sockets_can_be_made() {
        let socket = |family: i32, kind: i32, protocol: i32| {
            call_with(
                libc::SYS_socket,
                &[family as u64, kind as u64, protocol as u64],
            )
        };
        let cloexec = libc::SOCK_CLOEXEC;
        for family in [libc::AF_INET, libc::AF_INET6] {
            assert_eq!(socket(family, libc::SOCK_STREAM | cloexec, 0), 0);
            assert_eq!(socket(family, libc::SOCK_STREAM, libc::IPPROTO_TCP), 0);
            assert_eq!(socket(family, libc::SOCK_DGRAM, libc::IPPROTO_UDP), 0);
            assert_eq!(socket(family, libc::SOCK_RAW | cloexec, 0), EPERM);
            assert_eq!(socket(family, 10, 0), EPERM);
            assert_ne!(socket(family, libc::SOCK_DGRAM, libc::IPPROTO_ICMP), 0);
            assert_ne!(socket(family, libc::SOCK_STREAM, 132), 0);
        }
        assert_eq!(socket(libc::AF_UNIX, libc::SOCK_STREAM, 0), 0);
        assert_eq!(
            socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE),
            0
        );
        assert_ne!(socket(libc::AF_NETLINK, libc::SOCK_RAW, 9), 0);
        for family in [
            libc::AF_PACKET,
            libc::AF_VSOCK,
            libc::AF_ALG,
            libc::AF_BLUETOOTH,
            44,
        ] {
            assert_eq!(
                socket(family, libc::SOCK_STREAM, 0),
                EAFNOSUPPORT,
                "{family}"
            );
        }
    }
}
