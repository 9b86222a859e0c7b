//! Proposed agent manifests: what was seen, with the owner left to fill in.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use crate::report::{Decision, Report, RepositoryReport};

/// File names and texts, one per agent.
pub fn propose(report: &Report) -> Vec<(String, String)> {
    let mut seen: BTreeMap<String, Seen> = BTreeMap::new();
    for repository in &report.repositories {
        for agent in &repository.agents {
            let entry = seen.entry(id_of(&agent.name)).or_default();
            entry.name.clone_from(&agent.name);
            entry.repositories.insert(repository_id(repository));
            entry
                .places
                .insert(format!("{}:{}", agent.file, agent.line));
            entry.credentials.extend(agent.credentials.iter().cloned());
            entry.worst = entry
                .worst
                .take()
                .or_else(|| Some(agent.blast_radius.clone()));
            for verdict in &repository.verdicts {
                let through = verdict.verdict == Decision::Reachable
                    && verdict
                        .path
                        .iter()
                        .any(|step| step.file == agent.file && step.line == agent.line);
                if through {
                    entry
                        .paths
                        .insert(format!("{}: {}", verdict.kind.word(), verdict.sink));
                }
            }
        }
        for agent in repository
            .history
            .iter()
            .flat_map(|history| &history.agents)
        {
            let entry = seen.entry(id_of(&agent.name)).or_default();
            entry.name.clone_from(&agent.name);
            entry.repositories.insert(repository_id(repository));
            entry.history = Some(format!(
                "{} commits carry its marks, for example {}",
                agent.commits, agent.example
            ));
        }
    }
    seen.into_iter()
        .map(|(id, seen)| (format!("{id}.toml"), manifest(&id, &seen)))
        .collect()
}

#[derive(Default)]
struct Seen {
    name: String,
    repositories: BTreeSet<String>,
    places: BTreeSet<String>,
    credentials: BTreeSet<String>,
    paths: BTreeSet<String>,
    worst: Option<String>,
    history: Option<String>,
}

fn id_of(name: &str) -> String {
    let id: String = name
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    id.trim_matches('-').to_owned()
}

fn repository_id(repository: &RepositoryReport) -> String {
    let name = repository.name.as_deref().unwrap_or(&repository.path);
    let last = name
        .trim_end_matches('/')
        .rsplit('/')
        .next()
        .unwrap_or(name);
    let id = id_of(last);
    if id.is_empty() {
        "repository".to_owned()
    } else {
        id
    }
}

fn manifest(id: &str, seen: &Seen) -> String {
    let mut out = String::new();
    let _ = write_manifest(&mut out, id, seen);
    out
}

fn write_manifest(out: &mut String, id: &str, seen: &Seen) -> std::fmt::Result {
    writeln!(
        out,
        "# Proposed from what a scan saw. Fill in every empty value; a manifest without"
    )?;
    writeln!(out, "# owner, purpose or expiry is refused.")?;
    for place in &seen.places {
        writeln!(out, "# runs at {place}")?;
    }
    for credential in &seen.credentials {
        writeln!(out, "# holds {credential}")?;
    }
    for path in &seen.paths {
        writeln!(out, "# reaches without a person: {path}")?;
    }
    if let Some(worst) = &seen.worst {
        writeln!(out, "# {worst}")?;
    }
    if let Some(history) = &seen.history {
        writeln!(out, "# history: {history}")?;
    }
    writeln!(out, "id = {}", text(id))?;
    writeln!(out, "owner = \"\"        # the human who answers for it")?;
    writeln!(out, "purpose = \"\"      # in a sentence")?;
    writeln!(out, "model = \"\"        # the model behind it")?;
    writeln!(out, "runtime = {}", text(&seen.name))?;
    writeln!(out, "repositories = {}", list(&seen.repositories))?;
    if !seen.places.is_empty() {
        writeln!(out, "build_systems = [\"github-actions\"]")?;
    }
    if !seen.paths.is_empty() {
        writeln!(out, "deployment_paths = {}", list(&seen.paths))?;
    }
    writeln!(out, "phases = [\"write\"] # write, test, review, deploy")?;
    writeln!(
        out,
        "environment_ceiling = \"\"  # the most sensitive environment its work may reach"
    )?;
    writeln!(out, "review_by = \"\"    # 2027-01-31T00:00:00Z")?;
    writeln!(out, "expires = \"\"")
}

fn list(values: &BTreeSet<String>) -> String {
    let quoted: Vec<String> = values.iter().map(|value| text(value)).collect();
    format!("[{}]", quoted.join(", "))
}

/// A TOML basic string.
fn text(value: &str) -> String {
    toml::Value::String(value.to_owned()).to_string()
}
