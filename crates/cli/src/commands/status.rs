//! `status`: how a server is, and how writing its ledger goes.

use portcullis_model::Refusal;
use serde_json::Value;

use crate::context::Context;
use crate::exit::Exit;
use crate::output;

/// Says how the server is: its ledger, what is halted, what waits to be recorded.
#[derive(Debug, clap::Args)]
pub(crate) struct Status {}

impl Status {
    /// Runs it.
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Refusal> {
        let status: Value = context.client()?.get("/v1/status").await?;
        context.out().print(&status, || tell(&status))?;
        Ok(Exit::Done)
    }
}

fn text(value: &Value, at: &str) -> String {
    match value.pointer(at) {
        Some(Value::String(text)) => output::clean_line(text),
        Some(Value::Null) | None => "?".to_owned(),
        Some(other) => other.to_string(),
    }
}

fn number(value: &Value, at: &str) -> u64 {
    value.pointer(at).and_then(Value::as_u64).unwrap_or(0)
}

/// The answer in lines.
fn tell(status: &Value) -> String {
    let mut lines = vec![
        format!(
            "{}: version {}, {}",
            text(status, "/origin"),
            text(status, "/version"),
            text(status, "/role")
        ),
        format!(
            "ledger: {} entries, root {}",
            text(status, "/size"),
            text(status, "/root")
        ),
    ];
    let breakers = status.get("breakers").and_then(Value::as_array);
    for trip in breakers.into_iter().flatten() {
        let scope = match trip.pointer("/scope/id") {
            Some(_) => format!("{} {}", text(trip, "/scope/kind"), text(trip, "/scope/id")),
            None => text(trip, "/scope/kind"),
        };
        lines.push(format!(
            "halted: {scope}, since {} (entry {})",
            text(trip, "/time"),
            text(trip, "/index")
        ));
    }
    lines.extend(recording(status));
    if let Some(cosigned) = status
        .pointer("/witnesses/cosigned")
        .filter(|it| !it.is_null())
    {
        lines.push(format!(
            "witnesses: {} entries are cosigned",
            text(cosigned, "/size")
        ));
    }
    lines.join("\n")
}

/// How writing goes, worst first.
fn recording(status: &Value) -> Vec<String> {
    let Some(recording) = status.get("recording") else {
        return Vec::new();
    };
    let mut lines = Vec::new();
    if recording.get("grants") == Some(&Value::Bool(false)) {
        lines.push("recording: nothing is granted now".to_owned());
    }
    for (name, what) in [
        ("failed", "the newest attempt to write failed"),
        ("doubt", "the ledger is in doubt"),
    ] {
        let Some(why) = recording.get(name).filter(|why| !why.is_null()) else {
            continue;
        };
        let since = match why.get("since") {
            Some(_) => format!(", since {}", text(why, "/since")),
            None => String::new(),
        };
        lines.push(format!(
            "recording: {what}{since}: {} [{}]",
            text(why, "/message"),
            text(why, "/code")
        ));
        if let Some(next) = why.get("next").and_then(Value::as_str) {
            lines.push(format!("  next: {}", output::clean_line(next)));
        }
    }
    let (unrecorded, reserved) = (
        number(recording, "/unrecorded"),
        number(recording, "/in_reserve"),
    );
    if unrecorded > 0 {
        lines.push(format!(
            "recording: {unrecorded} entries are in effect and UNRECORDED: in the server's memory alone, lost if it ends"
        ));
    }
    if reserved > 0 {
        lines.push(format!("recording: {reserved} entries are in the reserve, and go to the ledger as soon as it can be written"));
    }
    let ahead = recording.get("halted_ahead").and_then(Value::as_array);
    if let Some(ahead) = ahead.filter(|ahead| !ahead.is_empty()) {
        lines.push(format!(
            "recording: {} halts are in effect that the ledger does not have",
            ahead.len()
        ));
    }
    lines.push(format!(
        "queue: {} of {} commands wait, and {} of {} that reduce authority; {} were refused because it was full",
        number(recording, "/queue/ordinary"),
        number(recording, "/queue/ordinary_max"),
        number(recording, "/queue/urgent"),
        number(recording, "/queue/urgent_max"),
        number(recording, "/queue/refused"),
    ));
    lines.push(
        match recording.get("reserve").filter(|space| !space.is_null()) {
            Some(space) => format!(
                "reserve: {} of {} bytes used",
                number(space, "/used_bytes"),
                number(space, "/bytes")
            ),
            None => {
                "reserve: none; what reduces authority would be kept in memory alone".to_owned()
            }
        },
    );
    if let Some(disk) = recording.get("disk").filter(|disk| !disk.is_null()) {
        let state = if disk.get("read_only") == Some(&Value::Bool(true)) {
            ", READ-ONLY"
        } else {
            ""
        };
        lines.push(format!(
            "disk: {} of {} bytes free{state}",
            number(disk, "/free_bytes"),
            number(disk, "/bytes")
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_wrong_stands_in_words() {
        let status = json!({
            "origin": "example.com/shop", "version": "0.1.0", "role": "leader", "size": 12,
            "root": "sha256:00",
            "breakers": [{"scope": {"kind": "agent", "id": "fixer"}, "index": 11, "time": "now"}],
            "recording": {
                "grants": false,
                "queue": {"ordinary": 3, "ordinary_max": 8, "urgent": 1, "urgent_max": 2, "refused": 5},
                "reserve": null, "in_reserve": 2, "unrecorded": 1, "halted_ahead": [{"kind": "everywhere"}],
                "failed": {"code": "disk-full", "message": "could not write", "next": "free space", "since": "then"},
                "doubt": null,
                "disk": {"free_bytes": 0, "bytes": 10, "read_only": true},
            },
        });
        let told = tell(&status);
        for part in [
            "halted: agent fixer",
            "nothing is granted now",
            "since then: could not write [disk-full]\n  next: free space",
            "1 entries are in effect and UNRECORDED",
            "2 entries are in the reserve",
            "1 halts are in effect",
            "3 of 8 commands wait, and 1 of 2",
            "reserve: none",
            "0 of 10 bytes free, READ-ONLY",
        ] {
            assert!(told.contains(part), "{part}: {told}");
        }
    }
}
