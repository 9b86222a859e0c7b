//! The files that Dependabot's pull requests change, so that path filters can be answered.

use crate::tree::{ReadProblem, Tree};
use crate::yaml::Node;

/// The files that one entry of `updates:` can change; `None` where that can't be told.
pub(crate) fn of(update: &Node, tree: &Tree) -> Option<Vec<String>> {
    let ecosystem = update.str_of("package-ecosystem")?.trim();
    let mut directories: Vec<String> = update
        .str_of("directory")
        .map(|one| vec![one.to_owned()])
        .unwrap_or_default();
    if let Some(list) = update.get("directories") {
        directories.extend(list.texts().into_iter().map(str::to_owned));
    }
    if directories.is_empty() || directories.iter().any(|place| place.contains('*')) {
        return None;
    }
    if ecosystem == "github-actions" {
        let mut files: Vec<String> = tree
            .files()
            .iter()
            .filter(|file| {
                file.starts_with(".github/workflows/")
                    || file.ends_with("action.yml")
                    || file.ends_with("action.yaml")
            })
            .cloned()
            .collect();
        files.push(".github/workflows/ci.yml".to_owned());
        return Some(files);
    }
    let names = manifests(ecosystem)?;
    let mut out = Vec::new();
    for place in &directories {
        let place = place.trim_start_matches("./").trim_matches('/');
        let within = |name: &str| {
            if place.is_empty() || place == "." {
                name.to_owned()
            } else {
                format!("{place}/{name}")
            }
        };
        if has_members(ecosystem, &within, tree) {
            return None;
        }
        let all: Vec<String> = names.iter().map(|name| within(name)).collect();
        let there: Vec<String> = all
            .iter()
            .filter(|file| !matches!(tree.read(file), Err(ReadProblem::Missing)))
            .cloned()
            .collect();
        // A checkout without them (a sparse one, say) tells nothing.
        out.extend(if there.is_empty() { all } else { there });
    }
    Some(out)
}

/// Whether the manifest has members in other directories, which an update changes too.
fn has_members(ecosystem: &str, within: &dyn Fn(&str) -> String, tree: &Tree) -> bool {
    let says = |name: &str, mark: &str| {
        tree.read(&within(name))
            .is_ok_and(|text| text.contains(mark))
    };
    match ecosystem {
        "npm" | "bun" => {
            says("package.json", "\"workspaces\"") || says("pnpm-workspace.yaml", "packages")
        }
        "cargo" => says("Cargo.toml", "[workspace]"),
        "pip" | "uv" => says("pyproject.toml", "workspace"),
        _ => false,
    }
}

/// The files that updates of an ecosystem change in a directory. Ecosystems whose projects
/// usually spread over directories are not here.
fn manifests(ecosystem: &str) -> Option<&'static [&'static str]> {
    Some(match ecosystem {
        "npm" | "bun" => &[
            "package.json",
            "package-lock.json",
            "npm-shrinkwrap.json",
            "yarn.lock",
            "pnpm-lock.yaml",
            "bun.lock",
            "bun.lockb",
        ],
        "cargo" => &["Cargo.toml", "Cargo.lock"],
        "gomod" => &["go.mod", "go.sum"],
        "bundler" => &["Gemfile", "Gemfile.lock"],
        "composer" => &["composer.json", "composer.lock"],
        "pip" | "uv" => &[
            "requirements.txt",
            "requirements-dev.txt",
            "requirements/base.txt",
            "pyproject.toml",
            "setup.py",
            "setup.cfg",
            "Pipfile",
            "Pipfile.lock",
            "poetry.lock",
            "uv.lock",
        ],
        "docker" => &["Dockerfile"],
        "mix" => &["mix.exs", "mix.lock"],
        "pub" => &["pubspec.yaml", "pubspec.lock"],
        "elm" => &["elm.json"],
        _ => return None,
    })
}
