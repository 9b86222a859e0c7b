//! Further commands that publish or deploy, known by their first words.

use super::git::shorten;
use super::publishes::is_local;
use super::{API_ENV, Act, Op, Token, is_rehearsal};
use crate::shell::Command;

/// Programs and first words that put something into a registry.
const PUBLISHES: &[(&str, &[&str])] = &[
    ("cloudsmith", &["push"]),
    ("cloudsmith", &["upload"]),
    ("package_cloud", &["push"]),
    ("fury", &["push"]),
    ("gemfury", &["push"]),
    ("lein", &["deploy"]),
    ("rush", &["publish"]),
    ("wasm-pack", &["publish"]),
    ("wasmer", &["publish"]),
    ("elm", &["publish"]),
    ("nimble", &["publish"]),
    ("rebar3", &["hex", "publish"]),
    ("buf", &["push"]),
    ("rover", &["subgraph", "publish"]),
    ("rover", &["graph", "publish"]),
    ("copr-cli", &["build"]),
    ("fedpkg", &["build"]),
    ("dput", &[]),
    ("butler", &["push"]),
    ("steamcmd", &["+run_app_build"]),
    ("cog", &["push"]),
    ("spin", &["registry", "push"]),
    ("flux", &["push", "artifact"]),
    ("crossplane", &["xpkg", "push"]),
    ("appcenter", &["distribute", "release"]),
    ("firebase", &["appdistribution:distribute"]),
    ("code-push", &["release"]),
    ("expo", &["publish"]),
    ("gcloud", &["builds", "submit"]),
    ("heroku", &["container:push"]),
    ("octo", &["create-release"]),
    ("octopus", &["release", "create"]),
    ("octopus", &["package", "upload"]),
    ("paket", &["push"]),
    ("choco", &["push"]),
    ("winget", &["submit"]),
    ("wingetcreate", &["submit"]),
    ("komac", &["update"]),
];

/// Programs and first words that make something run or be served.
const DEPLOYS: &[(&str, &[&str])] = &[
    ("ng", &["deploy"]),
    ("hexo", &["deploy"]),
    ("hexo", &["d"]),
    ("hugo", &["deploy"]),
    ("ibmcloud", &["ce", "app", "update"]),
    ("ibmcloud", &["ce", "application", "update"]),
    ("ibmcloud", &["cf", "push"]),
    ("pm2", &["deploy"]),
    ("octo", &["deploy-release"]),
    ("octopus", &["release", "deploy"]),
    ("werf", &["converge"]),
    ("devspace", &["deploy"]),
    ("okteto", &["deploy"]),
    ("garden", &["deploy"]),
    ("waypoint", &["up"]),
    ("waypoint", &["deploy"]),
    ("spin", &["deploy"]),
    ("spin", &["cloud", "deploy"]),
    ("rsconnect", &["deploy"]),
    ("databricks", &["bundle", "deploy"]),
    ("sf", &["project", "deploy", "start"]),
    ("sfdx", &["force:source:deploy"]),
    ("sfdx", &["force:mdapi:deploy"]),
    ("shopify", &["theme", "push"]),
    ("shopify", &["app", "deploy"]),
    ("shopify", &["hydrogen", "deploy"]),
    ("theme", &["deploy"]),
    ("terminus", &["env:deploy"]),
    ("platform", &["push"]),
    ("upsun", &["push"]),
    ("hasura", &["deploy"]),
    ("hasura", &["metadata", "apply"]),
    ("amplify", &["publish"]),
    ("amplify", &["push"]),
    ("ecs-deploy", &[]),
    ("ecs-cli", &["compose", "service", "up"]),
    ("ecspresso", &["deploy"]),
    ("lambroll", &["deploy"]),
    ("helmsman", &["--apply"]),
    ("koyeb", &["service", "redeploy"]),
    ("koyeb", &["service", "update"]),
    ("scw", &["container", "container", "deploy"]),
    ("cloudron", &["update"]),
    ("truss", &["push"]),
    ("bentoml", &["deploy"]),
    ("up", &["deploy"]),
    ("gigalixir", &["deploy"]),
    ("clever", &["deploy"]),
    ("scalingo", &["deploy"]),
    ("zcli", &["push"]),
    ("northflank", &["deploy"]),
    ("vapor", &["deploy"]),
    ("forge", &["deploy"]),
    ("envoy", &["run", "deploy"]),
    ("mina", &["deploy"]),
    ("mup", &["deploy"]),
    ("jekyll", &["deploy"]),
    ("quarto", &["publish"]),
    ("dfx", &["deploy"]),
    ("pac", &["solution", "import"]),
    ("oc", &["rollout", "latest"]),
    ("oc", &["start-build"]),
];

/// A step of SAP's Piper.
pub(super) fn piper(step: &str, what: String) -> Vec<Act> {
    match step {
        "githubPublishRelease" => vec![Act::new(
            Op::Release {
                draft: None,
                tag: None,
            },
            what,
            Token::Env(API_ENV),
        )],
        "containerPushToRegistry" | "nexusUpload" | "kanikoExecute" | "helmExecute" => {
            vec![Act::publish(what)]
        }
        "cloudFoundryDeploy"
        | "kubernetesDeploy"
        | "neoDeploy"
        | "mtaDeploy"
        | "multicloudDeploy"
        | "transportRequestRelease"
        | "gitopsUpdateDeployment"
        | "terraformExecute" => vec![Act::deploy(what)],
        _ => Vec::new(),
    }
}

/// Reads one command; nothing for what neither publishes nor deploys.
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
    let dry = command.has("--dry-run") || command.has("--dryrun") || command.has("--check");
    let known = |table: &[(&str, &[&str])]| {
        table.iter().any(|(program, first)| {
            *program == name
                && (plain.starts_with(first)
                    || words.get(1..).is_some_and(|rest| rest.starts_with(first)))
        })
    };
    if known(PUBLISHES)
        || matches!(name, "clojure" | "clj")
            && words
                .iter()
                .any(|word| word.starts_with("-T") || word.starts_with("-X"))
            && plain.contains(&"deploy")
        || name.starts_with("python")
            && plain.first() == Some(&"setup.py")
            && plain.contains(&"upload")
    {
        return vec![
            Act::publish(what)
                .benign_if(dry, "a dry run publishes nothing")
                .benign_if(is_local(&words), "the registry is local to the job"),
        ];
    }
    if known(DEPLOYS) || name == "sftp" && words.iter().any(|word| word.contains('@')) {
        let target = command
            .option(&[
                "--stage",
                "--env",
                "--environment",
                "-e",
                "--target",
                "--to",
            ])
            .unwrap_or_default();
        return vec![
            Act::deploy(what)
                .benign_if(dry, "a dry run or a plan changes nothing")
                .benign_if(
                    is_rehearsal(target),
                    "the target's name says that it is not production",
                ),
        ];
    }
    if name == "piper" {
        return piper(plain.first().copied().unwrap_or_default(), what);
    }
    if name == "release-cli" && plain.first() == Some(&"create") {
        return vec![Act::new(
            Op::Release {
                draft: None,
                tag: None,
            },
            what,
            Token::Env(API_ENV),
        )];
    }
    // A build tool runs a target that its author named for what it does.
    if matches!(name, "bazel" | "bazelisk") && plain.first() == Some(&"run") {
        let target = plain
            .get(1)
            .copied()
            .unwrap_or_default()
            .to_ascii_lowercase();
        let last = target.rsplit([':', '/']).next().unwrap_or_default();
        if last.contains("publish") || last.ends_with("push") {
            return vec![Act::publish(what)];
        }
        if last.contains("deploy") {
            return vec![Act::deploy(what)];
        }
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acts(text: &str) -> Vec<Op> {
        crate::shell::commands(text)
            .iter()
            .flat_map(|command| {
                let name = command.words.first().cloned().unwrap_or_default();
                read(&name, command)
            })
            .filter(|act| act.benign.is_none())
            .map(|act| act.op)
            .collect()
    }

    #[test]
    fn words_that_only_begin_alike_are_something_else() {
        assert_eq!(acts("cloudsmith push raw a/b x.zip"), vec![Op::Publish]);
        assert_eq!(acts("cloudsmith list packages a/b"), Vec::new());
        assert_eq!(acts("bazel run //image:push"), vec![Op::Publish]);
        assert_eq!(acts("bazel test //image:push"), Vec::new());
        assert_eq!(acts("werf converge --dry-run"), Vec::new());
        assert_eq!(acts("clojure -T:build deploy"), vec![Op::Publish]);
        assert_eq!(acts("clojure -T:build ci"), Vec::new());
    }
}
