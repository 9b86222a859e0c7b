//! Published actions and what they do, by name.
//!
//! Names are compared without version and case. What an action that is not here may do is judged by
//! its name and by what it is given ([`crate::workflow`]).

use super::{Act, Check, NewPr, Op, Target, Token};

/// The inputs of a step, by lower-cased name.
pub(crate) struct With<'a>(pub(crate) &'a [(String, String)]);

impl With<'_> {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    pub(super) fn first(&self, names: &[&str]) -> Option<&str> {
        names
            .iter()
            .find_map(|name| self.get(name))
            .filter(|value| !value.trim().is_empty())
    }

    pub(super) fn token(&self) -> Token {
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

    pub(crate) fn says(&self, name: &str, wanted: &str) -> bool {
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

/// The name as it is written.
fn what_of(uses: &str) -> &str {
    uses.split('@').next().unwrap_or(uses)
}

/// Rights of the job's token without which an action fails.
pub(crate) fn rights_of(name: &str, with: &With<'_>) -> Option<&'static [&'static str]> {
    let given = |names: &[&str]| with.first(names).is_some();
    let identity: &[&str] = &["id-token"];
    match name {
        "pypa/gh-action-pypi-publish" => (!given(&["password"])).then_some(identity),
        "actions/deploy-pages" => Some(&["pages", "id-token"]),
        "aws-actions/configure-aws-credentials" => (given(&["role-to-assume"])
            && !given(&["aws-access-key-id", "web-identity-token-file"])
            && !with.says("role-chaining", "true"))
        .then_some(identity),
        "google-github-actions/auth" => given(&["workload_identity_provider"]).then_some(identity),
        "rust-lang/crates-io-auth-action"
        | "rubygems/configure-rubygems-credentials"
        | "nuget/login" => Some(identity),
        "azure/login" => {
            (given(&["client-id"]) && !given(&["creds", "auth-type"])).then_some(identity)
        }
        _ => None,
    }
}

/// What an action does; `None` for one that the catalogue does not know.
pub(crate) fn acts_of(uses: &str, with: &With<'_>) -> Option<Vec<Act>> {
    let name = name_of(uses);
    let what = name.as_str();
    let forge = |op: Op| vec![Act::new(op, what, with.token())];
    let one = |act: Act| vec![act];
    if let Some(acts) = super::rarer::acts_of(uses, what, with) {
        return Some(acts);
    }
    let acts = match what {
        // ---- merging and approving
        "pascalgn/automerge-action" => forge(Op::Merge {
            auto: false,
            admin: false,
            // What it waits for where its environment does not say.
            label: label_wish(what, with),
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
        | "tjenkinson/gh-action-auto-merge-dependency-updates"
        | "wow-actions/auto-merge"
        | "mitto98/dependabot-automerge-action"
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
                || what == "ridedott/merge-me-action"
                || what == "tjenkinson/gh-action-auto-merge-dependency-updates"
                    && !with.says("approve", "false")
            {
                acts.extend(forge(Op::Approve));
            }
            if what == "ahmadnassri/action-dependabot-auto-merge" {
                // The command that it writes in a comment does nothing any more.
                acts.clear();
                if !with.says("approve", "false") {
                    acts.extend(forge(Op::Approve));
                }
            }
            for act in &mut acts {
                act.only_if.extend(dependabot_only(what));
                act.only_if.extend(associations_only(with));
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
        "simple-icons/release-action" => forge(Op::CreatePr(NewPr {
            release: true,
            ..NewPr::default()
        })),
        "home-assistant/builder" => {
            let args = with.get("args").unwrap_or_default();
            one(Act::publish(what).benign_if(args.contains("--test"), "a test build is not pushed"))
        }
        "google-github-actions/release-please-action"
        | "googleapis/release-please-action"
        | "bcoe/release-please-action"
        | "navikt/release-please" => {
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
                return Some(Vec::new());
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
                return Some(forge(Op::Release {
                    draft: None,
                    tag: None,
                }));
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
            let acts = vec![
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
            ];
            if what.contains("semantic-release") {
                super::publishes::with_registry(super::publishes::on_release_branches(acts))
            } else {
                acts
            }
        }
        "goreleaser/goreleaser-action" => {
            if with.says("install-only", "true") {
                return Some(Vec::new());
            }
            super::publishes_goreleaser(what, with.get("args").unwrap_or("release"))
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
        "peter-evans/close-issue"
        | "renovatebot/github-action"
        | "actions/stale"
        | "actions/labeler"
        // They tell a service of a release.
        | "getsentry/action-release"
        | "newrelic/deployment-marker-action"
        // They add files to a release that is there.
        | "shogo82148/actions-upload-release-asset"
        | "abutler/upload-release-assets"
        | "alexellis/upload-assets"
        | "csexton/release-asset-action"
        | "actions/upload-release-asset" => Vec::new(),
        _ => {
            return super::further::acts_of(what, with)
                .or_else(|| super::known::acts_of(what, with))
                .or_else(|| super::shipping::acts_of(what, with))
                .or_else(|| {
                    let origin = super::rarer::origin_of(what)?;
                    let mut acts = acts_of(&uses.replacen(what_of(uses), origin, 1), with)?;
                    for act in &mut acts {
                        act.what = act.what.replacen(origin, what, 1);
                    }
                    Some(acts)
                });
        }
    };
    Some(acts)
}

pub(super) fn list(value: Option<&str>) -> Vec<String> {
    value
        .unwrap_or_default()
        .split([',', '\n'])
        .map(|label| label.trim().to_owned())
        .filter(|label| !label.is_empty())
        .collect()
}

fn label_wish(what: &str, with: &With<'_>) -> Option<String> {
    if what == "pascalgn/automerge-action" {
        return Some("automerge".to_owned());
    }
    with.first(&["label", "labels", "merge-label", "required-labels"])
        .map(str::to_owned)
}

fn dependabot_only(what: &str) -> Option<String> {
    what.contains("dependabot")
        .then(|| "${{ github.event.pull_request.user.login == 'dependabot[bot]' || github.actor == 'dependabot[bot]' }}".to_owned())
}

/// What holds where a pull request is the named account's. Events that carry no pull request leave
/// it to the action to look for a bot's.
pub(crate) fn author_only(author: &str) -> String {
    let bots = if author.ends_with("[bot]") {
        " || !github.event.pull_request"
    } else {
        ""
    };
    format!("${{{{ github.event.pull_request.user.login == '{author}'{bots} }}}}")
}

/// What holds where the author of a pull request stands to the repository as the action asks.
fn associations_only(with: &With<'_>) -> Option<String> {
    let wanted = with.first(&["pull-request-author-associations"])?;
    let each: Vec<String> = wanted
        .split([',', '\n', ' '])
        .map(str::trim)
        .filter(|word| !word.is_empty() && word.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
        .map(|word| format!("github.event.pull_request.author_association == '{word}'"))
        .collect();
    (!each.is_empty()).then(|| format!("${{{{ {} }}}}", each.join(" || ")))
}
