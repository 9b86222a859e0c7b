//! What depends on what in a tree, as far as its build files tell; so that a reviewed diff may move
//! to a later base only past changes that it has nothing to do with.
//!
//! A *unit* is a folder with a build file that we read: Cargo, npm, Go or Python. A file belongs to
//! the nearest unit above it. A unit depends on those that its build file names by path or by name,
//! and on every unit whose folder holds it. Whatever this does not know (a file of no unit, a build
//! file of another kind, one that can't be read, a change of a build or lock file) counts as
//! "unknown", and unknown means no.

use std::collections::{BTreeMap, BTreeSet};

use portcullis_model::document::from_toml;
use serde_json::Value;

#[cfg(test)]
mod tests;

/// Build files that are read.
const READ: &[&str] = &["Cargo.toml", "package.json", "go.mod", "pyproject.toml"];
/// Build files that are not: what stands beside or below them is unknown.
const OPAQUE: &[&str] = &[
    "BUILD",
    "BUILD.bazel",
    "CMakeLists.txt",
    "Makefile",
    "GNUmakefile",
    "Rakefile",
    "build.gradle",
    "build.gradle.kts",
    "build.sbt",
    "build.zig",
    "flake.nix",
    "meson.build",
    "mix.exs",
    "pom.xml",
    "setup.cfg",
    "setup.py",
];
/// Files that settle how everything is built: a change of one has to do with all.
const GOVERNING: &[&str] = &[
    "Cargo.lock",
    "package-lock.json",
    "npm-shrinkwrap.json",
    "yarn.lock",
    "pnpm-lock.yaml",
    "pnpm-workspace.yaml",
    "go.sum",
    "go.work",
    "go.work.sum",
    "poetry.lock",
    "uv.lock",
    "Pipfile",
    "Pipfile.lock",
    "requirements.txt",
    "rust-toolchain",
    "rust-toolchain.toml",
    ".gitmodules",
    ".gitattributes",
];
/// Folders that settle how everything is built or tested.
const GOVERNING_FOLDERS: &[&str] = &[".portcullis", ".cargo", ".github", ".gitlab", ".ci"];

/// Whether a tree's file of this path must be given to [`independent`].
pub fn is_build_file(path: &str) -> bool {
    let name = name_of(path);
    READ.contains(&name) || OPAQUE.contains(&name)
}

/// Why a diff does not move to a later base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The base moved in something that the change touches or depends on.
    Depends {
        /// The folder that moved.
        moved: String,
        /// The folder that the change touches.
        touched: String,
    },
    /// Nobody can tell.
    Unknown {
        /// The file.
        path: String,
        /// What is not known of it.
        why: &'static str,
    },
}

impl std::fmt::Display for Obstacle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = |folder: &str| {
            if folder.is_empty() {
                "the top folder".to_owned()
            } else {
                folder.to_owned()
            }
        };
        match self {
            Self::Depends { moved, touched } if moved == touched => {
                write!(f, "the branch moved in {} as well", shown(moved))
            }
            Self::Depends { moved, touched } => write!(
                f,
                "the branch moved in {}, on which {} depends",
                shown(moved),
                shown(touched)
            ),
            Self::Unknown { path, why } => write!(f, "{path}: {why}"),
        }
    }
}

/// Whether the paths `moved` by a branch lie outside what a change of the paths `touched` touches
/// and depends on. `build_files` are those of the later base, by path; the content of files that
/// are not read may be left empty.
///
/// # Errors
/// They do not, or nobody can tell.
pub fn independent(
    build_files: &BTreeMap<String, Vec<u8>>,
    touched: &BTreeSet<String>,
    moved: &BTreeSet<String>,
) -> Result<(), Obstacle> {
    for path in touched.iter().chain(moved) {
        governs(path, touched.contains(path))?;
    }
    let units = Units::read(build_files)?;
    let moved: BTreeMap<&str, &str> = moved
        .iter()
        .map(|path| Ok((units.of(path)?, path.as_str())))
        .collect::<Result<_, Obstacle>>()?;
    for path in touched {
        let unit = units.of(path)?;
        for needed in units.closure(unit) {
            if moved.contains_key(needed) {
                return Err(Obstacle::Depends {
                    moved: needed.to_owned(),
                    touched: unit.to_owned(),
                });
            }
        }
    }
    Ok(())
}

fn governs(path: &str, touched: bool) -> Result<(), Obstacle> {
    let unknown = |why| {
        Err(Obstacle::Unknown {
            path: path.to_owned(),
            why,
        })
    };
    let first = path.split('/').next().unwrap_or_default();
    if GOVERNING.contains(&name_of(path)) || GOVERNING_FOLDERS.contains(&first) {
        return unknown("it settles how everything is built or tested");
    }
    if touched && is_build_file(path) {
        return unknown("the change touches a build file, so what it depends on changes too");
    }
    Ok(())
}

/// The units of a tree, by folder (`""` is the top).
struct Units {
    needs: BTreeMap<String, BTreeSet<String>>,
    opaque: BTreeSet<String>,
}

impl Units {
    fn read(build_files: &BTreeMap<String, Vec<u8>>) -> Result<Self, Obstacle> {
        let mut units = Self {
            needs: BTreeMap::new(),
            opaque: BTreeSet::new(),
        };
        let mut names: BTreeMap<String, String> = BTreeMap::new();
        let mut documents: Vec<(&str, &str, Document)> = Vec::new();
        for (path, bytes) in build_files {
            let folder = folder_of(path);
            units.needs.entry(folder.to_owned()).or_default();
            if !READ.contains(&name_of(path)) {
                units.opaque.insert(folder.to_owned());
                continue;
            }
            let document = Document::read(name_of(path), bytes).ok_or(Obstacle::Unknown {
                path: path.clone(),
                why: "it can't be read as a build file",
            })?;
            if let Some(name) = document.name() {
                names.insert(name, folder.to_owned());
            }
            documents.push((path, folder, document));
        }
        let workspaces: BTreeMap<String, Value> = documents
            .iter()
            .filter_map(|(_, folder, document)| match document {
                Document::Cargo(value) => Some((
                    (*folder).to_owned(),
                    value.pointer("/workspace/dependencies")?.clone(),
                )),
                Document::Npm(_) | Document::Go(_) | Document::Python(_) => None,
            })
            .collect();
        for (path, folder, document) in &documents {
            for need in document.needs(folder, &names, &workspaces) {
                let need = need.ok_or_else(|| Obstacle::Unknown {
                    path: (*path).to_owned(),
                    why: "it depends on a path outside the repository",
                })?;
                if let Some(known) = units.needs.get_mut(*folder) {
                    known.insert(need);
                }
            }
        }
        Ok(units)
    }

    /// The unit that a file belongs to.
    fn of(&self, path: &str) -> Result<&str, Obstacle> {
        let unknown = |why| Obstacle::Unknown {
            path: path.to_owned(),
            why,
        };
        let unit = self
            .above(folder_of(path))
            .next()
            .ok_or_else(|| unknown("no build file stands above it"))?;
        if self.above(unit).any(|above| self.opaque.contains(above)) {
            return Err(unknown("it is built in a way that is not read"));
        }
        Ok(unit)
    }

    /// The units whose folder is this one or holds it, nearest first.
    fn above<'a>(&'a self, folder: &str) -> impl Iterator<Item = &'a str> {
        let mut at = Some(folder.to_owned());
        std::iter::from_fn(move || {
            let folder = at.take()?;
            at = (!folder.is_empty()).then(|| folder_of(&folder).to_owned());
            Some(folder)
        })
        .filter_map(|folder| {
            self.needs
                .get_key_value(&folder)
                .map(|(unit, _)| unit.as_str())
        })
    }

    /// The unit and everything that it depends on.
    fn closure<'a>(&'a self, unit: &'a str) -> BTreeSet<&'a str> {
        let mut found = BTreeSet::new();
        let mut waiting = vec![unit];
        while let Some(unit) = waiting.pop() {
            if !found.insert(unit) {
                continue;
            }
            waiting.extend(self.above(unit));
            for need in self.needs.get(unit).into_iter().flatten() {
                // A path dependency may point into a unit's folder, or to one without a unit.
                waiting.extend(self.above(need).next());
                waiting.push(need);
            }
        }
        found
    }
}

/// A build file that was read.
enum Document {
    Cargo(Value),
    Npm(Value),
    Go(String),
    Python(Value),
}

impl Document {
    fn read(name: &str, bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        match name {
            "Cargo.toml" => from_toml(name, text).ok().map(Self::Cargo),
            "pyproject.toml" => from_toml(name, text).ok().map(Self::Python),
            "package.json" => serde_json::from_str(text).ok().map(Self::Npm),
            _ => Some(Self::Go(text.to_owned())),
        }
    }

    /// The name by which others depend on it, with its kind in front.
    fn name(&self) -> Option<String> {
        let of = |value: &Value, pointer: &str| {
            value
                .pointer(pointer)
                .and_then(Value::as_str)
                .map(str::to_owned)
        };
        match self {
            Self::Cargo(_) => None,
            Self::Npm(value) => of(value, "/name").map(|name| format!("npm {name}")),
            Self::Go(text) => go_lines(text, "module")
                .next()
                .map(|name| format!("go {name}")),
            Self::Python(value) => of(value, "/project/name")
                .or_else(|| of(value, "/tool/poetry/name"))
                .map(|name| format!("python {}", python_name(&name))),
        }
    }

    /// Folders that it depends on; none for one outside the repository.
    fn needs(
        &self,
        folder: &str,
        names: &BTreeMap<String, String>,
        workspaces: &BTreeMap<String, Value>,
    ) -> Vec<Option<String>> {
        match self {
            Self::Cargo(value) => cargo_needs(folder, value, workspaces),
            Self::Npm(value) => npm_needs(folder, value, names),
            Self::Go(text) => go_needs(folder, text, names),
            Self::Python(value) => python_needs(folder, value, names),
        }
    }
}

fn cargo_needs(
    folder: &str,
    value: &Value,
    workspaces: &BTreeMap<String, Value>,
) -> Vec<Option<String>> {
    let mut tables: Vec<&Value> = Vec::new();
    let kinds = ["dependencies", "dev-dependencies", "build-dependencies"];
    for kind in kinds {
        tables.extend(value.get(kind));
    }
    for target in objects(value.get("target")) {
        tables.extend(kinds.iter().filter_map(|kind| target.get(kind)));
    }
    tables.extend(objects(value.get("patch")));
    tables.extend(value.get("replace"));
    let mut needs = Vec::new();
    for (name, dependency) in tables.into_iter().filter_map(Value::as_object).flatten() {
        if let Some(path) = dependency.get("path").and_then(Value::as_str) {
            needs.push(join(folder, path));
        }
        if dependency.get("workspace") == Some(&Value::Bool(true)) {
            let inherited = ancestors(folder).find_map(|above| {
                let table = workspaces.get(above)?;
                Some((above.to_owned(), table.get(name)?.clone()))
            });
            if let Some((above, dependency)) = inherited
                && let Some(path) = dependency.get("path").and_then(Value::as_str)
            {
                needs.push(join(&above, path));
            }
        }
    }
    needs
}

fn npm_needs(folder: &str, value: &Value, names: &BTreeMap<String, String>) -> Vec<Option<String>> {
    let mut needs = Vec::new();
    for kind in [
        "dependencies",
        "devDependencies",
        "peerDependencies",
        "optionalDependencies",
    ] {
        for (name, version) in value
            .get(kind)
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            let version = version.as_str().unwrap_or_default();
            let path = version
                .strip_prefix("file:")
                .or_else(|| version.strip_prefix("link:"))
                .or_else(|| version.strip_prefix("portal:"));
            if let Some(path) = path {
                needs.push(join(folder, path));
            } else if let Some(local) = names.get(&format!("npm {name}")) {
                needs.push(Some(local.clone()));
            }
        }
    }
    needs
}

fn go_needs(folder: &str, text: &str, names: &BTreeMap<String, String>) -> Vec<Option<String>> {
    let required = go_lines(text, "require").filter_map(|line| {
        let module = line.split_whitespace().next()?;
        names.get(&format!("go {module}")).cloned().map(Some)
    });
    let replaced = go_lines(text, "replace").filter_map(|line| {
        let (_, to) = line.split_once("=>")?;
        let path = to.split_whitespace().next()?;
        path.starts_with(['.', '/']).then(|| join(folder, path))
    });
    required.chain(replaced).collect()
}

/// The lines of a directive of go.mod, alone or in parentheses.
fn go_lines<'a>(text: &'a str, directive: &'a str) -> impl Iterator<Item = &'a str> {
    let mut inside = false;
    text.lines().filter_map(move |line| {
        let line = line.split("//").next().unwrap_or_default().trim();
        if inside {
            inside = line != ")";
            return (inside && !line.is_empty()).then_some(line);
        }
        let rest = line.strip_prefix(directive)?;
        if !rest.starts_with([' ', '\t', '(']) {
            return None;
        }
        let rest = rest.trim();
        inside = rest == "(";
        (!inside).then_some(rest)
    })
}

fn python_needs(
    folder: &str,
    value: &Value,
    names: &BTreeMap<String, String>,
) -> Vec<Option<String>> {
    let mut needs = Vec::new();
    let named = |requirement: &str, needs: &mut Vec<Option<String>>| {
        let end = requirement
            .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')))
            .unwrap_or(requirement.len());
        let name = python_name(requirement.get(..end).unwrap_or_default());
        if let Some(local) = names.get(&format!("python {name}")) {
            needs.push(Some(local.clone()));
        } else if requirement.contains("file:") {
            needs.push(None);
        }
    };
    let lists = [
        value.pointer("/project/dependencies"),
        value.pointer("/build-system/requires"),
    ];
    let optional = objects(value.pointer("/project/optional-dependencies"));
    for list in lists.into_iter().flatten().chain(optional) {
        for requirement in list.as_array().into_iter().flatten() {
            named(requirement.as_str().unwrap_or_default(), &mut needs);
        }
    }
    let mut tables: Vec<&Value> = Vec::new();
    tables.extend(value.pointer("/tool/poetry/dependencies"));
    tables.extend(value.pointer("/tool/uv/sources"));
    for group in objects(value.pointer("/tool/poetry/group")) {
        tables.extend(group.get("dependencies"));
    }
    for (name, dependency) in tables.into_iter().filter_map(Value::as_object).flatten() {
        named(name, &mut needs);
        if let Some(path) = dependency.get("path").and_then(Value::as_str) {
            needs.push(join(folder, path));
        }
    }
    needs
}

fn python_name(name: &str) -> String {
    name.to_lowercase().replace(['_', '.'], "-")
}

fn objects(value: Option<&Value>) -> impl Iterator<Item = &Value> {
    value
        .and_then(Value::as_object)
        .into_iter()
        .flat_map(|object| object.values())
}

fn name_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// The folder, those that hold it, and the top.
fn ancestors(folder: &str) -> impl Iterator<Item = &str> {
    let mut at = Some(folder);
    std::iter::from_fn(move || {
        let folder = at.take()?;
        at = (!folder.is_empty()).then(|| folder_of(folder));
        Some(folder)
    })
}

/// `path` as seen from `folder`; none if it leads out of the repository.
fn join(folder: &str, path: &str) -> Option<String> {
    if path.starts_with('/') || path.contains(['\\', '$', '*']) {
        return None;
    }
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}
