//! Programs that no list knows, told by their first words to ship something: what these say counts
//! where the step holds a credential for it ([`crate::workflow`]).

use super::command::Reader;
use super::naming::{Unresolved, Why};
use super::words;
use crate::shell::Command;

/// First words that say so.
const VERBS: &[&str] = &[
    "publish", "deploy", "release", "upload", "push", "promote", "rollout", "submit", "ship",
];

/// Programs whose words are known elsewhere, or that ship nothing to where things run: caches,
/// reports, translations, data.
const KNOWN: &[&str] = &[
    "git",
    "gh",
    "hub",
    "glab",
    "docker",
    "podman",
    "buildah",
    "skopeo",
    "crane",
    "oras",
    "kubectl",
    "oc",
    "helm",
    "helmfile",
    "npm",
    "yarn",
    "pnpm",
    "bun",
    "deno",
    "node",
    "npx",
    "nx",
    "turbo",
    "lerna",
    "rush",
    "changeset",
    "python",
    "python3",
    "pip",
    "poetry",
    "uv",
    "pdm",
    "hatch",
    "flit",
    "twine",
    "cargo",
    "go",
    "mvn",
    "mvnw",
    "gradle",
    "gradlew",
    "sbt",
    "mill",
    "dotnet",
    "nuget",
    "gem",
    "bundle",
    "rake",
    "make",
    "just",
    "task",
    "mix",
    "rebar3",
    "dart",
    "flutter",
    "pod",
    "fastlane",
    "conan",
    "cabal",
    "stack",
    "aws",
    "gcloud",
    "gsutil",
    "az",
    "terraform",
    "tofu",
    "terragrunt",
    "pulumi",
    "cdk",
    "sam",
    "serverless",
    "sls",
    "vercel",
    "netlify",
    "wrangler",
    "firebase",
    "heroku",
    "fly",
    "flyctl",
    "railway",
    "surge",
    "ansible",
    "cf",
    "eas",
    "goreleaser",
    "jreleaser",
    "semantic-release",
    "release-it",
    "brew",
    "choco",
    "snapcraft",
    "apt",
    "apt-get",
    "dvc",
    "lfs",
    "cachix",
    "attic",
    "crowdin",
    "lokalise2",
    "lokalise",
    "tx",
    "phrase",
    "weblate",
    "wlc",
    "transifex",
    "act",
    "pre-commit",
    "echo",
    "printf",
    "cat",
    "cd",
    "source",
    "export",
    "set",
    "test",
    "sudo",
    "ssh",
    "scp",
    "rsync",
    "curl",
    "wget",
    "chromatic",
    "percy",
    "argos",
    "codecov",
    "coveralls",
    "bencher",
    "launchdarkly",
    "ld",
    "sentry-cli",
    "bugsnag",
    "datadog-ci",
    "rollbar",
    "buildpulse",
    "knapsack",
    "currents",
    "allure",
    "xcrun",
    "bazel",
    "bazelisk",
    "earthly",
    "buildkite-agent",
    "circleci",
    "travis",
    "op",
    "vault",
    "cosign",
    "wandb",
    "mlflow",
    "claude",
    "codex",
    "gemini",
    "copilot",
    "opencode",
    "aider",
    "cursor-agent",
    "for",
    "case",
    "function",
    "return",
    "exit",
    "in",
    "local",
    "declare",
    "read",
    "trap",
    "tar",
    "zip",
    "7z",
    "cp",
    "mv",
    "sed",
    "grep",
    "awk",
    "jq",
    "yq",
    "find",
    "tee",
    "install",
];

/// Whether a command says that it ships something.
pub(crate) fn says_so(command: &str) -> bool {
    command.split_whitespace().any(|word| VERBS.contains(&word))
}

/// Whether a program's words are known elsewhere, or ship nothing.
pub(super) fn is_known(name: &str) -> bool {
    KNOWN.contains(&name)
}

impl Reader<'_> {
    /// Notes a command that nothing was found for, where its words say that it ships something.
    pub(super) fn note_unlisted(&mut self, command: &Command, name: &str, line: usize) {
        /// Most of them in one step.
        const NOTED_MAX: usize = 20;
        let mut plain = command
            .words
            .iter()
            .skip(1)
            .filter(|word| !word.starts_with('-'))
            .map(String::as_str);
        let (first, second) = (
            plain.next().unwrap_or_default(),
            plain.next().unwrap_or_default(),
        );
        let Some(verb) = [first, second]
            .into_iter()
            .find(|word| VERBS.contains(word))
        else {
            return;
        };
        let file = name.contains(['/', '$', '(', '{', '=']) || name.ends_with(".sh");
        let noted = self
            .unresolved
            .iter()
            .filter(|one| one.why == Why::Unlisted)
            .count();
        let dry = ["--dry-run", "--dry", "--dryrun", "-n", "--help", "--noop"]
            .iter()
            .any(|flag| command.has(flag));
        if file
            || dry
            || noted >= NOTED_MAX
            || KNOWN.contains(&name)
            || words::is_quiet(&format!("{name}-{first}"))
            || super::publishes::is_local(
                &command.words.iter().map(String::as_str).collect::<Vec<_>>(),
            )
        {
            return;
        }
        let said = match verb {
            "ship" | "rollout" | "promote" => "deploy",
            "release" | "submit" | "upload" | "push" => "publish",
            other => other,
        };
        let strong = matches!(verb, "publish" | "deploy");
        self.unresolved.push(Unresolved {
            what: super::git::shorten(&command.text()),
            name: if strong {
                format!("{name}-{said}")
            } else {
                format!("{said}-maybe")
            },
            line,
            why: Why::Unlisted,
            only_if: Vec::new(),
        });
    }
}
