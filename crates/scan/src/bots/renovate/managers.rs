//! Renovate's managers, and the files of a repository that each of them changes.

use crate::tree::Tree;

/// A manager of Renovate, with the ends of the paths that it reads and writes unless told otherwise.
struct Manager {
    name: &'static str,
    /// Names of files, at any depth; those with `/` in front are whole paths, those with `.` alone
    /// are ends of names.
    files: &'static [&'static str],
}

const MANAGERS: &[Manager] = &[
    Manager {
        name: "npm",
        files: &[
            "package.json",
            "package-lock.json",
            "npm-shrinkwrap.json",
            "yarn.lock",
            "pnpm-lock.yaml",
            "pnpm-workspace.yaml",
            "bun.lock",
            "bun.lockb",
            ".yarnrc.yml",
        ],
    },
    Manager {
        name: "nvm",
        files: &[".nvmrc", ".node-version"],
    },
    Manager {
        name: "github-actions",
        files: &["action.yml", "action.yaml", "/.github/workflows/"],
    },
    Manager {
        name: "dockerfile",
        files: &["Dockerfile", "Containerfile"],
    },
    Manager {
        name: "docker-compose",
        files: &[
            "docker-compose.yml",
            "docker-compose.yaml",
            "compose.yml",
            "compose.yaml",
        ],
    },
    Manager {
        name: "gomod",
        files: &["go.mod", "go.sum"],
    },
    Manager {
        name: "cargo",
        files: &["Cargo.toml", "Cargo.lock", "rust-toolchain.toml"],
    },
    Manager {
        name: "pip_requirements",
        files: &["requirements.txt", "requirements-dev.txt"],
    },
    Manager {
        name: "pep621",
        files: &["pyproject.toml", "uv.lock", "pdm.lock"],
    },
    Manager {
        name: "poetry",
        files: &["pyproject.toml", "poetry.lock"],
    },
    Manager {
        name: "pipenv",
        files: &["Pipfile", "Pipfile.lock"],
    },
    Manager {
        name: "pip_setup",
        files: &["setup.py", "setup.cfg"],
    },
    Manager {
        name: "maven",
        files: &["pom.xml"],
    },
    Manager {
        name: "gradle",
        files: &[
            "build.gradle",
            "build.gradle.kts",
            "settings.gradle",
            "settings.gradle.kts",
            "gradle.properties",
            "libs.versions.toml",
        ],
    },
    Manager {
        name: "gradle-wrapper",
        files: &["gradle-wrapper.properties", "gradle-wrapper.jar", "gradlew"],
    },
    Manager {
        name: "bundler",
        files: &["Gemfile", "Gemfile.lock"],
    },
    Manager {
        name: "composer",
        files: &["composer.json", "composer.lock"],
    },
    Manager {
        name: "terraform",
        files: &[".tf", ".terraform.lock.hcl"],
    },
    Manager {
        name: "helmv3",
        files: &["Chart.yaml", "Chart.lock"],
    },
    Manager {
        name: "helm-values",
        files: &["values.yaml", "values.yml"],
    },
    Manager {
        name: "helmfile",
        files: &["helmfile.yaml", "helmfile.yml"],
    },
    Manager {
        name: "kustomize",
        files: &["kustomization.yaml", "kustomization.yml"],
    },
    Manager {
        name: "mix",
        files: &["mix.exs", "mix.lock"],
    },
    Manager {
        name: "pub",
        files: &["pubspec.yaml", "pubspec.lock"],
    },
    Manager {
        name: "nuget",
        files: &[
            ".csproj",
            ".fsproj",
            ".props",
            "global.json",
            "packages.lock.json",
            "dotnet-tools.json",
        ],
    },
    Manager {
        name: "sbt",
        files: &["build.sbt", "build.properties", "plugins.sbt"],
    },
    Manager {
        name: "swift",
        files: &["Package.swift", "Package.resolved"],
    },
    Manager {
        name: "gitlabci",
        files: &[".gitlab-ci.yml"],
    },
    Manager {
        name: "circleci",
        files: &["/.circleci/config.yml"],
    },
    Manager {
        name: "azure-pipelines",
        files: &["azure-pipelines.yml"],
    },
    Manager {
        name: "bazel-module",
        files: &["MODULE.bazel", "WORKSPACE"],
    },
    Manager {
        name: "asdf",
        files: &[".tool-versions"],
    },
    Manager {
        name: "mise",
        files: &["mise.toml", ".mise.toml"],
    },
    Manager {
        name: "flux",
        files: &["gotk-components.yaml"],
    },
    Manager {
        name: "devcontainer",
        files: &["devcontainer.json"],
    },
];

impl Manager {
    fn reads(&self, file: &str) -> bool {
        let name = file.rsplit('/').next().unwrap_or(file);
        self.files.iter().any(|known| {
            if let Some(path) = known.strip_prefix('/') {
                file.starts_with(path)
            } else if known.starts_with('.')
                && known.matches('.').count() == 1
                && !name.starts_with('.')
            {
                name.ends_with(known)
            } else {
                name == *known
                    || self.name == "dockerfile" && name.contains(known)
                    || self.name == "pip_requirements"
                        && name.starts_with("requirements")
                        && name.ends_with(".txt")
            }
        })
    }
}

/// The manifests that are there, and those that a repository usually has at its root.
pub(super) fn manifests(tree: &Tree, managers: &[&str]) -> Vec<String> {
    let chosen: Vec<&Manager> = MANAGERS
        .iter()
        .filter(|manager| managers.is_empty() || managers.contains(&manager.name))
        .collect();
    let mut out: Vec<String> = tree
        .files()
        .iter()
        .filter(|file| chosen.iter().any(|manager| manager.reads(file)))
        .cloned()
        .collect();
    for manager in chosen {
        for name in manager.files {
            match name.strip_prefix('/') {
                Some(place) if place.ends_with('/') => out.push(format!("{place}ci.yml")),
                Some(path) => out.push(path.to_owned()),
                None if name.starts_with("action.")
                    || name.matches('.').count() == 1 && name.starts_with('.') => {}
                None => out.push((*name).to_owned()),
            }
        }
    }
    out.sort_unstable();
    out.dedup();
    out
}

/// Whether a manager of that name is known.
pub(super) fn is_known(name: &str) -> bool {
    MANAGERS.iter().any(|manager| manager.name == name)
}
