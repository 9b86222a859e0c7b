//! The state as bytes and back, so that a start need not fold every entry.
//!
//! A snapshot is a cache of the fold and never a record: it is good for exactly one form, which
//! names the program's version and the very sources of the fold (`build.rs`). Any other is not
//! migrated but made anew from the ledger.
//!
//! The bytes say nothing about whether they are the fold of a certain ledger: whoever keeps them
//! binds them to one (`portcullis-store`, `snapshot.rs`).

use portcullis_model::Refusal;

use crate::State;

/// Names what a snapshot is of.
pub(crate) const FORM: &str = concat!(
    "portcullis-flow ",
    env!("CARGO_PKG_VERSION"),
    " sources ",
    env!("PORTCULLIS_FOLD_SOURCES")
);

pub(crate) fn write(state: &State) -> Result<Vec<u8>, Refusal> {
    serde_json::to_vec(state)
        .map_err(|error| Refusal::internal(format!("the state does not serialise: {error}")))
}

pub(crate) fn read(bytes: &[u8]) -> Result<State, Refusal> {
    serde_json::from_slice(bytes).map_err(|error| {
        Refusal::malformed("snapshot of the state")
            .expected(FORM)
            .received(&error.to_string())
    })
}

/// Maps whose keys are not text, as lists of pairs.
pub(crate) mod pairs {
    use imbl::OrdMap;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<K, V, S>(map: &OrdMap<K, V>, serializer: S) -> Result<S::Ok, S::Error>
    where
        K: Serialize + Ord,
        V: Serialize,
        S: Serializer,
    {
        serializer.collect_seq(map.iter())
    }

    pub(crate) fn deserialize<'de, K, V, D>(deserializer: D) -> Result<OrdMap<K, V>, D::Error>
    where
        K: Deserialize<'de> + Ord + Clone,
        V: Deserialize<'de> + Clone,
        D: Deserializer<'de>,
    {
        Ok(Vec::<(K, V)>::deserialize(deserializer)?
            .into_iter()
            .collect())
    }
}
