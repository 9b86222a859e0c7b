//! What an expression asks for: its paths, its texts, and the pairs of texts that it wants at once.

use super::{Comparison, Expr, Value};

/// Every path that an expression names, lower-cased.
pub(crate) fn paths<'a>(expr: &'a Expr, into: &mut Vec<&'a str>) {
    match expr {
        Expr::Literal(_) => {}
        Expr::Path(path) => into.push(path),
        Expr::Call(_, arguments) => arguments.iter().for_each(|part| paths(part, into)),
        Expr::Not(inner) => paths(inner, into),
        Expr::Both(left, right) | Expr::Either(left, right) | Expr::Compare(left, _, right) => {
            paths(left, into);
            paths(right, into);
        }
    }
}

/// Every text literal in an expression.
pub(crate) fn literals<'a>(expr: &'a Expr, into: &mut Vec<&'a str>) {
    match expr {
        Expr::Literal(Value::Text(text)) => into.push(text),
        Expr::Literal(_) | Expr::Path(_) => {}
        Expr::Call(_, arguments) => arguments.iter().for_each(|part| literals(part, into)),
        Expr::Not(inner) => literals(inner, into),
        Expr::Both(left, right) | Expr::Either(left, right) | Expr::Compare(left, _, right) => {
            literals(left, into);
            literals(right, into);
        }
    }
}

/// Texts that an expression wants two paths to be at once, of which each has several names:
/// `github.actor == 'x' && github.event.label.name == 'y'`.
pub(crate) fn pairs<'a>(
    expr: &'a Expr,
    first: &[&str],
    second: &[&str],
) -> Vec<(&'a str, &'a str)> {
    wishes(expr, first, second).pairs
}

/// The texts that one of some paths must be for the expression, or a part of it, to hold.
pub(crate) fn compared<'a>(expr: &'a Expr, paths: &[&str]) -> Vec<&'a str> {
    wishes(expr, paths, &[]).first
}

#[derive(Default)]
struct Wishes<'a> {
    first: Vec<&'a str>,
    second: Vec<&'a str>,
    pairs: Vec<(&'a str, &'a str)>,
}

fn wishes<'a>(expr: &'a Expr, first: &[&str], second: &[&str]) -> Wishes<'a> {
    let mut out = Wishes::default();
    match expr {
        Expr::Both(left, right) | Expr::Either(left, right) => {
            let (left, right) = (wishes(left, first, second), wishes(right, first, second));
            if matches!(expr, Expr::Both(..)) {
                for (one, other) in [(&left, &right), (&right, &left)] {
                    for name in &one.first {
                        out.pairs
                            .extend(other.second.iter().map(|value| (*name, *value)));
                    }
                }
            }
            for mut side in [left, right] {
                out.first.append(&mut side.first);
                out.second.append(&mut side.second);
                out.pairs.append(&mut side.pairs);
            }
        }
        Expr::Compare(left, Comparison::Equal, right) => {
            if let (Expr::Path(path), Expr::Literal(Value::Text(text)))
            | (Expr::Literal(Value::Text(text)), Expr::Path(path)) = (&**left, &**right)
            {
                if first.contains(&path.as_str()) {
                    out.first.push(text);
                }
                if second.contains(&path.as_str()) {
                    out.second.push(text);
                }
            }
        }
        Expr::Literal(_) | Expr::Path(_) | Expr::Call(..) | Expr::Not(_) | Expr::Compare(..) => {}
    }
    out
}
