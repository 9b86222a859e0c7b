//! Commands that make something run or be served.

use super::git::shorten;
use super::publishes::is_local;
use super::{Act, Op, Target, Token, is_rehearsal, tools};
use crate::shell::Command;

const DRY: &str = "a dry run or a plan changes nothing";
const PREVIEW: &str = "a preview is not production";
const REHEARSAL: &str = "the target's name says that it is not production";
const LOCAL: &str = "the target is local to the job";

/// Reads one command; nothing for what deploys nothing.
pub(super) fn read(name: &str, command: &Command) -> Vec<Act> {
    let words: Vec<&str> = command.words.iter().map(String::as_str).collect();
    let plain: Vec<&str> = words
        .iter()
        .skip(1)
        .copied()
        .filter(|word| !word.starts_with('-'))
        .collect();
    let what = shorten(&command.text());
    if command.has("--help") || command.has("--version") {
        return Vec::new();
    }
    // A push to Pages by a tool is git in disguise.
    if let Some(act) = pages(name, &plain, command, &what) {
        return vec![act];
    }
    let find = |plain: &[&str]| {
        deploys(name, plain, command).or_else(|| tools::deploys(name, plain, command))
    };
    let found = find(&plain).or_else(|| find(&super::without_first_values(&words)?));
    let Some(preview) = found else {
        return Vec::new();
    };
    let dry = command.words.iter().any(|word| {
        word.starts_with("--dry-run") && !word.ends_with("=none")
            || matches!(
                word.as_str(),
                "--dryrun" | "--plan" | "--noop" | "--preview-only" | "--no-execute"
            )
            || word == "--preview" && name == "azd"
    });
    let target = command
        .option(&[
            "--stage",
            "-s",
            "--env",
            "--environment",
            "-e",
            "--target",
            "--to",
            "--network",
            "--namespace",
            "-n",
            "--project",
            "--branch",
            "-w",
            "--workspace",
            "--stack",
            "-c",
            "--config",
            "-f",
            "--file",
            "--values",
            "-t",
            "--context",
            "--kube-context",
        ])
        // `-f` and its like may be flags: what follows is then another one.
        .filter(|target| !target.starts_with('-'))
        .unwrap_or_default();
    vec![
        Act::deploy(what)
            .benign_if(is_rehearsal(target), REHEARSAL)
            .benign_if(preview, PREVIEW)
            .benign_if(dry, DRY)
            .benign_if(is_local(&words) || tools::stays_here(name, command), LOCAL),
    ]
}

/// `Some(true)` for a preview, `Some(false)` for a deployment.
fn deploys(name: &str, plain: &[&str], command: &Command) -> Option<bool> {
    let yes = Some(false);
    if name.contains("-Az") {
        return azure_verb(name).then(|| command.has("-WhatIf"));
    }
    match (name, plain) {
        ("kubectl" | "oc" | "k", list) => list
            .iter()
            .take(3)
            .any(|word| {
                matches!(
                    *word,
                    "apply" | "replace" | "patch" | "set" | "rollout" | "create" | "start-build"
                )
            })
            .then_some(false)
            .filter(|_| {
                let looks = ["status", "history", "can-i"]
                    .iter()
                    .any(|word| list.contains(word));
                let prepares = matches!(
                    list,
                    [
                        "create",
                        "namespace" | "ns" | "secret" | "configmap" | "token",
                        ..
                    ]
                );
                !looks && !prepares
            }),
        (
            "helm",
            ["upgrade" | "install" | "rollback", ..] | ["secrets", "upgrade" | "install", ..],
        )
        | ("helmfile", ["apply" | "sync" | "deploy", ..]) => yes,
        ("terraform" | "tofu" | "terragrunt" | "terramate", list)
            if list.iter().any(|word| matches!(*word, "apply" | "destroy")) =>
        {
            yes
        }
        ("pulumi", ["up" | "update" | "destroy", ..])
        | ("cdk", ["deploy", ..])
        | ("cdktf", ["deploy", ..])
        | ("sam", ["deploy", ..])
        | ("sst", ["deploy", ..]) => yes,
        ("chalice" | "zappa", ["deploy" | "update", stage, ..]) if is_rehearsal(stage) => {
            Some(true)
        }
        ("sls" | "serverless" | "osls", ["deploy", ..])
        | ("arc", ["deploy", ..])
        | ("chalice" | "zappa", ["deploy" | "update", ..]) => yes,
        ("aws", list) => aws(list, command),
        ("eb" | "ebcli", ["deploy", ..])
        | ("copilot", ["deploy", ..] | ["svc" | "env" | "app" | "job", "deploy", ..]) => yes,
        ("gcloud", list) => {
            (list.contains(&"deploy") && !list.contains(&"describe") && !list.contains(&"list")
                || matches!(
                    list,
                    [
                        "run",
                        "services",
                        "update" | "replace" | "update-traffic",
                        ..
                    ] | ["storage", "cp" | "mv" | "rsync", ..]
                        | ["run", "jobs", "update" | "execute", ..]
                        | ["compute", "instances", "update-container", ..]
                        | ["app", "services", ..]
                        | ["beta", "run", ..]
                ))
            .then_some(false)
            .filter(|_| !fetches(list))
            .map(|_| command.has("--no-traffic") || command.has("--no-promote"))
        }
        ("gsutil", list)
            if list
                .iter()
                .any(|word| matches!(*word, "cp" | "rsync" | "mv"))
                && list
                    .last()
                    .is_some_and(|last| last.starts_with("gs:") || last.contains('$')) =>
        {
            yes
        }
        ("firebase", list) => match list.first() {
            Some(&"deploy") => yes,
            Some(word) if word.starts_with("hosting:channel:deploy") => Some(true),
            _ => None,
        },
        ("az", list) => (matches!(
            list,
            ["webapp", "up" | "deploy", ..]
                | ["webapp", "deployment", ..]
                | ["webapp", "config", "container", "set", ..]
                | ["functionapp", "deployment", ..]
                | ["functionapp", "deploy", ..]
                | ["containerapp", "up" | "update" | "create" | "compose", ..]
                | ["deployment", _, "create", ..]
                | ["deployment", "create", ..]
                | ["storage", "blob", "upload" | "upload-batch" | "sync", ..]
                | ["container", "create", ..]
                | ["staticwebapp", ..]
                | ["spring", ..]
                | ["stack", _, "create", ..]
        ))
        .then_some(false),
        ("func", ["azure", "functionapp", "publish", ..])
        | ("swa", ["deploy", ..])
        | ("azd", ["deploy" | "up" | "provision", ..]) => yes,
        ("flyctl" | "fly", ["deploy", ..] | ["machine", "update", ..]) => yes,
        ("vercel" | "now", ["promote" | "alias", ..]) => yes,
        ("vercel" | "now", list)
            if list.is_empty()
                || list.first() == Some(&"deploy")
                || command.has("--prod")
                || command.has("--production") =>
        {
            if list
                .first()
                .is_some_and(|word| matches!(*word, "build" | "pull" | "env" | "link" | "dev"))
            {
                return None;
            }
            Some(
                !(command.has("--prod")
                    || command.has("--production")
                    || command.option(&["--target"]) == Some("production")),
            )
        }
        ("netlify" | "ntl", ["deploy", ..]) => Some(
            !(command.has("--prod")
                || command.has("-p")
                || command.has("--production")
                || command.has("--prodIfUnlocked")),
        ),
        (
            "wrangler",
            ["deploy" | "publish", ..]
            | ["pages", "deploy" | "publish", ..]
            | ["deployments" | "versions", "deploy", ..]
            | ["r2", "object", "put", ..]
            | ["d1", "migrations", "apply", ..],
        ) => {
            let branch = command.option(&["--branch"]).unwrap_or_default();
            let preview = !branch.is_empty()
                && !matches!(branch, "main" | "master" | "production")
                && plain.first() == Some(&"pages");
            Some(preview || plain.contains(&"migrations") && command.has("--local"))
        }
        ("railway", ["up" | "redeploy" | "deploy", ..])
        | ("render", ["deploy" | "deploys", ..])
        | (
            "heroku",
            [
                "container:release" | "builds:create" | "pipelines:promote",
                ..,
            ],
        ) => yes,
        (
            "surge",
            [
                "list" | "whoami" | "login" | "token" | "teardown" | "plus" | "ssl",
                ..,
            ],
        ) => None,
        ("surge", _)
        | ("deployctl", ["deploy", ..])
        | ("kamal", ["deploy" | "redeploy" | "setup", ..])
        | ("mrsk", ["deploy", ..]) => Some(name == "deployctl" && !command.has("--prod")),
        (
            "doctl",
            ["apps", "create-deployment" | "update" | "create", ..]
            | ["serverless", "deploy", ..]
            | ["kubernetes", ..],
        ) => (plain.first() != Some(&"kubernetes")).then_some(false),
        ("ansible", [_, ..]) => ansible(command),
        ("ansible-playbook", _) => Some(
            command.has("--check") || command.has("--syntax-check") || command.has("--list-tasks"),
        ),
        // The first word of `cap` is its stage, the second of the others.
        ("cap", list) if list.contains(&"deploy") => {
            Some(list.first().is_some_and(|stage| is_rehearsal(stage)))
        }
        ("dep", ["deploy", stage, ..]) if is_rehearsal(stage) => Some(true),
        ("dep", ["deploy", ..])
        | ("nomad", ["job", "run", ..] | ["run", ..])
        | ("argocd", ["app", "sync" | "set" | "create", ..])
        | ("flux", ["reconcile", ..]) => yes,
        ("skaffold", ["run" | "deploy" | "apply", ..])
        | ("tk", ["apply", ..])
        | ("kapp", ["deploy", ..])
        | ("cf", ["push", ..])
        | ("faas-cli", ["up" | "deploy", ..]) => yes,
        ("supabase", ["db", "push", ..] | ["functions", "deploy", ..])
        | ("convex", ["deploy", ..])
        | ("modal", ["deploy", ..])
        | ("shuttle", ["deploy", ..]) => yes,
        ("prisma", ["migrate", "deploy", ..]) => None,
        ("cargo", ["shuttle", "deploy", ..] | ["lambda", "deploy", ..]) => yes,
        ("eas", ["update", ..]) => yes,
        ("duck", _) if command.has("--upload") || command.has("--synchronize") => yes,
        (
            "clasp",
            [
                "push" | "deploy" | "create-deployment" | "update-deployment",
                ..,
            ],
        )
        | ("deployer", ["deploy", ..])
        | ("dokku", _)
        | ("caprover", ["deploy", ..]) => yes,
        ("git", ["ftp", "push" | "init", ..]) => yes,
        // Tasks that their authors named for what they do.
        ("mina" | "fab", list) if list.contains(&"deploy") => yes,
        ("ssh" | "sshpass", _) => ssh(command),
        ("scp", list) | ("rsync", list) => list
            .last()
            .is_some_and(|last| last.contains(':') && !last.starts_with('.'))
            .then_some(false),
        ("lftp" | "ncftpput" | "s3cmd" | "s5cmd", _) => match name {
            "s3cmd" | "s5cmd" => plain
                .iter()
                .any(|word| matches!(*word, "put" | "sync" | "cp"))
                .then_some(false),
            _ => yes,
        },
        ("rclone", ["sync" | "copy" | "copyto" | "move", _, to, ..]) => {
            to.contains(':').then_some(false)
        }
        ("mc", ["cp" | "mirror", ..]) => yes,
        ("docker", ["stack", "deploy", ..] | ["service", "update", ..]) => yes,
        _ => None,
    }
}

fn aws(list: &[&str], command: &Command) -> Option<bool> {
    let yes = match list {
        ["s3", "sync" | "cp" | "mv", ..] => {
            list.iter()
                .skip(2)
                .last()
                .is_some_and(|last| last.starts_with("s3:") || last.starts_with('$'))
                || list.get(3).is_some_and(|to| to.starts_with("s3:"))
        }
        ["s3api", "put-object", ..]
        | ["ecs", "update-service" | "deploy" | "run-task", ..]
        | [
            "lambda",
            "update-function-code" | "publish-version" | "update-alias",
            ..,
        ]
        | [
            "cloudformation",
            "deploy" | "create-stack" | "update-stack" | "execute-change-set",
            ..,
        ]
        | [
            "elasticbeanstalk",
            "update-environment" | "create-application-version",
            ..,
        ]
        | ["amplify", "start-job" | "start-deployment", ..]
        | ["apprunner", "start-deployment" | "update-service", ..]
        | ["deploy", "create-deployment" | "push", ..]
        | ["ssm", "send-command", ..]
        | ["autoscaling", "start-instance-refresh", ..]
        | ["codepipeline", "start-pipeline-execution", ..]
        | ["lightsail", "create-container-service-deployment", ..] => true,
        _ => false,
    };
    // Downloads have the bucket first and a path last.
    let endpoint_local = command
        .option(&["--endpoint-url", "--endpoint"])
        .is_some_and(|url| url.contains("localhost") || url.contains("localstack"));
    (yes && !endpoint_local).then_some(false)
}

/// Commands of Azure's PowerShell that make something run.
fn azure_verb(name: &str) -> bool {
    const VERBS: &[&str] = &[
        "publish-azwebapp",
        "new-azresourcegroupdeployment",
        "new-azsubscriptiondeployment",
        "new-azdeployment",
        "new-aztenantdeployment",
        "new-azmanagementgroupdeployment",
        "switch-azwebappslot",
        "restart-azwebapp",
        "update-azfunctionapp",
        "publish-azautomationrunbook",
        "import-azautomationrunbook",
        "set-azstorageblobcontent",
        "set-azdatafactoryv2pipeline",
        "invoke-azvmruncommand",
        "import-azapimanagementapi",
    ];
    VERBS.iter().any(|verb| name.eq_ignore_ascii_case(verb))
}

/// Whether a copy of `gcloud storage` ends on this machine.
fn fetches(list: &[&str]) -> bool {
    list.first() == Some(&"storage")
        && list.iter().any(|word| word.starts_with("gs:"))
        && list
            .last()
            .is_some_and(|last| !last.starts_with("gs:") && !last.contains('$'))
}

/// A module that `ansible` runs on other machines, unless it only looks.
fn ansible(command: &Command) -> Option<bool> {
    let module = command.option(&["-m", "--module-name"])?;
    let module = module.rsplit('.').next().unwrap_or(module);
    let looks = matches!(module, "ping" | "setup" | "debug" | "stat" | "win_ping");
    (!looks).then(|| command.has("--check") || command.has("-C"))
}

/// A command on another machine deploys if it does anything but look.
fn ssh(command: &Command) -> Option<bool> {
    let text = command.text().to_ascii_lowercase();
    if text.contains("github.com") || text.contains("ssh -v") || text.contains(" -t git@") {
        return None;
    }
    let body = command.stdin.as_deref().unwrap_or_default();
    if body.is_empty() && only_looks(command) {
        return None;
    }
    (text.split_whitespace().any(|word| word.contains('@'))
        || text.contains('$')
        || !body.is_empty())
    .then_some(false)
}

/// Whether what is run on the other machine is known to change nothing there.
fn only_looks(command: &Command) -> bool {
    const LOOKS: &[&str] = &[
        "uptime",
        "df",
        "free",
        "ls",
        "cat",
        "whoami",
        "hostname",
        "date",
        "uname",
        "id",
        "ps",
        "true",
        "echo",
        "exit",
        "tail",
        "head",
        "journalctl",
        "grep",
        "wc",
        "stat",
        "pwd",
        "du",
    ];
    let host = command
        .words
        .iter()
        .position(|word| word.contains('@') && !word.starts_with('-'));
    let Some(rest) = host.and_then(|at| command.words.get(at + 1..)) else {
        return false;
    };
    let script = rest.join(" ");
    let commands = crate::shell::commands(&script);
    !commands.is_empty()
        && !script.contains('>')
        && commands.iter().all(|one| {
            one.words
                .first()
                .is_some_and(|word| LOOKS.contains(&word.as_str()))
        })
}

/// Tools that push a site to a branch.
fn pages(name: &str, plain: &[&str], command: &Command, what: &str) -> Option<Act> {
    let push = match (name, plain) {
        ("gh-pages", _) => Some(
            command
                .option(&["-b", "--branch"])
                .unwrap_or("gh-pages")
                .to_owned(),
        ),
        ("mkdocs", ["gh-deploy", ..]) | ("ghp-import", _) | ("angular-cli-ghpages" | "ngh", _) => {
            Some("gh-pages".to_owned())
        }
        ("mike", ["deploy" | "set-default" | "alias" | "delete", ..])
            if command.has("--push") || command.has("-p") =>
        {
            Some("gh-pages".to_owned())
        }
        ("doctr", ["deploy", ..]) => Some("gh-pages".to_owned()),
        ("docusaurus", ["deploy", ..]) | ("quarto", ["publish", "gh-pages", ..]) => {
            Some("gh-pages".to_owned())
        }
        _ => None,
    }?;
    // `-np`, `-fnp`: a letter among others.
    let pushes = |word: &String| {
        word == "--push"
            || word
                .strip_prefix('-')
                .is_some_and(|flags| !flags.starts_with('-') && flags.contains('p'))
    };
    if name == "ghp-import" && !command.words.iter().any(pushes) {
        return None;
    }
    Some(Act::new(Op::Push(Target::Branch(push)), what, Token::Git))
}
