//! What the demo looks at while it plays: the server's API and ledger, and what shall come.

use std::time::{Duration, Instant};

use portcullis_model::{Event, Refusal};
use serde_json::Value;

use super::stage::Stage;
use crate::commands::ledger::read_entries;
use crate::sentence::sentence;

/// How long the demo waits for one thing before it says that it did not come.
const PATIENCE: Duration = Duration::from_secs(45);
/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// An entry of the ledger with its sentence.
pub(super) struct Entry {
    pub(super) index: u64,
    pub(super) kind: String,
    pub(super) body: Value,
    pub(super) sentence: String,
}

impl Stage {
    /// What the API answers.
    ///
    /// # Errors
    /// As [`crate::client::Client::get`].
    pub(super) fn get(&self, path: &str) -> Result<Value, Refusal> {
        self.runtime.block_on(self.client.get(path))
    }

    /// Saves what the API answers in a new file.
    ///
    /// # Errors
    /// As [`crate::client::Client::download`].
    pub(super) fn download(&self, path: &str, to: &str) -> Result<(), Refusal> {
        self.runtime
            .block_on(self.client.download(path, &self.path(to)))
            .map(|_| ())
    }

    /// Posts JSON to the API.
    ///
    /// # Errors
    /// As [`crate::client::Client::post`].
    pub(super) fn post(&self, path: &str, body: &Value) -> Result<Value, Refusal> {
        self.runtime.block_on(self.client.post(path, body))
    }

    /// The items of a list that the API gives.
    ///
    /// # Errors
    /// As [`crate::client::Client::get`].
    pub(super) fn items(&self, path: &str) -> Result<Vec<Value>, Refusal> {
        Ok(self
            .get(path)?
            .get("items")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default())
    }

    /// The ledger's entries from `from` on.
    ///
    /// # Errors
    /// As [`read_entries`].
    pub(super) fn entries(&self, from: u64) -> Result<Vec<Entry>, Refusal> {
        let mut entries = Vec::new();
        self.runtime
            .block_on(read_entries(&self.client, from, None, |read| {
                let text = |name: &str| {
                    read.entry
                        .get(name)
                        .and_then(Value::as_str)
                        .unwrap_or_default()
                        .to_owned()
                };
                entries.push(Entry {
                    index: read.index,
                    kind: text("type"),
                    body: read.entry.get("body").cloned().unwrap_or_default(),
                    sentence: Event::decode(read.index, &read.bytes)
                        .map(|event| sentence(&event))?,
                });
                Ok(())
            }))?;
        Ok(entries)
    }

    /// Number of entries in the ledger.
    ///
    /// # Errors
    /// As [`crate::client::Client::get`].
    pub(super) fn size(&self) -> Result<u64, Refusal> {
        Ok(self
            .get("/v1/status")?
            .get("size")
            .and_then(Value::as_u64)
            .unwrap_or_default())
    }

    /// Waits until `look` gives something.
    ///
    /// # Errors
    /// `look` fails, it never comes, or the demo was interrupted.
    pub(super) fn wait<T>(
        &self,
        what: &str,
        mut look: impl FnMut() -> Result<Option<T>, Refusal>,
    ) -> Result<T, Refusal> {
        let since = Instant::now();
        loop {
            self.processes.check()?;
            let found = look();
            if !matches!(found, Ok(None)) || since.elapsed() > PATIENCE {
                self.story.waited(since);
                return found?.ok_or_else(|| {
                    self.failure(what, &format!("within {} s", PATIENCE.as_secs()), "nothing")
                });
            }
            self.story.waiting(what, since);
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Ends the demo unless `good`.
    ///
    /// # Errors
    /// It isn't.
    pub(super) fn expect(
        &self,
        good: bool,
        what: &str,
        expected: &str,
        received: impl FnOnce() -> String,
    ) -> Result<(), Refusal> {
        if good {
            Ok(())
        } else {
            Err(self.failure(what, expected, &received()))
        }
    }

    /// Something went otherwise.
    pub(super) fn failure(&self, what: &str, expected: &str, received: &str) -> Refusal {
        let mut refusal = Refusal::unavailable(
            "demo-went-otherwise",
            format!("the demo went otherwise: {what}"),
        )
        .expected(expected)
        .next("run `portcullis demo --keep` and look at the logs and the ledger");
        // Commands say much in many lines; whoever mends this needs all of them.
        refusal.received = Some(received.trim().replace('\n', "\n    "));
        refusal
    }
}

/// The value at a pointer, as text.
pub(super) fn text(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    }
}

/// The value at a pointer, as a number.
pub(super) fn number(value: &Value, pointer: &str) -> i64 {
    value
        .pointer(pointer)
        .and_then(Value::as_i64)
        .unwrap_or_default()
}
