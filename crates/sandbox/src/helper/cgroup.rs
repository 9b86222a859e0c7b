//! Limits and freezing by cgroups, version 1 and 2, where they can be written.
//!
//! Each run gets a cgroup of its own below the launcher's, in every hierarchy that it can have
//! one in. Freezing is asked of version 2 only: a task that version 1 froze can't be killed, and
//! a run must always be.

use std::collections::BTreeMap;
use std::ffi::c_int;
use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Signal, WaitOptions, kill_process, waitpid};

use crate::Protection;
use crate::spec::Limits;
use crate::sys::{self, Fork, SingleThreaded, wait_until};

/// Name of a run's cgroup, followed by the supervisor's pid.
const PREFIX: &str = "portcullis-run-";
/// Quota period of the processor limit in microseconds: the kernel's default.
const PERIOD_US: u64 = 100_000;
/// Longest that the kernel gets to freeze all tasks, or to let go of an empty cgroup.
const PATIENCE: Duration = Duration::from_secs(2);

/// A run's cgroups.
pub(super) struct Cgroups {
    directories: Vec<PathBuf>,
    /// Those of version 1, each with the launcher's own.
    visited: Vec<(PathBuf, PathBuf)>,
    /// The one of version 2, which can freeze.
    unified: Option<PathBuf>,
    memory: Option<PathBuf>,
    /// What is enforced, and by what.
    pub(super) by: BTreeMap<Protection, String>,
    /// What isn't, and why.
    pub(super) missing: BTreeMap<Protection, String>,
}

impl Cgroups {
    /// Makes what can be made, and sets the limits.
    pub(super) fn create(limits: &Limits) -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let hierarchies = hierarchies(&mounts, &own);
        let name = format!("{PREFIX}{}", std::process::id());
        let mut cgroups = Self {
            directories: Vec::new(),
            visited: Vec::new(),
            unified: None,
            memory: None,
            by: BTreeMap::new(),
            missing: BTreeMap::new(),
        };
        for hierarchy in &hierarchies {
            cgroups.enter(hierarchy, &name);
        }
        for (protection, controller) in [
            (Protection::ProcessLimit, "pids"),
            (Protection::MemoryLimit, "memory"),
            (Protection::CpuLimit, "cpu"),
        ] {
            if protection == Protection::CpuLimit && limits.cpu_percent.is_none() {
                continue;
            }
            match cgroups.limit(&hierarchies, &name, controller, limits) {
                Ok(by) => cgroups.by.insert(protection, by),
                Err(why) => cgroups.missing.insert(protection, why),
            };
        }
        cgroups
    }

    fn enter(&mut self, hierarchy: &Hierarchy, name: &str) {
        for parent in &hierarchy.parents {
            if hierarchy.unified && parent != &hierarchy.own {
                // Ours to make: the children need its controllers.
                let _ = fs::create_dir(parent);
                for up in [parent.parent(), Some(parent.as_path())]
                    .into_iter()
                    .flatten()
                {
                    for controller in ["+pids", "+memory", "+cpu"] {
                        let _ = fs::write(up.join("cgroup.subtree_control"), controller);
                    }
                }
            }
            sweep(parent);
            let directory = parent.join(name);
            // One of this very pid can only be left over.
            let _ = fs::remove_dir(&directory);
            if fs::create_dir(&directory).is_err() || !writable(&directory) {
                let _ = fs::remove_dir(&directory);
                continue;
            }
            if hierarchy.unified {
                self.unified = Some(directory.clone());
            } else {
                let own = hierarchy.own.clone();
                self.visited.push((directory.clone(), own));
            }
            self.directories.push(directory);
            return;
        }
    }

    fn limit(
        &mut self,
        hierarchies: &[Hierarchy],
        name: &str,
        controller: &str,
        limits: &Limits,
    ) -> Result<String, String> {
        let holder = hierarchies.iter().find(|hierarchy| {
            hierarchy.unified || hierarchy.controllers.iter().any(|held| held == controller)
        });
        if holder.is_none() {
            return Err(format!(
                "no cgroup hierarchy holds the {controller} controller"
            ));
        }
        let mut why = format!("no cgroup with the {controller} controller can be written");
        for directory in &self.directories {
            let unified = self.unified.as_ref() == Some(directory);
            let here = unified
                || hierarchies.iter().any(|hierarchy| {
                    hierarchy.controllers.iter().any(|held| held == controller)
                        && hierarchy
                            .parents
                            .iter()
                            .any(|parent| parent.join(name) == *directory)
                });
            if !here {
                continue;
            }
            match set(directory, controller, unified, limits) {
                Ok(()) => {
                    if controller == "memory" {
                        self.memory = Some(directory.clone());
                    }
                    return Ok(format!("cgroup v{}", if unified { 2 } else { 1 }));
                }
                Err(error) => why = format!("{}: {error}", directory.display()),
            }
        }
        Err(why)
    }

    /// A child in new namespaces that is born in all of the run's cgroups.
    ///
    /// A task that moves itself alone (version 1) or is born in place (version 2) needs no grace
    /// period of the machine; one that is moved by another waits some ten milliseconds for it.
    pub(super) fn fork(&self, single: SingleThreaded, namespaces: c_int) -> io::Result<Fork> {
        let here = |directory: &Path| fs::write(directory.join("tasks"), "0");
        let visited: Vec<_> = self
            .visited
            .iter()
            .filter(|(there, _)| here(there).is_ok())
            .collect();
        let unified = self.unified.as_ref().map(fs::File::open).transpose()?;
        let born = unified.map(|there| sys::fork_into(single, namespaces, there.as_fd()));
        let (forked, in_place) = match born {
            Some(Ok(forked)) => (Ok(forked), true),
            Some(Err(_)) | None => (sys::fork(single, namespaces), false),
        };
        if let Ok(Fork::Child) = forked {
            return Ok(Fork::Child);
        }
        // Staying there would count the supervisor in, and keep the cgroup from being removed.
        let back: io::Result<()> = visited.iter().try_for_each(|(_, own)| here(own));
        let forked = forked?;
        if let Fork::Parent(child) = forked {
            let moved = back.and_then(|()| {
                self.directories
                    .iter()
                    .filter(|there| {
                        let visited = visited.iter().any(|(other, _)| other == *there);
                        let born = in_place && self.unified.as_ref() == Some(*there);
                        !visited && !born
                    })
                    .try_for_each(|there| {
                        fs::write(there.join("cgroup.procs"), child.as_raw_pid().to_string())
                    })
            });
            if let Err(error) = moved {
                let _ = kill_process(child, Signal::KILL);
                let _ = waitpid(Some(child), WaitOptions::empty());
                return Err(error);
            }
        }
        Ok(forked)
    }

    /// Stops every task, or lets them go on; `None` where the kernel can't.
    pub(super) fn freeze(&self, frozen: bool) -> Option<io::Result<()>> {
        let directory = self.unified.as_ref()?;
        let (word, state) = if frozen {
            ("1", "frozen 1")
        } else {
            ("0", "frozen 0")
        };
        if let Err(error) = fs::write(directory.join("cgroup.freeze"), word) {
            return Some(Err(error));
        }
        let events = directory.join("cgroup.events");
        let settled = wait_until(PATIENCE, || {
            fs::read_to_string(&events).is_ok_and(|text| text.lines().any(|line| line == state))
        });
        Some(if settled {
            Ok(())
        } else {
            Err(io::ErrorKind::TimedOut.into())
        })
    }

    /// Processes that the kernel ended for want of memory.
    pub(super) fn memory_kills(&self) -> u64 {
        let Some(directory) = &self.memory else {
            return 0;
        };
        ["memory.events", "memory.oom_control"]
            .into_iter()
            .filter_map(|file| fs::read_to_string(directory.join(file)).ok())
            .flat_map(|text| {
                text.lines()
                    .filter_map(|line| line.strip_prefix("oom_kill "))
                    .filter_map(|count| count.trim().parse().ok())
                    .collect::<Vec<u64>>()
            })
            .next()
            .unwrap_or(0)
    }

    /// Their paths, for a caller that must clean up after a supervisor that was killed.
    pub(super) fn directories(&self) -> &[PathBuf] {
        &self.directories
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for directory in &self.directories {
            // A cgroup stays busy until the kernel has let go of its last task.
            wait_until(PATIENCE, || {
                fs::remove_dir(directory).is_ok() || !directory.exists()
            });
        }
    }
}

/// Removes cgroups of supervisors that were killed together with their callers.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            // Fails while tasks are in it, as it should.
            let _ = fs::remove_dir(entry.path());
        }
    }
}

fn writable(directory: &Path) -> bool {
    fs::OpenOptions::new()
        .write(true)
        .open(directory.join("cgroup.procs"))
        .is_ok()
}

fn set(directory: &Path, controller: &str, unified: bool, limits: &Limits) -> io::Result<()> {
    let write = |file: &str, text: String| fs::write(directory.join(file), text);
    // Init counts too.
    let processes = u64::from(limits.processes) + 1;
    let memory = limits.memory_bytes.to_string();
    let quota = limits
        .cpu_percent
        .map(|percent| u64::from(percent) * PERIOD_US / 100);
    match (controller, unified) {
        ("pids", _) => write("pids.max", processes.to_string()),
        ("memory", true) => {
            write("memory.max", memory)?;
            // Absent where the machine has no swap.
            let _ = write("memory.swap.max", "0".to_owned());
            Ok(())
        }
        ("memory", false) => {
            write("memory.limit_in_bytes", memory.clone())?;
            let _ = write("memory.memsw.limit_in_bytes", memory);
            Ok(())
        }
        (_, true) => match quota {
            Some(quota) => write("cpu.max", format!("{quota} {PERIOD_US}")),
            None => Ok(()),
        },
        (_, false) => match quota {
            Some(quota) => {
                write("cpu.cfs_period_us", PERIOD_US.to_string())?;
                write("cpu.cfs_quota_us", quota.to_string())
            }
            None => Ok(()),
        },
    }
}

/// A mounted cgroup tree.
#[derive(Debug, PartialEq, Eq)]
struct Hierarchy {
    unified: bool,
    controllers: Vec<String>,
    /// The launcher's own cgroup.
    own: PathBuf,
    /// Where a run's cgroup may be made, best first.
    parents: Vec<PathBuf>,
}

/// Reads the trees out of `/proc/self/mountinfo` and `/proc/self/cgroup`.
fn hierarchies(mounts: &str, own: &str) -> Vec<Hierarchy> {
    let own = own
        .lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            Some((parts.next()?, parts.next()?))
        })
        .collect::<Vec<_>>();
    let mut found = Vec::<Hierarchy>::new();
    for line in mounts.lines() {
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        let (mut left, mut right) = (left.split(' ').skip(3), right.split(' '));
        let (Some(root), Some(point)) = (left.next(), left.next()) else {
            continue;
        };
        let (kind, options) = (right.next().unwrap_or(""), right.nth(1).unwrap_or(""));
        let unified = kind == "cgroup2";
        if !unified && kind != "cgroup" {
            continue;
        }
        let controllers: Vec<String> = options
            .split(',')
            .filter(|option| ["pids", "memory", "cpu"].contains(option))
            .map(str::to_owned)
            .collect();
        if !unified && controllers.is_empty() {
            continue;
        }
        let Some((_, path)) = own.iter().find(|(held, _)| {
            if unified {
                held.is_empty()
            } else {
                held.split(',')
                    .any(|one| controllers.iter().any(|other| one == other))
            }
        }) else {
            continue;
        };
        let point = Path::new(point);
        let below = path
            .strip_prefix(root.trim_end_matches('/'))
            .unwrap_or(path);
        let own = point.join(below.trim_start_matches('/'));
        let mut parents = Vec::new();
        if unified && own != point && fs::metadata(own.join("cgroup.procs")).is_ok() {
            // Version 2 gives no controllers to children of a cgroup that has processes of its
            // own, so a tree beside it comes first; it takes root.
            parents.push(point.join("portcullis"));
        }
        parents.push(own.clone());
        if !found.iter().any(|other| other.own == own) {
            found.push(Hierarchy {
                unified,
                controllers,
                own,
                parents,
            });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_found_where_they_are_mounted() {
        let mounts = "30 23 0:26 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids\n\
             31 23 0:27 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
             32 23 0:28 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset\n\
             33 23 0:29 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n\
             34 23 0:30 / /proc rw - proc proc rw\n";
        let own = "8:pids:/\n4:memory:/a/b\n3:cpuset:/\n0::/user\n";
        let found = hierarchies(mounts, own);
        let paths: Vec<_> = found
            .iter()
            .map(|hierarchy| (hierarchy.unified, hierarchy.own.as_path()))
            .collect();
        assert_eq!(
            paths,
            [
                (false, Path::new("/sys/fs/cgroup/pids")),
                (false, Path::new("/sys/fs/cgroup/memory/a/b")),
                (true, Path::new("/sys/fs/cgroup/unified/user")),
            ]
        );
    }

    #[test]
    fn a_mount_that_shows_a_part_of_the_tree_is_understood() {
        let mounts = "33 23 0:29 /docker/x /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let found = hierarchies(mounts, "0::/docker/x/child\n");
        assert_eq!(
            found.first().map(|hierarchy| hierarchy.own.clone()),
            Some(PathBuf::from("/sys/fs/cgroup/child"))
        );
    }
}
