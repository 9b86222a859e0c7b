//! A machine that lacks a protection, for the tests: a program behind a filter that answers as such
//! a kernel would.

use std::ffi::{CString, c_long};

use libc::sock_filter;

/// `attempt without PROTECTION PROGRAM ARGUMENT…` becomes the program.
pub(super) fn become_program(words: &[String]) {
    let (protection, program) = words.split_first().unwrap();
    let mut filter = vec![load(0)];
    for (number, argument, answer) in missing(protection) {
        let refuse = statement(
            (libc::BPF_RET | libc::BPF_K) as u16,
            libc::SECCOMP_RET_ERRNO | answer as u32,
        );
        let compare = |test: u32, value: u32, no: u8| sock_filter {
            code: (libc::BPF_JMP | test | libc::BPF_K) as u16,
            jt: 0,
            jf: no,
            k: value,
        };
        match argument {
            None => filter.extend([compare(libc::BPF_JEQ, number as u32, 1), refuse]),
            Some((which, test, value)) => filter.extend([
                compare(libc::BPF_JEQ, number as u32, 4),
                load(16 + 8 * which),
                compare(test, value, 1),
                refuse,
                load(0),
            ]),
        }
    }
    filter.push(statement(
        (libc::BPF_RET | libc::BPF_K) as u16,
        libc::SECCOMP_RET_ALLOW,
    ));
    let program: Vec<CString> = program
        .iter()
        .map(|word| CString::new(word.as_str()).unwrap())
        .collect();
    let mut pointers: Vec<_> = program.iter().map(|word| word.as_ptr()).collect();
    pointers.push(std::ptr::null());
    let rules = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: rules, words and the list of their pointers, which ends with null, live through the
    // calls; `execv` returns only where it failed.
    unsafe {
        if libc::geteuid() != 0 {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        }
        let installed = libc::prctl(libc::PR_SET_SECCOMP, 2, &raw const rules, 0, 0);
        assert_eq!(installed, 0, "{}", std::io::Error::last_os_error());
        libc::execv(pointers[0], pointers.as_ptr());
    }
    panic!("{}", std::io::Error::last_os_error());
}

/// A call by its number, a test of one of its arguments, the error that it is answered with.
type Missing = (c_long, Option<(u32, u32, u32)>, i32);

fn missing(protection: &str) -> Vec<Missing> {
    let namespace = |flag: i32, error: i32| {
        let bits = Some((0, libc::BPF_JSET, flag as u32));
        vec![
            (libc::SYS_clone3, None, libc::ENOSYS),
            (libc::SYS_clone, bits, error),
            (libc::SYS_unshare, bits, error),
        ]
    };
    match protection {
        "user-namespace" => namespace(libc::CLONE_NEWUSER, libc::EPERM),
        "mount-namespace" => vec![(libc::SYS_mount_setattr, None, libc::ENOSYS)],
        "pid-namespace" => namespace(libc::CLONE_NEWPID, libc::EINVAL),
        "network-namespace" => namespace(libc::CLONE_NEWNET, libc::ENOSPC),
        "ipc-namespace" => namespace(libc::CLONE_NEWIPC, libc::EINVAL),
        "uts-namespace" => namespace(libc::CLONE_NEWUTS, libc::EINVAL),
        "cgroup-namespace" => namespace(libc::CLONE_NEWCGROUP, libc::EINVAL),
        "no-new-privileges" => vec![(
            libc::SYS_prctl,
            Some((0, libc::BPF_JEQ, libc::PR_SET_NO_NEW_PRIVS as u32)),
            libc::EINVAL,
        )],
        "seccomp" => vec![(libc::SYS_seccomp, None, libc::ENOSYS)],
        "landlock" => vec![(libc::SYS_landlock_create_ruleset, None, libc::ENOSYS)],
        "every-port" => vec![(
            libc::SYS_socket,
            Some((2, libc::BPF_JEQ, libc::NETLINK_NETFILTER as u32)),
            libc::EPROTONOSUPPORT,
        )],
        other => panic!("{other} can't be taken away here"),
    }
}

const fn load(offset: u32) -> sock_filter {
    statement((libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16, offset)
}

const fn statement(code: u16, value: u32) -> sock_filter {
    sock_filter {
        code,
        jt: 0,
        jf: 0,
        k: value,
    }
}
