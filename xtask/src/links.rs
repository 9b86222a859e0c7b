//! Relative links in Markdown files lead to files and headings that exist.

use std::path::{Component, Path, PathBuf};

use crate::workspace;

/// Every link that leads nowhere, one line each.
pub(crate) fn broken() -> Result<Vec<String>, String> {
    let files = workspace::files()?;
    let mut found = Vec::new();
    for name in files.iter().filter(|name| name.ends_with(".md")) {
        let text = workspace::text(name)?.unwrap_or_default();
        for link in links(&text) {
            if let Some(why) = problem(name, &link.target, &text)? {
                found.push(format!("{name}:{}: {} {why}", link.line, link.target));
            }
        }
    }
    Ok(found)
}

struct Link {
    target: String,
    line: usize,
}

/// `[text](target)` and `[label]: target`, outside code.
fn links(text: &str) -> Vec<Link> {
    let mut links = Vec::new();
    let mut fenced = false;
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        let prose = without_code_spans(line);
        let mut rest = prose.as_str();
        while let Some((_, after)) = rest.split_once("](") {
            let (target, after) = after.split_once(')').unwrap_or((after, ""));
            let target = target.split_whitespace().next().unwrap_or("");
            links.push(Link {
                target: target.to_owned(),
                line: number + 1,
            });
            rest = after;
        }
        if let Some((label, target)) = prose.split_once("]: ")
            && label.starts_with('[')
            && !label.starts_with("[^")
        {
            links.push(Link {
                target: target.trim().to_owned(),
                line: number + 1,
            });
        }
    }
    links
}

fn without_code_spans(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join(" ")
}

/// Why a link leads nowhere; `None` if it leads somewhere, or out of the project.
fn problem(from: &str, target: &str, text: &str) -> Result<Option<String>, String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return Ok(None);
    }
    let (path, heading) = target.split_once('#').unwrap_or((target, ""));
    let target_text = if path.is_empty() {
        Some(text.to_owned())
    } else {
        let Some(inside) = resolve(from, path) else {
            return Ok(Some("leads out of the project".to_owned()));
        };
        if !workspace::root().join(&inside).exists() {
            return Ok(Some("does not exist".to_owned()));
        }
        let name = inside.to_string_lossy().into_owned();
        match name.ends_with(".md") {
            true => workspace::text(&name)?,
            false => None,
        }
    };
    let missing = !heading.is_empty()
        && target_text.is_some_and(|text| !anchors(&text).iter().any(|anchor| anchor == heading));
    Ok(missing.then(|| format!("has no heading #{heading}")))
}

/// The path relative to the root; `None` if it leaves it.
fn resolve(from: &str, target: &str) -> Option<PathBuf> {
    let mut path = Path::new(from).parent()?.to_path_buf();
    for part in Path::new(target).components() {
        match part {
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            Component::ParentDir => {
                if !path.pop() {
                    return None;
                }
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(path)
}

/// The anchors of a text's headings, as forges make them.
fn anchors(text: &str) -> Vec<String> {
    let mut fenced = false;
    text.lines()
        .filter(|line| {
            fenced ^= line.trim_start().starts_with("```");
            !fenced && line.starts_with('#')
        })
        .map(|line| {
            line.trim_start_matches('#')
                .trim()
                .to_lowercase()
                .chars()
                .filter(|character| character.is_alphanumeric() || " -_".contains(*character))
                .map(|character| if character == ' ' { '-' } else { character })
                .collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_link_of_ours_leads_somewhere() {
        let found = broken().unwrap();
        assert!(found.is_empty(), "{}", found.join("\n"));
    }

    #[test]
    fn links_in_code_are_no_links() {
        let text = "[a](b.md) `[c](d.md)`\n```\n[e](f.md)\n```\n[g]: h.md\n[i](j.md \"title\")";
        let targets: Vec<String> = links(text).into_iter().map(|link| link.target).collect();
        assert_eq!(targets, ["b.md", "h.md", "j.md"]);
    }

    #[test]
    fn what_leads_nowhere_is_told() {
        let told = |target: &str| problem("docs/a.md", target, "# One heading\n").unwrap();
        assert_eq!(told("../Cargo.toml"), None);
        assert_eq!(told("https://example.com/none"), None);
        assert_eq!(told("#one-heading"), None);
        assert!(told("#another").is_some());
        assert!(told("no-such-file.md").is_some());
        assert!(told("../../elsewhere.md").is_some());
        assert!(told("/etc/passwd").is_some());
    }

    #[test]
    fn anchors_are_those_of_the_forges() {
        assert_eq!(
            anchors("## The 13 invariants, kept"),
            ["the-13-invariants-kept"]
        );
    }
}
