//! Published actions and what they do, by name.
//!
//! An action that is not here does nothing as far as the scan knows. Names are compared without
//! version and case.

use super::{Act, Check, NewPr, Op, Target, Token, is_rehearsal};

/// The inputs of a step, by lower-cased name.
pub(crate) struct With<'a>(pub(crate) &'a [(String, String)]);

impl With<'_> {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    fn first(&self, names: &[&str]) -> Option<&str> {
        names
            .iter()
            .find_map(|name| self.get(name))
            .filter(|value| !value.trim().is_empty())
    }

    fn token(&self) -> Token {
        self.first(&[
            "token",
            "github-token",
            "github_token",
            "repo-token",
            "repo_token",
            "access-token",
            "gh-token",
            "gh_token",
            "githubtoken",
            "personal_token",
            "pat",
            "github-pat",
            "oauth_token",
            "personal-access-token",
        ])
        .map_or(Token::Env(super::API_ENV), |value| {
            Token::Value(value.to_owned())
        })
    }

    fn says(&self, name: &str, wanted: &str) -> bool {
        self.get(name)
            .is_some_and(|value| value.trim().eq_ignore_ascii_case(wanted))
    }
}

/// The name of an action without version: `actions/checkout`.
pub(crate) fn name_of(uses: &str) -> String {
    uses.split('@')
        .next()
        .unwrap_or(uses)
        .trim()
        .trim_end_matches('/')
        .to_ascii_lowercase()
}

/// What an action does.
pub(crate) fn acts_of(uses: &str, with: &With<'_>) -> Vec<Act> {
    let name = name_of(uses);
    let what = name.as_str();
    let forge = |op: Op| vec![Act::new(op, what, with.token())];
    let one = |act: Act| vec![act];
    match what {
        // ---- merging and approving
        "pascalgw/automerge-action" => forge(Op::Merge {
            auto: false,
            admin: false,
            label: None,
            any: true,
        }),
        "peter-evans/enable-pull-request-automerge"
        | "alexwilson/enable-github-automerge-action"
        | "daneden/enable-automerge-action"
        | "reitermarkus/automerge"
        | "fastify/github-action-merge-dependabot"
        | "ahmadnassri/action-dependabot-auto-merge"
        | "ridedott/merge-me-action"
        | "koj-co/dependabot-pr-action"
        | "nick-invision/dependabot-auto-merge"
        | "dependabot-auto-merge/action"
        | "plm/gh-merge-action"
        | "juliangruber/merge-pull-request-action"
        | "squalrus/merge-bot"
        | "sudo-bot/action-pull-request-merge"
        | "fjogeleit/auto-merge-action"
        | "robotology/gh-action-merge"
        | "endbug/merge-branch"
        | "akheron/automerge-action"
        | "jonaslagoni/autoapprove-automerge"
        | "bobvanderlinden/action-auto-merge"
        | "cyb3rjak3/dependabot-auto-merge"
        | "tretuna/sync-branches"
        | "desktop/gh-cli-and-desktop-shared-workflows"
        | "frequenz-floss/dependabot-auto-approve"
        | "mheap/automerge-action" => {
            let auto = what.contains("enable")
                || with.says("use-github-auto-merge", "true")
                || what == "reitermarkus/automerge";
            let mut acts = forge(Op::Merge {
                auto,
                admin: false,
                label: label_wish(what, with),
                any: what.contains("any"),
            });
            if what == "koj-co/dependabot-pr-action"
                || what == "frequenz-floss/dependabot-auto-approve"
                || what == "fastify/github-action-merge-dependabot"
            {
                acts.extend(forge(Op::Approve));
            }
            if what == "ahmadnassri/action-dependabot-auto-merge" {
                acts = comment_command(with);
            }
            for act in &mut acts {
                act.only_if.extend(dependabot_only(what));
            }
            acts
        }
        "hmarr/auto-approve-action"
        | "cognitedata/auto-approve-dependabot-action"
        | "juliangruber/approve-pull-request-action"
        | "andrewmusgrave/automatic-pull-request-review"
        | "lewisvoncken/autoapprove-action"
        | "norfairking/autoapprove"
        | "dkhmelenko/autoapprove"
        | "auto-approve/action"
        | "im-open/approve-pr"
        | "automattic/vip-actions/auto-approve" => forge(Op::Approve),
        "devmasx/merge-branch"
        | "everlytic/branch-merge"
        | "robotology/gh-action-nightly-merge" => {
            let target = with
                .first(&["target_branch", "target-branch", "development_branch", "to"])
                .unwrap_or("{default}")
                .to_owned();
            forge(Op::Push(Target::Branch(target)))
        }
        // ---- pull requests
        "peter-evans/create-pull-request"
        | "gr2m/create-or-update-pull-request-action"
        | "repo-sync/pull-request"
        | "vsoch/pull-request-action"
        | "devops-infra/action-pull-request"
        | "thomaseizinger/create-pull-request"
        | "renovatebot/github-action-pr"
        | "technote-space/create-pr-action"
        | "paulhatch/create-pr" => forge(Op::CreatePr(NewPr {
            labels: list(with.first(&["labels", "label", "pr_label"])),
            head: with
                .first(&["branch", "head", "source_branch", "pr_branch"])
                .map(str::to_owned),
            base: with.first(&["base", "target_branch"]).map(str::to_owned),
            release: false,
        })),
        "google-github-actions/release-please-action" | "googleapis/release-please-action" => {
            let mut release = Act::new(
                Op::Release {
                    draft: None,
                    tag: None,
                },
                what,
                with.token(),
            )
            .unless(with.get("skip-github-release"));
            release.after_release_pr = true;
            let mut acts = forge(Op::CreatePr(NewPr {
                release: true,
                labels: vec!["autorelease: pending".to_owned()],
                head: Some("release-please--branches--main".to_owned()),
                base: None,
            }));
            for act in &mut acts {
                act.unless
                    .extend(with.get("skip-github-pull-request").map(str::to_owned));
            }
            acts.push(release);
            acts
        }
        "changesets/action" => {
            let mut acts = forge(Op::CreatePr(NewPr {
                release: true,
                labels: Vec::new(),
                head: Some("changeset-release/main".to_owned()),
                base: None,
            }));
            if with.get("publish").is_some() {
                let mut publish = Act::publish(format!("{what} (publish)"));
                publish.after_release_pr = true;
                let mut release = Act::new(
                    Op::Release {
                        draft: None,
                        tag: None,
                    },
                    what,
                    Token::Env(super::API_ENV),
                )
                .unless(
                    with.get("createGithubReleases")
                        .filter(|value| *value == "false")
                        .map(|_| "true"),
                );
                release.after_release_pr = true;
                acts.push(publish);
                acts.push(release);
            }
            acts
        }
        "release-plz/action" | "marcoieni/release-plz-action" => {
            let mut acts = Vec::new();
            let command = with.get("command").unwrap_or_default();
            if command != "release" {
                acts.extend(forge(Op::CreatePr(NewPr {
                    release: true,
                    head: Some("release-plz-".to_owned()),
                    ..NewPr::default()
                })));
            }
            if command != "release-pr" {
                for mut act in [
                    Act::publish(what),
                    Act::new(
                        Op::Release {
                            draft: None,
                            tag: None,
                        },
                        what,
                        with.token(),
                    ),
                ] {
                    act.after_release_pr = true;
                    acts.push(act);
                }
            }
            acts
        }
        // ---- pushes
        "stefanzweifel/git-auto-commit-action" => {
            let mut acts = vec![Act::new(
                Op::Push(
                    with.get("branch")
                        .map_or(Target::Current, |branch| Target::Branch(branch.to_owned())),
                ),
                what,
                Token::Git,
            )];
            if let Some(tag) = with.get("tagging_message").filter(|tag| !tag.is_empty()) {
                acts.push(Act::new(
                    Op::Push(Target::Tags(Some(tag.to_owned()))),
                    what,
                    Token::Git,
                ));
            }
            acts
        }
        "endbug/add-and-commit" => {
            let pushes = with.get("push").map(str::trim);
            if pushes == Some("false") {
                return Vec::new();
            }
            let branch = with
                .get("new_branch")
                .map_or(Target::Current, |branch| Target::Branch(branch.to_owned()));
            one(Act::new(Op::Push(branch), what, Token::Git))
        }
        "ad-m/github-push-action" => {
            let token = with
                .first(&["github_token", "ssh"])
                .map_or(Token::Env(super::API_ENV), |value| {
                    Token::Value(value.to_owned())
                });
            let target = if with
                .get("repository")
                .is_some_and(|repository| !repository.contains("github.repository"))
            {
                Target::Elsewhere(with.get("repository").unwrap_or_default().to_owned())
            } else {
                with.get("branch")
                    .map_or(Target::Current, |branch| Target::Branch(branch.to_owned()))
            };
            let tags = with.says("tags", "true");
            let mut acts = one(Act::new(Op::Push(target), what, token.clone()));
            if tags {
                acts.push(Act::new(Op::Push(Target::Tags(None)), what, token));
            }
            acts
        }
        "cpina/github-action-push-to-another-repository"
        | "dmnemec/copy_file_to_another_repo_action"
        | "andstor/copycat-action"
        | "nkoppel/push-files-to-another-repository"
        | "s0/git-publish-subdir-action-other" => {
            let place = with
                .first(&[
                    "destination-repository-name",
                    "destination_repo",
                    "dst_repo",
                ])
                .unwrap_or("another repository");
            forge(Op::Push(Target::Elsewhere(place.to_owned())))
        }
        "planetscale/ghcommit-action"
        | "swinton/commit"
        | "grafana/github-api-commit-action"
        | "dsanders11/github-app-commit-action"
        | "qoomon/actions--create-commit"
        | "verified-commit/action"
        | "test-room-7/action-update-file"
        | "mikeal/publish-to-github-action"
        | "actions-js/push"
        | "github-actions-x/commit"
        | "devops-infra/action-commit-push"
        | "eine/tip-push" => forge(Op::Push(
            with.first(&["branch", "push-branch", "target_branch"])
                .map_or(Target::Current, |branch| Target::Branch(branch.to_owned())),
        )),
        "ncipollo/fast-forward" | "sequoia-pgp/fast-forward" => forge(super::forge::merge(false)),
        // ---- labels, comments, dispatches
        "actions-ecosystem/action-add-labels"
        | "andymckay/labeler"
        | "buildsville/add-remove-label" => {
            forge(Op::Label(list(with.first(&["labels", "add-labels"]))))
        }
        "peter-evans/create-or-update-comment"
        | "thollander/actions-comment-pull-request"
        | "marocchino/sticky-pull-request-comment"
        | "mshick/add-pr-comment" => forge(Op::Comment(
            with.first(&["body", "message", "comment"])
                .map(str::to_owned),
        )),
        "peter-evans/create-issue-from-file"
        | "jasonetco/create-an-issue"
        | "dacbd/create-issue-action" => forge(Op::Issue),
        "peter-evans/repository-dispatch" => forge(Op::RepositoryDispatch {
            event_type: with.get("event-type").map(str::to_owned),
            repository: with
                .get("repository")
                .filter(|name| !name.contains("github.repository"))
                .map(str::to_owned),
        }),
        "benc-uk/workflow-dispatch"
        | "convictional/trigger-workflow-and-wait"
        | "aurelien-baudet/workflow-dispatch"
        | "lasith-kg/dispatch-workflow"
        | "the-actions-org/workflow-dispatch"
        | "codex-/return-dispatch" => forge(Op::Dispatch {
            workflow: with
                .first(&["workflow", "workflow_file_name"])
                .map(str::to_owned),
            repository: with
                .first(&["repo"])
                .filter(|name| !name.contains("github.") && name.contains('/'))
                .map(str::to_owned),
        }),
        // ---- checks that stop
        "trstringer/manual-approval" => forge(Op::Check(Check::Person(
            "a person must answer the approval issue",
        ))),
        "actions-cool/check-user-permission"
        | "prince-chrismc/check-actor-permissions-action"
        | "sushichop/action-repository-permission"
        | "skjnldsv/check-actor-permission"
        | "lannonbr/repo-permission-check-action"
        | "themoddinginquisition/actions-team-membership"
        | "tspascoal/get-user-teams-membership"
        | "morfien101/actions-authorized-user"
        | "octokit/check-permission"
        | "deriegle/gh-comment-branch"
        | "sushichop/action-repo-permission"
        | "dawidd6/action-check-permission"
        | "github/command"
        | "xt0rted/slash-command-action"
        | "peter-evans/slash-command-dispatch"
        | "shanegenschaw/pull-request-comment-trigger-with-permission"
        | "74th/workflow-permission-action"
        | "scherermichael-oss/action-has-permission" => {
            let mut acts = forge(Op::Check(Check::Actor(
                "the action requires the actor to have write access",
            )));
            if what == "peter-evans/slash-command-dispatch" {
                acts.extend(forge(Op::RepositoryDispatch {
                    event_type: None,
                    repository: None,
                }));
            }
            acts
        }
        // ---- tags and releases
        "softprops/action-gh-release"
        | "ncipollo/release-action"
        | "actions/create-release"
        | "marvinpinto/action-automatic-releases"
        | "svenstaro/upload-release-action"
        | "comnoco/create-release-action"
        | "elgohr/github-release-action"
        | "joutvhu/create-release"
        | "ghalactic/github-release-from-tag"
        | "docker://antonyurchenko/git-release"
        | "antonyurchenko/git-release"
        | "cb80/pubrel"
        | "spenserblack/actions-tag-to-release"
        | "crowbarmaster/gh-action-auto-gen"
        | "yakubique/create-release"
        | "meeds/automatic-release"
        | "taiki-e/create-gh-release-action"
        | "softprops/turnstyle-release"
        | "eregon/publish-release"
        | "test-summary/release"
        | "mini-bomba/create-github-release"
        | "wangyoucao577/go-release-action"
        | "rust-build/rust-build.action"
        | "qoomon/actions--create-release"
        | "actions/gh-release"
        | "akkuman/gh-release"
        | "anton-yurchenko/git-release" => forge(Op::Release {
            draft: with.get("draft").map(str::to_owned),
            tag: with
                .first(&["tag_name", "tag", "automatic_release_tag"])
                .map(str::to_owned),
        }),
        "release-drafter/release-drafter" => {
            let publish = with.get("publish").unwrap_or("false").to_owned();
            one(Act::new(
                Op::Release {
                    draft: None,
                    tag: None,
                },
                what,
                with.token(),
            )
            .only_if(Some(&publish)))
        }
        "mathieudutour/github-tag-action"
        | "anothrnick/github-tag-action"
        | "rickstaa/action-create-tag"
        | "haya14busa/action-bumpr"
        | "k-yomo/action-bump-semver-tag"
        | "laputansoft/github-tag-action"
        | "pkgdeps/git-tag-action"
        | "phish108/autotag-action"
        | "butlerlogic/action-autotag"
        | "jacopocarlini/action-autotag"
        | "salsify/action-detect-and-tag-new-version"
        | "rymndhng/release-on-push-action"
        | "joshjohanning/semver-tag"
        | "fregante/daily-version-action"
        | "tvdias/github-tagger"
        | "richardsimko/update-tag"
        | "nowactions/update-majorver"
        | "actions/publish-action"
        | "codfish/actions-tag"
        | "go-semantic-release/action"
        | "dephraiim/tag" => {
            let dry = with.says("dry_run", "true") || with.says("dry-run", "true");
            if what == "rymndhng/release-on-push-action" || what == "go-semantic-release/action" {
                return forge(Op::Release {
                    draft: None,
                    tag: None,
                });
            }
            forge(Op::Tag(
                with.first(&["custom_tag", "tag", "tag_name"])
                    .map(str::to_owned),
            ))
            .into_iter()
            .map(|act| act.benign_if(dry, "a dry run tags nothing"))
            .collect()
        }
        "cycjimmy/semantic-release-action"
        | "codfish/semantic-release-action"
        | "docker://ghcr.io/codfish/semantic-release-action"
        | "python-semantic-release/python-semantic-release"
        | "relekang/python-semantic-release"
        | "ridedott/release-me-action"
        | "ahmadnassri/action-semantic-release"
        | "open-turo/action-semantic-release"
        | "bobthebuilder/semantic-release"
        | "open-sauced/release"
        | "intuit/auto"
        | "ietf-tools/semver-action-release"
        | "winterjung/semantic-release" => {
            let token = match with.token() {
                Token::Env(_) => Token::Env(super::API_ENV),
                other => other,
            };
            let dry = with
                .get("dry_run")
                .or(with.get("dry-run"))
                .or(with.get("noop"))
                .map(str::to_owned);
            vec![
                Act::new(
                    Op::Release {
                        draft: None,
                        tag: None,
                    },
                    what,
                    token,
                )
                .unless(dry.as_deref()),
                Act::publish(what).unless(dry.as_deref()),
            ]
        }
        "goreleaser/goreleaser-action" => {
            if with.says("install-only", "true") {
                return Vec::new();
            }
            super::publishes_goreleaser(what, with.get("args").unwrap_or("release"))
        }
        // ---- publishing
        "pypa/gh-action-pypi-publish" => {
            let url = with
                .first(&["repository-url", "repository_url"])
                .unwrap_or_default();
            one(Act::publish("pypa/gh-action-pypi-publish to PyPI")
                .benign_if(url.contains("test"), "a test index is not production"))
        }
        "js-devtools/npm-publish"
        | "primer/publish"
        | "rlespinasse/npm-publish"
        | "pascalgn/npm-publish-action"
        | "actions-hub/npm" => one(Act::publish(what).unless(with.first(&["dry-run", "dry_run"]))),
        "katyo/publish-crates" => one(Act::publish(what).unless(with.get("dry-run"))),
        "docker/build-push-action"
        | "docker/bake-action"
        | "mr-smithers-excellent/docker-build-push"
        | "redhat-actions/push-to-registry"
        | "elgohr/publish-docker-github-action"
        | "int128/kaniko-action"
        | "macbre/push-to-ghcr"
        | "whoan/docker-build-with-cache-action"
        | "depot/build-push-action"
        | "depot/bake-action"
        | "useblacksmith/build-push-action"
        | "aevea/action-kaniko"
        | "jkroepke/helm-registry-push"
        | "namespacelabs/nscloud-build-action"
        | "devcontainers/ci"
        | "akhilerm/tag-push-action"
        | "homebrew-bump/push" => {
            let push = with.get("push").map(str::to_owned);
            let outputs = with.get("outputs").unwrap_or_default();
            let by_output = outputs.contains("type=registry") || outputs.contains("push=true");
            let needs_input = matches!(
                what,
                "docker/build-push-action"
                    | "docker/bake-action"
                    | "depot/build-push-action"
                    | "depot/bake-action"
                    | "useblacksmith/build-push-action"
                    | "devcontainers/ci"
            );
            if needs_input && push.is_none() && !by_output {
                return Vec::new();
            }
            let tags = with
                .first(&["tags", "image", "imageName", "imagename"])
                .unwrap_or_default();
            let local = tags.contains("localhost") || tags.contains("ttl.sh");
            let mut act = Act::publish(format!("{what} (push)"))
                .benign_if(local, "the registry is local to the job");
            if what == "devcontainers/ci" {
                act = act.benign_if(push.as_deref() == Some("never"), "nothing is pushed");
            } else if !by_output {
                act = act.only_if(push.as_deref());
            }
            if with.get("build-args").is_none()
                && tags.trim().is_empty()
                && !by_output
                && with.get("tags").is_some()
            {
                return Vec::new();
            }
            one(act)
        }
        "redhat-actions/buildah-build" | "docker/metadata-action" => Vec::new(),
        "helm/chart-releaser-action" => vec![
            Act::publish(what),
            Act::new(
                Op::Release {
                    draft: None,
                    tag: None,
                },
                what,
                Token::Env(super::API_ENV),
            ),
        ],
        "appany/helm-oci-chart-releaser"
        | "stefanprodan/helm-gh-pages"
        | "j12934/helm-gh-pages-action" => one(Act::publish(what)),
        "haaLeo/publish-vscode-extension"
        | "haaleo/publish-vscode-extension"
        | "lannonbr/vsce-action"
        | "mnao305/chrome-extension-upload"
        | "plasmohq/bpp"
        | "browser-actions/release-chrome-extension"
        | "wdzeng/edge-addon"
        | "wdzeng/firefox-addon"
        | "kewisch/action-web-ext"
        | "trmcnvn/firefox-addon"
        | "10up/action-wordpress-plugin-deploy"
        | "10up/action-wordpress-plugin-asset-update"
        | "nikeee/action-publish"
        | "rubygems/release-gem"
        | "dawidd6/action-publish-gem"
        | "cadwallion/publish-rubygems-action"
        | "erlangpack/github-action"
        | "hexpm/hex-action"
        | "k-paxian/dart-package-publisher"
        | "sakebook/actions-flutter-pub-publisher"
        | "snapcore/action-publish"
        | "apple-actions/upload-testflight-build"
        | "r0adkll/upload-google-play"
        | "rtcamp/action-slack-notify-none"
        | "mislav/bump-homebrew-formula-action"
        | "dawidd6/action-homebrew-bump-formula"
        | "vedantmgoyal9/winget-releaser"
        | "vedantmgoyal2009/winget-releaser"
        | "michidk/run-komac"
        | "ksxgithub/github-actions-deploy-aur"
        | "kirs/push-to-aur"
        | "kira-96/nuget-push"
        | "brandedoutcast/publish-nuget"
        | "alirezanet/publish-nuget"
        | "rohith/publish-nuget"
        | "huggingface/huggingface_hub_action"
        | "conda-incubator/upload"
        | "uibcdf/action-build-and-upload-conda-packages"
        | "actions/publish-immutable-action"
        | "actions/publish-immutable-action-package"
        | "modrinth-publish/action"
        | "kir-antipov/mc-publish"
        | "bluwy/release-for-reddit-users"
        | "pyo3/maturin-action"
        | "burrunan/gradle-publish"
        | "ncipollo/publish"
        | "deno/publish"
        | "akashrajpurohit/publish"
        | "lerna-lite/publish"
        | "tauri-apps/tauri-action" => {
            if what == "pyo3/maturin-action"
                && !with.get("command").is_some_and(|command| {
                    command.contains("publish") || command.contains("upload")
                })
            {
                return Vec::new();
            }
            if what == "tauri-apps/tauri-action" {
                let Some(tag) = with.first(&["tagName", "releaseId"]) else {
                    return Vec::new();
                };
                return forge(Op::Release {
                    draft: with.get("releaseDraft").map(str::to_owned),
                    tag: Some(tag.to_owned()),
                });
            }
            one(Act::publish(what).unless(with.first(&["dry-run", "dry_run", "dryRun"])))
        }
        // ---- sites and clouds
        "peaceiris/actions-gh-pages"
        | "jamesives/github-pages-deploy-action"
        | "crazy-max/ghaction-github-pages"
        | "s0/git-publish-subdir-action"
        | "enriikke/gatsby-gh-pages-action"
        | "shalzz/zola-deploy-action"
        | "helaili/jekyll-action"
        | "mhausenblas/mkdocs-deploy-gh-pages"
        | "tsunematsu21/actions-publish-gist"
        | "cpina/push-to-another-repository"
        | "maxheld83/ghpages"
        | "nwtgck/actions-ghpages"
        | "benchmark-action/github-action-benchmark" => {
            if what == "benchmark-action/github-action-benchmark" && !with.says("auto-push", "true")
            {
                return Vec::new();
            }
            let external = with
                .first(&["external_repository", "repository-name", "repo"])
                .filter(|name| !name.contains("github.repository"));
            if let Some(other) = external {
                return forge(Op::Push(Target::Elsewhere(other.to_owned())));
            }
            let branch = with
                .first(&[
                    "publish_branch",
                    "branch",
                    "target_branch",
                    "gh-pages-branch",
                ])
                .unwrap_or("gh-pages")
                .to_owned();
            let token = with
                .first(&[
                    "personal_token",
                    "deploy_key",
                    "ssh-key",
                    "token",
                    "github_token",
                    "github-token",
                ])
                .map_or(Token::Env(super::API_ENV), |value| {
                    Token::Value(value.to_owned())
                });
            let preview = with
                .first(&["destination_dir", "target-folder"])
                .is_some_and(is_rehearsal);
            one(Act::new(Op::Push(Target::Branch(branch)), what, token)
                .benign_if(preview, "a preview is not production"))
        }
        "rossjrw/pr-preview-action"
        | "bnb-chain/preview"
        | "hosting/preview"
        | "devcontainers/preview" => Vec::new(),
        "actions/deploy-pages" => {
            one(Act::deploy("GitHub Pages (actions/deploy-pages)").unless(with.get("preview")))
        }
        "amondnet/vercel-action" | "bettercallseller/vercel-action" => {
            let production = with
                .get("vercel-args")
                .is_some_and(|text| text.contains("--prod"));
            let unknown = with
                .get("vercel-args")
                .is_some_and(|text| text.contains("${{"));
            one(Act::deploy(what).benign_if(!production && !unknown, "a preview is not production"))
        }
        "nwtgck/actions-netlify"
        | "netlify/actions/cli"
        | "jsmrcaga/action-netlify-deploy"
        | "south-paw/action-netlify-deploy"
        | "netlify/actions/build"
        | "nwtgck/netlify" => {
            if what == "nwtgck/actions-netlify" {
                if let Some(branch) = with.get("production-branch") {
                    return one(Act::deploy(what).only_if(Some(&format!("${{{{ github.ref_name == '{branch}' && github.event_name != 'pull_request' }}}}"))).unless(None));
                }
                let deploy = with.get("production-deploy").unwrap_or("false").to_owned();
                return one(Act::deploy(what).only_if(Some(&deploy)));
            }
            let args = with.get("args").unwrap_or_default();
            one(Act::deploy(what).benign_if(
                what == "netlify/actions/cli" && !args.contains("--prod"),
                "a preview is not production",
            ))
        }
        "cloudflare/wrangler-action" => {
            let command = with.first(&["command"]).unwrap_or("deploy");
            let environment = with.get("environment").unwrap_or_default();
            let read_only = [
                "whoami",
                "secret",
                "versions upload",
                "types",
                "--dry-run",
                "tail",
            ]
            .iter()
            .any(|word| command.contains(word));
            if read_only && !command.contains("deploy ") {
                return Vec::new();
            }
            let branch = command.split("--branch").nth(1).and_then(|rest| {
                rest.trim_start_matches(['=', ' ', '"', '\''])
                    .split([' ', '"', '\''])
                    .next()
            });
            let preview = branch.is_some_and(|branch| {
                !matches!(branch, "main" | "master" | "production") && !branch.contains("${{")
            }) || branch
                .is_some_and(|branch| branch.contains("head_ref") || branch.contains("preview"));
            one(Act::deploy(what)
                .benign_if(preview, "a preview is not production")
                .benign_if(
                    is_rehearsal(environment)
                        || command.contains("--env staging")
                        || command.contains("--env preview")
                        || command.contains("--env dev"),
                    "the target's name says that it is not production",
                ))
        }
        "cloudflare/pages-action" => one(Act::deploy(what)),
        "firebaseextended/action-hosting-deploy" => {
            let live = with.get("channelId").unwrap_or_default().to_owned();
            one(Act::deploy(what).benign_if(
                live != "live" && !live.contains("${{"),
                "a preview is not production",
            ))
        }
        "w9jds/firebase-action" => one(Act::deploy(what).benign_if(
            !with.get("args").is_some_and(|args| args.contains("deploy")),
            "it deploys nothing",
        )),
        "superfly/flyctl-actions" | "superfly/flyctl-actions/flyctl" => {
            if with.get("args").is_some_and(|args| args.contains("deploy")) {
                one(Act::deploy(what))
            } else {
                Vec::new()
            }
        }
        "azure/static-web-apps-deploy" => {
            if with.says("action", "close") {
                return Vec::new();
            }
            one(Act::deploy(what).unless(Some("${{ github.event_name == 'pull_request' }}")))
        }
        "azure/webapps-deploy"
        | "azure/functions-action"
        | "azure/k8s-deploy"
        | "azure/container-apps-deploy-action"
        | "azure/arm-deploy"
        | "azure/aci-deploy"
        | "azure/aks-deploy"
        | "azure/spring-apps-deploy" => {
            let slot = with
                .first(&["slot-name", "namespace", "app-name", "name"])
                .unwrap_or_default();
            one(Act::deploy(what).benign_if(
                is_rehearsal(slot),
                "the target's name says that it is not production",
            ))
        }
        "aws-actions/amazon-ecs-deploy-task-definition"
        | "aws-actions/aws-cloudformation-github-deploy"
        | "aws-actions/aws-lambda-deploy"
        | "einaregilsson/beanstalk-deploy"
        | "appleboy/lambda-action"
        | "jakejarvis/s3-sync-action"
        | "reggionick/s3-deploy"
        | "webfactory/create-aws-codedeploy-deployment"
        | "awslabs/aws-lambda-deploy"
        | "serverless/github-action"
        | "aws-actions/application-deploy"
        | "google-github-actions/deploy-cloudrun"
        | "google-github-actions/deploy-appengine"
        | "google-github-actions/deploy-cloud-functions"
        | "google-github-actions/upload-cloud-storage"
        | "google-github-actions/create-cloud-deploy-release"
        | "akhileshns/heroku-deploy"
        | "gonuit/heroku-docker-deploy"
        | "johnbeynon/render-deploy-action"
        | "jorgelnjunior/render-deploy"
        | "digitalocean/app_action"
        | "digitalocean/app_action/deploy"
        | "burnett01/rsync-deployments"
        | "easingthemes/ssh-deploy"
        | "appleboy/ssh-action"
        | "appleboy/scp-action"
        | "samkirkland/ftp-deploy-action"
        | "wangyucode/sftp-upload-action"
        | "garygrossgarten/github-action-ssh"
        | "garygrossgarten/github-action-scp"
        | "fifsky/ssh-action"
        | "up9cloud/action-rsync"
        | "contention/rsync-deployments"
        | "denoland/deployctl"
        | "bitovi/github-actions-deploy-docker-to-ec2"
        | "pulumi/actions"
        | "steebchen/kubectl"
        | "koslib/helm-eks-action"
        | "kodermax/kubectl-aws-eks"
        | "deliverybot/helm"
        | "bitovi/github-actions-deploy-eks-helm"
        | "stefanprodan/kube-tools"
        | "actions-hub/kubectl"
        | "stackhpc/ansible"
        | "dawidd6/action-ansible-playbook"
        | "dflook/terraform-apply"
        | "supabase/setup-cli-deploy"
        | "railwayapp/railway-deploy"
        | "bervprojects/railway-deploy"
        | "convex-dev/deploy"
        | "dorny/ssh-deploy"
        | "cross-the-world/ssh-pipeline"
        | "cross-the-world/ssh-scp-ssh-pipelines"
        | "distributhor/workflow-webhook-deploy"
        | "redhat-actions/oc-deploy"
        | "shimataro/ssh-deploy"
        | "expo/expo-github-action-deploy"
        | "apptension/deploy"
        | "hashicorp/tfc-workflows-github/actions/apply-run"
        | "akuity/argocd-sync"
        | "clowdhaus/argo-cd-action"
        | "swarmica/docker-stack-deploy"
        | "kitconcept/docker-stack-deploy"
        | "shopify/lighthouse-deploy"
        | "shopify/deploy" => {
            let target = with
                .first(&[
                    "environment_name",
                    "stack-name",
                    "namespace",
                    "service",
                    "app_name",
                    "heroku_app_name",
                    "environment",
                    "host",
                    "stage",
                ])
                .unwrap_or_default();
            let mut act = Act::deploy(what).benign_if(
                is_rehearsal(target),
                "the target's name says that it is not production",
            );
            match what {
                "pulumi/actions" => {
                    let command = with.get("command").unwrap_or_default();
                    let preview = matches!(command, "preview" | "refresh" | "output" | "");
                    act = act.benign_if(
                        preview || with.get("stack-name").is_some_and(is_rehearsal),
                        "a preview is not production",
                    );
                }
                "serverless/github-action" => {
                    act = act.benign_if(
                        !with.get("args").is_some_and(|args| args.contains("deploy")),
                        "it deploys nothing",
                    )
                }
                "google-github-actions/deploy-cloudrun"
                | "google-github-actions/deploy-appengine" => {
                    act = act.benign_if(
                        with.says("no_traffic", "true") || with.says("promote", "false"),
                        "no traffic reaches it",
                    );
                }
                _ => {}
            }
            one(act)
        }
        // ---- the job's own cluster or cloud
        "helm/kind-action"
        | "engineerd/setup-kind"
        | "medyagh/setup-minikube"
        | "manusa/actions-setup-minikube"
        | "absaoss/k3d-action"
        | "nolar/setup-k3d-k3s"
        | "debianmaster/actions-k3s"
        | "balchua/microk8s-actions"
        | "container-tools/kind-action"
        | "container-tools/microshift-action"
        | "palmsoftware/quick-k8s"
        | "jupyterhub/action-k3s-helm"
        | "replicatedhq/action-k3s" => {
            vec![Act::new(
                Op::Local("the cluster belongs to the job"),
                what,
                Token::Outside,
            )]
        }
        "localstack/setup-localstack" | "lambdatest/localstack" => vec![Act::new(
            Op::Local("the cloud is emulated in the job"),
            what,
            Token::Outside,
        )],
        "peter-evans/close-issue" | "actions/stale" | "actions/labeler" => Vec::new(),
        _ => by_words(what, with),
    }
}

/// An action that is not in the catalogue, by the words of its name: authors name actions for what
/// they do. Words that only look alike come first.
fn by_words(what: &str, with: &With<'_>) -> Vec<Act> {
    let name = what.split('/').skip(1).collect::<Vec<_>>().join("/");
    let name = name.replace('_', "-");
    let has = |words: &[&str]| words.iter().any(|word| name.contains(word));
    let forge = |op: Op| vec![Act::new(op, what, with.token())];
    if what.starts_with("actions/")
        || what.starts_with("github/")
        || has(&[
            "setup",
            "install",
            "download",
            "lint",
            "check",
            "wait",
            "notify",
            "slack",
            "discord",
            "comment",
            "preview",
            "status",
            "cache",
            "metadata",
            "changelog",
            "notes",
            "deployments",
            "deployment-action",
            "create-deployment",
            "delete",
            "cleanup",
            "clean-up",
            "get-",
            "find-",
            "fetch",
            "validate",
            "verify",
            "dry-run",
            "artifact",
            "login",
            "credentials",
            "test-reporter",
            "publish-unit-test",
            "publish-test",
            "report",
            "scan",
        ])
    {
        return Vec::new();
    }
    if has(&[
        "automerge",
        "auto-merge",
        "merge-pull-request",
        "merge-pr",
        "merge-me",
    ]) {
        return forge(super::forge::merge(has(&["enable"])));
    }
    if has(&["auto-approve", "autoapprove", "approve-pr", "approve-pull"]) {
        return forge(Op::Approve);
    }
    if has(&["create-pull-request", "create-pr", "open-pr"]) {
        return forge(Op::CreatePr(NewPr::default()));
    }
    if has(&[
        "create-release",
        "gh-release",
        "github-release",
        "release-action",
        "publish-release",
        "release-on-push",
        "auto-release",
    ]) {
        return forge(Op::Release {
            draft: with.get("draft").map(str::to_owned),
            tag: with.first(&["tag_name", "tag"]).map(str::to_owned),
        });
    }
    if has(&[
        "bump-version",
        "version-bump",
        "bumpversion",
        "bump-my-version",
    ]) {
        return vec![Act::new(Op::Push(Target::CurrentAndTags), what, Token::Git)];
    }
    if has(&[
        "tag-action",
        "autotag",
        "auto-tag",
        "create-tag",
        "git-tag",
        "push-tag",
        "bump-tag",
    ]) {
        return forge(Op::Tag(with.first(&["tag", "tag_name"]).map(str::to_owned)));
    }
    if has(&["gh-pages", "ghpages", "github-pages", "pages-deploy"]) {
        return forge(Op::Push(Target::Branch("gh-pages".to_owned())));
    }
    if has(&[
        "git-auto-commit",
        "commit-and-push",
        "add-and-commit",
        "git-push",
        "push-changes",
        "commit-push",
        "auto-commit",
        "commit-changes",
    ]) {
        return vec![Act::new(Op::Push(Target::Current), what, Token::Git)];
    }
    // Profile and readme generators commit what they make.
    if has(&[
        "waka-readme",
        "wakatime",
        "blog-post-workflow",
        "activity-readme",
        "readme-stats",
        "github-stats",
        "todoist-readme",
        "readme-quotes",
        "profile-3d-contrib",
        "contribution-readme",
        "spotify-readme",
    ]) || what == "lowlighter/metrics"
    {
        return forge(Op::Push(Target::Current));
    }
    let publishes = has(&[
        "publish",
        "push-to-registry",
        "docker-push",
        "build-push",
        "build-and-push",
    ]);
    if publishes && !has(&["pages"]) {
        return vec![Act::publish(what).unless(with.first(&["dry-run", "dry_run"]))];
    }
    if has(&["deploy", "rsync", "s3-sync", "ftp-"]) {
        let target = with
            .first(&[
                "environment",
                "stage",
                "namespace",
                "app",
                "service",
                "host",
            ])
            .unwrap_or_default();
        return vec![Act::deploy(what).benign_if(
            is_rehearsal(target),
            "the target's name says that it is not production",
        )];
    }
    Vec::new()
}

fn list(value: Option<&str>) -> Vec<String> {
    value
        .unwrap_or_default()
        .split([',', '\n'])
        .map(|label| label.trim().to_owned())
        .filter(|label| !label.is_empty())
        .collect()
}

fn label_wish(what: &str, with: &With<'_>) -> Option<String> {
    if what == "pascalgw/automerge-action" {
        return Some("automerge".to_owned());
    }
    with.first(&["label", "labels", "merge-label"])
        .map(str::to_owned)
}

fn dependabot_only(what: &str) -> Option<String> {
    what.contains("dependabot")
        .then(|| "${{ github.event.pull_request.user.login == 'dependabot[bot]' || github.actor == 'dependabot[bot]' }}".to_owned())
}

/// `@dependabot merge` as a comment: Dependabot merges if the commenter may push.
fn comment_command(with: &With<'_>) -> Vec<Act> {
    vec![Act::new(
        super::forge::merge(false),
        "@dependabot merge",
        with.token(),
    )]
}
