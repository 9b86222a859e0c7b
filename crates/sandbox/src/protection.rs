//! What the sandbox protects with, in the words that a refusal, `doctor` and the ledger use.

use std::fmt;

use portcullis_model::Refusal;
use serde::{Deserialize, Serialize};

/// One layer of the isolation. Each is checked at every start; what is missing stops the start
/// unless [`Spec::allowed_gaps`](crate::Spec::allowed_gaps) names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protection {
    /// Ids and capabilities of its own.
    UserNamespace,
    /// A root of its own: nothing of the host's paths.
    MountNamespace,
    /// A process table of its own; everything ends with its first process.
    PidNamespace,
    /// No network but its own loopback.
    NetworkNamespace,
    /// Every TCP port captured, so that each attempt to leave is seen and answered (asked only where
    /// connections are captured). Without it nothing more leaves, and less is recorded.
    EveryPort,
    /// No System V IPC or message queues of the host.
    IpcNamespace,
    /// A host name of its own.
    UtsNamespace,
    /// No view of the host's cgroup tree.
    CgroupNamespace,
    /// No gain of rights by executing a file.
    NoNewPrivileges,
    /// A filter over system calls.
    Seccomp,
    /// A second layer over file access, signals and tracing.
    Landlock,
    /// A user id that no other run and no person has (asked of root callers only).
    OwnUser,
    /// A bound on the number of processes.
    ProcessLimit,
    /// A bound on memory.
    MemoryLimit,
    /// A bound on processor time (asked only where the limit is given).
    CpuLimit,
}

impl Protection {
    /// All of them, in the order in which `doctor` prints them.
    pub const ALL: [Self; 15] = [
        Self::UserNamespace,
        Self::MountNamespace,
        Self::PidNamespace,
        Self::NetworkNamespace,
        Self::EveryPort,
        Self::IpcNamespace,
        Self::UtsNamespace,
        Self::CgroupNamespace,
        Self::NoNewPrivileges,
        Self::Seccomp,
        Self::Landlock,
        Self::OwnUser,
        Self::ProcessLimit,
        Self::MemoryLimit,
        Self::CpuLimit,
    ];

    /// Its name in files, in the ledger and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::UserNamespace => "user-namespace",
            Self::MountNamespace => "mount-namespace",
            Self::PidNamespace => "pid-namespace",
            Self::NetworkNamespace => "network-namespace",
            Self::EveryPort => "every-port",
            Self::IpcNamespace => "ipc-namespace",
            Self::UtsNamespace => "uts-namespace",
            Self::CgroupNamespace => "cgroup-namespace",
            Self::NoNewPrivileges => "no-new-privileges",
            Self::Seccomp => "seccomp",
            Self::Landlock => "landlock",
            Self::OwnUser => "own-user",
            Self::ProcessLimit => "process-limit",
            Self::MemoryLimit => "memory-limit",
            Self::CpuLimit => "cpu-limit",
        }
    }

    /// Whether a signed task may do without it. The others are what the sandbox is made of:
    /// without one of them there is nothing to start.
    pub const fn may_be_missing(self) -> bool {
        match self {
            Self::EveryPort
            | Self::CgroupNamespace
            | Self::Seccomp
            | Self::Landlock
            | Self::OwnUser
            | Self::ProcessLimit
            | Self::MemoryLimit
            | Self::CpuLimit => true,
            Self::UserNamespace
            | Self::MountNamespace
            | Self::PidNamespace
            | Self::NetworkNamespace
            | Self::IpcNamespace
            | Self::UtsNamespace
            | Self::NoNewPrivileges => false,
        }
    }

    /// How the machine's administrator provides it.
    pub const fn how_to_mend(self) -> &'static str {
        match self {
            Self::UserNamespace => {
                "allow unprivileged user namespaces (sysctl user.max_user_namespaces above 0; Debian: kernel.unprivileged_userns_clone=1; Ubuntu: kernel.apparmor_restrict_unprivileged_userns=0 or an AppArmor profile with `userns,`), or run as root"
            }
            Self::MountNamespace => {
                "use Linux 5.12 or newer (mount_setattr); in a container, allow mount, pivot_root and an unmasked /proc"
            }
            Self::PidNamespace => {
                "use a kernel with CONFIG_PID_NS; in a container, allow clone with namespace flags and an unmasked /proc"
            }
            Self::NetworkNamespace => {
                "use a kernel with CONFIG_NET_NS, and sysctl user.max_net_namespaces above 0"
            }
            Self::EveryPort => {
                "load nf_tables with tproxy (`modprobe nft_tproxy`; a kernel with CONFIG_NF_TABLES, CONFIG_NF_TABLES_IPV4, CONFIG_NF_TABLES_IPV6 and CONFIG_NFT_TPROXY)"
            }
            Self::IpcNamespace => "use a kernel with CONFIG_IPC_NS",
            Self::UtsNamespace => "use a kernel with CONFIG_UTS_NS",
            Self::CgroupNamespace => "use a kernel with CONFIG_CGROUPS (Linux 4.6 or newer)",
            Self::NoNewPrivileges => "use Linux 3.5 or newer",
            Self::Seccomp => "use a kernel with CONFIG_SECCOMP_FILTER",
            Self::Landlock => {
                "use Linux 5.19 or newer with CONFIG_SECURITY_LANDLOCK, and `landlock` in the lsm= boot parameter"
            }
            Self::OwnUser => {
                "start it as root with CAP_SYS_ADMIN, CAP_SETUID and CAP_SETGID, or as an ordinary user"
            }
            Self::ProcessLimit => {
                "make a cgroup with the pids controller writable (systemd: Delegate=yes), or use Linux 5.14 or newer"
            }
            Self::MemoryLimit => {
                "make a cgroup with the memory controller writable (systemd: Delegate=yes)"
            }
            Self::CpuLimit => {
                "make a cgroup with the cpu controller writable (systemd: Delegate=yes), or leave out the limit"
            }
        }
    }

    /// The refusal of a start that lacks it.
    pub(crate) fn missing(self, why: &str) -> Refusal {
        let allowed = if self.may_be_missing() {
            "; or sign a task that allows this very gap"
        } else {
            ""
        };
        Refusal::unavailable(
            &format!("sandbox-{}", self.name()),
            format!("the sandbox can't start: {self} can't be had here"),
        )
        .expected(self.name())
        .received(why)
        .next(format!("{}{allowed}", self.how_to_mend()))
    }
}

impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Protection {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        Self::ALL
            .into_iter()
            .find(|protection| protection.name() == text)
            .ok_or_else(|| {
                Refusal::malformed("protection")
                    .expected(&Self::ALL.map(Self::name).join(", "))
                    .received(text)
            })
    }
}
