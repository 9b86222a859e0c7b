//! What kind of file a path names, and so how closely a change to it is looked at.
//!
//! The answer depends on the path alone, never on what the repository says about itself (its
//! `.gitattributes` may hide a diff; it can't change a class). A path is judged as the least
//! strict file system would see it ([`crate::path::fold`]), so `.GITHUB/Workflows/ci.yml` is a
//! pipeline. One path may have several classes: `tests/Dockerfile` is packaging and a test.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::path::fold;

mod table;
#[cfg(test)]
mod tests;

/// The classes of a file. Empty for a path that no rule knows, which is rare: any file with a
/// usual source extension is at least [`FileClass::Source`].
pub fn classes(path: &str) -> ClassSet {
    let folded = fold(path);
    let mut set = ClassSet::default();
    let name = folded.rsplit('/').next().unwrap_or_default();
    let subject = table::Subject::new(&folded, name);
    for class in FileClass::ALL {
        if table::belongs(class, &subject) {
            set.insert(class);
        }
    }
    set
}

/// One class of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileClass {
    /// Runs on a server when something is pushed, tagged, merged or scheduled: GitHub Actions,
    /// GitLab CI, Azure Pipelines, CircleCI, Jenkins, Tekton, Argo, Buildkite, Drone, ….
    Pipeline,
    /// Configures a bot that acts on the repository: Dependabot, Renovate, Mergify, Kodiak, bors,
    /// Prow, release-please, semantic-release.
    Automation,
    /// Names dependencies or what a package is: `Cargo.toml`, `package.json`, `pyproject.toml`.
    Manifest,
    /// Pins dependencies: `Cargo.lock`, `package-lock.json`, `go.sum`.
    Lock,
    /// Executes at build, packaging or installation: `Dockerfile`, `build.rs`, `setup.py`,
    /// `Makefile`, spec files, package configuration such as `.npmrc`.
    Packaging,
    /// Says who must review or who owns: `CODEOWNERS`, `OWNERS`, `MAINTAINERS`, forge settings.
    Ownership,
    /// Instructs or configures coding agents: `CLAUDE.md`, `AGENTS.md`, `.cursor/`, `.mcp.json`.
    AgentInstructions,
    /// Portcullis's own configuration: everything under `.portcullis/`, and `portcullis.toml`.
    Portcullis,
    /// Changes what git itself does or shows: `.gitattributes`, `.gitmodules`, `.gitconfig`,
    /// hooks, hook managers, `.mailmap`, look-alikes of `.git`.
    GitControl,
    /// Executes on a developer's machine when a folder is opened or entered: `.vscode/`,
    /// `.devcontainer/`, `.envrc`, `.idea/`.
    Workstation,
    /// Describes where things run: Terraform, Helm, Kubernetes, Ansible, CloudFormation, compose.
    Infrastructure,
    /// Tests, their fixtures and their configuration.
    Test,
    /// Documentation.
    Documentation,
    /// Source text of a programming language or a script.
    Source,
}

impl FileClass {
    /// Every class, in order.
    pub const ALL: [Self; 14] = [
        Self::Pipeline,
        Self::Automation,
        Self::Manifest,
        Self::Lock,
        Self::Packaging,
        Self::Ownership,
        Self::AgentInstructions,
        Self::Portcullis,
        Self::GitControl,
        Self::Workstation,
        Self::Infrastructure,
        Self::Test,
        Self::Documentation,
        Self::Source,
    ];

    /// The stable name, kebab-case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pipeline => "pipeline",
            Self::Automation => "automation",
            Self::Manifest => "manifest",
            Self::Lock => "lock",
            Self::Packaging => "packaging",
            Self::Ownership => "ownership",
            Self::AgentInstructions => "agent-instructions",
            Self::Portcullis => "portcullis",
            Self::GitControl => "git-control",
            Self::Workstation => "workstation",
            Self::Infrastructure => "infrastructure",
            Self::Test => "test",
            Self::Documentation => "documentation",
            Self::Source => "source",
        }
    }

    const fn bit(self) -> u16 {
        1 << (self as u16)
    }
}

impl fmt::Display for FileClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of [`FileClass`].
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct ClassSet(u16);

impl ClassSet {
    /// Whether the set has `class`.
    pub const fn contains(self, class: FileClass) -> bool {
        self.0 & class.bit() != 0
    }

    /// Whether the set has one of `classes`.
    pub fn contains_any(self, classes: &[FileClass]) -> bool {
        classes.iter().any(|class| self.contains(*class))
    }

    /// Adds `class`.
    pub const fn insert(&mut self, class: FileClass) {
        self.0 |= class.bit();
    }

    /// Both sets together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether no rule knew the path.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The classes in order.
    pub fn iter(self) -> impl Iterator<Item = FileClass> {
        FileClass::ALL
            .into_iter()
            .filter(move |class| self.contains(*class))
    }
}

impl FromIterator<FileClass> for ClassSet {
    fn from_iter<I: IntoIterator<Item = FileClass>>(classes: I) -> Self {
        let mut set = Self::default();
        for class in classes {
            set.insert(class);
        }
        set
    }
}

impl fmt::Debug for ClassSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl Serialize for ClassSet {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}
