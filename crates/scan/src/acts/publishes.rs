//! Commands that put a package or an image into a registry.

use super::git::shorten;
use super::{API_ENV, Act, NewPr, Op, Target, Token, tools, versions};
use crate::shell::Command;

const DRY: &str = "a dry run publishes nothing";
const LOCAL: &str = "the registry is local to the job";
const TEST_INDEX: &str = "a test index is not production";

/// Reads one command; nothing for what publishes nothing.
pub(super) fn read(name: &str, command: &Command) -> Vec<Act> {
    let without_options: Vec<&str> = command
        .words
        .iter()
        .skip(1)
        .map(String::as_str)
        .filter(|word| !word.starts_with('-'))
        .collect();
    let what = shorten(&command.text());
    if !(command.has("--help") || command.has("--version"))
        && let Some(acts) = versions::read(name, &without_options, command, &what)
    {
        return acts;
    }
    let acts = read_words(name, command, None);
    if !acts.is_empty() {
        return acts;
    }
    let words: Vec<&str> = command.words.iter().map(String::as_str).collect();
    match super::without_first_values(&words) {
        Some(plain) => read_words(name, command, Some(plain)),
        None => acts,
    }
}

/// The same with the words that are neither options nor their values, where those are known.
fn read_words(name: &str, command: &Command, known: Option<Vec<&str>>) -> Vec<Act> {
    let words: Vec<&str> = command.words.iter().map(String::as_str).collect();
    let rest = words.get(1..).unwrap_or_default();
    let what = shorten(&command.text());
    // `--dry-run=${{ … }}`: what stands there decides.
    let dry_value = words.iter().find_map(|word| {
        word.strip_prefix("--dry-run=")
            .or(word.strip_prefix("--dry_run="))
    });
    let template = dry_value.filter(|value| value.contains("${{"));
    let dry = template.is_none()
        && dry_value != Some("false")
        && (command.has("--dry-run")
            || command.has("--dryrun")
            || command.has("--dry")
            || command.has("-WhatIf")
            || command.has("-n") && name == "cargo");
    let publish = || {
        vec![
            Act::publish(what.clone())
                .benign_if(dry, DRY)
                .benign_if(is_local(&words), LOCAL)
                .unless(template),
        ]
    };
    // Values that are no tasks: what is left out, the modules that are built.
    let valued: &[&str] = match name {
        "gradle" | "gradlew" => &["-x", "--exclude-task"],
        "mvn" | "mvnw" => &["-pl", "--projects"],
        _ => &[],
    };
    let plain: Vec<&str> = known.unwrap_or_else(|| {
        words
            .windows(2)
            .filter_map(|pair| match pair {
                [before, word] if !word.starts_with('-') && !valued.contains(before) => Some(*word),
                _ => None,
            })
            .collect()
    });
    let is_help = command.has("--help") || command.has("--version");
    if is_help {
        return Vec::new();
    }
    let acts = match (name, plain.as_slice()) {
        ("lerna" | "yarn" | "npm" | "pnpm", list)
            if (name == "lerna" || list.first() == Some(&"lerna")) && list.contains(&"publish") =>
        {
            // It makes the version first, unless told what was made before.
            let versions = !list.iter().any(|word| word.starts_with("from-"))
                && ["--canary", "-c", "--no-push", "--no-git-tag-version"]
                    .iter()
                    .all(|flag| !command.has(flag));
            let mut acts = if versions && !dry {
                at_once(&what, command)
            } else {
                Vec::new()
            };
            acts.extend(publish());
            acts
        }
        (
            "yarn" | "npm" | "pnpm" | "bun",
            ["changeset" | "changesets", "publish", ..]
            | ["exec" | "run", "changeset" | "changesets", "publish", ..],
        )
        | ("changeset", ["publish", ..]) => {
            // A snapshot is new each time.
            if command.option(&["--tag"]).is_some() || command.has("--no-git-tag") {
                publish()
            } else {
                changeset(&what)
            }
        }
        ("npm" | "yarn" | "pnpm" | "bun" | "deno", list)
            if list.contains(&"publish")
                && !list.contains(&"run")
                && !matches!(
                    list.first(),
                    Some(&("config" | "pack" | "install" | "add" | "ci" | "test"))
                ) =>
        {
            publish()
        }
        ("lerna", ["version", ..]) | ("yarn" | "npm" | "pnpm", ["lerna", "version", ..])
            if !command.has("--no-push") && !command.has("--no-git-tag-version") =>
        {
            at_once(&what, command)
        }
        ("bumpp", _) if !command.has("--no-push") => pushes(&what),
        ("changelogen", _) if command.has("--release") && command.has("--push") => pushes(&what),
        ("nx", ["release", ..]) => {
            vec![Act::publish(what.clone()).benign_if(dry || command.has("--skip-publish"), DRY)]
        }
        ("jsr", ["publish", ..]) | ("vsce" | "ovsx", ["publish", ..]) => publish(),
        ("tfx", ["extension", "publish", ..]) => publish(),
        ("cargo", ["publish", ..]) => publish(),
        ("release-plz", ["release", ..]) => release_and_publish(&what, true),
        ("twine", ["upload", ..]) => {
            let test = words
                .iter()
                .any(|word| word.contains("test.pypi") || word.contains("testpypi"));
            vec![
                Act::publish(what.clone())
                    .benign_if(test, TEST_INDEX)
                    .benign_if(is_local(&words), LOCAL),
            ]
        }
        ("poetry" | "flit" | "uv" | "hatch" | "pdm" | "maturin", ["publish" | "upload", ..]) => {
            let test = words.iter().any(|word| {
                word.contains("test.pypi") || word.contains("testpypi") || *word == "test-pypi"
            }) || matches!(
                command.option(&["-r", "--repo", "--repository"]),
                Some("test")
            );
            vec![
                Act::publish(what.clone())
                    .benign_if(dry, DRY)
                    .benign_if(test, TEST_INDEX),
            ]
        }
        ("setup.py", ["upload", ..]) => publish(),
        ("gem", ["push", ..]) | ("rake", ["release", ..]) => publish(),
        ("mvn" | "mvnw", list)
            if list.iter().any(|word| {
                matches!(
                    *word,
                    "deploy"
                        | "release:perform"
                        | "nexus-staging:release"
                        | "central-publishing:publish"
                        | "deploy:deploy-file"
                        | "jib:build"
                        | "jreleaser:full-release"
                )
            }) =>
        {
            if list.contains(&"jreleaser:full-release") {
                return release_and_publish(&what, false);
            }
            let skipped = words
                .iter()
                .any(|word| word.starts_with("-Dmaven.deploy.skip") && !word.ends_with("=false"));
            let staged = words.iter().any(|word| {
                word.starts_with("-DaltDeploymentRepository") && word.contains("file:")
            });
            vec![
                Act::publish(what.clone())
                    .benign_if(skipped, DRY)
                    .benign_if(staged, LOCAL),
            ]
        }
        ("gradle" | "gradlew", list) if list.iter().any(|word| is_gradle_publish(word)) => {
            if command.has("--validate-only") || command.has("-m") {
                Vec::new()
            } else if list
                .iter()
                .any(|word| word.ends_with("jreleaserFullRelease"))
            {
                release_and_publish(&what, false)
            } else {
                publish()
            }
        }
        ("sbt", list)
            if list.iter().any(|word| {
                word.contains("publishSigned")
                    || word.contains("ci-release")
                    || *word == "publish"
                    || *word == "+publish"
            }) =>
        {
            publish()
        }
        ("dotnet", ["nuget", "push", ..]) | ("nuget", ["push", ..]) => publish(),
        ("docker" | "podman" | "buildah" | "nerdctl" | "finch", list) => {
            docker(list, &words, &what, command)
        }
        ("docker-compose", list) if list.contains(&"push") && !list.contains(&"run") => publish(),
        ("skopeo", ["sync", ..]) if matches!(command.option(&["--dest", "-d"]), Some("docker")) => {
            publish()
        }
        ("skopeo", ["copy" | "sync", ..])
            if words
                .iter()
                .filter(|word| word.starts_with("docker://"))
                .count()
                > 1
                || words
                    .last()
                    .is_some_and(|word| word.starts_with("docker://")) =>
        {
            publish()
        }
        ("crane", ["push" | "copy" | "cp" | "tag" | "append" | "mutate", ..])
        | ("regctl", ["image", "copy", ..]) => publish(),
        ("ko", ["build" | "publish" | "resolve", ..]) => {
            let local = command.has("--local") || command.has("-L") || command.has("--push=false");
            vec![Act::publish(what.clone()).benign_if(local, LOCAL)]
        }
        ("helm", ["push" | "cm-push", ..])
        | ("oras", ["push" | "copy" | "cp", ..])
        | ("chart-releaser" | "cr", ["upload", ..]) => publish(),
        ("chart-releaser" | "cr", ["index", ..]) if command.has("--push") => publish(),
        ("goreleaser", ["release", ..]) | ("goreleaser", [])
            if rest.is_empty() || plain.first() == Some(&"release") =>
        {
            goreleaser(&what, &words.join(" "))
        }
        ("mix", ["hex.publish", ..]) => publish(),
        ("dart" | "flutter", ["pub", "publish", ..]) => publish(),
        ("pod", ["trunk", "push", ..]) => publish(),
        ("fastlane", [lane, ..] | [_, lane, ..])
            if matches!(
                *lane,
                "release"
                    | "deliver"
                    | "supply"
                    | "deploy"
                    | "beta"
                    | "upload_to_app_store"
                    | "upload_to_play_store"
                    | "production"
                    | "publish"
            ) =>
        {
            publish()
        }
        ("conan", ["upload", ..])
        | ("anaconda", ["upload", ..] | [_, "upload", ..])
        | ("conda", ["upload", ..])
        | ("luarocks", ["upload", ..]) => publish(),
        ("snapcraft", ["upload" | "push" | "release", ..]) => publish(),
        ("cabal", ["upload", ..]) => vec![
            Act::publish(what.clone())
                .benign_if(!command.has("--publish"), "a candidate is not published"),
        ],
        ("jreleaser" | "jreleaser-cli", ["deploy" | "upload" | "publish", ..]) => publish(),
        ("jreleaser" | "jreleaser-cli", ["full-release", ..]) => release_and_publish(&what, false),
        ("stack", ["upload", ..])
        | ("opam", ["publish", ..])
        | ("dune-release", ["publish" | "distrib", ..]) => publish(),
        ("semantic-release", _) => {
            if dry {
                Vec::new()
            } else {
                with_registry(on_release_branches(release_and_publish(&what, false)))
            }
        }
        ("auto", ["shipit" | "latest", ..]) => release_and_publish(&what, false),
        ("release-please", ["github-release", ..]) => {
            let mut act = Act::new(
                Op::Release {
                    draft: None,
                    tag: None,
                },
                what.clone(),
                Token::Env(API_ENV),
            );
            act.after_release_pr = true;
            vec![act]
        }
        ("release-please", ["release-pr", ..]) => vec![Act::new(
            Op::CreatePr(NewPr {
                release: true,
                ..NewPr::default()
            }),
            what.clone(),
            Token::Env(API_ENV),
        )],
        ("huggingface-cli" | "hf", ["upload" | "upload-large-folder", ..]) => publish(),
        ("web-ext", ["sign", ..]) => vec![Act::publish(what.clone()).benign_if(
            command.option(&["--channel"]) == Some("unlisted"),
            "what is not listed is signed alone",
        )],
        ("chrome-webstore-upload", _) => publish(),
        ("eas", ["submit", ..]) => publish(),
        ("eas", ["build", ..]) if command.has("--auto-submit") => publish(),
        ("xcrun", ["altool", ..])
            if command.has("--upload-app") || command.has("--upload-package") =>
        {
            publish()
        }
        ("pack", ["build", ..]) if command.has("--publish") => publish(),
        ("devcontainer", ["build", ..]) if command.has("--push") => publish(),
        ("ray" | "raycast", ["publish", ..]) => publish(),
        ("Publish-Module" | "Publish-PSResource" | "Publish-Script", _) => publish(),
        ("pulp" | "jfrog" | "jf", ["rt", "upload" | "u" | "dp" | "docker-push", ..]) => publish(),
        _ => Vec::new(),
    };
    let mut acts = if !acts.is_empty() {
        acts
    } else if tools::publishes(name, &plain, command) {
        publish()
    } else {
        tools::by_step(name, &plain, command, what)
            .into_iter()
            .map(|act| {
                act.benign_if(dry, DRY)
                    .benign_if(is_local(&words), LOCAL)
                    .unless(template)
            })
            .collect()
    };
    let latest = names_latest(&words, &plain);
    for act in &mut acts {
        act.latest = latest && act.op == Op::Publish;
    }
    acts
}

/// Whether what is pushed is called `latest`: not what a cache or a base is taken from.
fn names_latest(words: &[&str], plain: &[&str]) -> bool {
    let is_latest = |word: &&str| word.ends_with(":latest");
    let tagged = words.windows(2).any(|pair| match pair {
        ["-t" | "--tag" | "--destination" | "-d", value] => is_latest(value),
        _ => false,
    }) || words.iter().any(|word| {
        ["-t=", "--tag=", "--destination="]
            .iter()
            .any(|option| word.starts_with(option))
            && is_latest(word)
    });
    tagged
        || plain
            .iter()
            .any(|word| matches!(*word, "push" | "tag" | "copy" | "cp"))
            && plain.last().is_some_and(is_latest)
}

/// `changeset publish` finds nothing to do unless a version pull request was merged.
fn changeset(what: &str) -> Vec<Act> {
    let mut act = Act::publish(what);
    act.after_release_pr = true;
    vec![act]
}

fn release_and_publish(what: &str, after_release_pr: bool) -> Vec<Act> {
    let mut acts = vec![
        Act::new(
            Op::Release {
                draft: None,
                tag: None,
            },
            what,
            Token::Env(API_ENV),
        ),
        Act::publish(what),
    ];
    for act in &mut acts {
        act.after_release_pr = after_release_pr;
    }
    acts
}

pub(super) fn on_release_branches(mut acts: Vec<Act>) -> Vec<Act> {
    for act in &mut acts {
        act.release_branches = true;
    }
    acts
}

/// Publishes only where the job holds a registry's credential.
pub(super) fn with_registry(mut acts: Vec<Act>) -> Vec<Act> {
    for act in &mut acts {
        act.needs_registry = act.op == Op::Publish;
    }
    acts
}

/// GoReleaser by its arguments.
pub(super) fn goreleaser(what: &str, arguments: &str) -> Vec<Act> {
    if arguments.contains("check") && !arguments.contains("release")
        || arguments.contains("goreleaser build")
        || arguments.starts_with("build")
        || arguments.contains("healthcheck")
    {
        return Vec::new();
    }
    let snapshot = arguments.contains("--snapshot")
        || arguments.contains("--skip=publish")
        || arguments.contains("--skip-publish")
        || arguments.contains("--skip publish");
    vec![
        Act::new(
            Op::Release {
                draft: None,
                tag: None,
            },
            what,
            Token::Env(API_ENV),
        )
        .benign_if(snapshot, "a snapshot is not released"),
        Act::publish(what).benign_if(snapshot, "a snapshot is not published"),
    ]
}

fn docker(list: &[&str], words: &[&str], what: &str, command: &Command) -> Vec<Act> {
    let local = is_local(words);
    let pushes = match list {
        ["push", ..] | ["image", "push", ..] | ["manifest", "push", ..] => true,
        ["buildx", "build", ..] | ["build", ..] | ["buildx", "bake", ..] | ["bake", ..] => {
            command.has("--push")
                || words
                    .iter()
                    .any(|word| word.contains("type=registry") || word.contains("push=true"))
        }
        ["buildx", "imagetools", "create", ..] => true,
        // Behind options with values: `compose -f x.yml push`.
        ["compose", rest @ ..] => rest.contains(&"push") && !rest.contains(&"run"),
        _ => false,
    };
    if !pushes || command.words.iter().any(|word| word == "--push=false") {
        return Vec::new();
    }
    vec![Act::publish(what).benign_if(local, LOCAL)]
}

fn is_gradle_publish(word: &str) -> bool {
    let task = word.rsplit(':').next().unwrap_or(word);
    (task.starts_with("publish") && !task.contains("MavenLocal"))
        || matches!(
            task,
            "artifactoryPublish"
                | "closeAndReleaseRepository"
                | "closeAndReleaseStagingRepository"
                | "uploadArchives"
                | "jib"
                | "dockerPush"
                | "bootBuildImage"
                | "jreleaserFullRelease"
                | "uploadBundle"
                | "uploadCrashlyticsMappingFileRelease"
        ) && task != "bootBuildImage"
}

/// A tool that commits a version, tags it and pushes both.
fn pushes(what: &str) -> Vec<Act> {
    vec![Act::new(Op::Push(Target::CurrentAndTags), what, Token::Git)]
}

/// The same in one push of both, so that a branch that refuses it gets no tag either.
pub(super) fn at_once(what: &str, command: &Command) -> Vec<Act> {
    let mut commit = Act::new(Op::Push(Target::Current), what, Token::Git);
    commit.must = !command.guarded;
    vec![commit, Act::new(Op::Tag(None), what, Token::Git)]
}

/// Whether a registry or host of the job itself is meant.
pub(super) fn is_local(words: &[&str]) -> bool {
    words.iter().any(|word| {
        let word = word.to_ascii_lowercase();
        word.contains("localhost")
            || word.contains("127.0.0.1")
            || word.contains("verdaccio")
            || word.contains("ttl.sh")
            || word.contains("kind-registry")
            || word.contains("0.0.0.0")
    })
}
