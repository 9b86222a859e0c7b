//! What an action that no list knows does, by what its name claims and its inputs say.

use super::catalog::With;
use super::words::Claim;
use super::{Act, NewPr, Op, Target, Token, is_rehearsal};

/// Inputs that are on where nothing leaves the run.
const OFF: &[&str] = &[
    "buildonly",
    "checkonly",
    "lintonly",
    "planonly",
    "validateonly",
    "testonly",
    "skippush",
    "skippublish",
    "skipdeploy",
    "skipcommit",
    "nopush",
    "nocommit",
    "noop",
    "preview",
    "ispreview",
    "previewmode",
    "check",
    "checkmode",
    "testmode",
    "testrun",
    "whatif",
    "simulate",
    "simulation",
];

/// Inputs that name what an action is to do.
const MODES: &[&str] = &[
    "command",
    "action",
    "mode",
    "operation",
    "subcommand",
    "task",
];

/// What leaves nothing behind.
const LOOKS: &[&str] = &[
    "plan", "diff", "synth", "preview", "validate", "verify", "lint", "check", "build", "notes",
    "template", "test", "dry-run", "dryrun", "ls", "list", "status", "login", "get", "show",
    "init", "pack", "package", "what-if",
];

/// Inputs that name where a deployment goes, the more telling first.
const WHERE: &[&str] = &[
    "environment",
    "environment-name",
    "environment_name",
    "deployment-environment",
    "deployment_environment",
    "deploy-environment",
    "deploy_environment",
    "target-environment",
    "target_environment",
    "env-name",
    "env_name",
    "env",
    "stage",
    "target",
    "stack-name",
    "stack_name",
    "stack",
    "namespace",
    "app",
    "app-name",
    "app_name",
    "service",
    "host",
];

/// The input that makes an action rehearse.
fn dry_run<'a>(with: &'a With<'_>) -> Option<&'a str> {
    with.first(&["dry-run", "dry_run", "dryrun", "dry"])
}

/// The inputs that turn on what a claim says.
fn switches(claim: Claim) -> &'static [&'static str] {
    match claim {
        Claim::Merge { .. } => &["merge"],
        Claim::Approve => &["approve"],
        Claim::Release => &["release", "create-release", "create_release", "publish"],
        Claim::Tag => &["push", "push-tag", "push_tag", "create-tag", "create_tag"],
        Claim::Bump => &[
            "push",
            "git-push",
            "git_push",
            "push-changes",
            "push_changes",
        ],
        Claim::Commit => &[
            "push",
            "commit",
            "git-push",
            "git_push",
            "push-changes",
            "push_changes",
        ],
        Claim::Update => &[
            "push",
            "commit",
            "auto-commit",
            "auto_commit",
            "commit-changes",
            "commit_changes",
            "push-changes",
            "push_changes",
        ],
        Claim::Publish => &[
            "push",
            "publish",
            "upload",
            "should-push",
            "should_push",
            "do-push",
            "do-publish",
            "do_publish",
            "push-image",
            "push_image",
            "push-images",
            "publish-image",
            "publish_image",
            "push-to-registry",
            "push_to_registry",
        ],
        Claim::Deploy => &[
            "deploy",
            "upload",
            "apply",
            "should-deploy",
            "should_deploy",
            "do-deploy",
            "do_deploy",
            // Without it a preview is deployed.
            "production",
            "prod",
        ],
        Claim::Pages => &["push", "publish", "deploy"],
        Claim::CreatePr | Claim::Dispatch | Claim::RepositoryDispatch => &[],
    }
}

/// Whether its inputs turn it off, or have it do what leaves nothing behind.
fn turned_off(claim: Claim, what: &str, with: &With<'_>) -> bool {
    let on = |value: &str| value.trim().eq_ignore_ascii_case("true");
    let rehearses = with.0.iter().any(|(key, value)| {
        let key: String = key.to_ascii_lowercase().replace(['-', '_'], "");
        on(value) && OFF.contains(&key.as_str())
    });
    let looks = with.first(MODES).is_some_and(|value| {
        let value = value.trim().to_ascii_lowercase();
        match claim {
            Claim::Publish | Claim::Deploy | Claim::Release | Claim::Pages => {
                LOOKS.contains(&value.as_str())
            }
            Claim::Bump | Claim::Tag => matches!(value.as_str(), "check" | "dry-run" | "preview"),
            Claim::Merge { .. } => matches!(
                value.as_str(),
                "approve" | "approve-only" | "label" | "comment" | "check"
            ),
            _ => false,
        }
    });
    // One that also tags does so without a release.
    let more = claim == Claim::Release
        && ["semantic", "tag", "version", "bump"]
            .iter()
            .any(|word| what.to_ascii_lowercase().contains(word));
    rehearses || looks || !more && switches(claim).iter().any(|name| with.says(name, "false"))
}

/// Whether what a workflow elsewhere is given says that it leaves nothing in production.
pub(crate) fn leaves_nothing(claim: Claim, what: &str, with: &With<'_>) -> bool {
    turned_off(claim, what, with)
        || dry_run(with).is_some_and(|value| value.trim().eq_ignore_ascii_case("true"))
        || matches!(claim, Claim::Deploy | Claim::Publish) && rehearses(what, with)
}

/// The template that decides whether it happens.
fn asked<'a>(with: &'a With<'_>, claim: Claim) -> Option<&'a str> {
    with.first(switches(claim))
        .filter(|value| value.trim_start().starts_with("${{"))
}

/// Whether the inputs, or the last part of the name, say that it goes to no production.
fn rehearses(what: &str, with: &With<'_>) -> bool {
    let by_name = || {
        let name = what
            .split('@')
            .next()
            .and_then(|path| path.rsplit('/').next())
            .unwrap_or(what);
        !name.contains("prod")
            && super::words::words(name).windows(2).any(|pair| {
                let [first, second] = pair else { return false };
                matches!(first.as_str(), "to" | "deploy")
                    && matches!(
                        second.as_str(),
                        "staging"
                            | "stage"
                            | "stg"
                            | "dev"
                            | "development"
                            | "qa"
                            | "uat"
                            | "sandbox"
                    )
            })
    };
    match with.first(WHERE) {
        Some(target) if !target.contains(['\n', '=']) => is_rehearsal(target),
        _ => by_name(),
    }
}

/// What a claim amounts to.
pub(crate) fn acts(claim: Claim, what: &str, with: &With<'_>) -> Vec<Act> {
    let forge = |op: Op| vec![Act::new(op, what, with.token()).unless(dry_run(with))];
    if turned_off(claim, what, with) {
        return Vec::new();
    }
    match claim {
        Claim::Merge { auto } => match with.first(&["target_branch", "target-branch"]) {
            // It merges one branch into another, without a request.
            Some(branch) if what.to_ascii_lowercase().contains("branch") => {
                forge(Op::Push(Target::Branch(branch.to_owned())))
            }
            _ => forge(super::merge(auto)),
        },
        Claim::Approve => forge(Op::Approve),
        Claim::CreatePr => forge(Op::CreatePr(NewPr {
            labels: super::catalog::list(with.first(&["labels", "label", "pr-labels"])),
            head: with
                .first(&["branch", "head", "pr-branch", "branch-name"])
                .map(str::to_owned),
            base: with
                .first(&["base", "base-branch", "target-branch"])
                .map(str::to_owned),
            release: false,
        })),
        Claim::Release => forge(Op::Release {
            draft: with.get("draft").map(str::to_owned),
            tag: with.first(&["tag_name", "tag"]).map(str::to_owned),
        }),
        Claim::Bump => {
            vec![Act::new(Op::Push(Target::CurrentAndTags), what, Token::Git).unless(dry_run(with))]
        }
        Claim::Tag => forge(Op::Tag(with.first(&["tag", "tag_name"]).map(str::to_owned))),
        Claim::Pages => forge(Op::Push(Target::Branch("gh-pages".to_owned()))),
        Claim::Commit => vec![
            Act::new(
                Op::Push(
                    with.first(&["branch", "target-branch", "target_branch"])
                        .map_or(Target::Current, |branch| Target::Branch(branch.to_owned())),
                ),
                what,
                match with.token() {
                    Token::Env(_) => Token::Git,
                    given => given,
                },
            )
            .unless(dry_run(with)),
        ],
        // Without this it opens a pull request and leaves the merge to someone else.
        Claim::Update if with.says("auto_merge", "false") || with.says("auto-merge", "false") => {
            forge(Op::CreatePr(NewPr {
                head: with.first(&["head"]).map(str::to_owned),
                base: with.first(&["base"]).map(str::to_owned),
                ..NewPr::default()
            }))
        }
        Claim::Update => forge(Op::Push(
            with.first(&["branch", "target-branch", "target_branch"])
                .map_or(Target::Current, |branch| Target::Branch(branch.to_owned())),
        )),
        Claim::Publish => {
            let target = with.first(&["environment", "stage"]).unwrap_or_default();
            let registry = with
                .first(&[
                    "registry",
                    "registry-url",
                    "registry_url",
                    "repository",
                    "repository-url",
                    "repository_url",
                    "index-url",
                ])
                .unwrap_or_default();
            let tried = ["test.pypi", "testpypi", "localhost", "127.0.0.1"]
                .iter()
                .any(|place| registry.contains(place));
            vec![
                Act::publish(what)
                    .unless(dry_run(with))
                    .only_if(asked(with, claim))
                    .benign_if(
                        tried || is_rehearsal(target),
                        "the target's name says that it is not production",
                    ),
            ]
        }
        Claim::Deploy => vec![
            Act::deploy(what)
                .unless(dry_run(with))
                .only_if(asked(with, claim))
                .benign_if(
                    rehearses(what, with),
                    "the target's name says that it is not production",
                ),
        ],
        Claim::Dispatch => forge(Op::Dispatch {
            workflow: with
                .first(&[
                    "workflow",
                    "workflow_file_name",
                    "workflow-file-name",
                    "workflow_id",
                    "workflow-id",
                    "workflow_name",
                    "workflow-name",
                ])
                .map(str::to_owned),
            repository: with
                .first(&["repo", "repository"])
                .filter(|name| !name.contains("github.") && name.contains('/'))
                .map(str::to_owned),
        }),
        Claim::RepositoryDispatch => forge(Op::RepositoryDispatch {
            event_type: with
                .first(&["event-type", "event_type", "event"])
                .map(str::to_owned),
            repository: with
                .first(&["repository", "repo"])
                .filter(|name| !name.contains("github.repository"))
                .map(str::to_owned),
        }),
    }
}
