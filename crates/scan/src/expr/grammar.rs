//! Words and grammar of an expression.

use super::{Comparison, DEPTH_MAX, Expr, Value};

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Text(String),
    Number(f64),
    Word(String),
    Mark(&'static str),
}

/// Marks, longest first.
const MARKS: &[&str] = &[
    "==", "!=", "=~", "!~", "<=", ">=", "&&", "||", "<", ">", "!", "(", ")", "[", "]", ",", ".",
    "*",
];

pub(super) fn tokens(text: &str) -> Option<Vec<Token>> {
    let mut out = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        if first == '\'' || first == '"' {
            let (literal, after) = quoted(rest, first)?;
            out.push(Token::Text(literal));
            rest = after;
        } else if first == '/' {
            // A pattern of GitLab.
            let body = rest.get(1..)?;
            let end = body.find('/')? + 2;
            let flags = rest
                .get(end..)?
                .chars()
                .take_while(char::is_ascii_lowercase)
                .count();
            out.push(Token::Text(rest.get(..end + flags)?.to_owned()));
            rest = rest.get(end + flags..)?;
        } else if starts_number(rest) {
            let signed = |index: usize| {
                let before = rest.get(..index).unwrap_or_default();
                before.ends_with(['e', 'E']) && !before.contains(['x', 'X'])
            };
            let end = rest
                .char_indices()
                .skip(1)
                .find(|(index, c)| {
                    !(c.is_ascii_alphanumeric()
                        || *c == '.'
                        || matches!(c, '-' | '+') && signed(*index))
                })
                .map_or(rest.len(), |(index, _)| index);
            out.push(Token::Number(rest.get(..end)?.parse().unwrap_or(f64::NAN)));
            rest = rest.get(end..)?;
        } else if first.is_alphabetic() || first == '_' || first == '$' {
            let end = rest
                .char_indices()
                .skip(1)
                .find(|(_, c)| !(c.is_alphanumeric() || matches!(c, '_' | '-')))
                .map_or(rest.len(), |(index, _)| index);
            out.push(Token::Word(rest.get(..end)?.to_owned()));
            rest = rest.get(end..)?;
        } else {
            let mark = MARKS.iter().find(|mark| rest.starts_with(**mark))?;
            out.push(Token::Mark(mark));
            rest = rest.get(mark.len()..)?;
        }
        rest = rest.trim_start();
    }
    Some(out)
}

fn quoted(text: &str, quote: char) -> Option<(String, &str)> {
    let mut out = String::new();
    let mut characters = text.char_indices().skip(1).peekable();
    while let Some((index, character)) = characters.next() {
        if character != quote {
            out.push(character);
        } else if characters.peek().is_some_and(|(_, next)| *next == quote) {
            out.push(quote);
            characters.next();
        } else {
            return Some((out, text.get(index + quote.len_utf8()..)?));
        }
    }
    None
}

/// Joins the members of a chain in halves: however many there are, what they become is shallow.
pub(crate) fn joined<T>(mut members: Vec<T>, join: fn(Box<T>, Box<T>) -> T) -> Option<T> {
    while members.len() > 1 {
        let mut halves = Vec::with_capacity(members.len().div_ceil(2));
        let mut each = members.into_iter();
        while let Some(left) = each.next() {
            halves.push(match each.next() {
                Some(right) => join(Box::new(left), Box::new(right)),
                None => left,
            });
        }
        members = halves;
    }
    members.pop()
}

pub(super) struct Reader<'a> {
    pub(super) tokens: &'a [Token],
    pub(super) at: usize,
    pub(super) depth: usize,
}

impl Reader<'_> {
    fn take(&mut self, mark: &str) -> bool {
        let found = matches!(self.tokens.get(self.at), Some(Token::Mark(next)) if *next == mark);
        self.at += usize::from(found);
        found
    }

    pub(super) fn either(&mut self) -> Option<Expr> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return None;
        }
        let mut members = vec![self.both()?];
        while self.take("||") {
            members.push(self.both()?);
        }
        self.depth -= 1;
        joined(members, Expr::Either)
    }

    fn both(&mut self) -> Option<Expr> {
        let mut members = vec![self.compared()?];
        while self.take("&&") {
            members.push(self.compared()?);
        }
        joined(members, Expr::Both)
    }

    fn compared(&mut self) -> Option<Expr> {
        let mut left = self.unary()?;
        let mut length = 0;
        while let Some(comparison) = self.comparison() {
            length += 1;
            if length > DEPTH_MAX {
                return None;
            }
            let right = self.unary()?;
            left = Expr::Compare(Box::new(left), comparison, Box::new(right));
        }
        Some(left)
    }

    fn comparison(&mut self) -> Option<Comparison> {
        let Some(Token::Mark(mark)) = self.tokens.get(self.at) else {
            return None;
        };
        let comparison = match *mark {
            "==" => Comparison::Equal,
            "!=" => Comparison::Unequal,
            "<" => Comparison::Less,
            "<=" => Comparison::LessOrEqual,
            ">" => Comparison::Greater,
            ">=" => Comparison::GreaterOrEqual,
            "=~" => Comparison::Matches,
            "!~" => Comparison::Differs,
            _ => return None,
        };
        self.at += 1;
        Some(comparison)
    }

    fn unary(&mut self) -> Option<Expr> {
        let mut negated = false;
        while self.take("!") {
            negated = !negated;
        }
        let inner = self.primary()?;
        Some(if negated {
            Expr::Not(Box::new(inner))
        } else {
            inner
        })
    }

    fn primary(&mut self) -> Option<Expr> {
        if self.take("(") {
            let inner = self.either()?;
            if !self.take(")") {
                return None;
            }
            return self.followed(inner);
        }
        let token = self.tokens.get(self.at)?.clone();
        self.at += 1;
        match token {
            Token::Text(text) => Some(Expr::Literal(Value::Text(text))),
            Token::Number(number) => Some(Expr::Literal(Value::Number(number))),
            Token::Mark(_) => None,
            Token::Word(word) => match word.as_str() {
                "true" => Some(Expr::Literal(Value::Bool(true))),
                "false" => Some(Expr::Literal(Value::Bool(false))),
                "null" => Some(Expr::Literal(Value::Null)),
                _ if self.take("(") => {
                    let mut arguments = Vec::new();
                    if !self.take(")") {
                        loop {
                            arguments.push(self.either()?);
                            if self.take(")") {
                                break;
                            }
                            if !self.take(",") {
                                return None;
                            }
                        }
                    }
                    // `fromJSON(x).y`: what follows can't be named.
                    self.followed(Expr::Call(word.to_lowercase(), arguments))
                }
                _ => Some(Expr::Path(self.tail(word.to_lowercase())?)),
            },
        }
    }

    /// What stands there, or something open where a part of it is asked for.
    fn followed(&mut self, whole: Expr) -> Option<Expr> {
        let before = self.at;
        let _ = self.tail(String::new())?;
        Some(if self.at == before {
            whole
        } else {
            Expr::Literal(Value::Open)
        })
    }

    /// `.part`, `['part']`, `[0]`, `.*`, `[*]` after a word.
    fn tail(&mut self, mut path: String) -> Option<String> {
        loop {
            if self.take(".") {
                if self.take("*") {
                    path.push_str(".*");
                } else if let Some(Token::Word(part)) = self.tokens.get(self.at) {
                    self.at += 1;
                    path.push('.');
                    path.push_str(&part.to_lowercase());
                } else {
                    return None;
                }
            } else if self.take("[") {
                if self.take("*") {
                    if !self.take("]") {
                        return None;
                    }
                    path.push_str(".*");
                    continue;
                }
                let inner = self.either()?;
                if !self.take("]") {
                    return None;
                }
                path.push('.');
                match inner {
                    Expr::Literal(Value::Text(text)) => path.push_str(&text.to_lowercase()),
                    _ => path.push('*'),
                }
            } else {
                return Some(path);
            }
        }
    }
}

/// Whether a number begins here: `1`, `-1`, `.5`, `-.5`.
fn starts_number(rest: &str) -> bool {
    let unsigned = rest.strip_prefix(['-', '+']).unwrap_or(rest);
    let digits = unsigned.strip_prefix('.').unwrap_or(unsigned);
    digits.starts_with(|c: char| c.is_ascii_digit())
}
