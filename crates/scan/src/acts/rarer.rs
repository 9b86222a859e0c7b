//! Published actions whose inputs or version turn them on or off, and those of rarer stores.

use super::catalog::With;
use super::{Act, NewPr, Op, Target, Token};
use crate::shell;

/// Where an action does nothing but for a tag.
const FOR_A_TAG: &str = "${{ github.ref_type == 'tag' }}";
const ON_A_SCHEDULE: &str =
    "${{ github.event_name == 'schedule' || github.event_name == 'workflow_dispatch' }}";

/// What such an action does; `None` for one that is not known here.
pub(super) fn acts_of(uses: &str, what: &str, with: &With<'_>) -> Option<Vec<Act>> {
    let forge = |op: Op| vec![Act::new(op, what, with.token())];
    let git = |target: Target| {
        let token = match with.token() {
            Token::Env(_) => Token::Git,
            given => given,
        };
        vec![Act::new(Op::Push(target), what, token)]
    };
    let on = |name: &str| with.says(name, "true");
    let off = |name: &str| with.says(name, "false");
    let release = || {
        forge(Op::Release {
            draft: with.get("draft").map(str::to_owned),
            tag: with.first(&["tag_name", "tag"]).map(str::to_owned),
        })
    };
    let acts = match what {
        // ---- releases that need a tag: without one they end, on a branch
        "softprops/action-gh-release" if with.first(&["tag_name"]).is_none() => {
            only_if(release(), FOR_A_TAG)
        }
        "ncipollo/release-action" if with.first(&["tag"]).is_none() => {
            only_if(release(), FOR_A_TAG)
        }
        "taiki-e/create-gh-release-action" if with.first(&["ref"]).is_none() => {
            only_if(release(), FOR_A_TAG)
        }
        // They add files to a release that is there.
        "taiki-e/upload-rust-binary-action" | "python-semantic-release/publish-action" => {
            Vec::new()
        }
        // ---- pushes
        "stefanzweifel/git-auto-commit-action" if on("skip_push") => Vec::new(),
        "stefanzweifel/git-auto-commit-action" if on("create_git_tag_only") => {
            let tag = with.first(&["tag_name", "tagging_message"]);
            vec![Act::new(
                Op::Push(Target::Tags(tag.map(str::to_owned))),
                what,
                Token::Git,
            )]
        }
        "endbug/add-and-commit" if with.first(&["tag"]).is_some() && !off("push") => {
            let branch = with
                .first(&["new_branch"])
                .map_or(Target::Current, |branch| Target::Branch(branch.to_owned()));
            let tag = with
                .first(&["tag"])
                .and_then(|tag| tag.split_whitespace().next())
                .map(str::to_owned);
            vec![
                Act::new(Op::Push(branch), what, Token::Git),
                Act::new(Op::Push(Target::Tags(tag)), what, Token::Git),
            ]
        }
        "ad-m/github-push-action" if on("push_only_tags") => forge(Op::Push(Target::Tags(None))),
        "actions-js/push"
            if with
                .first(&["repository"])
                .is_some_and(|name| !name.contains("github.repository")) =>
        {
            let name = with.first(&["repository"]).unwrap_or_default();
            forge(Op::Push(Target::Elsewhere(name.to_owned())))
        }
        "phips28/gh-action-bump-version" => {
            if on("skip-push") {
                return Some(Vec::new());
            }
            let branch = || {
                with.first(&["target-branch"])
                    .map_or(Target::Current, |branch| Target::Branch(branch.to_owned()))
            };
            let mut acts = Vec::new();
            if !on("skip-commit") {
                acts.extend(git(branch()));
            }
            if !on("skip-tag") {
                acts.extend(git(Target::Tags(None)));
            }
            acts
        }
        // It brings the manifests of a bucket up to date; what it does for issues and pull
        // requests changes nothing.
        "scoopinstaller/githubactions" | "ash258/scoop-githubactions" => {
            only_if(forge(Op::Push(Target::Current)), ON_A_SCHEDULE)
        }
        "tgymnich/fork-sync" => {
            let base = with.first(&["base"]).unwrap_or("master").to_owned();
            if off("auto_merge") {
                return Some(forge(Op::CreatePr(NewPr {
                    base: Some(base),
                    ..NewPr::default()
                })));
            }
            forge(Op::Push(Target::Branch(base)))
        }
        "imaware/dependabot-pr-action" => {
            let mut acts = forge(super::forge::merge(false));
            acts.extend(forge(Op::Approve));
            for act in &mut acts {
                act.only_if
                    .push(super::catalog::author_only("dependabot[bot]"));
            }
            acts
        }
        "cargo-bins/release-pr" => forge(Op::CreatePr(NewPr {
            release: true,
            ..NewPr::default()
        })),
        "python-semantic-release/python-semantic-release" | "relekang/python-semantic-release" => {
            python_release(what, with)
        }
        "jamesives/github-pages-deploy-action" if on("dry-run") => Vec::new(),
        // ---- plugins of Drone, which take their settings from the environment
        _ if what.starts_with("docker://") && plugin(what).is_some() => match plugin(what) {
            Some("s3" | "s3-sync" | "gcs" | "drone-ssh" | "drone-scp" | "heroku" | "netlify") => {
                vec![Act::deploy(what)]
            }
            Some("docker" | "ecr" | "gcr" | "acr" | "heroku-docker" | "npm" | "pypi") => {
                vec![Act::publish(what)]
            }
            Some("github-release") => release(),
            _ => return None,
        },
        // ---- what another action does, once more where it fails
        "wandalen/wretry.action" if with.first(&["action"]).is_some() => {
            let inner: Vec<(String, String)> = with
                .first(&["with"])
                .unwrap_or_default()
                .lines()
                .filter_map(|line| line.split_once(':'))
                .map(|(name, value)| {
                    let value = value.trim().trim_matches(['"', '\'']);
                    (name.trim().to_owned(), value.to_owned())
                })
                .collect();
            let action = with.first(&["action"]).unwrap_or_default();
            if action.to_ascii_lowercase().starts_with("wandalen/") {
                return None;
            }
            return super::catalog::acts_of(action, &With(&inner));
        }
        // ---- images
        "docker/build-push-action" if is_first_version(uses) => {
            if with.first(&["repository"]).is_none() {
                return Some(Vec::new());
            }
            let push = with.first(&["push"]);
            vec![Act::publish(format!("{what} (push)")).only_if(push)]
        }
        "docker/bake-action" | "depot/bake-action"
            if with
                .first(&["set"])
                .is_some_and(|set| set.contains("type=registry") || set.contains("push=true")) =>
        {
            vec![Act::publish(format!("{what} (push)"))]
        }
        "elgohr/publish-docker-github-action" if on("no_push") => Vec::new(),
        // Without the token it rehearses.
        "metamask/action-npm-publish" if with.first(&["npm-token"]).is_none() => Vec::new(),
        "brave/pull-merge" => Vec::new(),
        "vaultvulp/gp-docker-action" if on("build-only") || on("pull-only") => Vec::new(),
        "mr-smithers-excellent/docker-build-push" if off("pushImage") => Vec::new(),
        "rafikfarhad/push-to-gcr-github-action"
        | "appleboy/docker-ecr-action"
        | "azure/acr-build"
        | "jerray/publish-docker-action"
        | "goodsmileduck/helm-push-action" => vec![Act::publish(what)],
        // ---- packages
        "actions-rs/cargo" | "clechasseur/rs-cargo" => {
            let line = format!(
                "cargo {} {}",
                with.first(&["command"]).unwrap_or_default(),
                with.first(&["args"]).unwrap_or_default()
            );
            by_line(&line, what)
        }
        "casperdcl/deploy-pypi" => vec![Act::publish(what).only_if(with.first(&["upload"]))],
        "haskell-actions/hackage-publish" => {
            let candidate = "a candidate is not published";
            vec![Act::publish(what).benign_if(!on("publish"), candidate)]
        }
        "k-paxian/dart-package-publisher" => {
            vec![Act::publish(what).unless(with.first(&["dryRunOnly"]))]
        }
        "microsoft/store-submission" => {
            if !with.says("command", "publish") {
                return Some(Vec::new());
            }
            vec![Act::publish(what)]
        }
        "mnao305/chrome-extension-upload" if off("publish") => Vec::new(),
        "wdzeng/chrome-extension" | "wdzeng/edge-addon" if on("upload-only") => Vec::new(),
        "bigwigsmods/packager"
            if with
                .first(&["args"])
                .is_some_and(|args| args.split_whitespace().any(|word| word == "-d")) =>
        {
            Vec::new()
        }
        "determinatesystems/flakehub-push" => {
            let act = Act::publish(what);
            let rolling = with.first(&["rolling", "rolling-minor", "tag"]).is_some();
            vec![act.only_if((!rolling).then_some(FOR_A_TAG))]
        }
        "varabyte/update-aur-package" | "heyhusen/aur-publish" => {
            vec![Act::publish(what).unless(with.first(&["dry_run"]))]
        }
        "10up/action-wordpress-plugin-deploy" => {
            vec![Act::publish(what).unless(with.first(&["dry-run"]))]
        }
        "weilbyte/steam-workshop-upload"
        | "m00nl1ght-dev/steam-workshop-deploy"
        | "anarkisgaming/workshop"
        | "arma-actions/workshop-upload"
        | "robpc/itchio-upload-action"
        | "martin4ndersen/itchio-upload-action"
        | "rubixdev/modrinth-upload"
        | "cloudnode-pro/modrinth-publish"
        | "cardinalby/webext-buildtools-firefox-addons-action"
        | "cardinalby/webext-buildtools-chrome-webstore-publish-action"
        | "fac/ruby-gem-push-action"
        | "discourse/publish-rubygems-action"
        | "nexus-actions/release-nexus-staging-repo"
        | "zokugun/github-actions-aur-releaser"
        | "michidk/winget-updater"
        | "isaacrlevin/winget-publish-action"
        | "nshipster/update-homebrew-formula-action"
        | "izumin5210/action-homebrew-tap"
        | "jacoblincool/huggingface-sync"
        | "rseng/zenodo-release"
        | "megasanjay/upload-to-zenodo"
        | "figshare/github-upload-action"
        | "wesleimp/action-publish-hex"
        | "barnumbirr/action-forge-publish"
        | "fcakyon/conda-publish-action" => {
            vec![Act::publish(what).unless(with.first(&["dry-run", "dry_run"]))]
        }
        // ---- places where things run
        "redhat-actions/oc-new-app"
        | "cloudposse/github-action-atmos-terraform-apply"
        | "cloudposse/github-action-deploy-argocd"
        | "cloudposse/github-action-deploy-helmfile"
        | "azure/appconfiguration-sync"
        | "azure/data-factory-deploy-action" => vec![Act::deploy(what)],
        "davids/jekyll-deploy" => {
            let branch = Target::Branch("gh-pages".to_owned());
            let token = Token::Value("secrets.GH_PAGES_TOKEN".to_owned());
            vec![Act::new(Op::Push(branch), what, token).unless(with.first(&["build-only"]))]
        }
        "samkirkland/ftp-deploy-action" => {
            vec![Act::deploy(what).unless(with.first(&["dry-run"]))]
        }
        "akhileshns/heroku-deploy" if on("justlogin") => Vec::new(),
        _ => return None,
    };
    Some(acts)
}

/// Actions that others keep copies of under the same name.
const COPIED: &[&str] = &[
    "actions-hub/kubectl",
    "actions/create-release",
    "ad-m/github-push-action",
    "akhileshns/heroku-deploy",
    "amondnet/vercel-action",
    "anothrnick/github-tag-action",
    "aormsby/fork-sync-with-upstream-action",
    "appleboy/scp-action",
    "appleboy/ssh-action",
    "ash258/scoop-githubactions",
    "aws-actions/amazon-ecs-deploy-task-definition",
    "cloudflare/wrangler-action",
    "cycjimmy/semantic-release-action",
    "docker/build-push-action",
    "einaregilsson/beanstalk-deploy",
    "endbug/add-and-commit",
    "firebaseextended/action-hosting-deploy",
    "goreleaser/goreleaser-action",
    "helm/chart-releaser-action",
    "hmarr/auto-approve-action",
    "jakejarvis/s3-sync-action",
    "jamesives/github-pages-deploy-action",
    "koj-co/dependabot-pr-action",
    "marvinpinto/action-automatic-releases",
    "nwtgck/actions-netlify",
    "peaceiris/actions-gh-pages",
    "peter-evans/create-pull-request",
    "peter-evans/enable-pull-request-automerge",
    "peter-evans/repository-dispatch",
    "phips28/gh-action-bump-version",
    "pypa/gh-action-pypi-publish",
    "r0adkll/upload-google-play",
    "release-drafter/release-drafter",
    "repo-sync/github-sync",
    "samkirkland/ftp-deploy-action",
    "softprops/action-gh-release",
    "stefanzweifel/git-auto-commit-action",
    "superfly/flyctl-actions",
    "svenstaro/upload-release-action",
    "tgymnich/fork-sync",
    "w9jds/firebase-action",
];

/// The action that another one is a copy of, by its name.
pub(super) fn origin_of(what: &str) -> Option<&'static str> {
    let (_, short) = what.split_once('/')?;
    COPIED
        .iter()
        .find(|known| known.split_once('/').is_some_and(|(_, name)| name == short))
        .filter(|known| **known != what)
        .copied()
}

/// The name of a plugin's image.
fn plugin(what: &str) -> Option<&str> {
    let image = what.strip_prefix("docker://")?;
    let image = image.split(':').next().unwrap_or(image);
    image
        .strip_prefix("plugins/")
        .or_else(|| image.strip_prefix("appleboy/"))
}

fn only_if(acts: Vec<Act>, template: &str) -> Vec<Act> {
    acts.into_iter()
        .map(|act| act.only_if(Some(template)))
        .collect()
}

/// The version of an action that once pushed unless told otherwise.
fn is_first_version(uses: &str) -> bool {
    uses.split_once('@')
        .is_some_and(|(_, version)| version == "v1" || version.starts_with("v1."))
}

/// A commit of the new version with its tag, and a release; the package is left to another step,
/// but for the versions that took a key of the index.
fn python_release(what: &str, with: &With<'_>) -> Vec<Act> {
    let on = |name: &str| with.says(name, "true");
    if on("no_operation_mode") || on("noop") {
        return Vec::new();
    }
    let token = match with.token() {
        Token::Env(_) => Token::Env(super::API_ENV),
        other => other,
    };
    let off = |name: &str| with.says(name, "false");
    let act = |op: Op| Act::new(op, what, token.clone());
    let mut acts = Vec::new();
    if !off("push") {
        if !off("commit") {
            acts.push(act(Op::Push(Target::Current)));
        }
        if !off("tag") {
            acts.push(act(Op::Tag(None)));
        }
        if !off("vcs_release") {
            acts.push(act(Op::Release {
                draft: None,
                tag: None,
            }));
        }
    }
    if with.first(&["pypi_token", "repository_password"]).is_some() {
        acts.push(Act::publish(what));
    }
    super::publishes::on_release_branches(acts)
}

/// What one command line does, under the action's name.
fn by_line(text: &str, what: &str) -> Vec<Act> {
    let mut acts = Vec::new();
    for command in shell::commands(text) {
        let Some(word) = command.words.first() else {
            continue;
        };
        acts.extend(super::publishes::read(
            super::programs::program(word),
            &command,
        ));
    }
    for act in &mut acts {
        what.clone_into(&mut act.what);
    }
    acts
}
