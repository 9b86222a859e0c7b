//! What the names in a script stand for, as far as the files say: a workflow's inputs by their
//! defaults, options and callers, variables of the environment, and the lists of a matrix.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::{Input, Pairs};
use crate::expr::{self, Expr};
use crate::tree::Tree;
use crate::yaml::{self, Node};

/// Most texts that one text may stand for; what stands for more is unknown.
const VARIANTS_MAX: usize = 32;
/// Deepest chain of names that stand for names.
const DEPTH_MAX: usize = 6;
/// Most files that are searched for callers of a workflow.
const CALLERS_MAX: usize = 200;

/// The values that a job's scripts may see.
#[derive(Clone, Debug, Default)]
pub(crate) struct Values {
    /// Innermost last.
    env: Vec<(String, String)>,
    /// `os` or `package.name`, lower-cased, and what it may be.
    matrix: Vec<(String, Vec<String>)>,
    /// Lower-cased names.
    inputs: Vec<(String, Vec<String>)>,
    /// The file whose callers give its inputs.
    called: Option<String>,
    /// What its callers give, by input: looked up once for all jobs.
    callers: Rc<RefCell<BTreeMap<String, Vec<String>>>>,
}

/// One text that another may stand for, and the templates that hold where it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Variant {
    pub(crate) text: String,
    pub(crate) only_if: Vec<String>,
}

impl Values {
    pub(super) fn of_workflow(file: &str, triggers: &[super::Trigger], env: &Pairs) -> Self {
        let mut out = Self {
            env: env.clone(),
            ..Self::default()
        };
        for trigger in triggers {
            if trigger.event == "workflow_call" {
                out.called = Some(file.to_owned());
            }
            for input in &trigger.inputs {
                out.add_input(input);
            }
        }
        out
    }

    fn add_input(&mut self, input: &Input) {
        let mut texts: Vec<String> = input.options.clone();
        texts.extend(input.default.clone().filter(|text| !text.is_empty()));
        if input.boolean {
            texts = vec!["true".to_owned(), "false".to_owned()];
        }
        match self.inputs.iter_mut().find(|(name, _)| *name == input.name) {
            Some((_, known)) => known.append(&mut texts),
            None => self.inputs.push((input.name.clone(), texts)),
        }
    }

    /// The values of one job of the workflow.
    pub(super) fn of_job(&self, env: &Pairs, strategy: Option<&Node>) -> Self {
        let mut out = self.clone();
        out.env.extend(env.iter().cloned());
        if let Some(matrix) = strategy.and_then(|strategy| strategy.get("matrix")) {
            out.add_matrix(matrix);
        }
        out
    }

    fn add_matrix(&mut self, matrix: &Node) {
        for entry in matrix.entries() {
            if entry.key == "exclude" {
                continue;
            }
            for item in entry.value.items() {
                if entry.key == "include" {
                    self.add_member("", item);
                } else {
                    self.add_member(&entry.key, item);
                }
            }
            if let Some(text) = entry.value.text() {
                for item in json_texts(text) {
                    self.add_choice(&entry.key, &item);
                }
            }
        }
    }

    fn add_member(&mut self, name: &str, node: &Node) {
        if let Some(text) = node.text() {
            self.add_choice(name, text);
        }
        for entry in node.entries() {
            let inner = if name.is_empty() {
                entry.key.clone()
            } else {
                format!("{name}.{}", entry.key)
            };
            self.add_member(&inner, &entry.value);
        }
    }

    fn add_choice(&mut self, name: &str, text: &str) {
        let name = name.to_ascii_lowercase();
        match self.matrix.iter_mut().find(|(known, _)| *known == name) {
            Some((_, list)) => {
                if !list.iter().any(|known| known == text) {
                    list.push(text.to_owned());
                }
            }
            None => self.matrix.push((name, vec![text.to_owned()])),
        }
    }

    /// The values inside a composite action: its inputs, given by these texts.
    pub(super) fn inside(&self, given: &Pairs, step_env: &Pairs, tree: &Tree) -> Self {
        let mut out = Self {
            env: self.env.clone(),
            ..Self::default()
        };
        out.env.extend(step_env.iter().cloned());
        for (name, text) in given {
            let texts = self
                .of(text, step_env, &[], tree)
                .unwrap_or_default()
                .into_iter()
                .map(|variant| variant.text)
                .filter(|text| !text.is_empty())
                .collect();
            out.inputs.push((name.to_ascii_lowercase(), texts));
        }
        out
    }

    /// Notes a variable that a step leaves for the next ones (`>> $GITHUB_ENV`).
    pub(super) fn leave(&mut self, script: &str) {
        for line in script.lines().filter(|line| line.contains("GITHUB_ENV")) {
            let Some(rest) = line.split_once("echo ").map(|(_, rest)| rest.trim_start()) else {
                continue;
            };
            let rest = rest.split(">>").next().unwrap_or_default().trim();
            let rest = rest.trim_matches(['"', '\'']);
            if let Some((name, value)) = rest.split_once('=')
                && !name.is_empty()
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
                && !value.contains('$')
            {
                self.env.push((name.to_owned(), value.to_owned()));
            }
        }
    }

    /// The texts that a text with templates and variables may stand for; `None` where a part of it
    /// is unknown. `step` and `loops` are the environment of the step and variables of loops.
    pub(crate) fn of(
        &self,
        text: &str,
        step: &Pairs,
        loops: &[(String, Vec<String>)],
        tree: &Tree,
    ) -> Option<Vec<Variant>> {
        let mut done = Vec::new();
        let mut open = vec![(
            Variant {
                text: text.to_owned(),
                only_if: Vec::new(),
            },
            0,
        )];
        while let Some((variant, depth)) = open.pop() {
            let Some(name) = Name::first(&variant.text) else {
                done.push(variant);
                if done.len() > VARIANTS_MAX {
                    return None;
                }
                continue;
            };
            if depth >= DEPTH_MAX || open.len() > VARIANTS_MAX {
                return None;
            }
            let texts = self.choices(&name, step, loops, tree);
            if texts.is_empty() {
                return None;
            }
            for chosen in texts {
                let mut next = variant.clone();
                next.text.replace_range(name.start..name.end, &chosen);
                next.only_if.extend(name.condition(&chosen, loops));
                open.push((next, depth + 1));
            }
        }
        done.reverse();
        Some(done)
    }

    fn choices(
        &self,
        name: &Name,
        step: &Pairs,
        loops: &[(String, Vec<String>)],
        tree: &Tree,
    ) -> Vec<String> {
        let mut out = Vec::new();
        match &name.what {
            What::Variable(variable) => {
                if let Some((_, list)) = loops.iter().rev().find(|(known, _)| known == variable) {
                    out.extend(list.iter().cloned());
                } else {
                    out.extend(self.variable(variable, step));
                }
            }
            What::Expression(inner) => {
                let Some(parsed) = expr::parse(inner) else {
                    return Vec::new();
                };
                let mut literals = Vec::new();
                chosen_literals(&parsed, &mut literals);
                out.extend(literals.into_iter().map(str::to_owned));
                let mut paths = Vec::new();
                expr::paths(&parsed, &mut paths);
                for path in paths {
                    out.extend(self.path(path, step, tree));
                }
            }
        }
        out.retain(|text| !text.contains('\n') && !text.is_empty());
        let mut seen: Vec<String> = Vec::new();
        out.retain(|text| {
            let new = !seen.contains(text);
            if new {
                seen.push(text.clone());
            }
            new
        });
        out
    }

    fn variable(&self, name: &str, step: &Pairs) -> Option<String> {
        step.iter()
            .rev()
            .chain(self.env.iter().rev())
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.clone())
            // A variable that stands for itself stands for nothing.
            .filter(|value| {
                !value.contains(&format!("${name}")) && !value.contains(&format!("env.{name}"))
            })
    }

    fn path(&self, path: &str, step: &Pairs, tree: &Tree) -> Vec<String> {
        if let Some(name) = path.strip_prefix("env.") {
            return self.variable(name, step).into_iter().collect();
        }
        if let Some(name) = path.strip_prefix("matrix.") {
            return self
                .matrix
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, list)| list.clone())
                .unwrap_or_default();
        }
        let Some(name) = path
            .strip_prefix("inputs.")
            .or_else(|| path.strip_prefix("github.event.inputs."))
        else {
            return Vec::new();
        };
        let mut out: Vec<String> = self
            .inputs
            .iter()
            .filter(|(known, _)| known == name)
            .flat_map(|(_, list)| list.iter().cloned())
            .collect();
        if let Some(file) = &self.called {
            let known = self.callers.borrow().get(name).cloned();
            let given = known.unwrap_or_else(|| {
                let given = callers_give(tree, file, name);
                self.callers
                    .borrow_mut()
                    .insert(name.to_owned(), given.clone());
                given
            });
            out.extend(given);
        }
        out
    }
}

/// Literals that may be an expression's value, not those that it compares with.
fn chosen_literals<'a>(parsed: &'a Expr, into: &mut Vec<&'a str>) {
    match parsed {
        Expr::Literal(expr::Value::Text(text)) => into.push(text),
        Expr::Both(left, right) | Expr::Either(left, right) => {
            chosen_literals(left, into);
            chosen_literals(right, into);
        }
        Expr::Literal(_) | Expr::Path(_) | Expr::Call(..) | Expr::Not(_) | Expr::Compare(..) => {}
    }
}

/// What the workflows that call `file` give for one of its inputs, where they say it in words.
fn callers_give(tree: &Tree, file: &str, name: &str) -> Vec<String> {
    let mut out = Vec::new();
    let workflows = tree
        .files()
        .iter()
        .filter(|path| crate::repository::is_github_workflow(path))
        .take(CALLERS_MAX);
    for path in workflows {
        let Ok(text) = tree.read(path) else { continue };
        if !text.contains(file) {
            continue;
        }
        let Ok(root) = yaml::parse_one(&text) else {
            continue;
        };
        for job in root.get("jobs").map(Node::entries).unwrap_or_default() {
            let calls = job
                .value
                .str_of("uses")
                .is_some_and(|uses| uses.split('@').next().unwrap_or(uses).ends_with(file));
            if !calls {
                continue;
            }
            let mut values = Values::default();
            if let Some(matrix) = job.value.at(&["strategy", "matrix"]) {
                values.add_matrix(matrix);
            }
            for entry in job.value.get("with").map(Node::entries).unwrap_or_default() {
                if entry.key.eq_ignore_ascii_case(name)
                    && let Some(text) = entry.value.text()
                {
                    let given = values.of(text, &Vec::new(), &[], tree).unwrap_or_default();
                    out.extend(given.into_iter().map(|variant| variant.text));
                }
            }
        }
    }
    out
}

/// Texts of a list in JSON, as in `fromJSON('["a", "b"]')`.
fn json_texts(text: &str) -> Vec<String> {
    let (Some(start), Some(end)) = (text.find('['), text.rfind(']')) else {
        return Vec::new();
    };
    text.get(start..=end)
        .and_then(|list| serde_json::from_str::<Vec<String>>(list).ok())
        .unwrap_or_default()
}

/// The first template or variable of a text.
struct Name {
    start: usize,
    end: usize,
    what: What,
}

enum What {
    /// Without `${{ }}`.
    Expression(String),
    Variable(String),
}

impl Name {
    fn first(text: &str) -> Option<Self> {
        let start = text.find('$')?;
        let rest = text.get(start..).unwrap_or_default();
        // What has no end stands for nothing.
        let nothing = Self {
            start,
            end: start + 1,
            what: What::Variable(String::new()),
        };
        if let Some(inner) = rest.strip_prefix("${{") {
            let Some(length) = inner.find("}}") else {
                return Some(nothing);
            };
            return Some(Self {
                start,
                end: start + 3 + length + 2,
                what: What::Expression(inner.get(..length).unwrap_or_default().trim().to_owned()),
            });
        }
        let (skip, inner) = match rest.strip_prefix("${") {
            Some(inner) => (2, inner),
            None => (1, rest.get(1..).unwrap_or_default()),
        };
        let name: String = inner
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
            .collect();
        let after = inner.get(name.len()..).unwrap_or_default();
        let close = match (skip, after.find('}')) {
            (2, Some(at)) => at + 1,
            (2, None) => return Some(nothing),
            _ => 0,
        };
        Some(Self {
            start,
            end: start + skip + name.len() + close,
            // `$(…)` and `$1` are no names: nothing stands for them.
            what: What::Variable(name),
        })
    }

    /// The template that holds where the name stands for `chosen`.
    fn condition(&self, chosen: &str, loops: &[(String, Vec<String>)]) -> Option<String> {
        if chosen.contains(['\'', '$']) {
            return None;
        }
        match &self.what {
            What::Expression(inner) => Some(format!("${{{{ ({inner}) == '{chosen}' }}}}")),
            What::Variable(name) if loops.iter().any(|(known, _)| known == name) => None,
            What::Variable(name) => Some(format!("${{{{ env.{name} == '{chosen}' }}}}")),
        }
    }
}
