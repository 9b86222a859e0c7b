//! Targets of Nx projects, and scripts of a package that are run side by side.

use super::command::{FOLLOW_MAX, Reader};

/// Where workspaces keep their projects.
const FOLDERS: &[&str] = &["apps", "packages", "libs", "services", "projects"];

impl Reader<'_> {
    /// A target of one project, or of all that stand where packages do.
    pub(super) fn nx(&mut self, task: &str, project: Option<&str>, depth: usize) {
        if depth >= FOLLOW_MAX {
            return;
        }
        let tree = self.tree;
        let places: Vec<String> = match project {
            Some(name) => {
                let short = name.rsplit('/').next().unwrap_or(name);
                FOLDERS
                    .iter()
                    .map(|folder| format!("{folder}/{short}"))
                    .chain([short.to_owned()])
                    .collect()
            }
            None => tree
                .packages()
                .iter()
                .filter(|package| !package.place.is_empty())
                .map(|package| package.place.clone())
                .collect(),
        };
        for place in places {
            let path = format!("{place}/project.json");
            let Ok(text) = tree.read(&path) else { continue };
            let Ok(json) = serde_json::from_str::<serde_json::Value>(&text) else {
                continue;
            };
            let Some(target) = json.get("targets").and_then(|targets| targets.get(task)) else {
                continue;
            };
            if !self.enter(&format!("{path}#{task}")) {
                return;
            }
            let line = text
                .lines()
                .position(|line| line.contains(&format!("\"{task}\"")))
                .map_or(1, |index| index + 1);
            let options = target.get("options");
            let single = target
                .get("command")
                .or_else(|| options.and_then(|options| options.get("command")));
            let several = options
                .and_then(|options| options.get("commands"))
                .and_then(serde_json::Value::as_array);
            for one in single.into_iter().chain(several.into_iter().flatten()) {
                let body = one
                    .as_str()
                    .or_else(|| one.get("command").and_then(serde_json::Value::as_str));
                if let Some(body) = body {
                    self.script_at(body, &path, line, depth + 1);
                }
            }
        }
    }

    /// `run-s build deploy:*`: scripts of the package that runs it.
    pub(super) fn side_by_side(&mut self, tasks: &[&str], depth: usize) {
        let tree = self.tree;
        let here = self.shell.directory.clone().unwrap_or_default();
        let here = here.trim_start_matches("./").trim_end_matches('/');
        for task in tasks {
            let Some((start, _)) = task.split_once('*') else {
                self.script_of_package(task, None, depth + 1);
                continue;
            };
            let known = tree.packages().iter().find(|package| package.place == here);
            for script in known.into_iter().flat_map(|package| &package.scripts) {
                if script.starts_with(start) {
                    self.script_of_package(script, None, depth + 1);
                }
            }
        }
    }
}
