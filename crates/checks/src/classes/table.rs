//! The table behind [`super::classes`]: one function per class over a folded path.
//!
//! All names here are lower case, since the subject is folded.

use super::FileClass;

/// A folded path, cut once for all the questions.
pub(super) struct Subject<'a> {
    path: &'a str,
    name: &'a str,
    extension: &'a str,
    stem: &'a str,
}

impl<'a> Subject<'a> {
    pub(super) fn new(path: &'a str, name: &'a str) -> Self {
        let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
        Self {
            path,
            name,
            extension,
            stem,
        }
    }

    /// Whether a part above the file is one of `names`.
    fn below(&self, names: &[&str]) -> bool {
        self.directories().any(|part| names.contains(&part))
    }

    fn directories(&self) -> impl Iterator<Item = &'a str> {
        let directory = self.path.rsplit_once('/').map_or("", |(above, _)| above);
        directory.split('/').filter(|part| !part.is_empty())
    }

    /// Whether the path has `folders` as consecutive parts anywhere above the file.
    fn below_path(&self, folders: &str) -> bool {
        self.path.match_indices(folders).any(|(at, _)| {
            let before = at == 0 || self.path.as_bytes().get(at - 1) == Some(&b'/');
            let after = self.path.as_bytes().get(at + folders.len()) == Some(&b'/');
            before && after
        })
    }

    fn named(&self, names: &[&str]) -> bool {
        names.contains(&self.name)
    }

    fn has_extension(&self, extensions: &[&str]) -> bool {
        !self.stem.is_empty() && extensions.contains(&self.extension)
    }

    fn yaml(&self) -> bool {
        self.has_extension(&["yml", "yaml"])
    }

    /// Whether the name is `base` or begins with `base.` or `base-` (`Dockerfile.prod`).
    fn variant_of(&self, base: &str) -> bool {
        self.name
            .strip_prefix(base)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.') || rest.starts_with('-'))
    }
}

pub(super) fn belongs(class: FileClass, subject: &Subject<'_>) -> bool {
    match class {
        FileClass::Pipeline => pipeline(subject),
        FileClass::Automation => automation(subject),
        FileClass::Manifest => manifest(subject),
        FileClass::Lock => lock(subject),
        FileClass::Packaging => packaging(subject),
        FileClass::Ownership => ownership(subject),
        FileClass::AgentInstructions => agent_instructions(subject),
        FileClass::Portcullis => portcullis(subject),
        FileClass::GitControl => git_control(subject),
        FileClass::Workstation => workstation(subject),
        FileClass::Infrastructure => infrastructure(subject),
        FileClass::Test => test(subject),
        FileClass::Documentation => documentation(subject),
        FileClass::Source => source(subject),
    }
}

#[rustfmt::skip] // Names read better side by side.
fn pipeline(s: &Subject<'_>) -> bool {
    s.below_path(".github/workflows")
        || s.below_path(".github/actions")
        || s.below_path(".gitea/workflows")
        || s.below_path(".forgejo/workflows")
        || s.below(&[
            ".gitlab", ".circleci", ".buildkite", ".tekton", ".woodpecker", ".semaphore",
            ".azure-pipelines", "azure-pipelines", ".argo", ".harness", ".teamcity",
            ".concourse", ".builds", ".drone", ".cirrus", ".jenkins", ".dagger", ".ci",
        ])
        || s.named(&[
            "action.yml", "action.yaml", "azure-pipelines.yml", "azure-pipelines.yaml",
            "azure-pipeline.yml", "bitbucket-pipelines.yml", "cloudbuild.yaml",
            "cloudbuild.yml", "cloudbuild.json", "buildspec.yml", "buildspec.yaml",
            "appveyor.yml", ".appveyor.yml", ".travis.yml", "travis.yml", ".drone.yml",
            ".drone.yaml", ".drone.star", ".drone.jsonnet", ".woodpecker.yml",
            ".woodpecker.yaml", ".cirrus.yml", ".cirrus.star", "codefresh.yml", "wercker.yml",
            "shippable.yml", "circle.yml", "screwdriver.yaml", "bitrise.yml", "codemagic.yaml",
            "earthfile", "skaffold.yaml", "tekton.yaml", ".build.yml", "jenkinsfile",
            "jenkins.yaml", "concourse.yml", "pipeline.yml", "pipeline.yaml", ".vsts-ci.yml",
            "netlify.toml", "vercel.json", "fly.toml", "render.yaml", "app.yaml",
            "wrangler.toml", "wrangler.jsonc", "wrangler.json", "procfile", "dagger.json",
        ])
        || s.variant_of("jenkinsfile")
        || s.extension == "jenkinsfile"
        || (s.yaml() && s.name.contains("gitlab-ci"))
        || (s.yaml() && (s.name.starts_with("azure-pipelines") || s.name.starts_with("cloudbuild")))
        || (s.yaml() && s.below(&["tekton", "argo", "argocd", "argo-cd"]))
}

#[rustfmt::skip] // Names read better side by side.
fn automation(s: &Subject<'_>) -> bool {
    s.named(&[
        "dependabot.yml", "dependabot.yaml", "renovate.json", "renovate.json5", ".renovaterc",
        ".renovaterc.json", ".renovaterc.json5", ".mergify.yml", "mergify.yml", ".kodiak.toml",
        "bors.toml", ".bors.toml", "release-please-config.json",
        ".release-please-manifest.json", "release-please.yml", ".releaserc",
        "release.config.js", "release.config.cjs", "release.config.mjs", ".goreleaser.yml",
        ".goreleaser.yaml", "goreleaser.yml", "cliff.toml", "release-plz.toml", "release.toml",
        ".prow.yaml", "auto-merge.yml", "auto_assign.yml", "labeler.yml", "stale.yml",
        "probot.yml", ".pullapprove.yml", "policy-bot.yml", ".policy.yml", "lerna.json",
        ".changeset.json", "sweep.yaml",
    ]) || s.variant_of(".releaserc")
        || s.below(&[".mergify", ".prow", ".changeset"])
}

#[rustfmt::skip] // Names read better side by side.
fn manifest(s: &Subject<'_>) -> bool {
    s.named(&[
        "cargo.toml", "package.json", "package.json5", "pyproject.toml", "setup.cfg", "pipfile",
        "go.mod", "go.work", "gemfile", "pom.xml", "build.gradle", "build.gradle.kts",
        "settings.gradle", "settings.gradle.kts", "libs.versions.toml", "composer.json",
        "mix.exs", "rebar.config", "pubspec.yaml", "package.swift", "podfile", "cartfile",
        "project.clj", "deps.edn", "build.sbt", "cabal.project", "stack.yaml", "package.yaml",
        "dub.json", "dub.sdl", "shard.yml", "vcpkg.json", "conanfile.txt", "conanfile.py",
        "environment.yml", "environment.yaml", "deno.json", "deno.jsonc", "jsr.json",
        "bower.json", "pnpm-workspace.yaml", "pnpm-workspace.yml", "module.bazel", "workspace",
        "workspace.bazel", "flake.nix", "shell.nix", "default.nix", "project.toml",
        "packages.config", "directory.packages.props", "elm.json", "rockspec", "cpanfile",
        "description", "gopkg.toml", "buf.yaml", "buf.gen.yaml", "build.zig.zon", "gleam.toml",
        "chart.yaml", "opam", "uv.toml", "constraints.txt", "brewfile",
    ]) || (s.extension == "txt" && s.name.contains("requirements"))
        || (s.extension == "in" && s.name.contains("requirements"))
        || (s.below(&["requirements"]) && s.has_extension(&["txt", "in"]))
        || s.has_extension(&[
            "gemspec", "cabal", "csproj", "fsproj", "vbproj", "nimble", "rockspec", "opam",
            "podspec",
        ])
}

#[rustfmt::skip] // Names read better side by side.
fn lock(s: &Subject<'_>) -> bool {
    s.named(&[
        "cargo.lock", "package-lock.json", "npm-shrinkwrap.json", "yarn.lock", "pnpm-lock.yaml",
        "bun.lock", "bun.lockb", "deno.lock", "poetry.lock", "pipfile.lock", "uv.lock",
        "pdm.lock", "go.sum", "go.work.sum", "gemfile.lock", "composer.lock", "mix.lock",
        "pubspec.lock", "package.resolved", "podfile.lock", "cartfile.resolved",
        "gradle.lockfile", "verification-metadata.xml", "packages.lock.json", "flake.lock",
        "module.bazel.lock", "stack.yaml.lock", "cabal.project.freeze", "conan.lock",
        ".terraform.lock.hcl", "chart.lock", "shard.lock", "conda-lock.yml", "pylock.toml",
        "rebar.lock", "gopkg.lock", "manifest.toml", "buf.lock", "project.assets.json",
        "npins.json",
    ]) || s.name.ends_with(".lock")
        || s.below(&["vendor", "third_party"]) && s.named(&["modules.txt"])
}

#[rustfmt::skip] // Names read better side by side.
fn packaging(s: &Subject<'_>) -> bool {
    s.variant_of("dockerfile")
        || s.variant_of("containerfile")
        || s.has_extension(&[
            "dockerfile", "containerfile", "spec", "mk", "mak", "cmake", "nix", "bzl", "bazel",
            "gyp", "gypi", "ebuild", "wxs", "nsi", "iss", "nuspec", "props", "targets",
        ])
        || s.named(&[
            "build.rs", "setup.py", "makefile", "gnumakefile", "makefile.am", "makefile.in",
            "cmakelists.txt", "configure", "configure.ac", "configure.in", "autogen.sh",
            "meson.build", "meson_options.txt", "build.ninja", "build", "buck", "sconstruct",
            "sconscript", "rakefile", "justfile", ".justfile", "taskfile.yml", "taskfile.yaml",
            "magefile.go", "noxfile.py", "tox.ini", "tasks.py", "fabfile.py", "invoke.yaml",
            "binding.gyp", "gulpfile.js", "gruntfile.js", "pkgbuild", "snapcraft.yaml",
            "manifest.in", "hatch_build.py", "build.zig", "gradlew", "gradlew.bat", "mvnw",
            "mvnw.cmd", "gradle.properties", "gradle-wrapper.properties", "gradle-wrapper.jar",
            "maven-wrapper.properties", "maven-wrapper.jar", ".npmrc", ".yarnrc", ".yarnrc.yml",
            ".pnpmfile.cjs", "bunfig.toml", "pip.conf", ".pypirc", "nuget.config",
            ".dockerignore", "rust-toolchain", "rust-toolchain.toml", ".tool-versions",
            "mise.toml", ".mise.toml", ".bazelrc", ".bazelversion", ".nvmrc", ".python-version",
            "webpack.config.js", "vite.config.ts", "vite.config.js", "rollup.config.js",
            "esbuild.js", "turbo.json", "nx.json", "babel.config.js", "conftest.bazel",
            "install.sh", "build.sh", "postinstall.js", "preinstall.js", "install.js",
            "sitecustomize.py", "usercustomize.py",
        ])
        || s.below_path(".cargo")
        || s.below_path(".yarn/releases")
        || s.below_path(".yarn/plugins")
        || s.below_path(".mvn")
        || s.below_path("gradle/wrapper")
        || s.below(&["debian", "buildsrc", "build-logic"])
}

#[rustfmt::skip] // Names read better side by side.
fn ownership(s: &Subject<'_>) -> bool {
    s.named(&[
        "codeowners", "owners", "owners_aliases", "maintainers", "maintainers.md",
        "maintainers.txt", "approvers", "reviewers",
        "security-insights.yml",
    ]) || (s.below(&[".github"]) && s.named(&["settings.yml", "settings.yaml", "rulesets.json"]))
        || s.below_path(".github/rulesets")
}

#[rustfmt::skip] // Names read better side by side.
fn agent_instructions(s: &Subject<'_>) -> bool {
    s.named(&[
        "claude.md", "claude.local.md", "agents.md", "agents.override.md", "agent.md",
        "gemini.md", "codex.md", "copilot-instructions.md", "copilot-setup-steps.yml",
        ".cursorrules", ".cursorignore", ".cursorindexingignore", ".windsurfrules",
        ".clinerules", ".roorules", ".roomodes", ".goosehints", ".mcp.json", "mcp.json",
        ".mcp.toml", "mcp_config.json", "conventions.md", "qwen.md", "warp.md", "crush.md",
        "opencode.md", "amp.md", "jules.md", "devin.md", "skill.md", "llms.txt",
        "opencode.json", "opencode.jsonc", "crush.json", ".aider.conf.yml", ".aiderignore",
        ".aider.model.settings.yml", ".sweep.yaml", ".replit.md", "replit.md", ".rules",
        "junie.md", "system_prompt.md", ".codeiumignore", "agents.yaml", ".claudeignore",
        ".geminiignore", ".claude.json", "soul.md",
    ]) || s.below(&[
        ".claude",
        ".claude-plugin",
        ".cursor",
        ".codex",
        ".gemini",
        ".windsurf",
        ".clinerules",
        ".roo",
        ".continue",
        ".openhands",
        ".aider",
        ".amp",
        ".agents",
        ".agent",
        ".junie",
        ".kiro",
        ".qwen",
        ".opencode",
        ".trae",
        ".devin",
        ".augment",
        ".goose",
        ".crush",
        ".factory",
        ".jules",
        ".tabnine",
        ".cody",
        ".copilot",
        ".zencoder",
        ".amazonq",
        ".warp",
    ]) || (s.below(&[".github"])
        && (s.below(&[
            "instructions", "prompts", "chatmodes", "agents", "copilot", "skills",
        ]) || s.name.ends_with(".instructions.md")))
        || s.name.ends_with(".prompt.md")
        || s.name.ends_with(".instructions.md")
        || s.name.ends_with(".chatmode.md")
        || s.name.ends_with(".agent.md")
        || s.name.ends_with(".mdc")
        || s.name.starts_with(".aider")
        || (s.name.starts_with("claude.") && s.extension == "md")
}

fn portcullis(s: &Subject<'_>) -> bool {
    s.below(&[".portcullis"]) || s.named(&[".portcullis", "portcullis.toml", ".portcullis.toml"])
}

#[rustfmt::skip] // Names read better side by side.
fn git_control(s: &Subject<'_>) -> bool {
    s.named(&[
        ".gitattributes", ".gitmodules", ".gitconfig", ".git", ".mailmap", ".lfsconfig",
        ".git-blame-ignore-revs", ".gitreview", ".pre-commit-config.yaml",
        ".pre-commit-config.yml", ".pre-commit-hooks.yaml", "lefthook.yml", "lefthook.yaml",
        ".lefthook.yml", "lefthook.toml", ".huskyrc", ".huskyrc.json", ".huskyrc.js",
        "husky.config.js", ".overcommit.yml", ".lintstagedrc", "captainhook.json", "prek.toml",
    ]) || s.below(&[
        ".git",
        ".husky",
        ".githooks",
        "githooks",
        ".git-hooks",
        ".lefthook",
    ]) || s.variant_of(".lintstagedrc")
        || (s.below(&["hooks"]) && GIT_HOOKS.contains(&s.name))
}

/// The hooks that git runs, as `githooks(5)` names them.
#[rustfmt::skip] // Names read better side by side.
const GIT_HOOKS: [&str; 17] = [
    "applypatch-msg", "pre-applypatch", "post-applypatch", "pre-commit", "pre-merge-commit",
    "prepare-commit-msg", "commit-msg", "post-commit", "pre-rebase", "post-checkout",
    "post-merge", "pre-push", "pre-receive", "update", "post-receive", "post-update",
    "reference-transaction",
];

#[rustfmt::skip] // Names read better side by side.
fn workstation(s: &Subject<'_>) -> bool {
    s.below(&[
        ".vscode", ".devcontainer", ".idea", ".fleet", ".zed", ".vs", ".direnv", ".nova",
    ]) || s.named(&[
        ".envrc",
        "devcontainer.json",
        ".devcontainer.json",
        ".gitpod.yml",
        ".gitpod.yaml",
        ".gitpod.dockerfile",
        "devbox.json",
        "devfile.yaml",
        ".editorconfig",
        ".exrc",
        ".nvimrc",
        ".nvim.lua",
        ".vimrc",
        ".dir-locals.el",
        ".lvimrc",
        ".gdbinit",
        ".lldbinit",
        ".bashrc",
        ".zshrc",
        ".profile",
        ".bash_profile",
        ".zshenv",
        ".inputrc",
        "vagrantfile",
    ]) || s.extension == "code-workspace"
}

#[rustfmt::skip] // Names read better side by side.
fn infrastructure(s: &Subject<'_>) -> bool {
    s.has_extension(&[
        "tf", "tfvars", "tofu", "hcl", "bicep", "rego", "pp", "sls", "cedar",
    ]) || s.name.ends_with(".tf.json")
        || s.name.ends_with(".tfvars.json")
        || s.name.ends_with(".tfstate")
        || s.named(&[
            "chart.yaml", "values.yaml", "helmfile.yaml", "kustomization.yaml",
            "kustomization.yml", "pulumi.yaml", "serverless.yml", "serverless.yaml",
            "samconfig.toml", "cdk.json", "ansible.cfg", "playbook.yml", "site.yml",
            "terragrunt.hcl", "docker-compose.yml", "docker-compose.yaml", "compose.yml",
            "compose.yaml", "docker-bake.hcl", "nginx.conf", "haproxy.cfg", "envoy.yaml",
            "caddyfile", "sudoers", "crontab", "werf.yaml", "garden.yml", "okteto.yml",
            "devspace.yaml", "tiltfile", "appspec.yml", "cloudformation.yml",
            "cloudformation.yaml", "template.yaml",
        ])
        || (s.yaml() && s.name.starts_with("docker-compose"))
        || (s.yaml() && (s.name.starts_with("values-") || s.name.starts_with("values.")))
        || (s.yaml() || s.has_extension(&["json", "tpl", "jsonnet", "libsonnet", "cue"]))
            && s.below(&[
                "k8s", "kubernetes", "kube", "helm", "charts", "manifests", "kustomize",
                "overlays", "argocd", "argo-cd", "argo", "flux", "flux-system", "deploy",
                "deployment", "deployments", "clusters", "terraform", "tofu", "infra",
                "infrastructure", "ansible", "playbooks", "roles", "cloudformation",
                "crossplane", "gitops",
            ])
        || s.below(&["terraform", "ansible"])
        || s.has_extension(&["service", "timer", "socket"]) && s.below(&["systemd"])
}

#[rustfmt::skip] // Names read better side by side.
fn test(s: &Subject<'_>) -> bool {
    s.below(&[
        "test", "tests", "__tests__", "testing", "testdata", "test-data", "test_data",
        "fixtures", "__fixtures__", "__snapshots__", "snapshots", "spec", "specs", "e2e",
        "integration-tests", "integration_tests", "unittests", "unit-tests", "cypress",
        "playwright", "androidtest", "test-utils", "__mocks__", "golden", "goldens", "fuzz",
    ]) || s.named(&[
        "conftest.py",
        "pytest.ini",
        "jest.config.js",
        "jest.config.ts",
        "jest.config.cjs",
        "jest.config.mjs",
        "jest.setup.js",
        "vitest.config.ts",
        "vitest.config.js",
        "vitest.config.mts",
        "karma.conf.js",
        "playwright.config.ts",
        "playwright.config.js",
        "cypress.config.ts",
        "cypress.config.js",
        "phpunit.xml",
        "phpunit.xml.dist",
        ".mocharc.js",
        ".mocharc.json",
        ".mocharc.yml",
        ".rspec",
        "nextest.toml",
        ".coveragerc",
        "codecov.yml",
        ".codecov.yml",
        "tox.ini",
        "tests.rs",
        "test.rs",
        "tests.py",
        "tests.ex",
    ]) || (SOURCE_EXTENSIONS.contains(&s.extension) && named_as_test(s.stem))
        || s.has_extension(&["snap", "feature", "bats"])
        || s.name.ends_with("test.java")
        || s.name.ends_with("tests.java")
        || s.name.ends_with("test.kt")
        || s.name.ends_with("tests.cs")
        || s.name.ends_with("test.cs")
        || s.name.ends_with("tests.swift")
        || s.name.ends_with("test.php")
        || s.name.ends_with("spec.scala")
        || s.name.ends_with("test.scala")
}

/// `test_x`, `x_test`, `x.test`, `x-spec`, …: a name whose first or last word says test.
fn named_as_test(stem: &str) -> bool {
    let is_word = |word: &str| matches!(word, "test" | "tests" | "spec" | "specs");
    let mut words = stem.split(['_', '-', '.']);
    let first = words.next();
    let last = words.next_back();
    first.is_some_and(is_word) || last.is_some_and(is_word)
}

#[rustfmt::skip] // Names read better side by side.
fn documentation(s: &Subject<'_>) -> bool {
    s.has_extension(&[
        "md", "mdx", "markdown", "rst", "adoc", "asciidoc", "org", "pod", "textile",
    ]) || s.named(&[
        "readme",
        "changelog",
        "license",
        "licence",
        "copying",
        "notice",
        "authors",
        "contributing",
        "changes",
        "history",
        "news",
        "todo",
        "install",
        "license.txt",
        "readme.txt",
        "changelog.txt",
        "news.txt",
        "authors.txt",
    ]) || s.below(&["docs", "doc", "documentation", "man", "manual"])
}

fn source(s: &Subject<'_>) -> bool {
    SOURCE_EXTENSIONS.contains(&s.extension) && !s.stem.is_empty()
}

/// Extensions of programming languages, scripts and markup that executes.
#[rustfmt::skip] // Names read better side by side.
const SOURCE_EXTENSIONS: [&str; 82] = [
    "rs", "c", "h", "cc", "cpp", "cxx", "hh", "hpp", "hxx", "m", "mm", "go", "java", "kt",
    "kts", "scala", "groovy", "gradle", "py", "pyi", "pyx", "rb", "erb", "php", "phtml", "js",
    "jsx", "mjs", "cjs", "ts", "tsx", "mts", "cts", "vue", "svelte", "astro", "cs", "fs", "fsx",
    "vb", "swift", "dart", "ex", "exs", "erl", "hrl", "hs", "lhs", "ml", "mli", "clj", "cljs",
    "cljc", "lua", "pl", "pm", "r", "jl", "nim", "zig", "v", "sv", "vhd", "d", "cr", "sh",
    "bash", "zsh", "fish", "ps1", "psm1", "bat", "cmd", "sql", "asm", "s", "sol", "proto",
    "wat", "html", "css", "tcl",
];
