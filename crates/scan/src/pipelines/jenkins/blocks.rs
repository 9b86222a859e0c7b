//! `if (…) { … } else { … }` around the steps of a script.

use super::super::{both, not};
use super::when::{self, Parameters};
use crate::expr::{Expr, Value};

/// Deepest nesting of blocks whose conditions are kept.
const DEPTH_MAX: usize = 64;
/// Most conditions that one step is put under.
const CONDITIONS_MAX: usize = 8;

/// One branch: its own condition, and those of the branches before it, none of which holds.
#[derive(Clone)]
struct Branch {
    own: Option<Expr>,
    others: Vec<Expr>,
}

impl Branch {
    /// The branch behind an `else`.
    fn other(mut self) -> Self {
        let own = self.own.take();
        if self.others.len() < DEPTH_MAX {
            self.others.extend(own);
        }
        self
    }

    /// Another question in front of the same statement.
    fn asking(mut self, expr: Expr) -> Self {
        self.own = Some(match self.own.take() {
            Some(before) if self.others.len() < CONDITIONS_MAX => both(before, expr),
            Some(_) => Expr::Literal(Value::Open),
            None => expr,
        });
        self
    }

    fn holds(&self) -> Option<Expr> {
        let others = self.others.iter().take(CONDITIONS_MAX).cloned().map(not);
        others.chain(self.own.clone()).reduce(both)
    }
}

/// The blocks that are open at a place, and their conditions.
#[derive(Clone, Default)]
pub(super) struct Blocks {
    pub(super) depth: usize,
    open: Vec<(usize, Branch)>,
    /// A branch whose block, or only statement, comes next.
    coming: Option<Branch>,
    /// How many questions stand in front of it.
    questions: usize,
    /// The branch of the only statement that this line holds.
    alone: Option<Branch>,
    /// The block that ended last, for an `else` behind it.
    ended: Option<(usize, Branch)>,
}

impl Blocks {
    /// Goes over a part of a line that holds no script.
    pub(super) fn pass(&mut self, part: &str, parameters: &Parameters) {
        let mut rest = part;
        let mut before = ' ';
        while let Some(c) = rest.chars().next() {
            let starts_word = !(before.is_ascii_alphanumeric() || matches!(before, '_' | '.'));
            let length = match c {
                '\'' | '"' => rest
                    .get(1..)
                    .and_then(|inner| inner.find(c))
                    .map_or(rest.len(), |end| end + 2),
                '/' if rest.starts_with("//") => return,
                '{' => {
                    self.depth += 1;
                    self.questions = 0;
                    if let Some(branch) = self.coming.take()
                        && self.open.len() < DEPTH_MAX
                    {
                        self.open.push((self.depth, branch));
                    }
                    1
                }
                '}' => {
                    if let Some(ended) = self.open.pop_if(|(depth, _)| *depth == self.depth) {
                        self.ended = Some(ended);
                    }
                    self.depth = self.depth.saturating_sub(1);
                    1
                }
                _ if starts_word && is_word(rest, "else") => {
                    let other = self
                        .ended
                        .take()
                        .filter(|(depth, _)| *depth == self.depth + 1);
                    self.coming = other.map(|(_, branch)| branch.other());
                    4
                }
                _ if starts_word && is_word(rest, "if") => match asked(rest) {
                    Some((text, length)) => {
                        let expr = when::expression(text, parameters, when::CONDITIONS_MAX)
                            .unwrap_or(Expr::Literal(Value::Open));
                        self.questions += 1;
                        let first = Branch {
                            own: None,
                            others: Vec::new(),
                        };
                        let before = self.coming.take().unwrap_or(first);
                        self.coming = Some(if self.questions <= CONDITIONS_MAX {
                            before.asking(expr)
                        } else {
                            before
                        });
                        length
                    }
                    None => 2,
                },
                _ => {
                    if !c.is_whitespace() {
                        self.questions = 0;
                        self.alone = self.coming.take().or(self.alone.take());
                    }
                    c.len_utf8()
                }
            };
            before = c;
            rest = rest.get(length..).unwrap_or_default();
        }
    }

    pub(super) fn end_line(&mut self) {
        self.alone = None;
    }

    /// What must hold for a step at this place; `None` where nothing is asked.
    pub(super) fn condition(&mut self) -> Option<Expr> {
        if let Some(branch) = self.coming.take() {
            self.alone = Some(branch);
        }
        self.open
            .iter()
            .rev()
            .take(CONDITIONS_MAX)
            .map(|(_, branch)| branch)
            .chain(&self.alone)
            .filter_map(Branch::holds)
            .reduce(both)
    }

    /// The same for a place further on in the line.
    pub(super) fn condition_at(&self, part: &str, parameters: &Parameters) -> Option<Expr> {
        let mut there = self.clone();
        there.pass(part, parameters);
        there.condition()
    }
}

fn is_word(text: &str, word: &str) -> bool {
    text.strip_prefix(word)
        .is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_'))
}

/// What stands in the brackets behind `if`, and how much of the text that takes.
fn asked(text: &str) -> Option<(&str, usize)> {
    let spaces = text.get(2..)?.len() - text.get(2..)?.trim_start().len();
    let open = 2 + spaces;
    if !text.get(open..)?.starts_with('(') {
        return None;
    }
    /// Longest condition, in bytes.
    const BYTES_MAX: usize = 400;
    let mut depth = 0_usize;
    let mut quote = None;
    let inside = text.char_indices().skip_while(|(at, _)| *at < open);
    for (at, c) in inside.take_while(|(at, _)| *at < BYTES_MAX) {
        match (quote, c) {
            (Some(mark), _) if c == mark => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '(') => depth += 1,
            (None, ')') => {
                depth -= 1;
                if depth == 0 {
                    return Some((text.get(open + 1..at)?, at + 1));
                }
            }
            (None, _) => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(lines: &[&str]) -> Option<Expr> {
        let mut blocks = Blocks::default();
        for (index, line) in lines.iter().enumerate() {
            blocks.pass(line, &Vec::new());
            if index + 1 < lines.len() {
                blocks.end_line();
            }
        }
        blocks.condition()
    }

    #[test]
    fn steps_stand_under_the_conditions_around_them() {
        let main = when::expression("BRANCH_NAME == 'main'", &Vec::new(), 8).unwrap();
        assert_eq!(
            after(&["if (env.BRANCH_NAME == 'main') {"]),
            Some(main.clone())
        );
        assert_eq!(
            after(&["if (env.BRANCH_NAME == 'main')", "{", "  "]),
            Some(main.clone())
        );
        assert_eq!(
            after(&["if (env.BRANCH_NAME == 'main') "]),
            Some(main.clone())
        );
        assert_eq!(after(&["if (env.BRANCH_NAME == 'main') { x() }", ""]), None);
        assert_eq!(after(&["if (env.BRANCH_NAME == 'main') x()", ""]), None);
        let other = Some(not(main.clone()));
        assert_eq!(
            after(&["if (env.BRANCH_NAME == 'main') {", "} else {"]),
            other
        );
        assert_eq!(
            after(&["if (env.BRANCH_NAME == 'main') { a() }", "else {", "b()"]),
            other
        );
        let dev = when::expression("BRANCH_NAME == 'dev'", &Vec::new(), 8).unwrap();
        let chain = [
            "if (env.BRANCH_NAME == 'main') {",
            "} else if (env.BRANCH_NAME == 'dev') {",
            "} else {",
        ];
        assert_eq!(after(&chain), Some(both(not(main.clone()), not(dev))));
        assert_eq!(after(&["gif (BRANCH_NAME == 'main') {"]), None);
        assert_eq!(after(&["echo 'if (BRANCH_NAME == 1) {'"]), None);
        let long = "if (x) { ".repeat(10_000);
        assert!(after(&[&long]).is_some());
        assert!(after(&["} } } } if (((("]).is_none());
    }
}
