//! One self-contained page: the answer, the picture, the paths, everything else. No script,
//! nothing loaded; everything that comes from the repository is escaped.

use std::fmt::{Result, Write};

use super::ways::{Way, ways};
use super::{escape, style, svg};
use crate::Report;
use crate::findings::RULES;
use crate::report::{
    ApprovalClass, Decision, Finding, HistoryReport, PathStep, Remedy, RepositoryReport, Verdict,
};

/// Paths that stand open when the page is; the others open on a click.
const OPEN_MAX: usize = 5;

/// The page.
pub fn render(report: &Report) -> String {
    let mut out = String::new();
    let _ = page(&mut out, report);
    out
}

fn page(out: &mut String, report: &Report) -> Result {
    let sheet = style::sheet();
    let answer = answer(report);
    write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n<meta name=\"color-scheme\" content=\"light dark\">\n<meta name=\"referrer\" content=\"no-referrer\">\n<meta http-equiv=\"Content-Security-Policy\" content=\"{}\">\n<title>{}</title>\n<style>{sheet}</style>\n</head>\n<body>\n<a class=\"skip\" href=\"#main\">Skip to the answer</a>\n",
        style::policy(&sheet),
        escape(&title(report)),
    )?;
    writeln!(
        out,
        "<header>\n<p class=\"quiet\">Can an agent reach production here with no human in between?</p>\n<h1>{}</h1>\n<p>{}</p>",
        escape(&answer.0),
        escape(&answer.1)
    )?;
    if report.repositories.len() > 1 {
        out.write_str("<nav aria-label=\"Repositories\"><ul>")?;
        for (index, repository) in report.repositories.iter().enumerate() {
            write!(
                out,
                "<li><a href=\"#r{index}\">{}</a></li>",
                escape(name(repository))
            )?;
        }
        out.write_str("</ul></nav>\n")?;
    }
    out.write_str("</header>\n<main id=\"main\">\n")?;
    for (index, repository) in report.repositories.iter().enumerate() {
        one(out, repository, index)?;
    }
    writeln!(
        out,
        "</main>\n<footer><p>portcullis scan {}. This page holds no script and loads nothing.</p></footer>\n</body>\n</html>",
        escape(&report.scanner)
    )
}

fn name(repository: &RepositoryReport) -> &str {
    repository.name.as_deref().unwrap_or(&repository.path)
}

fn title(report: &Report) -> String {
    let names: Vec<&str> = report.repositories.iter().take(3).map(name).collect();
    format!("Ways to production: {}", names.join(", "))
}

/// The answer in a sentence, and what it rests on.
fn answer(report: &Report) -> (String, String) {
    let all: Vec<Way<'_>> = report
        .repositories
        .iter()
        .enumerate()
        .flat_map(|(index, repository)| ways(repository, index))
        .collect();
    let count = |decision: Decision| all.iter().filter(|way| way.worst == decision).count();
    let reachable = count(Decision::Reachable);
    let pipelines: usize = report.repositories.iter().map(|one| one.pipelines).sum();
    let first = if reachable > 0 {
        format!(
            "Yes: automation reaches {} with no person deciding.",
            counted(reachable, "place in production", "places in production")
        )
    } else if count(Decision::Depends) > 0 {
        "It depends: no way is open as far as the files tell, but facts outside them decide."
            .to_owned()
    } else if pipelines == 0 {
        "No pipeline was found here, so there was nothing to decide on.".to_owned()
    } else if all.is_empty() {
        "Nothing here reaches production, as far as the files tell.".to_owned()
    } else {
        "No way was found on which automation reaches production with no person deciding."
            .to_owned()
    };
    let second = format!(
        "{} read in {}. Ways: {reachable} reachable, {} depend on a fact, {} cut by a person, {} benign.",
        counted(pipelines, "pipeline", "pipelines"),
        counted(report.repositories.len(), "repository", "repositories"),
        count(Decision::Depends),
        count(Decision::Cut),
        count(Decision::Benign),
    );
    (first, second)
}

fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

fn one(out: &mut String, repository: &RepositoryReport, index: usize) -> Result {
    let ways = ways(repository, index);
    let sections: [(&str, &str, bool); 7] = [
        ("glance", "At a glance", !ways.is_empty()),
        ("picture", "The picture", !ways.is_empty()),
        (
            "fix",
            "What puts a person back",
            !repository.remedies.is_empty(),
        ),
        ("ways", "The ways, step by step", !ways.is_empty()),
        ("agents", "Agents", !repository.agents.is_empty()),
        (
            "findings",
            "Findings beside the ways",
            !repository.findings.is_empty(),
        ),
        (
            "history",
            "Agents in the history",
            repository.history.is_some(),
        ),
    ];
    writeln!(
        out,
        "<section id=\"r{index}\" aria-labelledby=\"r{index}-name\">\n<h2 id=\"r{index}-name\">{}</h2>\n<p class=\"quiet\">{}, default branch <code>{}</code></p>",
        escape(name(repository)),
        counted(repository.pipelines, "pipeline", "pipelines"),
        escape(&repository.default_branch)
    )?;
    write!(
        out,
        "<nav aria-label=\"Sections of {}\"><ul>",
        escape(name(repository))
    )?;
    for (id, heading, _) in sections.iter().filter(|(_, _, there)| *there) {
        write!(out, "<li><a href=\"#r{index}-{id}\">{heading}</a></li>")?;
    }
    writeln!(
        out,
        "<li><a href=\"#r{index}-limits\">Assumed and not read</a></li></ul></nav>"
    )?;
    for (id, heading, _) in sections.iter().filter(|(_, _, there)| *there) {
        writeln!(
            out,
            "<section aria-labelledby=\"r{index}-{id}\">\n<h2 id=\"r{index}-{id}\">{heading}</h2>"
        )?;
        match *id {
            "glance" => glance(out, &ways)?,
            "picture" => picture(out, repository, index)?,
            "fix" => remedies(out, &repository.remedies)?,
            "ways" => {
                for (number, way) in ways.iter().enumerate() {
                    one_way(out, way, number < OPEN_MAX)?;
                }
            }
            "agents" => agents(out, repository)?,
            "findings" => findings(out, &repository.findings)?,
            _ => {
                if let Some(read) = &repository.history {
                    history(out, read)?;
                }
            }
        }
        out.write_str("</section>\n")?;
    }
    limits(out, repository, index)?;
    out.write_str("</section>\n")
}

fn glance(out: &mut String, ways: &[Way<'_>]) -> Result {
    let columns: Vec<&str> = {
        let mut words: Vec<&str> = Vec::new();
        for verdict in ways.iter().flat_map(|way| &way.verdicts) {
            if !words.contains(&verdict.assumption.word()) {
                words.push(verdict.assumption.word());
            }
        }
        words
    };
    if columns.len() > 1 {
        out.write_str("<p>Without exported settings every way is decided twice: with the default branch unprotected, and with it taking reviewed pull requests only.</p>\n")?;
    }
    out.write_str(
        "<div class=\"card scroll\" tabindex=\"0\" role=\"region\" aria-label=\"All ways at a glance\"><table>\n<thead><tr><th scope=\"col\">What is reached</th>",
    )?;
    for word in &columns {
        write!(out, "<th scope=\"col\">{}</th>", column_words(word))?;
    }
    out.write_str("</tr></thead>\n<tbody>\n")?;
    for way in ways {
        write!(
            out,
            "<tr><th scope=\"row\"><a href=\"#{}\">{}</a> {}</th>",
            way.id,
            escape(&way.title()),
            way.verdicts
                .first()
                .map_or_else(String::new, |one| place(&one.file, one.line))
        )?;
        for word in &columns {
            let verdict = way
                .verdicts
                .iter()
                .find(|verdict| verdict.assumption.word() == *word);
            match verdict {
                Some(verdict) => write!(
                    out,
                    "<td>{}{}</td>",
                    badge(verdict.verdict.word()),
                    known(verdict.known)
                )?,
                None => out.write_str("<td>–</td>")?,
            }
        }
        out.write_str("</tr>\n")?;
    }
    out.write_str("</tbody></table></div>\n")
}

fn column_words(assumption: &str) -> &'static str {
    match assumption {
        "unprotected" => "Branch unprotected",
        "protected" => "Branch protected",
        _ => "By the settings given",
    }
}

fn badge(word: &str) -> String {
    format!("<span class=\"badge {word}\">{word}</span>")
}

fn known(known: bool) -> &'static str {
    if known {
        " <span class=\"quiet\">known</span>"
    } else {
        ""
    }
}

fn picture(out: &mut String, repository: &RepositoryReport, index: usize) -> Result {
    writeln!(
        out,
        "<figure><div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Picture of the ways, can be scrolled\">"
    )?;
    svg::inline(out, repository, index)?;
    let left_out = svg::left_out(repository);
    let more = if left_out > 0 {
        format!(
            " {} more are not drawn.",
            counted(left_out, "sink", "sinks")
        )
    } else {
        String::new()
    };
    writeln!(
        out,
        "</div><figcaption>Left: what starts by itself. Right: production. Thick red lines are ways on which nobody decides; dashed ones wait for a fact, dotted ones for a person. The same ways stand below in words.{more}</figcaption></figure>"
    )
}

fn one_way(out: &mut String, way: &Way<'_>, open: bool) -> Result {
    writeln!(
        out,
        "<article class=\"card way lazy {}\" id=\"{}\">\n<h3>{}</h3>",
        way.worst.word(),
        way.id,
        escape(&way.title())
    )?;
    let alike = matches!(way.verdicts.as_slice(), [one, other] if one.verdict == other.verdict
        && one.path == other.path
        && one.cut_by == other.cut_by
        && one.decided_by == other.decided_by);
    let told = if alike { 1 } else { way.verdicts.len() };
    let mut shown: Option<&[PathStep]> = None;
    for verdict in way.verdicts.iter().take(told) {
        let open = open && verdict.verdict == Decision::Reachable && shown.is_none();
        writeln!(
            out,
            "<details{}><summary>{} <span class=\"quiet\">{}</span>{}</summary>",
            if open { " open" } else { "" },
            badge(verdict.verdict.word()),
            if alike {
                "Branch protected or not"
            } else {
                column_words(verdict.assumption.word())
            },
            known(verdict.known)
        )?;
        if let Some(cut) = &verdict.cut_by {
            writeln!(out, "<p>Cut by: {}</p>", escape(cut))?;
        }
        if let Some(fact) = &verdict.decided_by {
            writeln!(out, "<p>Decided by: {}</p>", escape(fact))?;
        }
        if shown == Some(verdict.path.as_slice()) && !verdict.path.is_empty() {
            out.write_str("<p class=\"quiet\">By the same path as above.</p>")?;
        } else {
            path(out, verdict)?;
            shown = Some(&verdict.path);
        }
        out.write_str("</details>\n")?;
    }
    out.write_str("</article>\n")
}

fn path(out: &mut String, verdict: &Verdict) -> Result {
    if verdict.path.is_empty() {
        return Ok(());
    }
    out.write_str("<ol class=\"path\">\n")?;
    for step in &verdict.path {
        let with = super::with_credential(&step.credential);
        write!(
            out,
            "<li><b>{}</b> by {}{}<br>{}",
            escape(&step.event),
            escape(&step.actor),
            escape(&with),
            escape(&step.why)
        )?;
        if !step.file.is_empty() {
            write!(out, "<br>{}", place(&step.file, step.line))?;
        }
        if !step.excerpt.is_empty() {
            write!(out, "<pre>{}</pre>", escape(&step.excerpt))?;
        }
        out.write_str("</li>\n")?;
    }
    out.write_str("</ol>")
}

fn place(file: &str, line: usize) -> String {
    if file.is_empty() {
        return String::new();
    }
    let line = if line == 0 {
        String::new()
    } else {
        format!(":{line}")
    };
    format!("<code class=\"place\">{}{line}</code>", escape(file))
}

fn remedies(out: &mut String, list: &[Remedy]) -> Result {
    for remedy in list {
        let checked = if remedy.verified {
            ", and a scan of the edited files shows that they are gone"
        } else {
            ""
        };
        writeln!(
            out,
            "<article class=\"card\">\n<h3>{}</h3>\n<p class=\"quiet\">Cuts {}{checked}.</p>",
            escape(&remedy.what),
            counted(remedy.cuts.len(), "way", "ways")
        )?;
        if let Some(setting) = &remedy.setting {
            writeln!(out, "<p>Setting: {}</p>", escape(setting))?;
        }
        if let Some(patch) = &remedy.patch {
            out.write_str("<pre>")?;
            for line in patch.lines() {
                let text = escape(line);
                match line.as_bytes().first() {
                    Some(b'+') => write!(out, "<ins>{text}</ins>")?,
                    Some(b'-') => write!(out, "<del>{text}</del>")?,
                    _ => writeln!(out, "{text}")?,
                }
            }
            out.write_str("</pre>\n")?;
        }
        out.write_str("</article>\n")?;
    }
    Ok(())
}

fn agents(out: &mut String, repository: &RepositoryReport) -> Result {
    out.write_str("<div class=\"card\"><ul class=\"plain\">\n")?;
    for agent in &repository.agents {
        writeln!(
            out,
            "<li><h3>{}</h3> {}{}<br>{}{}</li>",
            escape(&agent.name),
            place(&agent.file, agent.line),
            if agent.open_to_anyone {
                " <span class=\"badge warning\">any account can task it</span>"
            } else {
                ""
            },
            escape(&agent.blast_radius),
            if agent.credentials.is_empty() {
                String::new()
            } else {
                format!(
                    "<br><span class=\"quiet\">Holds {}.</span>",
                    escape(&agent.credentials.join(", "))
                )
            }
        )?;
    }
    out.write_str("</ul></div>\n")?;
    if repository.approvals.is_empty() {
        return Ok(());
    }
    out.write_str("<h3>How approvals are given</h3>\n<div class=\"card\"><ul class=\"plain\">\n")?;
    for approval in &repository.approvals {
        let class = match approval.class {
            ApprovalClass::Human => "by a person",
            ApprovalClass::Bot => "by a bot",
            ApprovalClass::SelfAttested => "self-attested",
            ApprovalClass::Forgeable => "forgeable",
        };
        writeln!(
            out,
            "<li><span class=\"badge\">{class}</span> {} {}</li>",
            escape(&approval.what),
            place(&approval.file, approval.line)
        )?;
    }
    out.write_str("</ul></div>\n")
}

fn findings(out: &mut String, list: &[Finding]) -> Result {
    let mut rest: Vec<&Finding> = list.iter().collect();
    rest.sort_by(|a, b| (b.severity, &a.rule).cmp(&(a.severity, &b.rule)));
    for group in rest.chunk_by(|a, b| a.rule == b.rule) {
        let Some(first) = group.first() else { continue };
        let about = RULES
            .iter()
            .find(|(id, _, _)| *id == first.rule)
            .map_or("", |(_, about, _)| about);
        writeln!(
            out,
            "<article class=\"card lazy\">{} <h3>{}</h3> <span class=\"quiet\">{}</span>\n<ul class=\"plain\">",
            badge(first.severity.word()),
            escape(&first.rule),
            escape(about)
        )?;
        for finding in group {
            writeln!(
                out,
                "<li>{}{}<br>{}</li>",
                escape(&finding.message),
                known(finding.known),
                place(&finding.file, finding.line)
            )?;
        }
        out.write_str("</ul></article>\n")?;
    }
    Ok(())
}

fn history(out: &mut String, read: &HistoryReport) -> Result {
    writeln!(
        out,
        "<div class=\"card\"><p>{} read{}, {} told of.</p>",
        counted(
            usize::try_from(read.commits).unwrap_or(usize::MAX),
            "commit",
            "commits"
        ),
        if read.truncated {
            " (the newest; older ones were not)"
        } else {
            ""
        },
        counted(
            usize::try_from(read.pull_requests).unwrap_or(usize::MAX),
            "pull request",
            "pull requests"
        ),
    )?;
    if read.agents.is_empty() {
        out.write_str("<p>No commit carries the mark of an agent.</p>")?;
    } else {
        out.write_str("<table><thead><tr><th scope=\"col\">Agent</th><th scope=\"col\">Commits</th><th scope=\"col\">Pull requests</th><th scope=\"col\">Known by</th></tr></thead><tbody>\n")?;
    }
    for agent in &read.agents {
        writeln!(
            out,
            "<tr><th scope=\"row\">{}<br><span class=\"quiet\">{}</span></th><td>{} ({})<br><meter min=\"0\" max=\"1000\" value=\"{}\" aria-label=\"Share of commits\"></meter></td><td>{} ({})</td><td>{}<br><code class=\"place\">{}</code></td></tr>",
            escape(&agent.name),
            if agent.declared {
                "declared here"
            } else {
                "declared nowhere"
            },
            agent.commits,
            percent(agent.share_per_mille),
            agent.share_per_mille,
            agent.pull_requests,
            percent(agent.pull_requests_share_per_mille),
            escape(&agent.marks.join(", ")),
            escape(&agent.example)
        )?;
    }
    if !read.agents.is_empty() {
        out.write_str("</tbody></table>")?;
    }
    writeln!(
        out,
        "<p class=\"quiet\">{}</p></div>",
        escape(&read.caution)
    )
}

fn percent(per_mille: u32) -> String {
    format!("{}.{} %", per_mille / 10, per_mille % 10)
}

fn limits(out: &mut String, repository: &RepositoryReport, index: usize) -> Result {
    writeln!(
        out,
        "<section aria-labelledby=\"r{index}-limits\">\n<h2 id=\"r{index}-limits\">Assumed and not read</h2>\n<div class=\"card\"><ul class=\"plain\">"
    )?;
    let mut nothing = true;
    for assumed in &repository.assumed {
        for fact in &assumed.facts {
            nothing = false;
            writeln!(
                out,
                "<li><span class=\"quiet\">{}:</span> {}</li>",
                column_words(assumed.assumption.word()),
                escape(fact)
            )?;
        }
    }
    for problem in &repository.problems {
        nothing = false;
        writeln!(
            out,
            "<li><span class=\"badge warning\">not read</span> {} {}</li>",
            place(&problem.file, problem.line),
            escape(&problem.message)
        )?;
    }
    if nothing {
        out.write_str(
            "<li>Nothing had to be assumed, and everything that was found was read.</li>",
        )?;
    }
    out.write_str("</ul></div></section>\n")
}
