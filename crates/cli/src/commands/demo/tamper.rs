//! One byte changed in a file of evidence. Pure.

use serde_json::Value;

/// A place where a byte is changed.
pub(super) struct Tampering {
    /// What is altered, for the reader.
    pub(super) what: &'static str,
    /// The links of which one must be named as broken; none where the file itself is another.
    pub(super) links: &'static [&'static str],
    /// Alters the bundle; none if it holds no such thing.
    pub(super) alter: fn(&mut Value) -> Option<()>,
}

/// All of them. The artifact's own bytes are altered elsewhere: they are not in the bundle.
pub(super) const ALL: &[Tampering] = &[
    Tampering {
        what: "the signed task",
        links: &["task"],
        alter: |bundle| entry(bundle, "task.accepted", "\"src/**\"", "\"srd/**\""),
    },
    Tampering {
        what: "the approval",
        links: &["approvals"],
        alter: |bundle| entry(bundle, "approval.given", "\"count\":1", "\"count\":2"),
    },
    Tampering {
        what: "the test result",
        links: &["tests"],
        alter: |bundle| attestation(bundle, "test"),
    },
    Tampering {
        what: "the provenance",
        links: &["build"],
        alter: |bundle| attestation(bundle, "build"),
    },
    Tampering {
        what: "the policy",
        links: &["policy"],
        alter: policy,
    },
    Tampering {
        what: "the ledger's proof",
        links: &["inclusion"],
        alter: proof,
    },
    Tampering {
        what: "the checkpoint",
        links: &["checkpoint"],
        alter: checkpoint,
    },
];

/// Changes a text of the same length in the first entry of a kind.
fn entry(bundle: &mut Value, kind: &str, from: &str, to: &str) -> Option<()> {
    let wanted = format!("\"type\":\"{kind}\"");
    let entries = bundle.get_mut("entries")?.as_array_mut()?;
    let bytes = entries.iter_mut().find_map(|entry| {
        let bytes = entry.get_mut("bytes")?;
        let text = bytes.as_str()?;
        (text.contains(&wanted) && text.contains(from)).then_some(bytes)
    })?;
    let altered = bytes.as_str()?.replacen(from, to, 1);
    *bytes = Value::String(altered);
    Some(())
}

/// Changes a byte of what a job of this kind was attested with.
fn attestation(bundle: &mut Value, kind: &str) -> Option<()> {
    let bodies = bodies(bundle)?;
    let asked = |job: &str| {
        bodies.iter().any(|(index, name, body)| {
            name == "job.requested"
                && format!("job-{index}") == job
                && body.get("kind").and_then(Value::as_str) == Some(kind)
        })
    };
    let digest = bodies.iter().rev().find_map(|(_, name, body)| {
        let mine = name == "job.finished" && asked(body.get("job")?.as_str()?);
        mine.then(|| body.get("attestation")?.as_str().map(str::to_owned))
            .flatten()
    })?;
    blob(bundle, &digest)
}

/// Changes a byte of a policy file that the genesis names.
fn policy(bundle: &mut Value) -> Option<()> {
    let bodies = bodies(bundle)?;
    let (_, _, genesis) = bodies.first()?;
    let digest = genesis
        .pointer("/policy/files")?
        .as_object()?
        .values()
        .next()?
        .as_str()?
        .to_owned();
    blob(bundle, &digest)
}

/// Changes a digit of a proof.
fn proof(bundle: &mut Value) -> Option<()> {
    let entries = bundle.get_mut("entries")?.as_array_mut()?;
    let middle = entries.len() / 2;
    let hash = entries
        .get_mut(middle)?
        .get_mut("proof")?
        .as_array_mut()?
        .first_mut()?;
    let altered = flip(hash.as_str()?, 20)?;
    *hash = Value::String(altered);
    Some(())
}

/// Changes a digit of the tree's root in the signed checkpoint.
fn checkpoint(bundle: &mut Value) -> Option<()> {
    let note = bundle.get_mut("checkpoint")?;
    let text = note.as_str()?;
    let root = text
        .lines()
        .take(2)
        .map(|line| line.len() + 1)
        .sum::<usize>();
    let altered = flip(text, root + 4)?;
    *note = Value::String(altered);
    Some(())
}

fn blob(bundle: &mut Value, digest: &str) -> Option<()> {
    let bytes = bundle.get_mut("blobs")?.get_mut(digest)?;
    let text = bytes.as_str()?;
    let altered = flip(text, text.len() / 2)?;
    *bytes = Value::String(altered);
    Some(())
}

/// Another character of hex and base64 in the place of one.
fn flip(text: &str, at: usize) -> Option<String> {
    let (before, rest) = text.split_at_checked(at)?;
    let was = rest.chars().next()?;
    let other = if was == 'a' { 'b' } else { 'a' };
    Some(format!("{before}{other}{}", rest.get(was.len_utf8()..)?))
}

/// Index, type and body of every entry.
fn bodies(bundle: &Value) -> Option<Vec<(u64, String, Value)>> {
    let entries = bundle.get("entries")?.as_array()?;
    entries
        .iter()
        .map(|entry| {
            let read: Value = serde_json::from_str(entry.get("bytes")?.as_str()?).ok()?;
            let name = read.get("type")?.as_str()?.to_owned();
            Some((
                entry.get("index")?.as_u64()?,
                name,
                read.get("body")?.clone(),
            ))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn bundle() -> Value {
        let entry = |index: u64, kind: &str, body: Value| {
            let bytes = json!({ "type": kind, "body": body }).to_string();
            json!({ "index": index, "bytes": bytes, "proof": [format!("sha256:{}", "0".repeat(64))] })
        };
        json!({
            "checkpoint": "shop\n9\nAAAAAAAAAAAA\n\n— shop x\n",
            "entries": [
                entry(0, "genesis.created", json!({ "policy": { "files": { "a": "p" } } })),
                entry(1, "task.accepted", json!({ "allow": ["src/**"] })),
                entry(2, "job.requested", json!({ "kind": "test" })),
                entry(3, "job.finished", json!({ "job": "job-2", "attestation": "t" })),
                entry(4, "job.requested", json!({ "kind": "build" })),
                entry(5, "job.finished", json!({ "job": "job-4", "attestation": "b" })),
                entry(6, "approval.given", json!({ "count": 1 })),
            ],
            "blobs": { "p": "QUJDRA==", "t": "QUJDRA==", "b": "QUJDRA==" },
        })
    }

    #[test]
    fn every_alteration_changes_something_and_keeps_the_length() {
        for tampering in ALL {
            let mut altered = bundle();
            (tampering.alter)(&mut altered).unwrap();
            assert_ne!(altered, bundle(), "{}", tampering.what);
            assert_eq!(
                altered.to_string().len(),
                bundle().to_string().len(),
                "{}",
                tampering.what
            );
            assert!((tampering.alter)(&mut json!({ "entries": [] })).is_none());
        }
    }

    #[test]
    fn the_right_attestation_is_altered() {
        let mut altered = bundle();
        attestation(&mut altered, "build").unwrap();
        assert_eq!(altered.pointer("/blobs/t"), bundle().pointer("/blobs/t"));
        assert_ne!(altered.pointer("/blobs/b"), bundle().pointer("/blobs/b"));
    }
}
