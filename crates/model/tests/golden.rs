//! Ledgers outlive programs: one entry of every type and version ever written stays readable, byte
//! for byte.
//!
//! `golden/v1.txt` has one line for each type: the entry's index, a space, the entry. A line is
//! never changed. A new type gets a line; version 2 of a type gets one in `v2.txt`, and so on.

use std::collections::BTreeSet;

use portcullis_model::{Body, Event};

const V1: &str = include_str!("golden/v1.txt");
const V2: &str = include_str!("golden/v2.txt");

fn lines() -> impl Iterator<Item = (u64, &'static str)> {
    V1.lines()
        .chain(V2.lines())
        .map(|line| match line.split_once(' ') {
            Some((index, entry)) => (index.parse().unwrap_or(u64::MAX), entry),
            None => (u64::MAX, line),
        })
}

#[test]
fn every_entry_ever_written_is_read_and_written_byte_for_byte() {
    for (index, entry) in lines() {
        let event = Event::decode(index, entry.as_bytes())
            .unwrap_or_else(|refusal| panic!("{entry}: {refusal}"));
        let bytes = event.encode().unwrap();
        assert_eq!(String::from_utf8(bytes).unwrap(), entry);
    }
}

/// The version that an entry says.
fn version(entry: &str) -> u32 {
    // One that says none is of version 0, which no type has.
    entry
        .rsplit_once("\"version\":")
        .and_then(|(_, rest)| rest.trim_end_matches('}').parse().ok())
        .unwrap_or(0)
}

#[test]
fn every_version_of_every_type_has_its_sample() {
    let known: BTreeSet<(&str, u32)> = Body::TYPES.iter().copied().collect();
    let sampled: BTreeSet<(&str, u32)> = lines()
        .map(|(index, entry)| {
            let event = Event::decode(index, entry.as_bytes()).unwrap();
            (event.body.type_name(), version(entry))
        })
        .collect();
    assert_eq!(sampled, known);
}

#[test]
fn what_a_version_has_is_not_read_as_another() {
    let newer: BTreeSet<&str> = Body::TYPES
        .iter()
        .filter(|(_, version)| *version > 1)
        .map(|(name, _)| *name)
        .collect();
    for (index, entry) in lines() {
        let event = Event::decode(index, entry.as_bytes()).unwrap();
        assert_eq!(event.body.version(), version(entry), "{entry}");
        for other in 1..4 {
            let said = format!("\"version\":{}}}", version(entry));
            let text = entry.replace(&said, &format!("\"version\":{other}}}"));
            if other == version(entry) || text == entry {
                continue;
            }
            let refusal = Event::decode(index, text.as_bytes()).unwrap_err();
            let known = newer.contains(event.body.type_name()) && other < 3;
            let code = if known {
                "malformed-ledger-entry"
            } else {
                "unknown-event-type"
            };
            assert_eq!(refusal.code, code, "{text}");
        }
    }
}

#[test]
fn an_entry_stands_only_at_its_own_index_where_its_stream_names_it() {
    let opens = [
        "run.started",
        "job.requested",
        "release.admitted",
        "artifact.built",
    ];
    for (index, entry) in lines() {
        let event = Event::decode(index, entry.as_bytes()).unwrap();
        if opens.contains(&event.body.type_name()) {
            assert!(
                Event::decode(index + 1, entry.as_bytes()).is_err(),
                "{entry}"
            );
        }
    }
}

#[test]
fn another_spelling_of_an_entry_is_refused() {
    for (index, entry) in lines() {
        for (from, to) in [("Z\"", "z\""), (":", ": "), (".000Z", "Z"), (",\"", ", \"")] {
            let other = entry.replacen(from, to, 1);
            assert!(
                other == entry || Event::decode(index, other.as_bytes()).is_err(),
                "{other}"
            );
        }
    }
}

#[test]
fn unknown_types_versions_and_fields_are_refused() {
    let (index, entry) = lines().next().expect("an entry");
    for (from, to, code) in [
        (
            "\"genesis.created\"",
            "\"genesis.dreamt\"",
            "unknown-event-type",
        ),
        ("\"version\":1}", "\"version\":2}", "unknown-event-type"),
        (
            "\"stream\"",
            "\"extra\":1,\"stream\"",
            "malformed-ledger-entry",
        ),
        (
            "\"quorum\"",
            "\"quorun\":1,\"quorum\"",
            "malformed-ledger-entry",
        ),
        (
            "\"kind\":\"service\"",
            "\"kind\":\"human\"",
            "malformed-ledger-entry",
        ),
    ] {
        let other = entry.replacen(from, to, 1);
        assert_ne!(other, entry, "{from}");
        let refusal = Event::decode(index, other.as_bytes()).unwrap_err();
        assert_eq!(refusal.code, code, "{from}");
    }
}
