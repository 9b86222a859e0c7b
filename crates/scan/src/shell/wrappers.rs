//! Programs that start another one: the command behind them is what counts.

use super::{Command, is_assignment};

impl Command {
    /// The command behind `sudo`, `env`, `npx`, `timeout 5` and the like.
    pub(crate) fn unwrapped(&self) -> Self {
        /// Most wrappers in front of one command.
        const WRAPPERS_MAX: usize = 8;
        let mut command = self.clone();
        for _ in 0..WRAPPERS_MAX {
            let words: Vec<&str> = command.words.iter().map(String::as_str).collect();
            if let Some(inner) = behind(&words) {
                command.words = inner;
                continue;
            }
            let remote = command.env.iter().any(|(name, _)| name == "DOCKER_HOST");
            if let Some(inner) = in_container(&words).filter(|_| !remote) {
                command.words = inner;
                continue;
            }
            let skip = match words.as_slice() {
                [
                    "sudo" | "env" | "nohup" | "exec" | "command" | "nice" | "xargs" | "npx"
                    | "bunx" | "pnpx" | "uvx" | "retry" | "doas" | "stdbuf" | "xvfb-run" | "dotenv"
                    | "cross-env" | "corepack" | "time" | "setsid" | "unbuffer" | "chronic"
                    | "ionice" | "&",
                    rest @ ..,
                ] => 1 + options(words.first().copied().unwrap_or_default(), rest),
                ["timeout", rest @ ..] => {
                    2 + rest.iter().take_while(|word| word.starts_with('-')).count()
                }
                [
                    "pnpm" | "yarn" | "npm" | "bun" | "vp",
                    "dlx" | "exec" | "x",
                    rest @ ..,
                ] => 2 + rest.iter().take_while(|word| word.starts_with('-')).count(),
                [
                    "poetry" | "uv" | "pipx" | "pdm" | "hatch" | "rye" | "pipenv",
                    "run",
                    rest @ ..,
                ] => {
                    2 + rest.iter().take_while(|word| word.starts_with('-')).count()
                        + usize::from(matches!(
                            rest,
                            ["--with" | "--python" | "--group" | "--extra", _, ..]
                        ))
                }
                ["bundle" | "asdf" | "volta", "exec" | "run", ..] => 2,
                ["uv", "tool", "run", rest @ ..] => {
                    3 + rest.iter().take_while(|word| word.starts_with('-')).count()
                }
                ["direnv", "exec", _, ..] | ["flock" | "gosu" | "su-exec", _, _, ..] => {
                    if words.first() == Some(&"direnv") {
                        3
                    } else {
                        2
                    }
                }
                ["conda" | "mamba" | "micromamba", "run", rest @ ..] => {
                    2 + rest.iter().take_while(|word| word.starts_with('-')).count()
                        + usize::from(matches!(
                            rest,
                            ["-n" | "--name" | "-p" | "--prefix", _, ..]
                                | [_, "-n" | "--name" | "-p" | "--prefix", _, ..]
                        ))
                }
                ["php", path, ..] if path.contains("vendor/bin/") => 1,
                ["node", path, ..] if path.contains("node_modules/.bin/") => 1,
                ["nix", "develop" | "shell", rest @ ..] => {
                    match rest
                        .iter()
                        .position(|word| matches!(*word, "--command" | "-c"))
                    {
                        Some(at) => at + 3,
                        None => return command,
                    }
                }
                ["python" | "python3", "-m", ..] => 2,
                _ => return command,
            };
            for word in words.iter().take(skip).filter(|word| is_assignment(word)) {
                if let Some((name, value)) = word.split_once('=') {
                    command.env.push((name.to_owned(), value.to_owned()));
                }
            }
            command.words.drain(..skip.min(words.len()));
            if command.words.is_empty() {
                return command;
            }
        }
        command
    }
}

/// How many words the options and assignments in front of a command are.
fn options(program: &str, words: &[&str]) -> usize {
    let valued: &[&str] = match program {
        "sudo" | "doas" => &["-u", "-g"],
        "env" => &["-u", "-C"],
        "nice" | "ionice" => &["-n", "-c"],
        "xargs" => &["-I", "-n", "-L", "-P", "-d", "-a"],
        "npx" | "bunx" | "pnpx" | "uvx" => &["-p", "--package", "--from", "--with", "--python"],
        "dotenv" => &["-e", "-f"],
        "retry" => &["-t", "-d", "-n"],
        _ => &[],
    };
    let mut at = 0;
    while let Some(word) = words.get(at) {
        if valued.contains(word) {
            at += 2;
        } else if word.starts_with('-') || is_assignment(word) {
            at += 1;
        } else {
            break;
        }
    }
    at
}

/// The words of the command that such a program starts, where they have to be put together.
fn behind(words: &[&str]) -> Option<Vec<String>> {
    /// They lend secrets or an environment to what stands behind `--`.
    const LENDERS: &[&str] = &[
        "doppler",
        "infisical",
        "op",
        "dotenvx",
        "dotenv",
        "aws-vault",
        "chamber",
        "teller",
        "devbox",
        "devenv",
        "mise",
        "rtx",
        "opam",
        "stack",
        "cabal",
        "varlock",
        "phase",
        "summon",
        "berglas",
        "secrethub",
        "proto",
        "pkgx",
        "flox",
        "env-cmd",
        "bws",
        "saml2aws",
        "aws-sso",
        "akeyless",
    ];
    let owned = |program: &str, rest: &[&str]| {
        std::iter::once(program)
            .chain(rest.iter().copied())
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let after = |mark: &str| {
        let at = words.iter().position(|word| *word == mark)?;
        words.get(at + 1..).filter(|rest| !rest.is_empty())
    };
    match words {
        ["nix-shell", ..] => {
            let text = after("--run").or_else(|| after("--command"))?.first()?;
            Some(owned("bash", &["-c", text]))
        }
        ["nix", ..] => {
            let at = words.iter().position(|word| *word == "run")?;
            let ends = words.iter().position(|word| *word == "--");
            let target = words
                .iter()
                .take(ends.unwrap_or(words.len()))
                .skip(at + 1)
                .find(|word| !word.starts_with('-'))?;
            let (place, attribute) = target.split_once('#').unwrap_or((target, ""));
            if place.is_empty() || place.starts_with(['.', '/', '$']) {
                return None;
            }
            let name = if attribute.is_empty() {
                // `github:owner/name/branch`
                let path = place.split_once(':').map_or(place, |(_, path)| path);
                path.split('/').nth(1).unwrap_or(path)
            } else {
                attribute.rsplit('.').next().unwrap_or(attribute)
            };
            Some(owned(name, after("--").unwrap_or_default()))
        }
        ["go", "run", rest @ ..] => {
            let at = rest.iter().position(|word| !word.starts_with('-'))?;
            let target = rest.get(at)?;
            let (path, _) = target.split_once('@').unwrap_or((target, ""));
            let domain = path.split('/').next().unwrap_or_default();
            if !domain.contains('.') || domain.starts_with('.') || !path.contains('/') {
                return None;
            }
            let name = path.rsplit('/').find(|part| {
                !part
                    .strip_prefix('v')
                    .is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit()))
            })?;
            Some(owned(name, rest.get(at + 1..).unwrap_or_default()))
        }
        ["deno", "run" | "x", rest @ ..] => {
            let at = rest.iter().position(|word| !word.starts_with('-'))?;
            let package = rest.get(at)?.strip_prefix("npm:")?;
            Some(owned(package, rest.get(at + 1..).unwrap_or_default()))
        }
        ["cargo", toolchain, rest @ ..] if toolchain.starts_with('+') => Some(owned("cargo", rest)),
        ["find", ..] => {
            let rest = after("-exec").or_else(|| after("-execdir"))?;
            let end = rest
                .iter()
                .position(|word| matches!(*word, ";" | "\\;" | "+"))
                .unwrap_or(rest.len());
            let (first, rest) = rest.get(..end)?.split_first()?;
            Some(owned(first, rest))
        }
        ["parallel", rest @ ..] => {
            let at = rest.iter().position(|word| !word.starts_with('-'))?;
            let end = rest
                .iter()
                .position(|word| word.starts_with(":::"))
                .unwrap_or(rest.len());
            let (first, rest) = rest.get(at..end)?.split_first()?;
            Some(owned(first, rest))
        }
        ["retry", count, first, rest @ ..] if count.chars().all(|c| c.is_ascii_digit()) => {
            Some(owned(first, rest))
        }
        ["pipx", "run", "--spec", _, first, rest @ ..] => Some(owned(first, rest)),
        ["su", .., "-c", text] => Some(owned("bash", &["-c", text])),
        [lender, ..] if LENDERS.contains(lender) => {
            // These run tasks and programs of a project, too, and hand them what stands behind.
            let tasks = ["mise", "rtx", "opam", "stack", "cabal", "proto", "pkgx"];
            if tasks.contains(lender) && !matches!(words.get(1), Some(&("exec" | "x" | "--"))) {
                return None;
            }
            let rest = after("--")?;
            let (first, rest) = rest.split_first()?;
            Some(owned(first, rest))
        }
        _ => None,
    }
}

/// The command that is run in a container of the job: by the image's own program, or by what stands
/// behind the image.
fn in_container(words: &[&str]) -> Option<Vec<String>> {
    const PROGRAMS: &[(&str, &str)] = &[
        ("terraform", "terraform"),
        ("opentofu", "tofu"),
        ("aws-cli", "aws"),
        ("kubectl", "kubectl"),
        ("helm", "helm"),
        ("goreleaser", "goreleaser"),
        ("goreleaser-cross", "goreleaser"),
        ("crane", "crane"),
        ("skopeo", "skopeo"),
        ("flyctl", "flyctl"),
        ("rclone", "rclone"),
        ("ansible-playbook", "ansible-playbook"),
        ("renovate", "renovate"),
        ("lftp", "lftp"),
        ("s3cmd", "s3cmd"),
        ("maturin", "maturin"),
        ("twine", "twine"),
        ("wrangler", "wrangler"),
    ];
    const VALUED: &[&str] = &[
        "-v",
        "-e",
        "-w",
        "-u",
        "-p",
        "-l",
        "-h",
        "-m",
        "--env",
        "--volume",
        "--workdir",
        "--name",
        "--network",
        "--net",
        "--user",
        "--entrypoint",
        "--platform",
        "--mount",
        "--env-file",
        "--add-host",
        "--label",
        "--hostname",
        "--cap-add",
        "--security-opt",
        "--ulimit",
        "--gpus",
        "--memory",
        "--pull",
        "--publish",
        "--volumes-from",
        "--device",
        "--restart",
    ];
    let rest = match words {
        ["docker" | "podman" | "nerdctl", "run", rest @ ..]
        | ["docker", "container", "run", rest @ ..]
        | ["docker", "compose", "run", rest @ ..]
        | ["docker-compose", "run", rest @ ..] => rest,
        _ => return None,
    };
    let mut entry = None;
    let mut at = 0;
    while let Some(word) = rest.get(at).filter(|word| word.starts_with('-')) {
        if let Some(value) = word.strip_prefix("--entrypoint=") {
            entry = Some(value);
        } else if VALUED.contains(word) {
            if *word == "--entrypoint" {
                entry = rest.get(at + 1).copied();
            }
            // What runs on when the job is over serves someone.
            at += 1;
        } else if matches!(*word, "-d" | "--detach" | "-dit" | "-itd") {
            return None;
        }
        at += 1;
    }
    let image = rest.get(at)?;
    let behind = rest.get(at + 1..).unwrap_or_default();
    let name = image.split(['@']).next().unwrap_or(image);
    let name = name.rsplit('/').next().unwrap_or(name);
    let name = name.split(':').next().unwrap_or(name);
    let program = entry.filter(|entry| !entry.is_empty()).or_else(|| {
        PROGRAMS
            .iter()
            .find(|(image, program)| *image == name && behind.first() != Some(program))
            .map(|(_, program)| *program)
    });
    let inner: Vec<String> = program
        .into_iter()
        .chain(behind.iter().copied())
        .map(str::to_owned)
        .collect();
    (!inner.is_empty()).then_some(inner)
}

#[cfg(test)]
mod tests {
    use crate::shell::commands;

    #[test]
    fn what_a_program_starts_is_found_behind_it() {
        for (text, inner) in [
            (
                "nix run nixpkgs#colmena -- apply --on @a",
                "colmena apply --on @a",
            ),
            (
                "nix run github:serokell/deploy-rs -- .#host",
                "deploy-rs .#host",
            ),
            ("nix --quiet run github:a/b/main", "b"),
            ("nix run .#deploy", "nix run .#deploy"),
            ("nix-shell -p x --run 'x deploy'", "bash -c x deploy"),
            ("go run github.com/a/tool/v2@latest release", "tool release"),
            ("go run ./cmd/tool release", "go run ./cmd/tool release"),
            ("doppler run -p a -- npm publish", "npm publish"),
            ("cargo +nightly publish", "cargo publish"),
            ("deno run -A npm:wrangler@3 deploy", "wrangler@3 deploy"),
            ("npx -y -p a -p b c --d", "c --d"),
            ("find . -name x -exec npm publish {} +", "npm publish {}"),
            ("parallel -j2 npm publish ::: a b", "npm publish"),
            ("retry 3 npm publish", "npm publish"),
            ("pipx run --spec a twine upload b", "twine upload b"),
            ("env -u A B=c npm publish", "npm publish"),
            ("conda run -n x twine upload y", "twine upload y"),
            ("php vendor/bin/dep deploy", "vendor/bin/dep deploy"),
            (
                "docker run --rm -v a:b hashicorp/terraform:1.9 apply",
                "terraform apply",
            ),
            ("docker run --rm -e A node:20 npm publish", "npm publish"),
            ("docker run --entrypoint make x all", "make all"),
            (
                "docker run -d --restart always a/b serve",
                "docker run -d --restart always a/b serve",
            ),
            ("docker run a/b", "docker run a/b"),
        ] {
            let command = commands(text).remove(0).unwrapped();
            assert_eq!(command.text(), inner, "{text}");
        }
    }

    #[test]
    fn wrappers_without_a_command_end() {
        for text in [
            "nix run",
            "nix",
            "go run",
            "doppler run --",
            "docker run",
            "docker run -v",
            "su -c",
            "npx -p",
            "cargo +x",
            "sudo",
            "flock a",
            "nix run --",
            "deno run",
            "conda run -n",
        ] {
            for command in commands(text) {
                let _ = command.unwrapped();
            }
        }
    }
}
