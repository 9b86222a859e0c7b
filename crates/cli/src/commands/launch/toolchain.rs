//! Toolchains of this machine that a sandbox sees, read-only.
//!
//! What lies in the system's directories is visible anyway. Here is what people install in their
//! home directories: rustup, nvm, pyenv. Of a home directory just these are shown, never its
//! settings, caches or credentials.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use portcullis_model::Refusal;
use portcullis_sandbox::{Bind, Toolchain, default_binds, rust_toolchain};

/// Where a single program of the host stands inside.
const PROGRAMS: &str = "/opt/portcullis/bin";

/// The toolchains of these names or paths; without any, those of the usual places.
///
/// # Errors
/// A named one is not here.
pub(crate) fn toolchains(wanted: &[String]) -> Result<Vec<Toolchain>, Refusal> {
    let machine = Machine::of_process();
    if wanted.is_empty() {
        return Ok([machine.rust(), machine.node(), machine.python()]
            .into_iter()
            .flatten()
            .collect());
    }
    let mut found = Vec::new();
    for name in wanted {
        match name.as_str() {
            "none" => {}
            "rust" => found.push(
                machine
                    .rust()
                    .ok_or_else(|| missing("rust", "~/.rustup and ~/.cargo/bin"))?,
            ),
            "node" => found.push(
                machine
                    .node()
                    .ok_or_else(|| missing("node", "~/.nvm/versions/node"))?,
            ),
            "python" => found.push(
                machine
                    .python()
                    .ok_or_else(|| missing("python", "~/.pyenv"))?,
            ),
            path if path.contains('/') => found.push(directory(Path::new(path))?),
            other => {
                return Err(Refusal::malformed("toolchain")
                    .expected("rust, node, python, none, or a path with a slash")
                    .received(other));
            }
        }
    }
    Ok(found)
}

/// A program that the caller's `PATH` finds where the sandbox sees nothing: it alone is shown. For
/// agents that are one file in `~/.local/bin`. `None` where there is nothing to show.
pub(crate) fn single_program(name: &OsStr, visible: &[Bind]) -> Option<Toolchain> {
    if name.as_encoded_bytes().contains(&b'/') {
        return None;
    }
    let path = std::env::var_os("PATH")?;
    single_program_in(name, std::env::split_paths(&path), visible)
}

fn single_program_in(
    name: &OsStr,
    directories: impl Iterator<Item = PathBuf>,
    visible: &[Bind],
) -> Option<Toolchain> {
    let found = directories
        .map(|directory| directory.join(name))
        .find(|program| is_program(program))?;
    let real = found.canonicalize().ok()?;
    let seen = |path: &Path| visible.iter().any(|bind| path.starts_with(&bind.host));
    if seen(&found) && seen(&real) {
        return None;
    }
    Some(Toolchain {
        binds: vec![Bind {
            host: real,
            inside: Path::new(PROGRAMS).join(name),
            required: true,
        }],
        path: vec![PROGRAMS.into()],
        environment: Default::default(),
    })
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path)
        .is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

/// Where things are on this machine.
struct Machine {
    home: PathBuf,
    rustup: Option<PathBuf>,
    cargo: Option<PathBuf>,
    nvm: Option<PathBuf>,
    pyenv: Option<PathBuf>,
}

impl Machine {
    fn of_process() -> Self {
        let path = |name: &str| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        Self {
            home: path("HOME").unwrap_or_else(|| PathBuf::from("/nonexistent")),
            rustup: path("RUSTUP_HOME"),
            cargo: path("CARGO_HOME"),
            nvm: path("NVM_DIR"),
            pyenv: path("PYENV_ROOT"),
        }
    }

    fn rust(&self) -> Option<Toolchain> {
        let elsewhere = self.rustup.as_ref().zip(self.cargo.as_ref());
        if let Some((rustup, cargo)) = elsewhere
            && (rustup, cargo) != (&self.home.join(".rustup"), &self.home.join(".cargo"))
            && rustup.join("toolchains").is_dir()
            && cargo.join("bin").is_dir()
        {
            return Some(Toolchain {
                binds: vec![
                    Bind::same(cargo.join("bin")),
                    Bind::same(rustup.join("toolchains")),
                    Bind::same(rustup.join("settings.toml")),
                    Bind::same(rustup.join("update-hashes")),
                ],
                path: vec![cargo.join("bin")],
                environment: variables(&[
                    ("RUSTUP_HOME", rustup.as_os_str()),
                    ("CARGO_HOME", OsStr::new("/home/agent/.cargo")),
                ]),
            });
        }
        let found = rust_toolchain(&self.home);
        (!found.binds.is_empty()).then_some(found)
    }

    /// The newest version that nvm has.
    fn node(&self) -> Option<Toolchain> {
        let nvm = self.nvm.clone().unwrap_or_else(|| self.home.join(".nvm"));
        let newest = std::fs::read_dir(nvm.join("versions/node"))
            .ok()?
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.join("bin/node").exists())
            .max_by_key(|path| version(path))?;
        Some(Toolchain {
            path: vec![newest.join("bin")],
            binds: vec![Bind::same(newest)],
            environment: Default::default(),
        })
    }

    fn python(&self) -> Option<Toolchain> {
        let pyenv = self
            .pyenv
            .clone()
            .unwrap_or_else(|| self.home.join(".pyenv"));
        if !pyenv.join("versions").is_dir() {
            return None;
        }
        Some(Toolchain {
            // The last stands first in PATH.
            path: vec![pyenv.join("bin"), pyenv.join("shims")],
            environment: variables(&[("PYENV_ROOT", pyenv.as_os_str())]),
            binds: vec![Bind::same(pyenv)],
        })
    }
}

/// The numbers in `v22.3.0`.
fn version(path: &Path) -> Vec<u64> {
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    name.trim_start_matches('v')
        .split('.')
        .map(|part| part.parse().unwrap_or_default())
        .collect()
}

fn variables(list: &[(&str, &OsStr)]) -> std::collections::BTreeMap<OsString, OsString> {
    list.iter()
        .map(|(name, value)| (OsString::from(name), (*value).to_owned()))
        .collect()
}

/// A directory or file that is visible at its own path; its programs are found.
fn directory(path: &Path) -> Result<Toolchain, Refusal> {
    let unusable = |error: std::io::Error| {
        missing(
            &path.display().to_string(),
            "a directory or file of this machine",
        )
        .received(&error.to_string())
    };
    let real = path.canonicalize().map_err(unusable)?;
    let programs = if real.join("bin").is_dir() {
        real.join("bin")
    } else if real.is_dir() {
        real.clone()
    } else {
        real.parent().unwrap_or(&real).to_owned()
    };
    let visible = default_binds()
        .iter()
        .any(|bind| real.starts_with(&bind.inside));
    Ok(Toolchain {
        binds: if visible {
            Vec::new()
        } else {
            vec![Bind::required(&real, &real)]
        },
        path: vec![programs],
        environment: Default::default(),
    })
}

fn missing(what: &str, expected: &str) -> Refusal {
    Refusal::not_found("toolchain", what)
        .expected(expected)
        .next("install it there, or name another directory with --toolchain PATH")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn machine(home: &Path) -> Machine {
        Machine {
            home: home.to_owned(),
            rustup: None,
            cargo: None,
            nvm: None,
            pyenv: None,
        }
    }

    #[test]
    fn of_a_home_directory_only_toolchains_are_shown() {
        let home = tempfile::tempdir().unwrap();
        for folder in [
            ".rustup/toolchains",
            ".cargo/bin",
            ".cargo/registry",
            ".ssh",
            ".pyenv/versions",
        ] {
            fs::create_dir_all(home.path().join(folder)).unwrap();
        }
        for version in ["v9.9.0", "v22.3.0"] {
            let bin = home
                .path()
                .join(".nvm/versions/node")
                .join(version)
                .join("bin");
            fs::create_dir_all(&bin).unwrap();
            fs::write(bin.join("node"), "").unwrap();
        }
        fs::write(home.path().join(".cargo/credentials.toml"), "token").unwrap();
        let machine = machine(home.path());
        let found: Vec<Toolchain> = [machine.rust(), machine.node(), machine.python()]
            .into_iter()
            .flatten()
            .collect();
        assert_eq!(found.len(), 3);
        for bind in found.iter().flat_map(|toolchain| &toolchain.binds) {
            for secret in [".cargo/credentials.toml", ".ssh", ".cargo/registry"] {
                assert!(
                    !home.path().join(secret).starts_with(&bind.host),
                    "{bind:?}"
                );
            }
        }
        assert!(
            found[1].path[0].ends_with("v22.3.0/bin"),
            "{:?}",
            found[1].path
        );
    }

    #[test]
    fn nothing_is_found_in_an_empty_home_and_said_when_asked_for() {
        let home = tempfile::tempdir().unwrap();
        let machine = machine(home.path());
        assert!(machine.rust().is_none() && machine.node().is_none() && machine.python().is_none());
        assert!(toolchains(&["cobol".to_owned()]).is_err());
        assert_eq!(
            toolchains(&["/no/where".to_owned()]).unwrap_err().code,
            "toolchain-not-found"
        );
        assert!(toolchains(&["none".to_owned()]).unwrap().is_empty());
    }

    #[test]
    fn a_single_program_is_shown_alone() {
        let home = tempfile::tempdir().unwrap();
        let program = home.path().join("agent");
        fs::write(&program, "#!/bin/sh\n").unwrap();
        let path = || [home.path().to_owned()].into_iter();
        assert!(
            single_program_in(OsStr::new("agent"), path(), &[]).is_none(),
            "not executable"
        );
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let found = single_program_in(OsStr::new("agent"), path(), &[]).unwrap();
        assert_eq!(found.binds.len(), 1);
        assert_eq!(found.binds[0].host, program.canonicalize().unwrap());
        assert!(found.binds[0].inside.ends_with("agent"));
        let visible = [
            Bind::same(home.path().canonicalize().unwrap()),
            Bind::same(home.path()),
        ];
        assert!(single_program_in(OsStr::new("agent"), path(), &visible).is_none());
    }
}
