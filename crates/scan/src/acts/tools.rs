//! Further commands that publish or deploy, known by their first words ([`table`]).

use super::{API_ENV, Act, Op, Token, programs, table};
use crate::shell::Command;

/// A step of SAP's Piper with its flags.
pub(super) fn piper(step: &str, flags: &str, what: String) -> Vec<Act> {
    match step {
        "githubPublishRelease" => release(what),
        "containerPushToRegistry" | "nexusUpload" | "kanikoExecute" | "helmExecute" => {
            vec![Act::publish(what)]
        }
        "cloudFoundryDeploy"
        | "kubernetesDeploy"
        | "neoDeploy"
        | "mtaDeploy"
        | "multicloudDeploy"
        | "transportRequestRelease"
        | "gitopsUpdateDeployment" => vec![Act::deploy(what)],
        "terraformExecute" => {
            let acts = flags
                .split([' ', '=', '\n'])
                .any(|word| matches!(word, "apply" | "destroy") || word.contains("${{"));
            vec![Act::deploy(what).benign_if(!acts, "a plan changes nothing")]
        }
        _ => Vec::new(),
    }
}

fn release(what: String) -> Vec<Act> {
    vec![Act::new(
        Op::Release {
            draft: None,
            tag: None,
        },
        what,
        Token::Env(API_ENV),
    )]
}

fn known(table: &[(&str, &[&str])], name: &str, plain: &[&str]) -> bool {
    table
        .iter()
        .any(|(program, first)| *program == name && plain.starts_with(first))
}

/// Whether a command puts something into a registry; `plain` is its words without options.
pub(super) fn publishes(name: &str, plain: &[&str], command: &Command) -> bool {
    let built = matches!(name, "clojure" | "clj")
        && command
            .words
            .iter()
            .any(|word| ["-T", "-X", "-M"].iter().any(|way| word.starts_with(way)))
        && (plain.contains(&"deploy")
            || command
                .words
                .iter()
                .any(|word| word.starts_with('-') && word.ends_with(":deploy")));
    let uploaded = name.starts_with("python")
        && plain.first() == Some(&"setup.py")
        && plain.contains(&"upload");
    let steam = name == "steamcmd" && plain.contains(&"+run_app_build");
    known(table::PUBLISHES, name, plain) || built || uploaded || steam
}

/// `Some(true)` for a preview, `Some(false)` for a deployment.
pub(super) fn deploys(name: &str, plain: &[&str], command: &Command) -> Option<bool> {
    let sftp = name == "sftp" && command.words.iter().any(|word| word.contains('@'));
    let helmsman = name == "helmsman" && (command.has("--apply") || command.has("-apply"));
    if !(known(table::DEPLOYS, name, plain) || sftp || helmsman) {
        return None;
    }
    if programs::is_download(name, plain) {
        return None;
    }
    Some(match (name, plain) {
        ("eas", ["deploy", ..]) => !command.has("--prod"),
        // An unpublished or a development theme is not what customers see.
        ("shopify", ["theme", ..]) => ["--development", "-d", "--unpublished", "-u"]
            .iter()
            .any(|flag| command.has(flag)),
        ("shopify", _) => command.has("--preview") || command.has("--no-release"),
        ("sfdx", _) => command.has("--checkonly") || command.has("-c"),
        _ => command.has("--check"),
    })
}

/// Whether a command of [`deploys`] deploys to the machine that it runs on unless told otherwise.
pub(super) fn stays_here(name: &str, command: &Command) -> bool {
    name == "dfx"
        && (command.has("--playground")
            || !command.has("--ic")
                && matches!(
                    command.option(&["--network"]),
                    None | Some("local" | "playground")
                ))
}

/// Tools that release, or whose step or target says what they do.
pub(super) fn by_step(name: &str, plain: &[&str], command: &Command, what: String) -> Vec<Act> {
    match (name, plain) {
        ("piper", [step, ..]) => piper(step, &command.text(), what),
        ("release-cli", ["create", ..]) => release(what),
        _ if known(table::RELEASES, name, plain) => release(what),
        // A build tool runs a target that its author named for what it does.
        ("bazel" | "bazelisk", ["run", target, ..]) => {
            let target = target.to_ascii_lowercase();
            let last = target.rsplit([':', '/']).next().unwrap_or_default();
            if last.contains("publish") || last.ends_with("push") {
                vec![Act::publish(what)]
            } else if last.contains("deploy") || last.ends_with(".apply") {
                vec![Act::deploy(what)]
            } else {
                Vec::new()
            }
        }
        _ => programs::acts(name, plain, command),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every act of a command, by all readers of commands; those that do no harm with a mark.
    fn acts(text: &str) -> Vec<(Op, bool)> {
        let tree = crate::tree::Tree::memory(std::collections::BTreeMap::new());
        let shell = super::super::command::Shell::default();
        let mut reader = super::super::command::Reader::new(&tree, shell);
        reader.script(text, "x.yml", 1);
        reader
            .acts
            .into_iter()
            .map(|act| (act.op, act.benign.is_none()))
            .collect()
    }

    const DEPLOY: Op = Op::Deploy { environment: None };

    #[test]
    fn words_that_only_begin_alike_are_something_else() {
        for text in [
            "cloudsmith push raw a/b x.zip",
            "bazel run //image:push",
            "clojure -T:build deploy",
            "python3 setup.py sdist upload",
            "cloudsmith push --dry-run=false raw a/b x.zip",
            "steamcmd +login $USER +run_app_build ../app.vdf +quit",
        ] {
            assert_eq!(acts(text), vec![(Op::Publish, true)], "{text}");
        }
        for text in [
            "cloudsmith list packages a/b",
            "bazel test //image:push",
            "clojure -T:build ci",
            "steamcmd +login anonymous +app_update 90 +quit",
            "helmsman -f x.yaml",
        ] {
            assert_eq!(acts(text), Vec::new(), "{text}");
        }
    }

    #[test]
    fn a_command_of_the_tables_deploys_once_and_not_where_it_is_a_rehearsal() {
        for text in [
            "dfx deploy --network ic",
            "dfx deploy --ic",
            "hasura metadata apply --endpoint https://api.example.com",
            "sfdx force:source:deploy -p src",
            "shopify theme push --theme $ID",
            "helmsman -f x.yaml --apply",
            "oc rollout latest dc/web",
            "oc start-build web",
            "quarto publish netlify",
            "sftp ann@example.com",
            "scalingo deploy -f --stage prod",
        ] {
            assert_eq!(acts(text), vec![(DEPLOY, true)], "{text}");
        }
        for text in [
            "dfx deploy",
            "dfx deploy --network local",
            "dfx deploy --playground",
            "hasura metadata apply --endpoint http://localhost:8080",
            "sfdx force:source:deploy --checkonly -p src",
            "shopify theme push --development",
            "werf converge --dry-run",
            "okteto deploy --namespace staging",
            "garden deploy -s dev",
            "spin deploy --plan",
        ] {
            assert_eq!(acts(text), vec![(DEPLOY, false)], "{text}");
        }
        let pages = acts("quarto publish gh-pages");
        assert_eq!(pages.len(), 1, "{pages:?}");
    }
}
