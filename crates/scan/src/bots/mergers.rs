//! Bots that merge, by their own configuration: Mergify, Kodiak, Bulldozer.

use super::{Authors, Bot, Duty, Need, line_of, merger};
use crate::yaml::Node;

pub(super) fn mergify(file: &str, root: &Node) -> Vec<Bot> {
    let mut bots = Vec::new();
    let queue_conditions: Vec<String> = root
        .get("queue_rules")
        .map(Node::items)
        .unwrap_or_default()
        .iter()
        .flat_map(|rule| {
            ["queue_conditions", "merge_conditions", "conditions"]
                .iter()
                .flat_map(|key| conditions(rule.get(key)))
                .collect::<Vec<_>>()
        })
        .collect();
    for rule in root
        .get("queue_rules")
        .map(Node::items)
        .unwrap_or_default()
        .iter()
        .filter(|rule| rule.str_of("autoqueue") == Some("true"))
    {
        let mut all = conditions(rule.get("queue_conditions"));
        all.extend(conditions(rule.get("merge_conditions")));
        bots.push(mergify_rule(file, rule.line, &all, false));
    }
    for rule in root
        .get("pull_request_rules")
        .map(Node::items)
        .unwrap_or_default()
    {
        let Some(actions) = rule.get("actions") else {
            continue;
        };
        let merges = actions.get("merge").is_some() || actions.get("queue").is_some();
        let approves = actions.get("review").is_some_and(|review| {
            review
                .str_of("type")
                .is_none_or(|kind| kind.eq_ignore_ascii_case("approve"))
        });
        if !merges && !approves {
            continue;
        }
        let mut all = conditions(rule.get("conditions"));
        if actions.get("queue").is_some() {
            all.extend(queue_conditions.iter().cloned());
        }
        let mut bot = mergify_rule(file, rule.line, &all, approves);
        if !merges {
            // Only approves; merging is another rule's business.
            if let Duty::Merges { needs, .. } = &mut bot.duty {
                needs.push(Need::Command("a person merges".to_owned()));
            }
        }
        bots.push(bot);
    }
    // Rules that approve help the rules that merge, for the same authors.
    let approving: Vec<Authors> = bots
        .iter()
        .filter_map(|bot| match &bot.duty {
            Duty::Merges {
                authors,
                approves: true,
                ..
            } => Some(authors.clone()),
            Duty::Merges { .. } | Duty::Opens { .. } | Duty::Serves | Duty::Syncs => None,
        })
        .collect();
    for bot in &mut bots {
        if let Duty::Merges {
            authors, approves, ..
        } = &mut bot.duty
        {
            *approves |= approving.contains(authors);
        }
    }
    bots
}

fn mergify_rule(file: &str, line: usize, all: &[String], approves: bool) -> Bot {
    let (authors, needs) = demands(all);
    let mut bot = merger(
        "Mergify",
        "mergify[bot]",
        file,
        line,
        authors,
        needs,
        approves,
    );
    if let Duty::Merges { base, .. } = &mut bot.duty {
        *base = all.iter().find_map(|condition| {
            let name = condition.trim().strip_prefix("base")?.trim_start();
            let name = name.strip_prefix('=')?.trim();
            Some(name.trim_matches(['"', '\'']).to_owned())
        });
    }
    bot
}

fn conditions(node: Option<&Node>) -> Vec<String> {
    let Some(node) = node else { return Vec::new() };
    let mut out = Vec::new();
    for item in node.items() {
        if let Some(text) = item.text() {
            out.push(text.to_owned());
        } else if let Some(all) = item.get("and") {
            out.extend(conditions(Some(all)));
        } else if let Some(any) = item.get("or") {
            let inner = conditions(Some(any));
            // The easiest of the alternatives: one that names authors, else any.
            if inner.iter().all(|text| text.starts_with("author")) {
                out.extend(inner);
            } else if inner.iter().all(|text| is_gate(text)) {
                out.extend(inner.into_iter().next());
            }
        }
    }
    out
}

/// The texts that a pattern with one choice stands for: `dependabot(|-preview)\[bot\]`.
fn alternatives(pattern: &str) -> Vec<String> {
    let plain = |text: &str| text.replace('\\', "");
    if let Some((before, rest)) = pattern.split_once('(')
        && let Some((choices, after)) = rest.rsplit_once(')')
        && !choices.contains('(')
    {
        let choices = choices.trim_start_matches("?:");
        return choices
            .split('|')
            .map(|choice| plain(&format!("{before}{choice}{after}")))
            .collect();
    }
    pattern.split('|').map(plain).collect()
}

fn is_gate(text: &str) -> bool {
    text.contains("approved-reviews-by") || text.starts_with("label")
}

fn demands(all: &[String]) -> (Authors, Vec<Need>) {
    let mut logins = Vec::new();
    let mut needs = Vec::new();
    for condition in all {
        let text = condition.trim();
        if let Some(rest) = text.strip_prefix("author") {
            let name = rest
                .trim_start_matches(['~', '=', ' ', '^'])
                .trim_end_matches('$');
            if !rest.trim_start().starts_with('!') {
                logins.extend(alternatives(name));
            }
        } else if text.starts_with("-author") {
        } else if text.contains("approved-reviews-by")
            && !text.starts_with('-')
            && !text.ends_with(">=0")
            && !text.starts_with("#changes")
        {
            needs.push(Need::Review(text.to_owned()));
        } else if let Some(rest) = text.strip_prefix("label") {
            let name = rest
                .trim_start_matches(['~', '=', ' ', '^'])
                .trim_end_matches('$');
            if !rest.trim_start().starts_with('!') {
                needs.push(Need::Label(name.to_owned()));
            }
        }
    }
    let authors = if logins.is_empty() {
        Authors::Any
    } else {
        Authors::Only(logins)
    };
    (authors, needs)
}

pub(super) fn kodiak(file: &str, text: &str) -> Result<Vec<Bot>, String> {
    let value: toml::Value = toml::from_str(text).map_err(|error| error.message().to_owned())?;
    let merge = value.get("merge");
    let get = |key: &str| merge.and_then(|table| table.get(key));
    let label = get("automerge_label").and_then(|label| match label {
        toml::Value::Array(list) => list.first().and_then(toml::Value::as_str),
        other => other.as_str(),
    });
    let label = label.unwrap_or("automerge").to_owned();
    let required = get("require_automerge_label")
        .and_then(toml::Value::as_bool)
        .unwrap_or(true);
    let line = line_of(text, "merge");
    let logins = |value: Option<&toml::Value>| -> Vec<String> {
        value
            .and_then(toml::Value::as_array)
            .map(|list| {
                list.iter()
                    .filter_map(toml::Value::as_str)
                    .map(str::to_owned)
                    .collect()
            })
            .unwrap_or_default()
    };
    let approved = logins(
        value
            .get("approve")
            .and_then(|table| table.get("auto_approve_usernames")),
    );
    let mut bots = vec![merger(
        "Kodiak",
        "kodiakhq[bot]",
        file,
        line,
        Authors::Any,
        if required {
            vec![Need::Label(label)]
        } else {
            Vec::new()
        },
        false,
    )];
    let dependencies =
        logins(get("automerge_dependencies").and_then(|table| table.get("usernames")));
    if !dependencies.is_empty() {
        let approves = dependencies.iter().any(|name| approved.contains(name));
        bots.push(merger(
            "Kodiak",
            "kodiakhq[bot]",
            file,
            line_of(text, "automerge_dependencies"),
            Authors::Only(dependencies),
            Vec::new(),
            approves,
        ));
    }
    if !approved.is_empty()
        && let Some(Bot {
            duty: Duty::Merges { needs, .. },
            ..
        }) = bots.first()
    {
        let needs = needs.clone();
        bots.push(merger(
            "Kodiak",
            "kodiakhq[bot]",
            file,
            line_of(text, "auto_approve_usernames"),
            Authors::Only(approved),
            needs,
            true,
        ));
    }
    Ok(bots)
}

/// Mergeable: rules that merge where their validations pass.
pub(super) fn mergeable(file: &str, root: &Node) -> Vec<Bot> {
    let mut bots = Vec::new();
    for rule in root.get("mergeable").map(Node::items).unwrap_or_default() {
        let does = |key: &str, wanted: &str| {
            rule.get(key)
                .map(Node::items)
                .unwrap_or_default()
                .iter()
                .any(|item| item.str_of("do") == Some(wanted))
        };
        if !does("pass", "merge") {
            continue;
        }
        let mut needs = Vec::new();
        if does("validate", "approvals") {
            needs.push(Need::Review("Mergeable asks for approvals".to_owned()));
        }
        let authors: Vec<String> = rule
            .get("filter")
            .map(Node::items)
            .unwrap_or_default()
            .iter()
            .filter(|item| item.str_of("do") == Some("author"))
            .filter_map(|item| item.at(&["must_include", "regex"]).and_then(Node::text))
            .flat_map(|pattern| alternatives(pattern.trim_matches(['^', '$', '/'])))
            .collect();
        for item in rule.get("validate").map(Node::items).unwrap_or_default() {
            if item.str_of("do") == Some("label")
                && let Some(label) = item.at(&["must_include", "regex"]).and_then(Node::text)
            {
                needs.push(Need::Label(label.trim_matches(['^', '$']).to_owned()));
            }
        }
        let authors = if authors.is_empty() {
            Authors::Any
        } else {
            Authors::Only(authors)
        };
        bots.push(merger(
            "Mergeable",
            "mergeable[bot]",
            file,
            rule.line,
            authors,
            needs,
            false,
        ));
    }
    bots
}

/// The apps that merge by a file of approvals and labels (auto-merge, its forks).
pub(super) fn auto_merge_app(file: &str, root: &Node) -> Vec<Bot> {
    let known = ["minApprovals", "requiredLabels", "mergeMethod", "rules"];
    if !known.iter().any(|key| root.get(key).is_some()) {
        return Vec::new();
    }
    let rules = root.get("rules").map(Node::items).unwrap_or_default();
    let wholes: Vec<&Node> = if rules.is_empty() {
        vec![root]
    } else {
        rules.iter().collect()
    };
    wholes
        .into_iter()
        .map(|rule| {
            let mut needs: Vec<Need> = rule
                .get("requiredLabels")
                .map(Node::texts)
                .unwrap_or_default()
                .iter()
                .map(|label| Need::Label((*label).to_owned()))
                .collect();
            let approvals = rule
                .get("minApprovals")
                .or_else(|| root.get("minApprovals"));
            // Approvals are those of accounts that stand to the repository as the keys say.
            let asks = approvals.is_none_or(|list| {
                list.entries()
                    .iter()
                    .any(|entry| entry.value.text().is_some_and(|count| count.trim() != "0"))
            });
            if asks {
                needs.push(Need::Review("minApprovals".to_owned()));
            }
            merger(
                "Auto Merge",
                "probot-auto-merge[bot]",
                file,
                rule.line.max(1),
                Authors::Any,
                needs,
                false,
            )
        })
        .collect()
}

pub(super) fn bulldozer(file: &str, root: &Node) -> Vec<Bot> {
    let trigger = root
        .at(&["merge", "trigger"])
        .or_else(|| root.at(&["merge", "whitelist"]))
        .or_else(|| root.at(&["merge", "allowlist"]));
    let mut needs = Vec::new();
    // The first form of the file.
    if root.str_of("mode") == Some("whitelist") {
        needs.push(Need::Label("merge when ready".to_owned()));
    }
    if let Some(trigger) = trigger {
        if let Some(label) = trigger
            .get("labels")
            .and_then(|list| list.texts().first().map(|label| (*label).to_owned()))
        {
            needs.push(Need::Label(label));
        } else if trigger.get("comments").is_some() || trigger.get("comment_substrings").is_some() {
            needs.push(Need::Fact(
                "whether Bulldozer takes its comment from accounts without rights".to_owned(),
            ));
        }
    }
    vec![merger(
        "Bulldozer",
        "bulldozer[bot]",
        file,
        1,
        Authors::Any,
        needs,
        false,
    )]
}
