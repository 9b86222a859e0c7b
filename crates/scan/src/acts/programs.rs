//! What a word starts, and further commands of package managers, stores, clouds and tools that hold
//! a system's wanted state.

use super::git::shorten;
use super::{API_ENV, Act, Op, Target, Token};
use crate::shell::Command;

/// The program that a word starts: without its path, and for a package (`@changesets/cli@2`,
/// `vercel@latest`) the name that its program has.
pub(super) fn program(word: &str) -> &str {
    let plain = match word.rfind('@') {
        Some(at) if at > 0 && !word.contains('$') => word.get(..at).unwrap_or(word),
        _ => word,
    };
    let whole = super::table::PACKAGES
        .iter()
        .find(|(package, _)| *package == plain);
    let short = plain.rsplit('/').next().unwrap_or(plain);
    whole
        .or_else(|| {
            super::table::PACKAGES
                .iter()
                .find(|(package, _)| *package == short)
        })
        .map_or(short.strip_suffix(".exe").unwrap_or(short), |(_, name)| {
            name
        })
}

/// Whether a command that copies fetches: what it copies to is a place on this machine.
pub(super) fn is_download(name: &str, plain: &[&str]) -> bool {
    let copies = matches!(
        (name, plain),
        ("azcopy" | "ossutil" | "coscli" | "obsutil" | "b2", [_, ..])
            | ("gcloud", ["compute", "scp", ..])
    ) && !matches!(plain, ["upload-file" | "file", ..]);
    // A path alone, or nothing that tells: `host:path`, `oss://…` and variables are elsewhere.
    copies
        && plain.iter().any(|word| word.contains(':'))
        && plain
            .last()
            .is_some_and(|last| !last.contains(':') && !last.starts_with('$'))
}

/// Commands whose options, target or body say what they do.
pub(super) fn acts(name: &str, plain: &[&str], command: &Command) -> Vec<Act> {
    let what = || shorten(&command.text());
    let publish = || vec![Act::publish(what())];
    let deploy = || vec![Act::deploy(what())];
    let release = |draft: Option<&str>| {
        let op = Op::Release {
            draft: draft.map(str::to_owned),
            tag: None,
        };
        vec![Act::new(op, what(), Token::Env(API_ENV))]
    };
    let push = |target: Target| vec![Act::new(Op::Push(target), what(), Token::Git)];
    match (name, plain) {
        // An engine elsewhere.
        ("docker" | "podman" | "docker-compose", list) if is_remote(command) && starts(list) => {
            deploy()
        }
        ("ghstack", ["land", ..]) => vec![Act::new(
            super::forge::merge(false),
            what(),
            Token::Env(API_ENV),
        )],
        ("depot", ["build" | "bake", ..]) if command.has("--push") => publish(),
        ("earthly", _) if command.has("--push") => publish(),
        ("executor" | "kaniko", _)
            if command.option(&["--destination", "-d"]).is_some() && !command.has("--no-push") =>
        {
            vec![Act::publish(what()).benign_if(
                is_of_pull_request(command),
                "an image of a pull request is a preview",
            )]
        }
        ("buck2" | "buck" | "please" | "plz", ["run", target, ..]) => {
            let last = target.rsplit([':', '/']).next().unwrap_or_default();
            match last {
                _ if last.contains("publish") || last.ends_with("push") => publish(),
                _ if last.contains("deploy") => deploy(),
                _ => Vec::new(),
            }
        }
        ("dagger", ["call", function, ..]) => match *function {
            name if name.contains("publish") || name.contains("push") => publish(),
            name if name.contains("deploy") => deploy(),
            name if name.contains("release") => release(None),
            _ => Vec::new(),
        },
        ("mvn" | "mvnw", list) => list.iter().flat_map(|goal| maven(goal, command)).collect(),
        ("gradle" | "gradlew", list) => {
            let task = |goal: &&str| goal.rsplit(':').next().unwrap_or(goal).to_owned();
            match list.iter().map(task).find(|task| is_gradle_act(task)) {
                Some(task) if task == "githubRelease" => release(None),
                Some(task) if task == "gitPublishPush" => push(Target::Branch("gh-pages".into())),
                Some(task) if task == "release" => push(Target::CurrentAndTags),
                Some(task) if task == "bootBuildImage" => command
                    .has("--publishImage")
                    .then(publish)
                    .unwrap_or_default(),
                Some(task) if task.to_ascii_lowercase().contains("deploy") => deploy(),
                Some(_) => publish(),
                None => Vec::new(),
            }
        }
        ("sbt", list) => {
            let has = |marks: &[&str]| {
                list.iter()
                    .any(|word| marks.iter().any(|mark| word.contains(mark)))
            };
            if has(&[
                "sonatypeBundleRelease",
                "sonatypeRelease",
                "docker:publish",
                "Docker/publish",
            ]) && !has(&["publishLocal"])
            {
                publish()
            } else if has(&["ghpagesPushSite"]) {
                push(Target::Branch("gh-pages".into()))
            } else if has(&["release with-defaults", "release release-version"]) {
                let mut acts = publish();
                acts.extend(push(Target::CurrentAndTags));
                acts
            } else {
                Vec::new()
            }
        }
        ("mill" | "millw", list)
            if list.iter().any(|word| {
                word.contains("publishAll")
                    || word.ends_with(".publish")
                    || word.ends_with("/publish")
            }) =>
        {
            publish()
        }
        ("clojure" | "clj", _)
            if command.words.iter().any(|word| {
                (word.starts_with("-X") || word.starts_with("-T")) && word.ends_with(":deploy")
            }) =>
        {
            publish()
        }
        ("dotnet", ["publish", ..]) if command.text().contains("PublishProfile=") => deploy(),
        ("msbuild" | "MSBuild", _)
            if command.text().contains("DeployOnBuild=true")
                && command.text().contains("PublishProfile=") =>
        {
            deploy()
        }
        ("dotnet", ["publish", ..])
            if command.text().contains("PublishContainer")
                && command.text().contains("ContainerRegistry") =>
        {
            publish()
        }
        ("wingetcreate", _) if command.has("--submit") || command.has("-s") => publish(),
        ("melos", ["publish", ..]) if command.has("--no-dry-run") => publish(),
        ("fastlane", ["match" | "cert" | "sigh" | "snapshot" | "scan" | "gym", ..]) => Vec::new(),
        ("fastlane", list) => {
            let uploads = |word: &&str| {
                word.starts_with("upload_to_")
                    || matches!(
                        *word,
                        "pilot"
                            | "deliver"
                            | "supply"
                            | "internal"
                            | "alpha"
                            | "production"
                            | "testflight"
                            | "playstore"
                            | "appstore"
                    )
            };
            if list.iter().any(uploads) {
                publish()
            } else {
                Vec::new()
            }
        }
        ("Rscript" | "R" | "r", _) => {
            let text = command.text();
            let has = |marks: &[&str]| marks.iter().any(|mark| text.contains(mark));
            if has(&["submit_cran(", "release_cran("]) {
                publish()
            } else if has(&["deployApp(", "deployDoc(", "deploySite("]) {
                deploy()
            } else if has(&["deploy_to_branch(", "deploy_site_github(", "gh_pages("]) {
                push(Target::Branch("gh-pages".into()))
            } else {
                Vec::new()
            }
        }
        ("php", [path, "deploy", ..]) if path.ends_with("/dep") || *path == "dep" => deploy(),
        ("nix", ["run", target, ..]) if target.contains(".copyTo") => publish(),
        ("nix", ["run", target, ..])
            if target.contains("deploy-rs") || target.ends_with("#deploy") =>
        {
            deploy()
        }
        ("deploy", [target, ..]) if target.starts_with(".#") || *target == "." => deploy(),
        ("nixos-rebuild", ["switch" | "boot", ..])
            if command.option(&["--target-host"]).is_some() =>
        {
            deploy()
        }
        ("brew", ["pr-pull", ..]) => push(Target::Current),
        ("tbump", _)
            if (command.has("--non-interactive") || command.has("--no-interactive"))
                && !command.has("--no-push") =>
        {
            push(Target::CurrentAndTags)
        }
        ("jreleaser" | "jreleaser-cli", ["release", ..]) => release(None),
        ("electron-builder" | "build", _)
            if name == "electron-builder"
                && matches!(
                    command.option(&["--publish", "-p"]),
                    Some("always" | "onTag" | "onTagOrDraft")
                ) =>
        {
            // It leaves a draft unless its configuration says more.
            release(Some("true"))
        }
        ("cci", ["flow", "run", flow, ..]) if flow.contains("release") => publish(),
        ("forge", ["script", ..]) if command.has("--broadcast") => deploy(),
        ("hardhat", ["deploy" | "ignition", ..]) | ("truffle", ["migrate" | "deploy", ..]) => {
            match command.option(&["--network"]) {
                None | Some("localhost" | "hardhat" | "development" | "ganache") => Vec::new(),
                Some(_) => deploy(),
            }
        }
        ("hardhat", ["run", script, ..]) if script.contains("deploy") => {
            match command.option(&["--network"]) {
                None | Some("localhost" | "hardhat") => Vec::new(),
                Some(_) => deploy(),
            }
        }
        ("curl", _) => upload(command),
        _ => Vec::new(),
    }
}

fn is_remote(command: &Command) -> bool {
    // What stands behind the subcommand is another program's.
    let compose = command.words.get(1).is_some_and(|word| word == "compose");
    let first = if compose { 2 } else { 1 };
    let own = command.words.iter().skip(first).take(2);
    let own = Command {
        words: own.cloned().collect(),
        ..Command::default()
    };
    own.option(&["-H", "--host", "--context", "-c"])
        .is_some_and(|place| !matches!(place, "default") && !place.starts_with("unix:"))
        || command
            .env
            .iter()
            .any(|(name, value)| name == "DOCKER_HOST" && value.starts_with("ssh:"))
}

/// Whether an image's tag is that of a pull request.
pub(super) fn is_of_pull_request(command: &Command) -> bool {
    let text = command.text();
    [
        "CI_MERGE_REQUEST",
        "github.event.number",
        "github.event.pull_request.number",
        "SYSTEM_PULLREQUEST",
        "CHANGE_ID",
    ]
    .iter()
    .any(|mark| text.contains(mark))
}

fn starts(list: &[&str]) -> bool {
    list.iter().any(|word| {
        matches!(
            *word,
            "up" | "run" | "restart" | "pull" | "stack" | "service"
        )
    }) && !list.contains(&"build")
}

/// A goal of a plugin.
fn maven(goal: &str, command: &Command) -> Vec<Act> {
    let what = shorten(&command.text());
    let Some((plugin, goal)) = goal.rsplit_once(':') else {
        return match goal {
            "site-deploy" => vec![Act::deploy(what)],
            _ => Vec::new(),
        };
    };
    let publishes = plugin.contains("jib") && goal == "build" && plugin != "jib"
        || plugin.contains("docker") && goal == "push"
        || plugin.contains("dockerfile") && goal == "push"
        || plugin.contains("spring-boot")
            && goal == "build-image"
            && command.text().contains("build-image.publish=true");
    let deploys = goal == "deploy" && plugin != "deploy" && !plugin.contains("maven-deploy")
        || goal == "redeploy"
        || matches!(plugin, "k8s" | "oc" | "kubernetes" | "openshift") && goal == "apply"
        || plugin.contains("scm-publish") && goal == "publish-scm";
    if publishes {
        vec![Act::publish(what)]
    } else if deploys {
        vec![Act::deploy(what)]
    } else {
        Vec::new()
    }
}

fn is_gradle_act(task: &str) -> bool {
    matches!(
        task,
        "bintrayUpload"
            | "githubRelease"
            | "gitPublishPush"
            | "modrinth"
            | "curseforge"
            | "bootBuildImage"
            | "release"
            | "deploy"
            | "appengineDeploy"
            | "azureWebAppDeploy"
            | "azureFunctionsDeploy"
            | "uploadToPlayStore"
            | "promoteArtifact"
            | "dockerPushImage"
    ) || task.starts_with("appDistributionUpload")
}

/// A file that `curl` puts somewhere with a credential.
fn upload(command: &Command) -> Vec<Act> {
    let puts = command
        .words
        .iter()
        .any(|word| matches!(word.as_str(), "-T" | "--upload-file"));
    let text = command.text();
    let signs = ["-u", "--user", "--netrc", "-n"]
        .iter()
        .any(|flag| command.has(flag))
        || text.contains("Authorization")
        || text.contains("X-JFrog")
        || text.contains("PRIVATE-TOKEN")
        || text.contains("JOB-TOKEN");
    // A repository of charts takes them as they are.
    let charts = (text.contains("/api/charts") || text.contains("/packages/helm/api/"))
        && ["--data-binary", "-F", "--form"]
            .iter()
            .any(|flag| command.has(flag));
    if charts && !text.contains("localhost") {
        return vec![Act::publish(shorten(&text))];
    }
    let chat = [
        "transfer.sh",
        "codecov",
        "file.io",
        "localhost",
        "0x0.st",
        "uploads.github.com",
    ]
    .iter()
    .any(|place| text.contains(place));
    if !puts || chat {
        return Vec::new();
    }
    if text.contains("ftp://") || text.contains("ftps://") || text.contains("sftp://") {
        vec![Act::deploy(shorten(&text))]
    } else if signs {
        vec![Act::publish(shorten(&text))]
    } else {
        Vec::new()
    }
}
