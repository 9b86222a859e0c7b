//! What lists and single things have in common.

use portcullis_model::Refusal;
use serde_json::Value;

use crate::client::Client;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::{self, Column};

/// Prints the list at `path` as a table.
///
/// # Errors
/// As [`Client::get`].
pub(crate) async fn list(
    context: &Context,
    path: &str,
    columns: &[Column],
    nothing: &str,
) -> Result<Exit, Refusal> {
    let items: Vec<Value> = context.client()?.items(path).await?;
    context
        .out()
        .print(&items, || output::table(&items, columns, nothing))?;
    Ok(Exit::Done)
}

/// Prints the one thing at `path`.
///
/// # Errors
/// As [`Client::get`].
pub(crate) async fn show(context: &Context, path: &str) -> Result<Exit, Refusal> {
    let value: Value = context.client()?.get(path).await?;
    context.out().print(&value, || output::lines(&value))?;
    Ok(Exit::Done)
}

/// The item of the list at `path` whose `id` is `id`.
///
/// # Errors
/// As [`Client::get`], or there is none; then the nearest known id is named.
pub(crate) async fn find(
    client: &Client,
    path: &str,
    what: &str,
    id: &str,
) -> Result<Value, Refusal> {
    let items: Vec<Value> = client.items(path).await?;
    let ids = || items.iter().filter_map(id_of);
    if let Some(item) = items.iter().find(|item| id_of(item) == Some(id)) {
        return Ok(item.clone());
    }
    let refusal = Refusal::not_found(what, id);
    Err(match portcullis_model::document::nearest(id, ids()) {
        Some(near) => refusal.next(format!("did you mean `{near}`?")),
        None => refusal.next(format!(
            "`portcullis {what} list` names those that are there"
        )),
    })
}

fn id_of(item: &Value) -> Option<&str> {
    item.pointer("/record/id")
        .or_else(|| item.get("id"))
        .and_then(Value::as_str)
}

/// Prints what came of a command: a sentence, with the entry that records it.
///
/// # Errors
/// Standard output is gone.
pub(crate) fn done(context: &Context, answer: &Value, sentence: &str) -> Result<Exit, Refusal> {
    context.out().print(answer, || {
        match answer.get("index").and_then(Value::as_u64) {
            Some(index) => match answer.get("recorded").and_then(Value::as_str) {
                Some("reserve") => format!(
                    "{sentence} (entry {index}; it is in the reserve until the ledger can be written)"
                ),
                Some(_) => format!(
                    "{sentence} (entry {index}; it holds, and is in the server's memory alone until anything can be written)"
                ),
                None => format!("{sentence} (entry {index})"),
            },
            None => match answer.get("why").and_then(Value::as_str) {
                Some(why) => format!("{sentence}; it holds, and could not be recorded yet ({why})"),
                None => sentence.to_owned(),
            },
        }
    })?;
    Ok(Exit::Done)
}

/// Prints what came of a command that opens a request: done, or what it waits for.
///
/// # Errors
/// Standard output is gone.
pub(crate) fn asked(
    context: &Context,
    answer: &Value,
    done: &str,
    waits: &str,
) -> Result<Exit, Refusal> {
    let says = |name| answer.get(name).and_then(Value::as_bool);
    // What is approved may still be on its way into force.
    let satisfied = says("satisfied") == Some(true) && says("in_force") != Some(false);
    let request = answer
        .get("request")
        .and_then(Value::as_str)
        .map(output::clean_line);
    context
        .out()
        .print(answer, || match (&request, satisfied) {
            (_, true) => done.to_owned(),
            (Some(request), false) => {
                format!("{waits}: {request}\n  next: portcullis request show {request}")
            }
            (None, false) => waits.to_owned(),
        })?;
    Ok(if satisfied { Exit::Done } else { Exit::Waits })
}
