use super::*;
use FileClass::*;

fn has(path: &str, class: FileClass) {
    assert!(
        classes(path).contains(class),
        "{path} is not {class}: {:?}",
        classes(path)
    );
}

fn lacks(path: &str, class: FileClass) {
    assert!(!classes(path).contains(class), "{path} is {class}");
}

#[test]
fn known_files_have_their_class() {
    for (class, paths) in [
        (
            Pipeline,
            &[
                ".github/workflows/ci.yml",
                ".github/actions/build/action.yml",
                ".github/actions/build/run.sh",
                ".gitlab-ci.yml",
                "ci/deploy.gitlab-ci.yml",
                ".gitlab/jobs.yml",
                "azure-pipelines.yml",
                "azure-pipelines-nightly.yml",
                ".circleci/config.yml",
                "Jenkinsfile",
                "ci/Jenkinsfile.release",
                "x.jenkinsfile",
                ".tekton/push.yaml",
                "tekton/task.yaml",
                "argocd/app.yaml",
                ".buildkite/pipeline.yml",
                ".drone.yml",
                ".woodpecker.yml",
                "bitbucket-pipelines.yml",
                "cloudbuild.yaml",
                "sub/module/.github/workflows/x.yaml",
                ".forgejo/workflows/a.yml",
            ][..],
        ),
        (
            Automation,
            &[
                ".github/dependabot.yml",
                "renovate.json",
                ".mergify.yml",
                "bors.toml",
            ],
        ),
        (
            Manifest,
            &[
                "Cargo.toml",
                "crates/a/Cargo.toml",
                "package.json",
                "requirements-dev.txt",
                "requirements/prod.txt",
                "go.mod",
                "pom.xml",
                "app.csproj",
                "x.gemspec",
            ],
        ),
        (
            Lock,
            &[
                "Cargo.lock",
                "web/package-lock.json",
                "go.sum",
                "yarn.lock",
                "any.lock",
            ],
        ),
        (
            Packaging,
            &[
                "Dockerfile",
                "docker/Dockerfile.prod",
                "api.Dockerfile",
                "build.rs",
                "setup.py",
                "Makefile",
                "rules.mk",
                ".npmrc",
                ".cargo/config.toml",
                "debian/rules",
                "x.spec",
                ".github/../Dockerfile",
                "gradle/wrapper/gradle-wrapper.jar",
            ],
        ),
        (
            Ownership,
            &[
                "CODEOWNERS",
                ".github/CODEOWNERS",
                "pkg/OWNERS",
                ".github/settings.yml",
            ],
        ),
        (
            AgentInstructions,
            &[
                "CLAUDE.md",
                "sub/AGENTS.md",
                "GEMINI.md",
                ".cursor/rules/a.mdc",
                ".cursorrules",
                ".github/copilot-instructions.md",
                ".github/instructions/x.instructions.md",
                ".codex/config.toml",
                ".claude/settings.json",
                ".mcp.json",
                ".windsurfrules",
                ".aider.conf.yml",
                ".github/prompts/a.prompt.md",
            ],
        ),
        (
            Portcullis,
            &[
                ".portcullis/tests.toml",
                "a/.portcullis/b/c",
                "portcullis.toml",
            ],
        ),
        (
            GitControl,
            &[
                ".gitattributes",
                "a/.gitattributes",
                ".gitmodules",
                ".husky/pre-commit",
                "hooks/post-checkout",
                ".pre-commit-config.yaml",
                ".git/config",
                "git~1/config",
                ".GIT/hooks/x",
                ".g\u{200c}it/config",
                ".git /config",
            ],
        ),
        (
            Workstation,
            &[
                ".vscode/tasks.json",
                ".devcontainer/devcontainer.json",
                ".envrc",
            ],
        ),
        (
            Infrastructure,
            &[
                "main.tf",
                "prod/vars.tfvars",
                "charts/app/values.yaml",
                "k8s/deploy.yaml",
                "docker-compose.override.yml",
                "ansible/roles/x/tasks/main.yml",
            ],
        ),
        (
            Test,
            &[
                "tests/a.rs",
                "src/a/tests.rs",
                "pkg/x_test.go",
                "test_a.py",
                "a.test.ts",
                "a.spec.js",
                "src/test/java/ATest.java",
                "conftest.py",
                "__snapshots__/a.snap",
            ],
        ),
        (
            Documentation,
            &["README.md", "docs/x.html", "LICENSE", "guide.rst"],
        ),
        (Source, &["src/main.rs", "a.py", "tool/x.sh"]),
    ] {
        for path in paths {
            has(path, class);
        }
    }
}

#[test]
fn look_alikes_stay_out() {
    lacks("src/workflows.rs", Pipeline);
    lacks("github/workflows.md", Pipeline);
    lacks("src/codeowners.rs", Ownership);
    lacks("src/latest.rs", Test);
    lacks("src/contest_entry.py", Test);
    lacks("docs/cargo.md", Manifest);
    lacks("src/claude_client.rs", AgentInstructions);
    lacks("src/portcullis.rs", Portcullis);
    lacks("src/lib.rs", Packaging);
    lacks("notes/git.md", GitControl);
    assert!(classes("data/blob.bin").is_empty());
    assert!(classes("").is_empty());
}

#[test]
fn tricks_of_the_file_system_change_nothing() {
    for path in [
        ".GITHUB/Workflows/CI.YML",
        ".github/workflows./ci.yml ",
        ".github\\workflows\\ci.yml",
        ".github/workflows/ci.yml:stream",
        ".gith\u{200d}ub/workflows/ci.yml",
    ] {
        has(path, Pipeline);
    }
    has("CoDeOwNeRs", Ownership);
    has("claude.MD", AgentInstructions);
    has(".portculli\u{17f}/policy.cedar", Portcullis);
}

#[test]
fn a_path_may_have_several() {
    let set = classes("tests/Dockerfile");
    assert!(set.contains(Packaging) && set.contains(Test));
    assert_eq!(
        serde_json::to_string(&set).unwrap(),
        r#"["packaging","test"]"#
    );
}

#[test]
fn every_class_has_its_own_bit() {
    let all: ClassSet = FileClass::ALL.into_iter().collect();
    assert_eq!(all.iter().count(), FileClass::ALL.len());
    for (at, class) in FileClass::ALL.into_iter().enumerate() {
        assert_eq!(class as usize, at, "ALL keeps the order of the enum");
    }
}

proptest::proptest! {
    #[test]
    fn any_path_is_answered(path in "\\PC{0,60}") {
        let _ = classes(&path);
    }

    #[test]
    fn case_never_narrows(path in "[a-zA-Z./_-]{0,40}") {
        proptest::prop_assert_eq!(classes(&path), classes(&path.to_uppercase()));
    }
}
