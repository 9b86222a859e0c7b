//! How writing the ledger goes, as `/v1/status` says it.

use portcullis_flow::State;
use portcullis_model::Refusal;
use rustix::fs::{StatVfsMountFlags, statvfs};
use serde_json::{Value, json};

use crate::app::App;

/// How writing the ledger goes: what waits and how much may, what is in effect and where it is kept,
/// what the disk has left.
pub(super) fn recording(app: &App, state: &State) -> Value {
    let writing = app.ledger.writing();
    // A file system that an error made read-only does not say so, but to whoever writes.
    let turned_read_only = writing
        .failed
        .as_ref()
        .is_some_and(|failed| failed.refusal.code == "disk-read-only");
    let disk = statvfs(app.ledger.dir()).ok().map(|disk| {
        json!({
            "free_bytes": disk.f_bavail.saturating_mul(disk.f_frsize),
            "bytes": disk.f_blocks.saturating_mul(disk.f_frsize),
            "read_only": disk.f_flag.contains(StatVfsMountFlags::RDONLY) || turned_read_only,
        })
    });
    let refusal = |refusal: &Refusal| json!({ "code": refusal.code, "message": refusal.message, "next": refusal.next });
    json!({
        "grants": writing.grants() && app.ledger.why_closed().is_none(),
        "queue": {
            "ordinary": writing.queue.ordinary, "ordinary_max": writing.queue.ordinary_max,
            "urgent": writing.queue.urgent, "urgent_max": writing.queue.urgent_max,
            "refused": writing.queue.refused,
        },
        "reserve": writing.reserve.map(|space| {
            json!({ "used_bytes": space.used_bytes, "bytes": space.bytes })
        }),
        "in_reserve": writing.reserved,
        "unrecorded": writing.unrecorded,
        "halted_ahead": app.halted_ahead(state),
        "failed": writing.failed.as_ref().map(|failed| json!({
            "code": failed.refusal.code, "message": failed.refusal.message,
            "next": failed.refusal.next, "since": failed.since,
        })),
        "doubt": writing.doubt.as_deref().map(refusal),
        "disk": disk,
    })
}
