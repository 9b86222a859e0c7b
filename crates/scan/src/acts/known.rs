//! Published actions that the catalogue knows by name, with few inputs that matter.

use super::catalog::{With, list};
use super::command::Shell;
use super::{Act, NewPr, Op, Target, Token};

/// Inputs that hold the labels of a new pull request.
const LABELS: &[&str] = &["labels", "pr-labels", "pull_request_labels"];

/// What such an action does; `None` for one that is not known here.
pub(super) fn acts_of(what: &str, with: &With<'_>) -> Option<Vec<Act>> {
    let forge = |op: Op| vec![Act::new(op, what, with.token())];
    let acts = match what {
        // They only tell the forge of a deployment.
        "chrnorm/deployment-action" | "chrnorm/deployment-status" => Vec::new(),
        // ---- pull requests in this repository
        "macauley/action-homebrew-bump-cask"
        | "eugenesvk/action-homebrew-bump-cask"
        | "dawidd6/action-homebrew-bump-formula" => bump(what, with),
        "martincostello/update-dotnet-sdk"
        | "gradle-update/update-gradle-wrapper-action"
        | "determinatesystems/update-flake-lock"
        | "googleapis/code-suggester"
        | "kt3k/update-license-year"
        | "fantinodavide/update-license-year"
        | "funivan/github-autoupdate"
        | "yykamei/github-workflows-update-pr"
        | "saadmk11/github-actions-version-updater"
        | "sandoche/update-dependencies"
        | "ruzickap/action-my-broken-link-pr"
        | "imjohnbo/update-dependencies"
        | "neverendingqs/gh-action-node-update-deps"
        | "technote-space/package-version-check-action" => forge(Op::CreatePr(NewPr {
            labels: list(with.first(LABELS)),
            head: with
                .first(&["branch", "pr-branch", "branch-name"])
                .map(str::to_owned),
            base: with
                .first(&["base-branch", "base", "target-branch"])
                .map(str::to_owned),
            release: false,
        })),
        "crowdin/github-action" => {
            let downloads =
                with.says("download_translations", "true") || with.says("download_sources", "true");
            if !downloads || with.says("push_translations", "false") {
                return Some(Vec::new());
            }
            let branch = with
                .first(&["localization_branch_name"])
                .unwrap_or("l10n_crowdin_translations")
                .to_owned();
            let mut acts = vec![Act::new(
                Op::Push(Target::Branch(branch.clone())),
                what,
                Token::Env(super::API_ENV),
            )];
            if !with.says("create_pull_request", "false") {
                acts.push(Act::new(
                    Op::CreatePr(NewPr {
                        labels: list(with.first(LABELS)),
                        head: Some(branch),
                        base: with
                            .first(&["pull_request_base_branch_name"])
                            .map(str::to_owned),
                        release: false,
                    }),
                    what,
                    Token::Env(super::API_ENV),
                ));
            }
            acts
        }
        // Branches for older versions: they open pull requests there, not against the default one.
        "korthout/backport-action"
        | "zeebe-io/backport-action"
        | "tibdex/backport"
        | "sqren/backport-github-action"
        | "sorenlouv/backport-github-action"
        | "kiegroup/git-backporting"
        | "betahuhn/repo-file-sync-action"
        | "adrianjost/files-sync-action"
        | "kbrashears5/github-action-file-sync"
        | "wow-actions/sync-files" => Vec::new(),
        // ---- pushes
        "autofix-ci/action"
        | "pre-commit-ci/lite-action"
        | "peter-evans/rebase"
        | "cirrus-actions/rebase"
        // Cards of a project board.
        | "technote-space/create-project-card-action" => Vec::new(),
        "calibreapp/image-actions" => forge(Op::Push(Target::Current))
            .into_iter()
            .map(|act| act.unless(with.first(&["compressonly"])))
            .collect(),
        "githubocto/flat" => vec![Act::new(Op::Push(Target::Current), what, Token::Git)],
        "lowlighter/metrics"
        | "wow-actions/contributors-list"
        | "akhilmhdh/contributors-readme-action"
        | "suzuki-shunsuke/commit-action"
        | "ryancyq/github-signed-commit"
        | "iarekylew00t/verified-bot-commit"
        | "bobankh/auto-generate-changelog"
        | "bot-academy/commit"
        | "zwaldowski/git-commit-action"
        | "technote-space/toc-generator"
        | "leigholiver/commit-with-deploy-key" => forge(Op::Push(
            with.first(&["branch", "branch-name", "push-branch", "headrefname"])
                .map_or(Target::Current, |branch| Target::Branch(branch.to_owned())),
        )),
        "gautamkrishnar/keepalive-workflow" => {
            // Unless told to commit it asks the API to keep the schedule.
            if with.says("use_api", "false") {
                forge(Op::Push(Target::Current))
            } else {
                Vec::new()
            }
        }
        "aormsby/fork-sync-with-upstream-action" => forge(Op::Push(
            with.first(&["target_sync_branch", "target_branch"])
                .map_or(Target::Current, |branch| Target::Branch(branch.to_owned())),
        ))
        .into_iter()
        .map(|act| act.unless(with.first(&["test_mode"])))
        .collect(),
        "wei/git-sync" | "repo-sync/github-sync" => {
            let target = with.first(&["destination_branch"]).unwrap_or("main");
            let other = with
                .first(&["destination_repo"])
                .filter(|name| !name.contains("github.repository"));
            forge(Op::Push(match other {
                Some(name) => Target::Elsewhere(name.to_owned()),
                None => Target::Branch(target.to_owned()),
            }))
        }
        "pixta-dev/repository-mirroring-action"
        | "yesolutions/mirror-action"
        | "wearerequired/git-mirror-action"
        | "spyoungtech/mirror-action"
        | "swinton/mirror-action" => forge(Op::Push(Target::Elsewhere(
            with.first(&[
                "target_repo_url",
                "remote",
                "destination-repo",
                "repository",
            ])
            .unwrap_or("another repository")
            .to_owned(),
        ))),
        "tripss/conventional-changelog-action"
        | "cocogitto/cocogitto-action"
        | "commitizen-tools/commitizen-action"
        | "reecetech/version-increment-push"
        | "technote-space/release-github-actions" => {
            let pushes = match what {
                "cocogitto/cocogitto-action" => with.says("release", "true"),
                "tripss/conventional-changelog-action" => !with.says("git-push", "false"),
                _ => !with.says("push", "false"),
            };
            if !pushes {
                return Some(Vec::new());
            }
            vec![Act::new(
                Op::Push(Target::CurrentAndTags),
                what,
                match with.token() {
                    Token::Env(_) => Token::Git,
                    given => given,
                },
            )]
        }
        // ---- tags and releases
        "actions-ecosystem/action-push-tag"
        | "cardinalby/git-tag-action"
        | "negz/create-tag"
        | "avakar/tag-and-release"
        | "hole19/git-tag-action"
        | "mathiasvr/tag-action" => forge(Op::Tag(with.first(&["tag"]).map(str::to_owned))),
        // A tag that moves with another one.
        "endbug/latest-tag"
        | "cssnr/update-version-tags-action"
        | "actions-cool/release-helper-tag"
        | "haya14busa/action-update-semver"
        | "vweevers/additional-tags-action" => Vec::new(),
        "xresloader/upload-to-github-release"
        | "meedamian/github-release"
        | "eine/tip"
        | "pytooling/actions/releaser"
        | "pytooling/actions/releaser/composite"
        | "andelf/nightly-release"
        | "webfreak001/deploy-nightly"
        | "viperproject/create-nightly-release"
        | "jreleaser/release-action"
        | "release-it/action"
        | "docker://ghcr.io/eine/tip"
        | "crazy-max/ghaction-github-release"
        | "gregoranders/release-action"
        | "dlavrenuek/conventional-changelog-release"
        | "patrickjahns/release-action"
        | "justincy/github-action-npm-release"
        | "spenserblack/release-action"
        | "hs1r1us/release-aio"
        | "termux/upload-release-action"
        | "fnkr/github-action-ghr" => forge(Op::Release {
            draft: with.get("draft").map(str::to_owned),
            tag: with.first(&["tag_name", "tag"]).map(str::to_owned),
        }),
        // ---- registries
        "shrink/actions-docker-registry-tag"
        | "tinact/docker.image-retag"
        | "philips-software/docker-ci-scripts"
        | "vaultvulp/gp-docker-action"
        | "samuelmeuli/action-maven-publish"
        | "bigwigsmods/packager"
        | "game-ci/steam-deploy"
        | "flatpak/flatpak-github-actions/flat-manager"
        | "flathub-infra/flatpak-github-actions/flat-manager"
        | "itsmeow/curseforge-upload"
        | "ayowel/butler-to-itch"
        | "jossef/action-set-and-publish"
        | "im-open/publish-nuget"
        | "roang-zero1/factorio-mod-portal-publish"
        | "justintime50/homebrew-releaser"
        | "isbang/setup-and-publish"
        | "yeslayla/butler-publish-itchio-action"
        | "fjogeleit/yaml-publish"
        | "anothrnick/publish"
        | "optics/publish-vscode"
        | "kciter/aws-ecr-action"
        | "jwalton/gh-ecr-push"
        | "wzieba/firebase-distribution-github-action"
        | "nickwph/firebase-app-distribution-action"
        | "rnkdsh/action-upload-diawi"
        | "trmcnvn/chrome-addon"
        | "yayuyokitano/firefox-addon"
        | "drusellers/nuget-push"
        | "guillaume-fgp/action-nuget-publish"
        | "huggingface/push-to-hub"
        | "nateraw/huggingface-sync-action"
        | "modrinth/minotaur"
        | "manusa/actions-publish-docker"
        | "jrubics/poetry-publish"
        | "etils-actions/pypi-auto-publish"
        | "mikeal/merge-release" => {
            let push = with
                .get("push")
                .filter(|_| what == "vaultvulp/gp-docker-action");
            if push == Some("false") {
                return Some(Vec::new());
            }
            vec![Act::publish(what).unless(with.first(&["dry-run", "dry_run"]))]
        }
        "crazy-max/ghaction-chocolatey" => {
            if !with.get("args").is_some_and(|args| args.contains("push")) {
                return Some(Vec::new());
            }
            vec![Act::publish(what)]
        }
        "samuelmeuli/action-electron-builder"
        | "coparse-inc/action-electron-builder"
        | "johannesjo/action-electron-builder" => {
            vec![
                Act::new(
                    Op::Release {
                        draft: None,
                        tag: None,
                    },
                    what,
                    with.token(),
                )
                .only_if(Some(with.get("release").unwrap_or("false"))),
            ]
        }
        // ---- places where things run
        "dokku/github-action"
        | "hashicorp/tfc-workflows-github/actions/apply-run"
        | "dflook/tofu-apply"
        | "arillso/action.playbook"
        | "pressidium/lftp-mirror-action"
        | "sebastianpopp/ftp-action"
        | "wangyucode/sftp-upload-action"
        | "azure/sql-action"
        | "kubernetes-sigs/kubectl-apply"
        | "azure/k8s-bake-and-apply"
        | "jtalk/url-health-deploy"
        | "ryanseddon/surge-action"
        | "dswistowski/surge-sh-action"
        | "tomjnsn/cloudflare-pages"
        | "pantheon-systems/push-to-pantheon"
        | "platformsh/platformsh-action"
        | "vimeda/helm"
        | "zulhfreelancer/aws-codepipeline-action"
        | "moia-oss/aws-codepipeline-trigger"
        | "silvermine/codepipeline"
        | "sphinx-notes/pages"
        | "maddox/actions/ssh" => vec![Act::deploy(what)],
        "youyo/aws-cdk-github-actions" | "scalvert/aws-cdk-github-actions" => {
            if !with.says("cdk_subcommand", "deploy") {
                return Some(Vec::new());
            }
            vec![Act::deploy(what)]
        }
        "deployphp/action" => {
            if !with.get("dep").is_some_and(|dep| dep.contains("deploy")) {
                return Some(Vec::new());
            }
            vec![Act::deploy(what)]
        }
        "gruntwork-io/terragrunt-action" => {
            let applies = with
                .get("tg_command")
                .is_some_and(|command| command.contains("apply") || command.contains("${{"));
            if !applies {
                return Some(Vec::new());
            }
            vec![Act::deploy(what)]
        }
        "fastai/workflows/quarto-ghp" | "fastai/workflows/nbdev-ghp" => {
            forge(Op::Push(Target::Branch("gh-pages".to_owned())))
        }
        "quarto-dev/quarto-actions/publish" => {
            if with.says("target", "gh-pages") {
                forge(Op::Push(Target::Branch("gh-pages".to_owned())))
            } else {
                vec![Act::deploy(what)]
            }
        }
        "sap/project-piper-action" => super::tools::piper(
            with.first(&["step-name", "command"]).unwrap_or_default(),
            with.get("flags").unwrap_or_default(),
            what.to_owned(),
        ),
        // ---- requests to the forge
        "octokit/request-action" => {
            let route = with.get("route").unwrap_or_default();
            let (method, path) = route.split_once(' ').unwrap_or(("GET", route));
            let text = with
                .0
                .iter()
                .filter(|(name, _)| name != "route")
                .map(|(name, value)| format!("{name}={value}"))
                .collect::<Vec<_>>()
                .join(" ");
            let mut acts = super::forge::request(
                &method.to_ascii_uppercase(),
                path.trim(),
                &text,
                with.token(),
                &Shell::default(),
            );
            for act in &mut acts {
                what.clone_into(&mut act.what);
            }
            acts
        }
        "octokit/graphql-action" => {
            super::code::graphql(with.get("query").unwrap_or_default(), what, with.token())
        }
        _ => return None,
    };
    Some(acts)
}

/// A new version in a Homebrew tap is a pull request: here, where the tap is this repository.
fn bump(what: &str, with: &With<'_>) -> Vec<Act> {
    let here = with
        .first(&["tap"])
        .is_some_and(|tap| tap.contains("github.repository"));
    if !here {
        return Vec::new();
    }
    vec![Act::new(
        Op::CreatePr(NewPr {
            head: Some("bump-".to_owned()),
            ..NewPr::default()
        }),
        what,
        with.token(),
    )]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acts(what: &str, with: &[(&str, &str)]) -> Vec<Act> {
        let with: Vec<(String, String)> = with
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        acts_of(what, &With(&with)).unwrap()
    }

    #[test]
    fn an_action_that_commits_to_the_branch_at_hand_opens_no_pull_request() {
        let found = acts("calibreapp/image-actions", &[("compressOnly", "true")]);
        assert_eq!(found[0].op, Op::Push(Target::Current));
        assert_eq!(found[0].unless, ["true"]);
        assert_eq!(acts("technote-space/create-project-card-action", &[]), []);
    }

    #[test]
    fn terraform_of_piper_plans_unless_told_to_apply() {
        let step = ("step-name", "terraformExecute");
        let harmless = |flags: &str| {
            let found = acts("sap/project-piper-action", &[step, ("flags", flags)]);
            assert_eq!(found.len(), 1, "{flags}");
            found[0].benign.is_some()
        };
        assert!(harmless(""));
        assert!(harmless("--command plan"));
        assert!(!harmless("--command=apply"));
        assert!(!harmless("--command destroy"));
    }
}
