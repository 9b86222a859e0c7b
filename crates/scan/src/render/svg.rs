//! The picture: what starts on the left, sinks on the right, unattended paths lit.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::Report;
use crate::report::{Decision, RepositoryReport, Verdict};

/// Most verdicts that are drawn; the worst come first.
const VERDICTS_MAX: usize = 60;
const BOX_WIDTH: usize = 250;
const BOX_HEIGHT: usize = 46;
const COLUMN: usize = 300;
const ROW: usize = 66;
const MARGIN: usize = 24;
/// Longest text in a box, in characters.
const TEXT_MAX: usize = 36;

/// The picture of every repository, one below the other, as one SVG document.
pub fn render(report: &Report) -> String {
    let mut parts = Vec::new();
    let (mut width, mut height) = (400, 0);
    for repository in &report.repositories {
        let picture = Picture::of(repository);
        parts.push((height, picture.body(height)));
        width = width.max(picture.width());
        height += picture.height();
    }
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" font-family=\"system-ui, sans-serif\" font-size=\"12\" role=\"img\" aria-label=\"Ways to production\">\n"
    );
    out.push_str(STYLE);
    for (_, part) in parts {
        out.push_str(&part);
    }
    out.push_str("</svg>\n");
    out
}

const STYLE: &str = "<style>\n.node rect{fill:#ffffff;stroke:#8a94a6}\n.node text{fill:#1c2430}\n.node .small{fill:#5a6475;font-size:10px}\n.sink rect{stroke-width:2}\n.edge{fill:none;stroke:#c3cad6;stroke-width:1.5}\n.reachable rect,.edge.reachable{stroke:#c62828}\n.edge.reachable{stroke-width:3}\n.depends rect,.edge.depends{stroke:#b26a00}\n.edge.depends{stroke-dasharray:6 4;stroke-width:2}\n.cut rect,.edge.cut{stroke:#2e7d32}\n.edge.cut{stroke-dasharray:2 4}\n.title{font-weight:600;font-size:14px;fill:#1c2430}\n</style>\n<defs><marker id=\"arrow\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" orient=\"auto\"><path d=\"M0 0 8 4 0 8z\" fill=\"#8a94a6\"/></marker></defs>\n";

struct Box {
    column: usize,
    row: usize,
    title: String,
    detail: String,
    hover: String,
    decision: Decision,
    sink: bool,
}

struct Picture {
    title: String,
    boxes: Vec<Box>,
    edges: BTreeMap<(usize, usize), Decision>,
    rows: usize,
    columns: usize,
}

impl Picture {
    fn of(repository: &RepositoryReport) -> Self {
        let mut picture = Self {
            title: repository
                .name
                .clone()
                .unwrap_or_else(|| repository.path.clone()),
            boxes: Vec::new(),
            edges: BTreeMap::new(),
            rows: 0,
            columns: 1,
        };
        let mut verdicts: Vec<&Verdict> = repository
            .verdicts
            .iter()
            .filter(|verdict| !verdict.path.is_empty())
            .collect();
        verdicts.sort_by_key(|verdict| verdict.verdict);
        let last = verdicts
            .iter()
            .take(VERDICTS_MAX)
            .map(|verdict| verdict.path.len())
            .max()
            .unwrap_or(0);
        let mut known: BTreeMap<(usize, String), usize> = BTreeMap::new();
        for verdict in verdicts.into_iter().take(VERDICTS_MAX) {
            let mut before: Option<usize> = None;
            for (column, step) in verdict.path.iter().enumerate() {
                let place = if step.file.is_empty() {
                    step.actor.clone()
                } else {
                    format!("{}:{}", file_name(&step.file), step.line)
                };
                let key = (
                    column,
                    format!("{}|{}|{}|{}", step.event, step.actor, step.file, step.line),
                );
                let at = picture.place(
                    &mut known,
                    key,
                    &step.event,
                    &place,
                    &format!("{} — {}: {}", step.event, step.actor, step.why),
                    verdict.verdict,
                    false,
                );
                picture.link(before, at, verdict.verdict);
                before = Some(at);
            }
            let name = format!("{}: {}", verdict.kind.word(), verdict.sink);
            let key = (
                last,
                format!("{name}|{}|{}", verdict.file, verdict.assumption.word()),
            );
            let detail = format!("{} ({})", verdict.verdict.word(), verdict.assumption.word());
            let hover = verdict
                .cut_by
                .as_deref()
                .or(verdict.decided_by.as_deref())
                .unwrap_or("no person decides");
            let at = picture.place(
                &mut known,
                key,
                &name,
                &detail,
                hover,
                verdict.verdict,
                true,
            );
            picture.link(before, at, verdict.verdict);
        }
        picture
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "a box is made of these, in one place"
    )]
    fn place(
        &mut self,
        known: &mut BTreeMap<(usize, String), usize>,
        key: (usize, String),
        title: &str,
        detail: &str,
        hover: &str,
        decision: Decision,
        sink: bool,
    ) -> usize {
        if let Some(at) = known.get(&key) {
            return *at;
        }
        let column = key.0;
        let row = self
            .boxes
            .iter()
            .filter(|node| node.column == column)
            .count();
        self.rows = self.rows.max(row + 1);
        self.columns = self.columns.max(column + 1);
        self.boxes.push(Box {
            column,
            row,
            title: short(title),
            detail: short(detail),
            hover: hover.to_owned(),
            decision,
            sink,
        });
        known.insert(key, self.boxes.len() - 1);
        self.boxes.len() - 1
    }

    fn link(&mut self, from: Option<usize>, to: usize, decision: Decision) {
        if let Some(from) = from {
            let edge = self.edges.entry((from, to)).or_insert(decision);
            *edge = (*edge).min(decision);
        }
    }

    fn width(&self) -> usize {
        MARGIN * 2 + self.columns.saturating_sub(1) * COLUMN + BOX_WIDTH
    }

    fn height(&self) -> usize {
        MARGIN * 2 + 30 + self.rows.max(1) * ROW
    }

    fn body(&self, top: usize) -> String {
        let mut out = String::new();
        let _ = self.write(&mut out, top);
        out
    }

    fn write(&self, out: &mut String, top: usize) -> std::fmt::Result {
        writeln!(
            out,
            "<text class=\"title\" x=\"{MARGIN}\" y=\"{}\">{}</text>",
            top + MARGIN + 6,
            escape(&self.title)
        )?;
        if self.boxes.is_empty() {
            writeln!(
                out,
                "<text x=\"{MARGIN}\" y=\"{}\">Nothing here reaches production.</text>",
                top + MARGIN + 40
            )?;
        }
        let place = |index: usize| {
            self.boxes.get(index).map(|node| {
                (
                    MARGIN + node.column * COLUMN,
                    top + MARGIN + 30 + node.row * ROW,
                )
            })
        };
        let mut edges: Vec<_> = self.edges.iter().collect();
        edges.sort_by_key(|(_, decision)| std::cmp::Reverse(**decision));
        for ((from, to), decision) in edges {
            let (Some((x1, y1)), Some((x2, y2))) = (place(*from), place(*to)) else {
                continue;
            };
            let (x1, y1, y2) = (x1 + BOX_WIDTH, y1 + BOX_HEIGHT / 2, y2 + BOX_HEIGHT / 2);
            let middle = usize::midpoint(x1, x2);
            writeln!(
                out,
                "<path class=\"edge {}\" d=\"M{x1} {y1} C{middle} {y1} {middle} {y2} {x2} {y2}\" marker-end=\"url(#arrow)\"/>",
                decision.word()
            )?;
        }
        for (index, node) in self.boxes.iter().enumerate() {
            let Some((x, y)) = place(index) else { continue };
            writeln!(
                out,
                "<g class=\"node {}{}\"><title>{}</title><rect x=\"{x}\" y=\"{y}\" width=\"{BOX_WIDTH}\" height=\"{BOX_HEIGHT}\" rx=\"6\"/><text x=\"{}\" y=\"{}\">{}</text><text class=\"small\" x=\"{}\" y=\"{}\">{}</text></g>",
                node.decision.word(),
                if node.sink { " sink" } else { "" },
                escape(&node.hover),
                x + 10,
                y + 19,
                escape(&node.title),
                x + 10,
                y + 36,
                escape(&node.detail),
            )?;
        }
        Ok(())
    }
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn short(text: &str) -> String {
    if text.chars().count() <= TEXT_MAX {
        return text.to_owned();
    }
    let mut out: String = text.chars().take(TEXT_MAX).collect();
    out.push('…');
    out
}

/// Text for XML and HTML, with characters that neither may hold replaced.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\t' | '\n' => out.push(' '),
            other
                if other.is_control()
                    || matches!(other, '\u{fffe}' | '\u{ffff}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') =>
            {
                out.push('\u{fffd}')
            }
            other => out.push(other),
        }
    }
    out
}
