//! What happens inside before the command: a clone that costs seconds, and an environment that
//! tells the agent what it has. Pure.
//!
//! The clone holds one commit, the task's base, and can be deepened (`git fetch --deepen=50`,
//! `git fetch --unshallow`). Branch `work` stands at the base; a plain `git push` sends it to
//! `refs/for/<branch>`, which opens or updates a change.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use portcullis_model::{EndpointId, TaskText};
use portcullis_sandbox::WORKSPACE;

use super::lent::{Lent, Repository};

/// Port of the channel inside. The sandbox has a network of its own, so it is always free.
pub(super) const CHANNEL_PORT: u16 = 3128;
/// Where what the run is given stands inside, read-only.
pub(super) const GIVEN: &str = "/home/agent/.portcullis";
/// Where the authorities stand that the run's programs trust: its own, and no others.
pub(super) const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Exit status when the prelude fails, as with `env` and `docker run`.
pub(super) const NOT_STARTED: u8 = 125;
/// What stands where a program insists on a key. The gateway puts the real one in, outside.
const PLACEHOLDER: &str = "the-gateway-adds-the-key";

/// The script that prepares the workspace and becomes the command in its arguments. `own`: name of
/// the caller's own script, if one was given along.
pub(super) fn script(lent: &Lent, own: Option<&str>) -> String {
    let mut script = format!(
        "# Prepares a run, then becomes its command.\n\
         set -eu\n\
         fail() {{ printf 'portcullis: %s\\n' \"$1\" >&2; exit {NOT_STARTED}; }}\n\
         command -v git >/dev/null 2>&1 || fail 'there is no git in the sandbox; install git on this machine'\n"
    );
    for (key, value) in [
        ("user.name", lent.git.name.as_str()),
        ("user.email", lent.git.mail.as_str()),
        // Detaching and shallow clones are no mistakes here.
        ("advice.detachedHead", "false"),
        ("gc.auto", "0"),
        // What would be refused of the push that a plain `git push` makes.
        ("alias.ask", "push -o dry-run"),
    ] {
        let _ = writeln!(script, "git config --global {key} {}", quoted(value));
    }
    script.push_str(CLONE);
    let several = lent.repositories.len() > 1;
    for repository in &lent.repositories {
        let _ = writeln!(script, "{}", clone_call(repository, several));
    }
    let _ = writeln!(script, "cd {WORKSPACE}");
    if let Some(name) = own {
        // A script of the repository wins over one of the caller's directory.
        let file = quoted(&format!("{GIVEN}/command/{name}"));
        let _ = writeln!(
            script,
            "if [ ! -e \"$1\" ]; then shift; set -- {file} \"$@\"; fi"
        );
    }
    script.push_str("unset -f fail clone\nexec \"$@\"\n");
    script
}

const CLONE: &str = r#"clone() {
    folder=$1 url=$2 base=$3 branch=$4 format=$5
    mkdir -p "$folder"
    cd "$folder"
    git init --quiet --initial-branch=work --object-format="$format" .
    git remote add origin "$url"
    git config remote.origin.fetch "+refs/heads/$branch:refs/remotes/origin/$branch"
    git config remote.origin.push "HEAD:refs/for/$branch"
    git config remote.origin.tagOpt --no-tags
    git fetch --quiet --no-tags --depth=1 origin "$base" || fail "the base $base of $url can't be fetched"
    git update-ref "refs/remotes/origin/$branch" "$base"
    git checkout --quiet -B work "$base"
    git config branch.work.remote origin
    git config branch.work.merge "refs/heads/$branch"
}
"#;

fn clone_call(repository: &Repository, several: bool) -> String {
    let folder = if several {
        format!("{WORKSPACE}/{}", repository.id)
    } else {
        WORKSPACE.to_owned()
    };
    let url = format!("http://127.0.0.1:{CHANNEL_PORT}{}", repository.clone);
    let format = if repository.base.as_str().len() == 64 {
        "sha256"
    } else {
        "sha1"
    };
    let words = [
        &folder,
        &url,
        repository.base.as_str(),
        &repository.branch,
        format,
    ];
    let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    format!("clone {}", words.join(" "))
}

/// A word as the shell takes it for exactly itself.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Variables of the run, beside those that every sandbox has.
pub(super) fn environment(lent: &Lent) -> BTreeMap<String, String> {
    let base = format!("http://127.0.0.1:{CHANNEL_PORT}");
    let mut variables: BTreeMap<String, String> = [
        ("GIT_AUTHOR_NAME", lent.git.name.clone()),
        ("GIT_AUTHOR_EMAIL", lent.git.mail.clone()),
        ("GIT_COMMITTER_NAME", lent.git.name.clone()),
        ("GIT_COMMITTER_EMAIL", lent.git.mail.clone()),
        ("GIT_TERMINAL_PROMPT", "0".to_owned()),
        ("PORTCULLIS_RUN", lent.run.to_string()),
        ("PORTCULLIS_AGENT", lent.agent.to_string()),
        ("PORTCULLIS_DEADLINE", lent.deadline.to_string()),
        ("PORTCULLIS_TASK", format!("{GIVEN}/task.md")),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect();
    if !lent.feedback.is_empty() {
        variables.insert(
            "PORTCULLIS_FEEDBACK".to_owned(),
            format!("{GIVEN}/feedback.md"),
        );
    }
    for endpoint in &lent.endpoints {
        let url = format!("{base}/model/{endpoint}");
        variables.insert(endpoint_variable(endpoint), url.clone());
        let known: &[(&str, &str)] = match endpoint.as_str() {
            "openai" => &[("OPENAI_BASE_URL", &url), ("OPENAI_API_KEY", PLACEHOLDER)],
            "anthropic" => &[
                ("ANTHROPIC_BASE_URL", &url),
                ("ANTHROPIC_API_KEY", PLACEHOLDER),
            ],
            _ => &[],
        };
        variables.extend(
            known
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        );
    }
    variables
}

fn endpoint_variable(endpoint: &EndpointId) -> String {
    let name: String = endpoint
        .as_str()
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_uppercase()
            } else {
                '_'
            }
        })
        .collect();
    format!("PORTCULLIS_ENDPOINT_{name}")
}

/// The order as the agent reads it.
pub(super) fn task_file(text: &TaskText) -> String {
    format!("# {}\n\n{}\n", text.title, text.text)
}

/// Why people rejected earlier revisions, oldest first.
pub(super) fn feedback_file(feedback: &[String]) -> String {
    let mut file = String::from("# What people said about earlier revisions\n");
    for (number, text) in feedback.iter().enumerate() {
        let _ = write!(file, "\n## Rejection {}\n\n{text}\n", number + 1);
    }
    file
}

#[cfg(test)]
mod tests;
