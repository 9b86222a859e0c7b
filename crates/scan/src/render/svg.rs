//! The picture: what starts on the left, sinks on the right, unattended paths lit.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::escape;
use super::layout::{self, BOX_HEIGHT, Layout};
use super::ways::{Way, ways};
use crate::Report;
use crate::report::{Decision, RepositoryReport};

/// Most sinks that are drawn in one repository; the worst come first.
const SINKS_MAX: usize = 60;
const BOX_WIDTH: f64 = 226.0;
const COLUMN: f64 = 278.0;
const MARGIN: f64 = 24.0;
const TITLE: f64 = 34.0;
const LEGEND: f64 = 40.0;
/// Up to so many columns a wide window shows the picture whole: its text stays readable.
const FIT_MAX: usize = 6;
/// Widest text in a box, in the widths of a digit.
const TEXT_MAX: f64 = 33.0;

/// The picture of every repository, one below the other, as one SVG document.
pub fn render(report: &Report) -> String {
    let mut out = String::new();
    let _ = document(&mut out, report);
    out
}

/// What the picture looks like; the page has it in its own style element.
pub(super) const STYLE: &str = ":root{--paper:#fff;--ink:#1c2430;--soft:#566073;--line:#8a94a6;--red:#c62828;--amber:#8f5300;--green:#2e7d32;--glow:#c6282833}
@media (prefers-color-scheme:dark){:root{--paper:#161b24;--ink:#e8ecf3;--soft:#a9b4c6;--line:#7b879b;--red:#ff8a80;--amber:#ffc266;--green:#81c995;--glow:#ff8a8033}}
.picture text{fill:var(--ink);font:12px system-ui,sans-serif}.picture .title{font-weight:600;font-size:14px}.picture .small{fill:var(--soft);font-size:11px}
.node rect{fill:var(--paper);stroke:var(--line)}.sink rect{stroke-width:2.5}
.edge{fill:none;stroke:var(--line);stroke-width:1.5}.glow{fill:none;stroke:var(--glow);stroke-width:11;stroke-linecap:round}
.reachable rect,.edge.reachable{stroke:var(--red)}.edge.reachable{stroke-width:3}
.depends rect,.edge.depends{stroke:var(--amber)}.edge.depends{stroke-dasharray:7 4;stroke-width:2}
.cut rect,.edge.cut{stroke:var(--green)}.edge.cut{stroke-dasharray:2 4}.edge.benign{stroke-dasharray:1 5}
.head-reachable{fill:var(--red)}.head-depends{fill:var(--amber)}.head-cut{fill:var(--green)}.head-benign{fill:var(--line)}
a:hover rect,a:focus-visible rect{stroke-width:4}";

fn document(out: &mut String, report: &Report) -> std::fmt::Result {
    let pictures: Vec<Picture> = report
        .repositories
        .iter()
        .enumerate()
        .map(|(index, repository)| Picture::of(repository, index, false))
        .collect();
    let width = pictures.iter().map(Picture::width).fold(640.0, f64::max);
    let height = pictures.iter().map(Picture::height).sum::<f64>() + LEGEND;
    open(out, width, height, false)?;
    writeln!(
        out,
        "<title>Ways to production</title>\n<desc>{}</desc>\n<style>{STYLE}\nsvg{{background:var(--paper)}}</style>",
        escape(&described(report))
    )?;
    markers(out)?;
    let mut top = 0.0;
    for picture in &pictures {
        picture.write(out, top)?;
        top += picture.height();
    }
    legend(out, top)?;
    out.write_str("</svg>\n")
}

/// The picture of one repository for the page: no style of its own, sinks lead to their paths.
pub(super) fn inline(
    out: &mut String,
    repository: &RepositoryReport,
    index: usize,
) -> std::fmt::Result {
    let picture = Picture::of(repository, index, true);
    open(
        out,
        picture.width(),
        picture.height(),
        picture.columns <= FIT_MAX,
    )?;
    let _ = writeln!(out, "<title>Ways to production</title>");
    markers(out)?;
    picture.write(out, 0.0)?;
    out.write_str("</svg>\n")
}

/// How many sinks the picture leaves out.
pub(super) fn left_out(repository: &RepositoryReport) -> usize {
    ways(repository, 0)
        .iter()
        .filter(|way| drawn(way))
        .count()
        .saturating_sub(SINKS_MAX)
}

fn open(out: &mut String, width: f64, height: f64, fit: bool) -> std::fmt::Result {
    writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"picture{}\" width=\"{width:.0}\" height=\"{height:.0}\" viewBox=\"0 0 {width:.0} {height:.0}\" role=\"graphics-document document\" aria-label=\"Ways to production\">",
        if fit { " fit" } else { "" }
    )
}

const DECISIONS: [Decision; 4] = [
    Decision::Reachable,
    Decision::Depends,
    Decision::Cut,
    Decision::Benign,
];

fn markers(out: &mut String) -> std::fmt::Result {
    out.write_str("<defs>")?;
    for decision in DECISIONS {
        let word = decision.word();
        write!(
            out,
            "<marker id=\"head-{word}\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"9\" markerHeight=\"9\" markerUnits=\"userSpaceOnUse\" orient=\"auto\"><path class=\"head-{word}\" d=\"M0 0 8 4 0 8z\"/></marker>"
        )?;
    }
    out.write_str("</defs>\n")
}

fn legend(out: &mut String, top: f64) -> std::fmt::Result {
    let y = top + LEGEND / 2.0;
    for (index, decision) in DECISIONS.iter().enumerate() {
        let x = MARGIN + index as f64 * 150.0;
        writeln!(
            out,
            "<path class=\"edge {0}\" d=\"M{x} {y} h40\" marker-end=\"url(#head-{0})\"/><text x=\"{1}\" y=\"{2}\">{0}</text>",
            decision.word(),
            x + 50.0,
            y + 4.0
        )?;
    }
    Ok(())
}

/// The picture in words, for those who can't see it.
fn described(report: &Report) -> String {
    /// Most sinks that are told.
    const TOLD_MAX: usize = 20;
    let mut parts = Vec::new();
    for (index, repository) in report.repositories.iter().enumerate() {
        for way in ways(repository, index).iter().take(TOLD_MAX) {
            parts.push(format!("{}: {}.", way.title(), way.answers()));
        }
    }
    if parts.is_empty() {
        "Nothing here reaches production.".to_owned()
    } else {
        parts.join(" ")
    }
}

fn drawn(way: &Way<'_>) -> bool {
    way.verdicts.iter().any(|verdict| !verdict.path.is_empty())
}

struct Box {
    column: usize,
    title: String,
    detail: String,
    hover: String,
    decision: Decision,
    sink: bool,
    link: Option<String>,
}

struct Picture {
    title: String,
    boxes: Vec<Box>,
    edges: Vec<((usize, usize), Decision)>,
    layout: Layout,
    columns: usize,
}

impl Picture {
    fn of(repository: &RepositoryReport, index: usize, links: bool) -> Self {
        let all = ways(repository, index);
        let shown: Vec<&Way<'_>> = all
            .iter()
            .filter(|way| drawn(way))
            .take(SINKS_MAX)
            .collect();
        let last = shown
            .iter()
            .flat_map(|way| &way.verdicts)
            .map(|verdict| verdict.path.len())
            .max()
            .unwrap_or(0);
        let mut boxes: Vec<Box> = Vec::new();
        let mut known: BTreeMap<String, usize> = BTreeMap::new();
        let mut edges: BTreeMap<(usize, usize), Decision> = BTreeMap::new();
        let mut put = |boxes: &mut Vec<Box>, key: String, new: Box| -> usize {
            let at = *known.entry(key).or_insert_with(|| {
                boxes.push(Box {
                    title: short(&new.title),
                    detail: short(&new.detail),
                    ..new
                });
                boxes.len() - 1
            });
            if let Some(known) = boxes.get_mut(at) {
                known.decision = known.decision.min(new.decision);
            }
            at
        };
        for way in shown {
            let sink = put(
                &mut boxes,
                way.id.clone(),
                Box {
                    column: last,
                    title: way.title(),
                    detail: way.answers(),
                    hover: format!("{}: {}", way.title(), way.answers()),
                    decision: way.worst,
                    sink: true,
                    link: links.then(|| way.id.clone()),
                },
            );
            for verdict in &way.verdicts {
                let mut before: Option<usize> = None;
                for (column, step) in verdict.path.iter().enumerate() {
                    let detail = if step.file.is_empty() {
                        step.actor.clone()
                    } else {
                        format!("{}:{}", file_name(&step.file), step.line)
                    };
                    let at = put(
                        &mut boxes,
                        format!(
                            "{column}|{}|{}|{}|{}",
                            step.event, step.actor, step.file, step.line
                        ),
                        Box {
                            column,
                            title: step.event.clone(),
                            detail,
                            hover: format!("{} — {}: {}", step.event, step.actor, step.why),
                            decision: verdict.verdict,
                            sink: false,
                            link: None,
                        },
                    );
                    link(&mut edges, before, at, verdict.verdict);
                    before = Some(at);
                }
                link(&mut edges, before, sink, verdict.verdict);
            }
        }
        let columns: Vec<usize> = boxes.iter().map(|one| one.column).collect();
        let edges: Vec<((usize, usize), Decision)> = edges.into_iter().collect();
        let lines: Vec<(usize, usize)> = edges.iter().map(|(line, _)| *line).collect();
        Self {
            title: repository
                .name
                .clone()
                .unwrap_or_else(|| repository.path.clone()),
            layout: layout::layout(&columns, &lines),
            columns: last + 1,
            boxes,
            edges,
        }
    }

    fn width(&self) -> f64 {
        MARGIN * 2.0 + self.columns.saturating_sub(1) as f64 * COLUMN + BOX_WIDTH
    }

    fn height(&self) -> f64 {
        MARGIN * 2.0 + TITLE + self.layout.height.max(20.0)
    }

    fn write(&self, out: &mut String, top: f64) -> std::fmt::Result {
        writeln!(
            out,
            "<text class=\"title\" x=\"{MARGIN}\" y=\"{}\">{}</text>",
            top + MARGIN + 8.0,
            escape(&self.title)
        )?;
        let top = top + MARGIN + TITLE;
        if self.boxes.is_empty() {
            writeln!(
                out,
                "<text x=\"{MARGIN}\" y=\"{}\">Nothing here reaches production.</text>",
                top + 8.0
            )?;
        }
        // What is lit lies above the rest.
        let mut order: Vec<usize> = (0..self.edges.len()).collect();
        order.sort_by_key(|index| {
            std::cmp::Reverse(self.edges.get(*index).map(|(_, decision)| *decision))
        });
        for glow in [true, false] {
            for index in &order {
                self.edge(out, *index, top, glow)?;
            }
        }
        for (index, node) in self.boxes.iter().enumerate() {
            self.node(out, index, node, top)?;
        }
        Ok(())
    }

    fn place(&self, index: usize, top: f64) -> Option<(f64, f64)> {
        let node = self.boxes.get(index)?;
        let middle = self.layout.boxes.get(index)?;
        Some((MARGIN + node.column as f64 * COLUMN, top + middle))
    }

    /// A line from box to box: curves between the columns, straight across each.
    fn edge(&self, out: &mut String, index: usize, top: f64, glow: bool) -> std::fmt::Result {
        let Some(((from, to), decision)) = self.edges.get(index) else {
            return Ok(());
        };
        if glow && *decision != Decision::Reachable {
            return Ok(());
        }
        let (Some((x1, y1)), Some((x2, y2))) = (self.place(*from, top), self.place(*to, top))
        else {
            return Ok(());
        };
        let mut at = (x1 + BOX_WIDTH, y1);
        let mut path = format!("M{:.1} {:.1}", at.0, at.1);
        let passes = self.layout.passes.get(index).into_iter().flatten();
        for (column, height) in passes {
            let x = MARGIN + *column as f64 * COLUMN;
            let y = top + height;
            curve(&mut path, at, (x, y))?;
            at = (x + BOX_WIDTH, y);
            write!(path, " L{:.1} {:.1}", at.0, at.1)?;
        }
        curve(&mut path, at, (x2 - 2.0, y2))?;
        if glow {
            writeln!(out, "<path class=\"glow\" d=\"{path}\"/>")
        } else {
            writeln!(
                out,
                "<path class=\"edge {0}\" d=\"{path}\" marker-end=\"url(#head-{0})\"/>",
                decision.word()
            )
        }
    }

    fn node(&self, out: &mut String, index: usize, node: &Box, top: f64) -> std::fmt::Result {
        let Some((x, middle)) = self.place(index, top) else {
            return Ok(());
        };
        let y = middle - BOX_HEIGHT / 2.0;
        if let Some(link) = &node.link {
            write!(out, "<a href=\"#{link}\">")?;
        }
        write!(
            out,
            "<g class=\"node {}{}\"><title>{}</title><rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{BOX_WIDTH}\" height=\"{BOX_HEIGHT}\" rx=\"7\"/><text x=\"{tx:.1}\" y=\"{:.1}\">{}</text><text class=\"small\" x=\"{tx:.1}\" y=\"{:.1}\">{}</text></g>",
            node.decision.word(),
            if node.sink { " sink" } else { "" },
            escape(&node.hover),
            y + 19.0,
            escape(&node.title),
            y + 36.0,
            escape(&node.detail),
            tx = x + 10.0,
        )?;
        out.write_str(if node.link.is_some() { "</a>\n" } else { "\n" })
    }
}

fn link(
    edges: &mut BTreeMap<(usize, usize), Decision>,
    from: Option<usize>,
    to: usize,
    decision: Decision,
) {
    if let Some(from) = from {
        let edge = edges.entry((from, to)).or_insert(decision);
        *edge = (*edge).min(decision);
    }
}

fn curve(path: &mut String, from: (f64, f64), to: (f64, f64)) -> std::fmt::Result {
    let middle = f64::midpoint(from.0, to.0);
    write!(
        path,
        " C{middle:.1} {:.1} {middle:.1} {:.1} {:.1} {:.1}",
        from.1, to.1, to.0, to.1
    )
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// A text cut to what a box can hold, by rough widths of characters.
fn short(text: &str) -> String {
    let width = |character: char| match character {
        'i' | 'j' | 'l' | '.' | ',' | ':' | ';' | '\'' | '|' | '!' => 0.55,
        'm' | 'w' | 'M' | 'W' | '@' | '%' => 1.5,
        'A'..='Z' => 1.2,
        '\u{1100}'.. => 2.0,
        _ => 1.0,
    };
    if text.chars().map(width).sum::<f64>() <= TEXT_MAX {
        return text.to_owned();
    }
    let mut used = 1.5;
    let mut out = String::new();
    for character in text.chars() {
        used += width(character);
        if used > TEXT_MAX {
            break;
        }
        out.push(character);
    }
    out.push('…');
    out
}
