//! Jobs that run on the very machine that serves: a runner of one's own that starts containers anew,
//! restarts services, or copies a site to where it is served from. On a runner of the forge the same
//! commands reach nothing.

use super::{Job, Step};
use crate::acts::{Act, Op, is_rehearsal};
use crate::shell::{self, Command};
use crate::tree::Tree;

/// What is known of the machine that a job runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ground {
    /// The forge's own, gone after the job.
    Hosted,
    /// One that may serve: believed where names say that the job deploys.
    Perhaps,
    /// A machine of one's own.
    Own,
}

/// How much a command says by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    /// It is done where something is served.
    Serves,
    /// Tests start such things, too.
    Starts,
    /// It ends what was started.
    Stops,
    Tests,
}

/// Words of names that say that a job deploys.
const DEPLOYS: &[&str] = &["deploy", "rollout", "roll-out", "go-live", "production"];

/// Adds what jobs on machines of one's own deploy there.
pub(crate) fn judge(
    jobs: &mut [Job],
    file: &str,
    workflow: &str,
    tree: Option<&Tree>,
    ground: impl Fn(&Job) -> Ground,
) {
    for job in jobs {
        let ground = ground(job);
        if ground == Ground::Hosted {
            continue;
        }
        let environment = job.environment.as_ref().map(|(name, _)| name.as_str());
        let names = format!(
            "{workflow} {} {} {}",
            job.id,
            job.name.as_deref().unwrap_or_default(),
            environment.unwrap_or_default()
        );
        let of_job = names_deploy(&names) || environment.is_some();
        let said: Vec<Vec<(Says, usize, String)>> = job
            .steps
            .iter()
            .map(|step| commands_of(step, tree))
            .collect();
        let flat: Vec<Says> = said.iter().flatten().map(|(says, ..)| *says).collect();
        let tests = flat.contains(&Says::Tests);
        // What is stopped after it was started was there for the job alone.
        let last_start = flat.iter().rposition(|says| *says == Says::Starts);
        let last_stop = flat.iter().rposition(|says| *says == Says::Stops);
        let passing = last_stop > last_start;
        for (step, said) in job.steps.iter_mut().zip(said) {
            let known = step
                .acts
                .iter()
                .any(|act| matches!(act.op, Op::Deploy { .. }));
            let named = of_job || step.name.as_deref().is_some_and(names_deploy);
            let found = said.into_iter().find(|(says, ..)| match says {
                Says::Serves => named || ground == Ground::Own,
                Says::Starts => !passing && (named || ground == Ground::Own && !tests),
                Says::Stops | Says::Tests => false,
            });
            let Some((_, line, what)) = found.filter(|_| !known) else {
                continue;
            };
            let all = format!(
                "{names} {} {what}",
                step.name.as_deref().unwrap_or_default()
            );
            let mut act = Act::deploy(what).benign_if(
                is_rehearsal(&all),
                "the target's name says that it is not production",
            );
            act.line = line;
            file.clone_into(&mut act.file);
            step.acts.push(act);
        }
    }
}

fn names_deploy(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    DEPLOYS.iter().any(|word| name.contains(word))
}

/// The commands of a step that matter, with their lines, and those of a script that it calls.
fn commands_of(step: &Step, tree: Option<&Tree>) -> Vec<(Says, usize, String)> {
    /// Most commands that are kept of one step.
    const KEPT_MAX: usize = 200;
    let Some((text, line)) = &step.run else {
        return Vec::new();
    };
    let mut out = Vec::new();
    for command in shell::commands(text) {
        let at = line + command.line;
        if let Some(says) = says(&command) {
            out.push((says, at, shown(&command)));
        } else if let Some(script) = script_of(&command).and_then(|path| tree?.read(path).ok()) {
            for inner in shell::commands(&script) {
                if let Some(says) = says(&inner) {
                    out.push((says, at, shown(&inner)));
                }
            }
        }
        if out.len() >= KEPT_MAX {
            break;
        }
    }
    out
}

fn shown(command: &Command) -> String {
    crate::acts::git::shorten(&command.text())
}

/// The script that a command starts by its path.
fn script_of(command: &Command) -> Option<&str> {
    let words = plain(command);
    let path = match words.as_slice() {
        ["bash" | "sh" | "zsh" | "source" | ".", path, ..] => path,
        [path, ..] => path,
        [] => return None,
    };
    let path = path.strip_prefix("./").unwrap_or(path);
    path.ends_with(".sh").then_some(path)
}

/// The words of a command without `sudo` and its options.
fn plain(command: &Command) -> Vec<&str> {
    let words: Vec<&str> = command.words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["sudo", rest @ ..] => {
            let own = rest.iter().take_while(|word| word.starts_with('-')).count();
            rest.get(own..).unwrap_or_default().to_vec()
        }
        _ => words,
    }
}

fn says(command: &Command) -> Option<Says> {
    /// Services that tests need.
    const NEEDED: &[&str] = &[
        "docker",
        "mysql",
        "mariadb",
        "postgresql",
        "postgres",
        "redis",
        "redis-server",
        "mongod",
    ];
    let words = plain(command);
    let of_others =
        |names: &[&&str]| !names.is_empty() && names.iter().all(|name| !NEEDED.contains(*name));
    match words.as_slice() {
        [
            "pm2",
            "restart" | "reload" | "start" | "startOrRestart" | "startOrReload",
            ..,
        ]
        | ["nginx", "-s", "reload", ..]
        | ["supervisorctl", "restart" | "reload" | "update", ..]
        | ["iisreset", ..]
        | ["nssm", "restart", ..]
        | [
            "Restart-WebAppPool" | "Restart-Service" | "Start-WebAppPool",
            ..,
        ] => Some(Says::Serves),
        ["systemctl", rest @ ..] => {
            let rest: Vec<&&str> = rest.iter().filter(|word| !word.starts_with('-')).collect();
            match rest.as_slice() {
                [verb, names @ ..]
                    if matches!(**verb, "restart" | "reload") && of_others(names) =>
                {
                    Some(Says::Serves)
                }
                _ => None,
            }
        }
        ["service", name, "restart" | "reload", ..] if !NEEDED.contains(name) => Some(Says::Serves),
        ["docker", "compose", rest @ ..] | ["docker-compose", rest @ ..] => compose(rest),
        ["docker" | "podman", "run", rest @ ..] if detached(rest) => {
            Some(if rest.iter().any(|word| word.starts_with("--restart")) {
                Says::Serves
            } else {
                Says::Starts
            })
        }
        ["docker" | "podman", "restart", ..] => Some(Says::Starts),
        ["docker" | "podman", "stop" | "rm" | "kill", ..] => Some(Says::Stops),
        ["cp" | "mv" | "rsync" | "install", .., to] if is_served(to) => Some(Says::Serves),
        ["npm" | "yarn" | "pnpm", "test" | "t", ..]
        | [
            "npm" | "yarn" | "pnpm",
            "run",
            "test" | "e2e" | "test:e2e" | "test:integration",
            ..,
        ]
        | ["pytest" | "phpunit" | "jest" | "cypress" | "playwright", ..]
        | ["go" | "cargo" | "dotnet" | "mix", "test", ..] => Some(Says::Tests),
        _ => None,
    }
}

fn compose(rest: &[&str]) -> Option<Says> {
    let verb = rest.iter().find(|word| {
        matches!(
            **word,
            "up" | "down" | "restart" | "stop" | "run" | "rm" | "kill"
        )
    })?;
    let tests = rest.windows(2).any(|pair| {
        matches!(pair, ["-f" | "--file" | "-p" | "--project-name", name] if is_rehearsal(name))
    });
    match *verb {
        "up" | "restart" if tests => Some(Says::Tests),
        "up" if !detached(rest) && !rest.contains(&"--wait") => None,
        "up" | "restart" => Some(Says::Starts),
        "down" | "stop" | "rm" | "kill" => Some(Says::Stops),
        _ => None,
    }
}

/// `-d`, `--detach`, or among other letters.
fn detached(rest: &[&str]) -> bool {
    rest.iter().any(|word| {
        *word == "--detach"
            || word.strip_prefix('-').is_some_and(|flags| {
                !flags.starts_with('-') && flags.len() < 5 && flags.contains('d')
            })
    })
}

/// Directories that servers serve from.
fn is_served(path: &str) -> bool {
    [
        "/var/www",
        "/srv/",
        "/usr/share/nginx",
        "/opt/lampp",
        "/usr/share/caddy",
    ]
    .iter()
    .any(|place| path.starts_with(place))
        || path.to_ascii_lowercase().contains("inetpub")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Option<Says> {
        says(shell::commands(text).first()?)
    }

    #[test]
    fn commands_say_whether_something_is_served() {
        for text in [
            "sudo systemctl restart app",
            "sudo -n systemctl --user reload app",
            "pm2 reload ecosystem.config.js",
            "docker run -d --restart always a/b",
            "cp -r dist/* /var/www/html/",
            "rsync -a --delete out/ /srv/www",
            "nginx -s reload",
        ] {
            assert_eq!(one(text), Some(Says::Serves), "{text}");
        }
        for text in ["docker compose up -d --build", "docker run -dp 80:80 a/b"] {
            assert_eq!(one(text), Some(Says::Starts), "{text}");
        }
        assert_eq!(one("docker compose -f x.test.yml up -d"), Some(Says::Tests));
        for text in [
            "systemctl status app",
            "sudo systemctl restart docker",
            "sudo systemctl start app",
            "docker run --rm a/b",
            "docker compose up --abort-on-container-exit",
            "cp a b",
        ] {
            assert_eq!(one(text), None, "{text}");
        }
    }
}
