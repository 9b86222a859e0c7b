//! Canonical JSON: the one byte form that is hashed and signed.
//!
//! The form is that of RFC 8785 for the values we use: objects with sorted keys, no white space,
//! integers only. Floating point numbers are refused, since their text is where implementations
//! differ.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::refusal::Refusal;

/// The canonical bytes of `value`.
///
/// # Errors
/// `value` has a float, a key that is not text, or does not serialise.
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, Refusal> {
    let mut value = serde_json::to_value(value)
        .map_err(|error| Refusal::internal(format!("a value does not serialise: {error}")))?;
    if has_float(&value) {
        return Err(Refusal::internal("canonical JSON holds whole numbers only"));
    }
    // Whether serde_json's map sorts its keys depends on what else is linked (a dependency may turn
    // `preserve_order` on), so it is said here. The order is by bytes; our keys are ASCII, where
    // RFC 8785's UTF-16 order is the same.
    value.sort_all_objects();
    serde_json::to_vec(&value)
        .map_err(|error| Refusal::internal(format!("a value does not serialise: {error}")))
}

/// Reads `bytes` and refuses any other than the canonical spelling of what they say, so that two
/// different byte strings never mean the same.
///
/// # Errors
/// The bytes are not JSON, not canonical, or not a `T`; `what` names the thing in the message.
pub fn from_slice<T: DeserializeOwned + Serialize>(what: &str, bytes: &[u8]) -> Result<T, Refusal> {
    let value: T = serde_json::from_slice(bytes)
        .map_err(|error| Refusal::malformed(what).received(&error.to_string()))?;
    if to_vec(&value)? == bytes {
        Ok(value)
    } else {
        Err(Refusal::malformed(what)
            .expected("canonical JSON: sorted keys, no white space, no unknown fields")
            .received("the same values in another spelling"))
    }
}

fn has_float(value: &Value) -> bool {
    match value {
        Value::Number(number) => !(number.is_u64() || number.is_i64()),
        Value::Array(items) => items.iter().any(has_float),
        Value::Object(fields) => fields.values().any(has_float),
        Value::Null | Value::Bool(_) | Value::String(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_sorted_and_floats_refused() {
        let value = serde_json::json!({"b": 1, "a": [true, null, "x"]});
        assert_eq!(to_vec(&value).unwrap(), br#"{"a":[true,null,"x"],"b":1}"#);
        assert!(to_vec(&serde_json::json!({"a": 0.5})).is_err());
    }

    #[test]
    fn a_second_spelling_is_refused() {
        type Map = std::collections::BTreeMap<String, u64>;
        assert!(from_slice::<Map>("map", br#"{"a":1,"b":2}"#).is_ok());
        for other in [
            &br#"{"b":2,"a":1}"#[..],
            br#"{"a":1, "b":2}"#,
            br#"{"a":1,"a":1}"#,
        ] {
            assert!(from_slice::<Map>("map", other).is_err());
        }
    }
}
