use proptest::prelude::*;

use super::*;

#[test]
fn the_empty_tree_has_the_id_that_everyone_knows() {
    assert_eq!(
        ObjectFormat::Sha1.empty_tree().unwrap().as_str(),
        "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
    );
    assert_eq!(
        ObjectFormat::Sha256.empty_tree().unwrap().as_str(),
        "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321"
    );
}

fn oid(digit: char) -> GitOid {
    digit.to_string().repeat(40).parse().unwrap()
}

fn entry(mode: u32, name: &str, id: char) -> TreeEntry {
    TreeEntry {
        mode,
        name: name.into(),
        oid: oid(id),
    }
}

#[test]
fn directories_sort_as_if_they_ended_in_a_slash() {
    let entries = [
        entry(MODE_TREE, "a", '1'),
        entry(MODE_FILE, "a.b", '2'),
        entry(MODE_FILE, "a0", '3'),
    ];
    let bytes = encode_tree(&entries).unwrap();
    let names: Vec<_> = parse_tree(ObjectFormat::Sha1, &bytes)
        .unwrap()
        .into_iter()
        .map(|entry| entry.name)
        .collect();
    assert_eq!(names, [&b"a.b"[..], b"a", b"a0"]);
    let twice = [entry(MODE_TREE, "a", '1'), entry(MODE_FILE, "a", '2')];
    assert!(encode_tree(&twice).is_err());
}

#[test]
fn a_diff_that_contradicts_the_base_is_refused() {
    let change = RawEntry {
        old_mode: MODE_FILE,
        new_mode: MODE_FILE,
        old_oid: oid('9'),
        new_oid: oid('2'),
        path: b"a".to_vec(),
    };
    let difference = Difference {
        rest: &change.path,
        entry: &change,
    };
    let base = vec![entry(MODE_FILE, "a", '1')];
    let refusal = plan(base, &[difference]).unwrap_err();
    assert_eq!(refusal.code, "diff-contradicts-base");
}

proptest! {
    #[test]
    fn no_bytes_make_the_readers_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse_tree(ObjectFormat::Sha1, &bytes);
        let _ = parse_tree(ObjectFormat::Sha256, &bytes);
        let _ = parse_raw(&bytes);
    }

    #[test]
    fn a_tree_survives_its_bytes(names in proptest::collection::btree_set("[a-z.]{1,6}", 0..20)) {
        let entries: Vec<_> = names.iter().map(|name| entry(MODE_FILE, name, '5')).collect();
        let bytes = encode_tree(&entries).unwrap();
        prop_assert_eq!(parse_tree(ObjectFormat::Sha1, &bytes).unwrap(), entries);
    }
}
