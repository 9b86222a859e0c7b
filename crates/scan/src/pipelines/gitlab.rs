//! GitLab CI.

use super::{
    Draft, Here, PARTS_MAX, any, both, either, equals, flag, is_tag, not, trigger, workflow,
};
use crate::expr::{Expr, Value};
use crate::workflow::{Job, MANUAL, System, Workflow};
use crate::yaml::{self, Entry, Kind, Node, YamlError};

/// Deepest chain of `extends` and of `include`.
const DEPTH_MAX: usize = 10;
/// Most jobs of one pipeline, included files counted.
const JOBS_MAX: usize = 1_000;
/// Most keys of one pipeline, jobs and templates among them, included files counted.
const ENTRIES_MAX: usize = 5_000;
/// Most templates that one job extends.
const PARENTS_MAX: usize = 32;
/// Most values of one pipeline with what they refer to.
const REFERRED_MAX: usize = 20_000;
/// Most files that one pipeline includes.
const INCLUDES_MAX: usize = 100;
/// Most jobs that hold others up.
const HOLDING_MAX: usize = 50;

const KEYWORDS: &[&str] = &[
    "stages",
    "variables",
    "workflow",
    "default",
    "include",
    "image",
    "services",
    "before_script",
    "after_script",
    "cache",
    "pages",
    "spec",
];

pub(super) fn read(file: &str, text: &str, here: Here<'_>) -> Result<Option<Workflow>, YamlError> {
    let root = yaml::parse_one(text)?;
    let mut entries: Vec<(String, Entry)> = Vec::new();
    let mut seen = vec![file.to_owned()];
    gather(file, &root, here, &mut entries, &mut seen, 0);
    let whole = entries.clone();
    let mut left = REFERRED_MAX;
    for (_, entry) in &mut entries {
        entry.value = referred(&entry.value, &whole, 0, &mut left);
    }
    let mut jobs = jobs_of(&entries, here);
    let mut files = INCLUDES_MAX;
    children(&mut jobs, &entries, here, &mut files, 0);
    if jobs.is_empty() {
        return Ok(None);
    }
    hold_up(&mut jobs, &entries);
    let mut all = text.to_ascii_lowercase();
    for included in seen.iter().skip(1) {
        all.push_str(
            &here
                .tree
                .read(included)
                .unwrap_or_default()
                .to_ascii_lowercase(),
        );
    }
    let mut triggers = vec![
        trigger("push", 1),
        trigger("pull_request", 1),
        trigger("workflow_dispatch", 1),
    ];
    // Schedules and trigger tokens live in settings; the file tells of them where it asks for them.
    if all.contains("schedule") {
        triggers.push(trigger("schedule", line_of(text, "schedule")));
    }
    if all.contains("\"trigger\"")
        || all.contains("triggers")
        || all.contains("\"pipeline\"")
        || all.contains("'trigger'")
    {
        triggers.push(trigger("repository_dispatch", line_of(text, "trigger")));
    }
    Ok(Some(workflow(System::GitLab, file, file, triggers, jobs)))
}

fn jobs_of(entries: &[(String, Entry)], here: Here<'_>) -> Vec<Job> {
    entries
        .iter()
        .filter(|(_, entry)| is_job(entry))
        .take(JOBS_MAX)
        .flat_map(|(from, entry)| job(from, entry, entries, here))
        .collect()
}

fn is_job(entry: &Entry) -> bool {
    let known = KEYWORDS.contains(&entry.key.as_str()) && entry.key != "pages";
    !known && !entry.key.starts_with('.') && entry.value.is_map()
}

/// What jobs with `trigger: include` start: the jobs of a pipeline of their own, which know that a
/// pipeline started them. Files of other projects are not there.
fn children(
    jobs: &mut Vec<Job>,
    entries: &[(String, Entry)],
    here: Here<'_>,
    files: &mut usize,
    depth: usize,
) {
    for (_, entry) in entries.iter().filter(|(_, entry)| is_job(entry)) {
        let Some(include) = key(&entry.value, "trigger", entries).and_then(|to| to.get("include"))
        else {
            continue;
        };
        let mut inner: Vec<(String, Entry)> = Vec::new();
        let mut seen: Vec<String> = Vec::new();
        for path in includes(include) {
            let path = path.trim_start_matches('/').to_owned();
            if depth >= DEPTH_MAX || *files == 0 || seen.contains(&path) {
                continue;
            }
            *files -= 1;
            seen.push(path.clone());
            let Ok(text) = here.tree.read(&path) else {
                continue;
            };
            if let Ok(root) = yaml::parse_one(&text) {
                gather(&path, &root, here, &mut inner, &mut seen, depth + 1);
            }
        }
        let whole = inner.clone();
        let mut left = REFERRED_MAX;
        for (_, entry) in &mut inner {
            entry.value = referred(&entry.value, &whole, 0, &mut left);
        }
        let mut started = jobs_of(&inner, here);
        children(&mut started, &inner, here, files, depth + 1);
        hold_up(&mut started, &inner);
        let mut given = Vec::new();
        variables(&entry.value, entries, &mut given);
        // By its rules a job may be started by itself or by a person; so is what it starts.
        let starters: Vec<String> = jobs
            .iter()
            .map(|job| &job.id)
            .filter(|id| **id == entry.key || id.strip_suffix(MANUAL) == Some(&entry.key))
            .cloned()
            .collect();
        for id in starters {
            if jobs.len().saturating_add(started.len()) > JOBS_MAX {
                break;
            }
            jobs.extend(started.iter().map(|job| child(job.clone(), &id, &given)));
        }
    }
}

/// A job of a pipeline that another job starts, with the variables that it is handed.
fn child(mut job: Job, starter: &str, given: &[(String, String)]) -> Job {
    for id in job.needs.iter_mut().chain(&mut job.after) {
        *id = format!("{starter}/{id}");
    }
    job.id = format!("{starter}/{}", job.id);
    job.needs.push(starter.to_owned());
    for (name, value) in given {
        job.env.retain(|(known, _)| known != name);
        job.env.push((name.clone(), value.clone()));
    }
    if let Some(expr) = job.condition.as_mut().and_then(|it| it.expr.as_mut()) {
        *expr = replaced(expr, &|path| {
            (path == "$ci_pipeline_source").then(|| super::text("parent_pipeline"))
        });
    }
    job
}

/// Jobs that name none to wait for wait for the stages before theirs; one there that a person must
/// start, and that may not be left out, holds them up.
fn hold_up(jobs: &mut [Job], all: &[(String, Entry)]) {
    let stages: Vec<String> = all
        .iter()
        .find(|(_, entry)| entry.key == "stages")
        .map(|(_, entry)| entry.value.texts().into_iter().map(str::to_owned).collect())
        .unwrap_or_else(|| ["build", "test", "deploy"].map(str::to_owned).to_vec());
    let place = |entry: &Entry| {
        let stage = key(&entry.value, "stage", all)
            .and_then(Node::text)
            .unwrap_or("test");
        match stage {
            ".pre" => Some(0),
            ".post" => Some(stages.len() + 1),
            _ => stages.iter().position(|one| one == stage).map(|at| at + 1),
        }
    };
    let of = |id: &str| {
        let name = id.strip_suffix(MANUAL).unwrap_or(id);
        all.iter()
            .map(|(_, entry)| entry)
            .find(|entry| entry.key == name)
    };
    let holding: Vec<(usize, String)> = jobs
        .iter()
        .filter(|job| job.manual.is_some())
        .filter_map(|job| {
            let entry = of(&job.id)?;
            let get = |name: &str| key(&entry.value, name, all);
            // By rules a manual job holds the pipeline up, by `when` alone it does not.
            let rule = get("rules").and_then(|rules| {
                let manual = |rule: &&Node| rule.str_of("when") == Some("manual");
                rules.items().iter().find(manual)
            });
            let said = rule
                .and_then(|rule| rule.str_of("allow_failure"))
                .or_else(|| get("allow_failure").and_then(Node::text));
            let holds = said.map_or(rule.is_some(), |said| said == "false");
            holds.then(|| Some((place(entry)?, job.id.clone())))?
        })
        .take(HOLDING_MAX)
        .collect();
    if holding.is_empty() {
        return;
    }
    for job in jobs {
        let Some(entry) = of(&job.id) else { continue };
        let Some(at) = place(entry).filter(|_| key(&entry.value, "needs", all).is_none()) else {
            continue;
        };
        let before = holding.iter().filter(|(before, _)| *before < at);
        job.after.extend(before.map(|(_, id)| id.clone()));
    }
}

/// An expression with some of its names replaced.
fn replaced(expr: &Expr, with: &dyn Fn(&str) -> Option<Expr>) -> Expr {
    let inner = |expr: &Expr| Box::new(replaced(expr, with));
    match expr {
        Expr::Path(path) => with(path).unwrap_or_else(|| expr.clone()),
        Expr::Literal(_) => expr.clone(),
        Expr::Call(name, list) => Expr::Call(
            name.clone(),
            list.iter().map(|one| replaced(one, with)).collect(),
        ),
        Expr::Not(one) => Expr::Not(inner(one)),
        Expr::Both(left, right) => Expr::Both(inner(left), inner(right)),
        Expr::Either(left, right) => Expr::Either(inner(left), inner(right)),
        Expr::Compare(left, how, right) => Expr::Compare(inner(left), *how, inner(right)),
    }
}

/// The first line that asks for what a word names, rather than leaving it out.
fn line_of(text: &str, word: &str) -> usize {
    let mut left_out = false;
    for (index, line) in text.lines().enumerate() {
        let lower = line.trim().to_ascii_lowercase();
        if lower.starts_with('#') {
            continue;
        }
        if lower.starts_with("except:") {
            left_out = true;
        } else if lower.contains(':') && !lower.starts_with('-') {
            left_out = false;
        }
        if lower.contains(word) && !left_out && !lower.contains("!=") {
            return index + 1;
        }
    }
    1
}

fn gather(
    file: &str,
    root: &Node,
    here: Here<'_>,
    into: &mut Vec<(String, Entry)>,
    seen: &mut Vec<String>,
    depth: usize,
) {
    for include in root.get("include").map(includes).unwrap_or_default() {
        let path = include.trim_start_matches('/').to_owned();
        if depth >= DEPTH_MAX || seen.len() >= INCLUDES_MAX || seen.contains(&path) {
            continue;
        }
        seen.push(path.clone());
        if let Ok(text) = here.tree.read(&path)
            && let Ok(node) = yaml::parse_one(&text)
        {
            gather(&path, &node, here, into, seen, depth + 1);
        }
    }
    for entry in root.entries() {
        if into.len() >= ENTRIES_MAX {
            break;
        }
        if let Some(known) = into.iter_mut().find(|(_, known)| known.key == entry.key) {
            *known = (file.to_owned(), entry.clone());
        } else {
            into.push((file.to_owned(), entry.clone()));
        }
    }
}

fn includes(node: &Node) -> Vec<String> {
    let one = |node: &Node| {
        node.text()
            .or_else(|| node.str_of("local"))
            .filter(|path| !path.contains("://"))
            .map(str::to_owned)
    };
    match &node.kind {
        Kind::List(items) => items.iter().filter_map(one).collect(),
        Kind::Scalar { .. } | Kind::Map(_) => one(node).into_iter().collect(),
    }
}

/// A node with its `!reference [.job, script]` put in.
fn referred(node: &Node, all: &[(String, Entry)], depth: usize, left: &mut usize) -> Node {
    if depth >= DEPTH_MAX || *left == 0 {
        return node.clone();
    }
    *left -= 1;
    let target = |node: &Node| -> Option<Node> {
        let texts = node
            .items()
            .iter()
            .map(Node::text)
            .collect::<Option<Vec<_>>>()?;
        let (first, rest) = texts.split_first()?;
        if rest.is_empty() || !KEYS.contains(rest.first()?) {
            return None;
        }
        let entry = all.iter().find(|(_, entry)| entry.key == *first)?;
        entry.1.value.at(rest).cloned()
    };
    match &node.kind {
        Kind::Map(entries) => {
            let entries = entries
                .iter()
                .map(|entry| Entry {
                    value: match target(&entry.value) {
                        Some(found) => referred(&found, all, depth + 1, left),
                        None => referred(&entry.value, all, depth + 1, left),
                    },
                    key: entry.key.clone(),
                    line: entry.line,
                })
                .collect();
            node.with_kind(Kind::Map(entries))
        }
        Kind::List(items) => {
            let mut out = Vec::new();
            for item in items {
                match target(item) {
                    Some(found) => {
                        let found = referred(&found, all, depth + 1, left);
                        match found.kind {
                            Kind::List(items) if !items.is_empty() => {
                                *left = left.saturating_sub(items.len());
                                out.extend(items);
                            }
                            Kind::List(_) | Kind::Scalar { .. } | Kind::Map(_) => out.push(found),
                        }
                    }
                    None => out.push(referred(item, all, depth + 1, left)),
                }
            }
            node.with_kind(Kind::List(out))
        }
        Kind::Scalar { .. } => node.clone(),
    }
}

/// Keys that references name.
const KEYS: &[&str] = &[
    "script",
    "before_script",
    "after_script",
    "rules",
    "variables",
    "only",
    "except",
    "environment",
    "needs",
    "release",
];

/// A job and what it extends, nearest first, each once.
fn descent<'a>(node: &'a Node, all: &'a [(String, Entry)]) -> Vec<&'a Node> {
    let mut out = vec![node];
    let mut names: Vec<&str> = Vec::new();
    // Of several parents the last has the word.
    let mut next = node.get("extends").map(Node::texts).unwrap_or_default();
    while let Some(name) = next.pop() {
        if out.len() > PARENTS_MAX || names.contains(&name) {
            continue;
        }
        names.push(name);
        if let Some((_, entry)) = all.iter().find(|(_, entry)| entry.key == name) {
            out.push(&entry.value);
            next.extend(
                entry
                    .value
                    .get("extends")
                    .map(Node::texts)
                    .unwrap_or_default(),
            );
        }
    }
    out
}

/// A key of a job, through `extends`.
fn key<'a>(node: &'a Node, name: &str, all: &'a [(String, Entry)]) -> Option<&'a Node> {
    descent(node, all)
        .into_iter()
        .find_map(|node| node.get(name))
}

/// The variables of a job, those of what it extends first.
fn variables(node: &Node, all: &[(String, Entry)], out: &mut Vec<(String, String)>) {
    for node in descent(node, all).into_iter().rev() {
        for (name, value) in crate::workflow::pairs(node.get("variables")) {
            out.retain(|(known, _)| *known != name);
            out.push((name, value));
        }
    }
}

fn job(file: &str, entry: &Entry, all: &[(String, Entry)], here: Here<'_>) -> Vec<Job> {
    let node = &entry.value;
    let get = |name: &str| key(node, name, all);
    let top = |name: &str| {
        let (_, entry) = all.iter().find(|(_, entry)| entry.key == name)?;
        Some(&entry.value)
    };
    let draft = |manual: bool| {
        let mut draft = Draft::new(&entry.key, entry.line, file, here);
        for entry in top("variables").map(Node::entries).unwrap_or_default() {
            let value = entry.value.text().or_else(|| entry.value.str_of("value"));
            if let Some(value) = value {
                draft.job.env.push((entry.key.clone(), value.to_owned()));
            }
        }
        variables(node, all, &mut draft.job.env);
        let lines = |name: &str| {
            let mut lines = Vec::new();
            let said = get(name)
                .or_else(|| top("default").and_then(|all| all.get(name)))
                .or_else(|| top(name));
            if let Some(said) = said {
                said.scalars(&mut lines);
            }
            lines
        };
        let mut script = lines("before_script");
        script.extend(lines("script"));
        draft.shell(&script);
        draft.shell(&lines("after_script"));
        let pages = get("pages").is_some_and(|pages| pages.text() != Some("false"));
        if entry.key == "pages" && get("pages").is_none() || pages {
            draft.act(
                crate::acts::Act::deploy(format!("GitLab Pages (job {})", entry.key)),
                entry.line,
            );
        }
        if let Some(release) = get("release").filter(|release| release.is_map()) {
            let op = crate::acts::Op::Release {
                draft: None,
                tag: release.str_of("tag_name").map(str::to_owned),
            };
            let token = crate::acts::Token::Value("secrets.CI_JOB_TOKEN".to_owned());
            draft.act(
                crate::acts::Act::new(op, "release of the job", token),
                release.line,
            );
        }
        if let Some(environment) = get("environment") {
            let name = environment.text().or_else(|| environment.str_of("name"));
            let stops = environment
                .str_of("action")
                .is_some_and(|action| matches!(action, "stop" | "prepare" | "verify"));
            if let Some(name) = name.filter(|_| !stops) {
                draft.job.environment = Some((name.to_owned(), environment.line));
            }
        }
        for item in get("needs").map(Node::items).unwrap_or_default() {
            let Some(name) = item.text().or_else(|| item.str_of("job")) else {
                continue;
            };
            // What may be missing holds up only where it is there.
            if item.str_of("optional") == Some("true") {
                draft.job.after.push(name.to_owned());
            } else {
                draft.job.needs.push(name.to_owned());
            }
        }
        if manual {
            let line = get("when")
                .or_else(|| get("rules"))
                .map_or(entry.line, |when| when.line);
            draft.job.manual = Some(("a person starts the manual job", line));
        }
        draft
    };
    let whole = top("workflow")
        .and_then(|workflow| workflow.get("rules"))
        .map_or(flag(true), |rules| by_rules(rules, false));
    if let Some(rules) = get("rules") {
        let mut out = Vec::new();
        let mut automatic = draft(false);
        automatic.only_if(
            Some(both(whole.clone(), by_rules(rules, false))),
            "rules",
            rules.line,
        );
        out.push(automatic.done());
        if rules
            .items()
            .iter()
            .any(|rule| rule.str_of("when") == Some("manual"))
        {
            let mut manual = draft(true);
            manual.job.id.push_str(MANUAL);
            manual.only_if(
                Some(both(whole, by_rules(rules, true))),
                "rules",
                rules.line,
            );
            out.push(manual.done());
        }
        return out;
    }
    let mut out = draft(get("when").and_then(Node::text) == Some("manual"));
    let mut expr = match get("only") {
        Some(only) => refs(only),
        // Without rules a job runs for branches and tags, not for merge requests.
        None => not(equals("$ci_pipeline_source", "merge_request_event")),
    };
    if let Some(changes) = get("only").and_then(|only| only.get("changes")) {
        let by_ref = get("only").is_some_and(|only| only.get("refs").is_some());
        let rest = if by_ref {
            expr
        } else {
            not(equals("$ci_pipeline_source", "merge_request_event"))
        };
        expr = both(rest, changed(changes));
    }
    if let Some(except) = get("except") {
        expr = both(expr, not(refs(except)));
    }
    if get("when").and_then(Node::text) == Some("never") {
        expr = flag(false);
    }
    out.only_if(Some(both(whole, expr)), "only/except", entry.line);
    vec![out.done()]
}

/// The first rule that fits decides; `manual` asks for those that a person starts.
fn by_rules(rules: &Node, manual: bool) -> Expr {
    let rules = rules.items();
    let beyond = if rules.len() > PARTS_MAX {
        Expr::Literal(Value::Open)
    } else {
        flag(false)
    };
    rules
        .iter()
        .take(PARTS_MAX)
        .rev()
        .fold(beyond, |rest, rule| {
            let fits = match rule.str_of("if") {
                None => flag(true),
                Some(text) => asked(text),
            };
            let fits = match rule.get("changes") {
                Some(changes) => both(fits, changed(changes)),
                None => fits,
            };
            let when = rule.str_of("when").unwrap_or("on_success");
            let wanted = if manual {
                when == "manual"
            } else {
                !matches!(when, "never" | "manual")
            };
            either(both(fits.clone(), flag(wanted)), both(not(fits), rest))
        })
}

/// What a rule asks for. A schedule sets variables of its own, over those of the file: beside a
/// question for schedules they may be what is asked for.
fn asked(text: &str) -> Expr {
    let Some(expr) = super::parse(text) else {
        return Expr::Literal(Value::Open);
    };
    let scheduled = text.split("&&").any(|part| {
        part.contains("CI_PIPELINE_SOURCE") && part.contains("schedule") && !part.contains("!=")
    });
    if scheduled { as_set(&expr) } else { expr }
}

/// A question with the variables that a schedule may set left open.
fn as_set(expr: &Expr) -> Expr {
    replaced(expr, &|path| {
        let own =
            path.starts_with("$ci_") || path.starts_with("$gitlab_") || !path.starts_with('$');
        (!own).then_some(Expr::Literal(Value::Open))
    })
}

/// Whether files of these patterns changed, where that can be told.
fn changed(node: &Node) -> Expr {
    let list = node.get("paths").unwrap_or(node);
    let patterns = list.texts();
    if patterns.is_empty() || patterns.iter().any(|pattern| pattern.contains('$')) {
        return flag(true);
    }
    Expr::Path(format!("$changes {}", patterns.join("\n")))
}

fn refs(node: &Node) -> Expr {
    let list = node.get("refs").unwrap_or(node);
    let texts = list.texts();
    let by_ref = any(texts.iter().map(|name| {
        let source = |wanted: &str| equals("$ci_pipeline_source", wanted);
        match *name {
            "branches" => Expr::Path("$ci_commit_branch".to_owned()),
            "tags" => is_tag(),
            "merge_requests" => source("merge_request_event"),
            "schedules" => source("schedule"),
            "web" => source("web"),
            "triggers" => source("trigger"),
            "api" => source("api"),
            "pipelines" => source("pipeline"),
            "pushes" => source("push"),
            "external" | "external_pull_requests" | "chat" => flag(false),
            other => super::branch_is(other.split('@').next().unwrap_or(other)),
        }
    }));
    let by_variable = node.get("variables").map(Node::texts).unwrap_or_default();
    if by_variable.is_empty() {
        return by_ref;
    }
    let scheduled = list.texts().contains(&"schedules");
    let variables = any(by_variable.iter().map(|text| {
        let asked = super::parse(text).unwrap_or(Expr::Literal(Value::Open));
        if scheduled { as_set(&asked) } else { asked }
    }));
    if list.texts().is_empty() {
        variables
    } else {
        both(by_ref, variables)
    }
}
