//! Finds the name of a model in JSON that may be cut anywhere, without keeping it.

/// Most bytes of an answer that are searched: vendors name the model in the first event or field.
pub(crate) const SCAN_MAX_BYTES: usize = 256 * 1024;
/// Longest model name in bytes.
pub(crate) const MODEL_MAX_BYTES: usize = 256;
/// Deepest nesting that is followed.
const DEPTH_MAX: usize = 64;

/// Where vendors write the model that served, as keys from the outermost object.
const PLACES: &[&[&str]] = &[
    &["model"],
    &["message", "model"],
    &["response", "model"],
    &["modelVersion"],
];

/// The model in the beginning of an answer: JSON, or server-sent events of JSON.
pub(crate) fn served_model(content_type: &str, prefix: &[u8]) -> Option<String> {
    if content_type.starts_with("text/event-stream") {
        return prefix
            .split(|byte| *byte == b'\n')
            .filter_map(|line| line.strip_prefix(b"data:"))
            .find_map(find);
    }
    let json = content_type
        .split(';')
        .next()
        .is_some_and(|kind| kind.trim().ends_with("json"));
    if json { find(prefix) } else { None }
}

/// One level of nesting: in an object, the key that its next value has.
enum Level {
    Object { key: Option<Vec<u8>>, at_key: bool },
    Array,
}

/// The first string at one of [`PLACES`].
fn find(bytes: &[u8]) -> Option<String> {
    let mut levels: Vec<Level> = Vec::new();
    let mut rest = bytes;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'{' => levels.push(Level::Object {
                key: None,
                at_key: true,
            }),
            b'[' => levels.push(Level::Array),
            b'}' | b']' => {
                levels.pop();
            }
            b',' => {
                if let Some(Level::Object { at_key, .. }) = levels.last_mut() {
                    *at_key = true;
                }
            }
            b':' => {
                if let Some(Level::Object { at_key, .. }) = levels.last_mut() {
                    *at_key = false;
                }
            }
            b'"' => {
                let (text, after) = string(rest)?;
                rest = after;
                if let Some(Level::Object { key, at_key: true }) = levels.last_mut() {
                    *key = Some(text.to_vec());
                } else if at_place(&levels) {
                    return name(text);
                }
            }
            _ => {}
        }
        if levels.len() > DEPTH_MAX {
            return None;
        }
    }
    None
}

/// The raw inside of a string, and what follows it.
fn string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut escaped = false;
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some((bytes.get(..at)?, bytes.get(at + 1..)?)),
            _ => {}
        }
    }
    None
}

fn at_place(levels: &[Level]) -> bool {
    // Some vendors stream an array of answers.
    let levels = match levels.split_first() {
        Some((Level::Array, inner)) => inner,
        _ => levels,
    };
    PLACES.iter().any(|place| {
        place.len() == levels.len()
            && place.iter().zip(levels).all(|(name, level)| match level {
                Level::Object { key: Some(key), .. } => key == name.as_bytes(),
                Level::Object { key: None, .. } | Level::Array => false,
            })
    })
}

fn name(raw: &[u8]) -> Option<String> {
    if raw.is_empty() || raw.len() > MODEL_MAX_BYTES {
        return None;
    }
    let quoted = [b"\"", raw, b"\""].concat();
    let text: String = serde_json::from_slice(&quoted).ok()?;
    Some(
        text.chars()
            .flat_map(portcullis_model::refusal::visible)
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_model_is_found_where_vendors_write_it() {
        let json = "application/json; charset=utf-8";
        for (kind, text, model) in [
            (
                json,
                r#"{"id":"x","choices":[{"model":"no"}],"model":"m-1","#,
                Some("m-1"),
            ),
            (
                json,
                r#"{"message":{"content":"\"model\":\"no\"","model":"m-2"}}"#,
                Some("m-2"),
            ),
            (json, r#"{"a":{"model":"no"}}"#, None),
            (json, r#"{"text":"model","b":"no"}"#, None),
            (json, r#"[{"modelVersion":"m-3"}]"#, Some("m-3")),
            (json, r#"{"model":"m-"#, None),
            (json, r#"{"model":7,"x":"no"}"#, None),
            (
                "text/event-stream",
                "event: a\ndata: {\"type\":\"message_start\",\"message\":{\"model\":\"m-4\"}}\n\n",
                Some("m-4"),
            ),
            ("text/event-stream", "data: [DONE]\n\n", None),
            ("text/html", r#"{"model":"no"}"#, None),
        ] {
            assert_eq!(
                served_model(kind, text.as_bytes()).as_deref(),
                model,
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = served_model("application/json", &bytes);
            let _ = served_model("text/event-stream", &bytes);
        }
    }
}
