//! The report for a terminal.

use std::fmt::Write;

use portcullis_model::refusal::visible;
use serde_json::Value;

use crate::report::{Decision, Finding, PathStep, Report, RepositoryReport, Verdict};

/// How the text looks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Style {
    /// Whether escape codes for colours may be used.
    pub color: bool,
    /// Whether cut and benign sinks are shown with their paths too.
    pub verbose: bool,
}

/// The report as text.
pub fn render(report: &Report, style: Style) -> String {
    let mut out = String::new();
    for repository in &printable(report).repositories {
        let _ = one(&mut out, repository, style);
    }
    out
}

/// The same report with everything made visible that a terminal would obey or hide: names of files
/// and branches come from whoever wrote the repository.
fn printable(report: &Report) -> Report {
    fn make(value: &mut Value) {
        match value {
            Value::String(text) => {
                let shown = |line: &str| -> String { line.chars().flat_map(visible).collect() };
                // Line ends stay where texts have lines (patches) and are escaped in names, which
                // have none by nature: those are printed through `single`.
                *text = text.split('\n').map(shown).collect::<Vec<_>>().join("\n");
            }
            Value::Array(items) => items.iter_mut().for_each(make),
            Value::Object(map) => {
                for (key, value) in map.iter_mut() {
                    make(value);
                    if key != "patch" {
                        single(value);
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    fn single(value: &mut Value) {
        match value {
            Value::String(text) if text.contains('\n') => *text = text.replace('\n', "\\n"),
            Value::Array(items) => items.iter_mut().for_each(single),
            Value::String(_)
            | Value::Object(_)
            | Value::Null
            | Value::Bool(_)
            | Value::Number(_) => {}
        }
    }
    let mut value = serde_json::to_value(report).unwrap_or_default();
    make(&mut value);
    // It was made from a report a line above, and only its texts changed.
    serde_json::from_value(value).unwrap_or_else(|_| Report {
        version: report.version,
        scanner: report.scanner.clone(),
        repositories: Vec::new(),
    })
}

struct Paint(bool);

impl Paint {
    fn dress(&self, code: &str, text: &str) -> String {
        if self.0 {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }

    fn decision(&self, decision: Decision) -> String {
        let code = match decision {
            Decision::Reachable => "1;31",
            Decision::Depends => "33",
            Decision::Cut => "32",
            Decision::Benign => "2",
        };
        self.dress(code, decision.word())
    }
}

fn one(out: &mut String, repository: &RepositoryReport, style: Style) -> std::fmt::Result {
    let paint = Paint(style.color);
    let name = repository.name.as_deref().unwrap_or(&repository.path);
    writeln!(
        out,
        "{}  {}, default branch {}",
        paint.dress("1", name),
        counted(repository.pipelines as u64, "pipeline"),
        repository.default_branch
    )?;
    writeln!(out)?;
    let reachable: Vec<&Verdict> = repository
        .verdicts
        .iter()
        .filter(|verdict| verdict.verdict == Decision::Reachable)
        .collect();
    if reachable.is_empty() && repository.pipelines == 0 && repository.verdicts.is_empty() {
        writeln!(
            out,
            "No pipeline was found here, so there was nothing to decide on. Read are GitHub Actions, GitLab CI, Azure Pipelines, CircleCI, Jenkinsfiles, Tekton, Argo and the bots' files."
        )?;
    } else if reachable.is_empty() {
        writeln!(
            out,
            "No way was found on which automation reaches production with no person deciding."
        )?;
    } else {
        writeln!(
            out,
            "Automation reaches production with no person deciding:"
        )?;
    }
    writeln!(out)?;
    let mut shown: Vec<(&str, &str, &[PathStep])> = Vec::new();
    for verdict in &repository.verdicts {
        let detailed = verdict.verdict == Decision::Reachable
            || verdict.verdict == Decision::Depends
            || style.verbose;
        if !detailed {
            continue;
        }
        let known = if verdict.known { " (known)" } else { "" };
        writeln!(
            out,
            "{} {}: {} [{}]{known}",
            paint.decision(verdict.verdict),
            verdict.kind.word(),
            paint.dress("1", &verdict.sink),
            verdict.assumption.word()
        )?;
        if let Some(cut) = &verdict.cut_by {
            writeln!(out, "  cut by: {cut}")?;
        }
        if let Some(fact) = &verdict.decided_by {
            writeln!(out, "  decided by: {fact}")?;
        }
        let same = shown.iter().any(|(sink, file, path)| {
            *sink == verdict.sink && *file == verdict.file && *path == verdict.path.as_slice()
        });
        if same {
            writeln!(out, "  by the same path as above")?;
        } else {
            path(out, &verdict.path, &paint)?;
            shown.push((&verdict.sink, &verdict.file, &verdict.path));
        }
        writeln!(out)?;
    }
    quiet(out, repository, style, &paint)?;
    agents(out, repository, &paint)?;
    findings(out, &repository.findings, &paint)?;
    remedies(out, repository, &paint)?;
    history(out, repository, &paint)?;
    assumed(out, repository)?;
    for problem in &repository.problems {
        writeln!(
            out,
            "not read: {}{}{}{}",
            problem.file,
            line(problem.line),
            if problem.file.is_empty() { "" } else { ": " },
            problem.message
        )?;
    }
    Ok(())
}

fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn line(line: usize) -> String {
    if line == 0 {
        String::new()
    } else {
        format!(":{line}")
    }
}

fn path(out: &mut String, steps: &[PathStep], paint: &Paint) -> std::fmt::Result {
    for (index, step) in steps.iter().enumerate() {
        let place = if step.file.is_empty() {
            String::new()
        } else {
            format!("{}{}", step.file, line(step.line))
        };
        let with = super::with_credential(&step.credential);
        writeln!(
            out,
            "  {}. {} — {}{}",
            index + 1,
            step.event,
            step.actor,
            with
        )?;
        writeln!(out, "     {}", step.why)?;
        if !place.is_empty() {
            writeln!(out, "     {}", paint.dress("36", &place))?;
        }
        if !step.excerpt.is_empty() {
            writeln!(
                out,
                "       {} {}",
                paint.dress("2", &format!("{:>4} |", step.line)),
                step.excerpt
            )?;
        }
    }
    Ok(())
}

/// Cut and benign sinks, one line each.
fn quiet(
    out: &mut String,
    repository: &RepositoryReport,
    style: Style,
    paint: &Paint,
) -> std::fmt::Result {
    if style.verbose {
        return Ok(());
    }
    let rest: Vec<&Verdict> = repository
        .verdicts
        .iter()
        .filter(|verdict| matches!(verdict.verdict, Decision::Cut | Decision::Benign))
        .collect();
    if rest.is_empty() {
        return Ok(());
    }
    for verdict in rest {
        let reason = verdict
            .cut_by
            .as_deref()
            .or(verdict.decided_by.as_deref())
            .unwrap_or_default();
        writeln!(
            out,
            "{} {}: {} [{}]  {}",
            paint.decision(verdict.verdict),
            verdict.kind.word(),
            verdict.sink,
            verdict.assumption.word(),
            paint.dress("2", reason)
        )?;
    }
    writeln!(out)
}

fn agents(out: &mut String, repository: &RepositoryReport, paint: &Paint) -> std::fmt::Result {
    if repository.agents.is_empty() {
        return Ok(());
    }
    writeln!(out, "{}", paint.dress("1", "Agents in the pipelines"))?;
    for agent in &repository.agents {
        writeln!(out, "  {} ({}{})", agent.name, agent.file, line(agent.line))?;
        writeln!(out, "    {}", agent.blast_radius)?;
    }
    writeln!(out)
}

fn findings(out: &mut String, list: &[Finding], paint: &Paint) -> std::fmt::Result {
    if list.is_empty() {
        return Ok(());
    }
    writeln!(out, "{}", paint.dress("1", "Findings beside the paths"))?;
    for finding in list {
        let known = if finding.known { " (known)" } else { "" };
        writeln!(
            out,
            "  {} {} {}{}{known}",
            finding.severity.word(),
            finding.rule,
            finding.file,
            line(finding.line)
        )?;
        writeln!(out, "    {}", finding.message)?;
    }
    writeln!(out)
}

fn remedies(out: &mut String, repository: &RepositoryReport, paint: &Paint) -> std::fmt::Result {
    if repository.remedies.is_empty() {
        return Ok(());
    }
    writeln!(out, "{}", paint.dress("1", "What puts a person back"))?;
    for remedy in &repository.remedies {
        let checked = if remedy.verified {
            "; scanned again: the path is gone"
        } else {
            ""
        };
        writeln!(
            out,
            "  {} ({}{checked})",
            remedy.what,
            counted(remedy.cuts.len() as u64, "verdict")
        )?;
        if let Some(setting) = &remedy.setting {
            writeln!(out, "    setting: {setting}")?;
        }
        for text in remedy.patch.iter().flat_map(|patch| patch.lines()) {
            writeln!(out, "    {text}")?;
        }
    }
    writeln!(out)
}

fn history(out: &mut String, repository: &RepositoryReport, paint: &Paint) -> std::fmt::Result {
    let Some(history) = &repository.history else {
        return Ok(());
    };
    let read = counted(history.commits, "commit");
    let told = counted(history.pull_requests, "pull request");
    let bound = if history.truncated {
        ", the newest; --history reads all"
    } else {
        ""
    };
    writeln!(
        out,
        "{}",
        paint.dress(
            "1",
            &format!("Agents in the history ({read} read{bound}; {told} told of)")
        )
    )?;
    if history.agents.is_empty() {
        writeln!(out, "  No commit carries the mark of an agent.")?;
    }
    for agent in &history.agents {
        let declared = if agent.declared {
            "declared"
        } else {
            "declared nowhere"
        };
        let pull_requests = if agent.pull_requests > 0 {
            format!(
                ", {} ({})",
                counted(agent.pull_requests, "pull request"),
                percent(agent.pull_requests_share_per_mille)
            )
        } else {
            String::new()
        };
        writeln!(
            out,
            "  {}: {} ({}){pull_requests}, by {}; {declared}; for example {}",
            agent.name,
            counted(agent.commits, "commit"),
            percent(agent.share_per_mille),
            agent.marks.join(", "),
            agent.example
        )?;
    }
    writeln!(out, "  {}", history.caution)?;
    writeln!(out)
}

fn percent(per_mille: u32) -> String {
    format!("{}.{} %", per_mille / 10, per_mille % 10)
}

fn assumed(out: &mut String, repository: &RepositoryReport) -> std::fmt::Result {
    for assumed in &repository.assumed {
        if !assumed.facts.is_empty() {
            writeln!(
                out,
                "assumed ({}): {}",
                assumed.assumption.word(),
                assumed.facts.join("; ")
            )?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Problem, RepositoryReport};

    #[test]
    fn names_cannot_speak_to_the_terminal() {
        let repository = RepositoryReport {
            path: "a\u{1b}]0;title\u{7}b".to_owned(),
            name: None,
            default_branch: "main\u{202e}niam".to_owned(),
            verdicts: Vec::new(),
            assumed: Vec::new(),
            approvals: Vec::new(),
            agents: Vec::new(),
            findings: Vec::new(),
            remedies: Vec::new(),
            history: None,
            declared: Vec::new(),
            pipelines: 0,
            problems: vec![Problem {
                file: "two\nlines\r.yml".to_owned(),
                line: 1,
                message: "\u{9b}31m".to_owned(),
            }],
        };
        let report = Report {
            version: 1,
            scanner: String::new(),
            repositories: vec![repository],
        };
        let text = render(&report, Style::default());
        assert!(text.contains("two\\nlines\\u{d}.yml"), "{text}");
        assert!(
            text.chars().all(|c| c == '\n' || !c.is_control()) && !text.contains('\u{202e}'),
            "{text:?}"
        );
    }
}
