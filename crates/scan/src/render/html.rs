//! One self-contained page: the picture, the paths, everything else. No script, nothing loaded.

use std::fmt::Write;

use super::svg::{self, escape};
use crate::Report;
use crate::report::{RepositoryReport, Verdict};

/// The page.
pub fn render(report: &Report) -> String {
    let mut out = String::new();
    let _ = page(&mut out, report);
    out
}

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;color:#1c2430;background:#f6f7f9;margin:0}main{max-width:1200px;margin:0 auto;padding:24px}h1{font-size:22px}h2{font-size:18px;margin-top:32px}section,.picture{background:#fff;border:1px solid #dfe3ea;border-radius:8px;padding:16px;margin:12px 0}.picture{overflow:auto}.tag{display:inline-block;border-radius:4px;padding:0 8px;font-weight:600;color:#fff}.reachable{background:#c62828}.depends{background:#b26a00}.cut{background:#2e7d32}.benign{background:#5a6475}code,pre{font:13px/1.45 ui-monospace,monospace}pre{background:#f6f7f9;padding:10px;overflow:auto;border-radius:6px}ol{padding-left:22px}li{margin:6px 0}.place{color:#0b5cad}.quiet{color:#5a6475}table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:4px 8px;border-bottom:1px solid #e8ebf0;vertical-align:top}details>summary{cursor:pointer}svg .node rect{cursor:default}";

fn page(out: &mut String, report: &Report) -> std::fmt::Result {
    write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n<title>Ways to production</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>Can an agent reach production here with no human in between?</h1>\n"
    )?;
    write!(
        out,
        "<div class=\"picture\">\n{}</div>\n",
        svg::render(report)
    )?;
    for repository in &report.repositories {
        one(out, repository)?;
    }
    out.write_str("</main>\n</body>\n</html>\n")
}

fn one(out: &mut String, repository: &RepositoryReport) -> std::fmt::Result {
    let name = repository.name.as_deref().unwrap_or(&repository.path);
    writeln!(
        out,
        "<h2>{}</h2>\n<p class=\"quiet\">{} pipelines, default branch {}</p>",
        escape(name),
        repository.pipelines,
        escape(&repository.default_branch)
    )?;
    let mut verdicts: Vec<&Verdict> = repository.verdicts.iter().collect();
    verdicts.sort_by_key(|verdict| verdict.verdict);
    for verdict in verdicts {
        one_verdict(out, verdict)?;
    }
    if !repository.agents.is_empty() {
        writeln!(
            out,
            "<h2>Agents</h2>\n<section><table><tr><th>Agent</th><th>Where</th><th>Credentials</th><th>The worst it could do</th></tr>"
        )?;
        for agent in &repository.agents {
            writeln!(
                out,
                "<tr><td>{}</td><td class=\"place\">{}:{}</td><td>{}</td><td>{}</td></tr>",
                escape(&agent.name),
                escape(&agent.file),
                agent.line,
                escape(&agent.credentials.join(", ")),
                escape(&agent.blast_radius)
            )?;
        }
        writeln!(out, "</table></section>")?;
    }
    if !repository.findings.is_empty() {
        writeln!(
            out,
            "<h2>Findings beside the paths</h2>\n<section><table><tr><th>Rule</th><th>Where</th><th>What</th></tr>"
        )?;
        for finding in &repository.findings {
            writeln!(
                out,
                "<tr><td>{} <span class=\"quiet\">{}</span></td><td class=\"place\">{}:{}</td><td>{}</td></tr>",
                escape(&finding.rule),
                finding.severity.word(),
                escape(&finding.file),
                finding.line,
                escape(&finding.message)
            )?;
        }
        writeln!(out, "</table></section>")?;
    }
    if !repository.remedies.is_empty() {
        writeln!(out, "<h2>What puts a person back</h2>")?;
        for remedy in &repository.remedies {
            writeln!(
                out,
                "<section><p>{}{}</p>",
                escape(&remedy.what),
                if remedy.verified {
                    " <span class=\"quiet\">(scanned again: the path is gone)</span>"
                } else {
                    ""
                }
            )?;
            if let Some(setting) = &remedy.setting {
                writeln!(out, "<p>Setting: {}</p>", escape(setting))?;
            }
            if let Some(patch) = &remedy.patch {
                writeln!(out, "<pre>{}</pre>", lines(patch))?;
            }
            writeln!(out, "</section>")?;
        }
    }
    if let Some(history) = &repository.history {
        writeln!(
            out,
            "<h2>Agents in the history</h2>\n<section><table><tr><th>Agent</th><th>Commits</th><th>Share</th><th>Marks</th><th>Declared</th></tr>"
        )?;
        for agent in &history.agents {
            writeln!(
                out,
                "<tr><td>{}</td><td>{}</td><td>{}.{} %</td><td>{}</td><td>{}</td></tr>",
                escape(&agent.name),
                agent.commits,
                agent.share_per_mille / 10,
                agent.share_per_mille % 10,
                escape(&agent.marks.join(", ")),
                if agent.declared { "yes" } else { "nowhere" }
            )?;
        }
        writeln!(
            out,
            "</table><p class=\"quiet\">{}</p></section>",
            escape(&history.caution)
        )?;
    }
    writeln!(out, "<h2>Assumed and not read</h2>\n<section><ul>")?;
    for assumed in &repository.assumed {
        for fact in &assumed.facts {
            writeln!(
                out,
                "<li>{}: {}</li>",
                assumed.assumption.word(),
                escape(fact)
            )?;
        }
    }
    for problem in &repository.problems {
        writeln!(
            out,
            "<li>not read: <span class=\"place\">{}:{}</span> {}</li>",
            escape(&problem.file),
            problem.line,
            escape(&problem.message)
        )?;
    }
    writeln!(out, "</ul></section>")
}

fn one_verdict(out: &mut String, verdict: &Verdict) -> std::fmt::Result {
    let open = if verdict.verdict == crate::report::Decision::Reachable {
        " open"
    } else {
        ""
    };
    writeln!(
        out,
        "<section><details{open}><summary><span class=\"tag {0}\">{0}</span> {1}: <b>{2}</b> <span class=\"quiet\">{3}</span></summary>",
        verdict.verdict.word(),
        verdict.kind.word(),
        escape(&verdict.sink),
        verdict.assumption.word()
    )?;
    if let Some(cut) = &verdict.cut_by {
        writeln!(out, "<p>Cut by: {}</p>", escape(cut))?;
    }
    if let Some(fact) = &verdict.decided_by {
        writeln!(out, "<p>Decided by: {}</p>", escape(fact))?;
    }
    writeln!(out, "<ol>")?;
    for step in &verdict.path {
        let with = if step.credential.is_empty() {
            String::new()
        } else {
            format!(" with {}", step.credential)
        };
        writeln!(
            out,
            "<li><b>{}</b> — {}{}<br>{}",
            escape(&step.event),
            escape(&step.actor),
            escape(&with),
            escape(&step.why)
        )?;
        if !step.file.is_empty() {
            writeln!(
                out,
                "<br><span class=\"place\">{}:{}</span>",
                escape(&step.file),
                step.line
            )?;
        }
        if !step.excerpt.is_empty() {
            writeln!(out, "<pre>{}</pre>", escape(&step.excerpt))?;
        }
        writeln!(out, "</li>")?;
    }
    writeln!(out, "</ol></details></section>")
}

fn lines(text: &str) -> String {
    text.lines().map(escape).collect::<Vec<_>>().join("\n")
}
