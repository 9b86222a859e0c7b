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
/// Longest text that names are put into; what grows past it is unknown.
pub(crate) const TEXT_MAX: usize = 4 * 1024;
/// Most names of a matrix.
const NAMES_MAX: usize = 256;
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
    callers: Rc<RefCell<Option<Callers>>>,
}

/// What the callers of a workflow give it.
#[derive(Clone, Debug, Default)]
struct Callers {
    /// By lower-cased input.
    given: BTreeMap<String, Vec<String>>,
    /// There are more workflows than are searched.
    cut: bool,
}

/// What a text may stand for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stands {
    pub(crate) variants: Vec<Variant>,
    /// It may stand for something else too, which no file says.
    pub(crate) open: bool,
}

/// Texts that a name may stand for, without repetition, and one more at most than are followed.
#[derive(Default)]
struct Choices {
    texts: Vec<String>,
    open: bool,
}

impl Choices {
    fn add(&mut self, texts: &[String]) {
        for text in texts {
            add_text(&mut self.texts, text);
        }
    }
}

/// Notes a text that a name may stand for. Past the bound the name is unknown in any case.
fn add_text(list: &mut Vec<String>, text: &str) {
    if list.len() <= VARIANTS_MAX
        && !text.is_empty()
        && !text.contains('\n')
        && !list.iter().any(|known| known == text)
    {
        list.push(text.to_owned());
    }
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
        texts.truncate(VARIANTS_MAX + 1);
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
        let full = self.matrix.len() >= NAMES_MAX;
        match self.matrix.iter_mut().find(|(known, _)| *known == name) {
            Some((_, list)) => add_text(list, text),
            None if full => {}
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
                .variants
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
    ) -> Option<Stands> {
        let mut done = Vec::new();
        let mut unsaid = false;
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
            let choices = self.choices(&name, step, loops, tree);
            if choices.texts.is_empty() || choices.texts.len() > VARIANTS_MAX {
                return None;
            }
            unsaid |= choices.open;
            for chosen in choices.texts {
                if variant.text.len() + chosen.len() > TEXT_MAX {
                    return None;
                }
                let mut next = variant.clone();
                next.text.replace_range(name.start..name.end, &chosen);
                next.only_if.extend(name.condition(&chosen));
                open.push((next, depth + 1));
            }
        }
        done.reverse();
        Some(Stands {
            variants: done,
            open: unsaid,
        })
    }

    fn choices(
        &self,
        name: &Name,
        step: &Pairs,
        loops: &[(String, Vec<String>)],
        tree: &Tree,
    ) -> Choices {
        let mut out = Choices::default();
        match &name.what {
            What::Variable(variable) => {
                if let Some((_, list)) = loops.iter().rev().find(|(known, _)| known == variable) {
                    out.add(list);
                } else {
                    out.add(self.variable(variable, step).as_slice());
                }
            }
            What::Expression(inner) => {
                if let Some(parsed) = expr::parse(inner) {
                    self.chosen(&parsed, step, tree, &mut out);
                }
            }
        }
        out
    }

    /// What may be an expression's value: not what it compares or only asks.
    fn chosen(&self, parsed: &Expr, step: &Pairs, tree: &Tree, out: &mut Choices) {
        match parsed {
            Expr::Literal(expr::Value::Text(text)) => add_text(&mut out.texts, text),
            Expr::Path(path) => {
                let (texts, cut) = self.path(path, step, tree);
                out.open |= cut || texts.is_empty();
                out.add(&texts);
            }
            Expr::Both(_, value) => self.chosen(value, step, tree, out),
            Expr::Either(left, right) => {
                self.chosen(left, step, tree, out);
                self.chosen(right, step, tree, out);
            }
            Expr::Call(..) => out.open = true,
            Expr::Literal(_) | Expr::Not(_) | Expr::Compare(..) => {}
        }
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

    /// What a path may be, and whether there may be more that is not read.
    fn path(&self, path: &str, step: &Pairs, tree: &Tree) -> (Vec<String>, bool) {
        if let Some(name) = path.strip_prefix("env.") {
            return (self.variable(name, step).into_iter().collect(), false);
        }
        if let Some(name) = path.strip_prefix("matrix.") {
            let list = self.matrix.iter().find(|(known, _)| known == name);
            return (
                list.map(|(_, list)| list.clone()).unwrap_or_default(),
                false,
            );
        }
        let Some(name) = path
            .strip_prefix("inputs.")
            .or_else(|| path.strip_prefix("github.event.inputs."))
        else {
            return (Vec::new(), false);
        };
        let mut out: Vec<String> = self
            .inputs
            .iter()
            .filter(|(known, _)| known == name)
            .flat_map(|(_, list)| list.iter().cloned())
            .collect();
        let mut cut = false;
        if let Some(file) = &self.called {
            let mut callers = self.callers.borrow_mut();
            let callers = callers.get_or_insert_with(|| callers_of(tree, file));
            cut = callers.cut;
            out.extend(callers.given.get(name).cloned().unwrap_or_default());
        }
        (out, cut)
    }
}

/// What the workflows that call `file` give for its inputs, where they say it in words.
fn callers_of(tree: &Tree, file: &str) -> Callers {
    let mut out = Callers::default();
    let workflows = tree
        .files()
        .iter()
        .filter(|path| crate::repository::is_github_workflow(path));
    for (index, path) in workflows.enumerate() {
        if index >= CALLERS_MAX {
            out.cut = true;
            break;
        }
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
                let name = entry.key.to_ascii_lowercase();
                if let Some(text) = entry.value.text()
                    && (out.given.len() < NAMES_MAX || out.given.contains_key(&name))
                {
                    let given = values.of(text, &Vec::new(), &[], tree).unwrap_or_default();
                    let list = out.given.entry(name).or_default();
                    for variant in given.variants {
                        add_text(list, &variant.text);
                    }
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
    fn condition(&self, chosen: &str) -> Option<String> {
        if chosen.contains(['\'', '$']) {
            return None;
        }
        match &self.what {
            What::Expression(inner) if !names_variable(inner) => {
                Some(format!("${{{{ ({inner}) == '{chosen}' }}}}"))
            }
            // A step may have left another value than the file says.
            What::Expression(_) | What::Variable(_) => None,
        }
    }
}

/// Whether a variable of the environment stands in an expression.
fn names_variable(inner: &str) -> bool {
    expr::parse(inner).is_some_and(|parsed| {
        let mut paths = Vec::new();
        expr::paths(&parsed, &mut paths);
        paths.iter().any(|path| path.starts_with("env."))
    })
}
