//! The functions of expressions.

use super::{
    Expr, Scope, Value, is_agents_mark, is_bot_login, is_not_an_own_app, is_public_bot, text_of,
    value,
};

/// The value of a call.
pub(super) fn call(name: &str, arguments: &[Expr], scope: &dyn Scope) -> Value {
    let values: Vec<Value> = arguments.iter().map(|part| value(part, scope)).collect();
    let unknown = || {
        values
            .iter()
            .find(|part| matches!(part, Value::Fact(_)))
            .cloned()
            .unwrap_or(Value::Open)
    };
    if matches!(name, "contains" | "startswith" | "endswith") {
        match (values.first(), values.get(1)) {
            (Some(Value::Login), Some(Value::Text(part))) if is_bot_login(part) => {
                return Value::Bool(false);
            }
            (Some(Value::App), Some(Value::Text(part))) if part.eq_ignore_ascii_case("[bot]") => {
                return Value::Bool(true);
            }
            (Some(Value::App), Some(Value::Text(part))) if is_public_bot(part) => {
                return Value::Bool(false);
            }
            (Some(Value::UpdateTitle), Some(Value::Text(part))) if is_agents_mark(part) => {
                return Value::Bool(false);
            }
            (Some(Value::Login | Value::App | Value::UpdateTitle), _) => return Value::Open,
            _ => {}
        }
    }
    let pair = || match values.as_slice() {
        [first, second] => Some((
            text_of(first)?.to_lowercase(),
            text_of(second)?.to_lowercase(),
        )),
        _ => None,
    };
    match name {
        "contains" => {
            // A list literal made by fromJSON is compared by element.
            if let Some(Expr::Call(inner, inner_arguments)) = arguments.first()
                && inner == "fromjson"
                && let Some(Expr::Literal(Value::Text(json))) = inner_arguments.first()
                && let Ok(list) = serde_json::from_str::<Vec<String>>(json)
            {
                return match values.get(1) {
                    Some(Value::Text(wanted)) => {
                        Value::Bool(list.iter().any(|item| item.eq_ignore_ascii_case(wanted)))
                    }
                    Some(Value::Login) if list.iter().all(|item| is_bot_login(item)) => {
                        Value::Bool(false)
                    }
                    Some(Value::App) if list.iter().all(|item| is_not_an_own_app(item)) => {
                        Value::Bool(false)
                    }
                    _ => unknown(),
                };
            }
            pair().map_or_else(unknown, |(text, part)| Value::Bool(text.contains(&part)))
        }
        "startswith" => {
            pair().map_or_else(unknown, |(text, part)| Value::Bool(text.starts_with(&part)))
        }
        "endswith" => {
            pair().map_or_else(unknown, |(text, part)| Value::Bool(text.ends_with(&part)))
        }
        "format" => {
            let mut parts = values.iter().map(text_of);
            let Some(Some(mut text)) = parts.next() else {
                return unknown();
            };
            for (index, part) in parts.enumerate() {
                let Some(part) = part else { return unknown() };
                text = text.replace(&format!("{{{index}}}"), &part);
            }
            Value::Text(text)
        }
        "fromjson" => match values.first() {
            Some(Value::Text(text)) => match text.as_str() {
                "true" => Value::Bool(true),
                "false" => Value::Bool(false),
                "null" => Value::Null,
                other => other.parse().map_or(Value::Open, Value::Number),
            },
            Some(other) => other.clone(),
            None => Value::Open,
        },
        "tojson" => values.into_iter().next().unwrap_or(Value::Open),
        // The labels of an update stand as one text already; other bots may set more.
        "join" => match (
            values.first(),
            scope.value("github.event.pull_request.title"),
        ) {
            (Some(Value::Text(list)), Value::UpdateTitle) => {
                let between = values.get(1).and_then(text_of);
                Value::Text(list.replace('\n', &between.unwrap_or_else(|| ",".to_owned())))
            }
            _ => Value::Open,
        },
        "hashfiles" => Value::Open,
        other => scope.status(other),
    }
}
