//! Commit and tree objects: their id from their bytes, and what of them matters here.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use portcullis_model::digest::encode_hex;
use portcullis_model::{GitOid, Refusal};

/// What of a commit object matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Commit {
    pub(super) tree: GitOid,
    pub(super) parents: Vec<GitOid>,
}

/// Checks that `bytes` are the commit object `oid` and reads it.
pub(super) fn commit(oid: &GitOid, bytes: &[u8]) -> Result<Commit, Refusal> {
    if !named(oid, "commit", bytes) {
        return Err(altered(oid, "commit"));
    }
    let malformed = || {
        Refusal::malformed("commit object")
            .expected("a tree, then parents")
            .received(oid.as_str())
    };
    let mut lines = bytes
        .split(|byte| *byte == b'\n')
        .map_while(|line| std::str::from_utf8(line).ok());
    let tree = lines
        .next()
        .and_then(|line| line.strip_prefix("tree "))
        .ok_or_else(malformed)?
        .parse()?;
    let parents = lines
        .map_while(|line| line.strip_prefix("parent "))
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    Ok(Commit { tree, parents })
}

/// Mode of a directory in a tree object.
pub(super) const MODE_TREE: u32 = 0o040_000;

/// One entry of a tree: mode and object, by name.
pub(super) type Tree = BTreeMap<Vec<u8>, (u32, GitOid)>;

/// Checks that `bytes` are the tree object `oid` and reads it, as strictly as git writes it: in
/// git's order, each name once and of one part.
pub(super) fn tree(oid: &GitOid, mut bytes: &[u8]) -> Result<Tree, Refusal> {
    if !named(oid, "tree", bytes) {
        return Err(altered(oid, "tree"));
    }
    let malformed = || {
        Refusal::malformed("tree object")
            .expected("mode, name and id of each entry, in git's order")
            .received(oid.as_str())
    };
    let id_bytes = oid.as_str().len() / 2;
    let mut entries = Tree::new();
    let mut last: Option<Vec<u8>> = None;
    while !bytes.is_empty() {
        let end = bytes
            .iter()
            .position(|byte| *byte == 0)
            .ok_or_else(malformed)?;
        let (head, rest) = bytes.split_at(end);
        let (id, rest) = rest
            .get(1..)
            .and_then(|rest| rest.split_at_checked(id_bytes))
            .ok_or_else(malformed)?;
        let space = head
            .iter()
            .position(|byte| *byte == b' ')
            .ok_or_else(malformed)?;
        let (mode, name) = head.split_at(space);
        let mode = std::str::from_utf8(mode)
            .ok()
            .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|text| u32::from_str_radix(text, 8).ok())
            .ok_or_else(malformed)?;
        let name = name.get(1..).unwrap_or_default().to_vec();
        if name.is_empty() || name.contains(&b'/') {
            return Err(malformed());
        }
        let mut place = name.clone();
        if mode == MODE_TREE {
            place.push(b'/');
        }
        if last.as_ref().is_some_and(|last| *last >= place) {
            return Err(malformed());
        }
        last = Some(place);
        let twice = entries.insert(name, (mode, encode_hex(id).parse()?));
        if twice.is_some() {
            return Err(malformed());
        }
        bytes = rest;
    }
    Ok(entries)
}

/// Whether git gives an object of these bytes this id.
fn named(oid: &GitOid, kind: &str, bytes: &[u8]) -> bool {
    // The repository chooses its hash; SHA-1 is what most have, and git's own ids can't be others.
    let algorithm = if oid.as_str().len() == 40 {
        &SHA1_FOR_LEGACY_USE_ONLY
    } else {
        &SHA256
    };
    let mut context = Context::new(algorithm);
    context.update(format!("{kind} {}\0", bytes.len()).as_bytes());
    context.update(bytes);
    encode_hex(context.finish().as_ref()) == oid.as_str()
}

fn altered(oid: &GitOid, kind: &str) -> Refusal {
    Refusal::denied(
        &format!("{kind}-altered"),
        format!("a {kind} object is not the {kind} that it is given for"),
    )
    .expected(oid.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `git hash-object -t commit` over these bytes, in a SHA-1 repository.
    #[test]
    fn the_id_is_that_of_git() {
        let bytes = b"tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n\
            author A <a@b> 0 +0000\ncommitter A <a@b> 0 +0000\n\nx\n";
        let oid: GitOid = "7b8051db3dcc0fcfd006919cfa7376ddbd7bdc1a".parse().unwrap();
        let read = commit(&oid, bytes).unwrap();
        assert_eq!(
            read.tree.as_str(),
            "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
        );
        assert!(read.parents.is_empty());
        assert!(commit(&oid, &bytes[1..]).is_err());
    }

    fn hashed(bytes: &[u8]) -> GitOid {
        let framed = [format!("tree {}\0", bytes.len()).as_bytes(), bytes].concat();
        let hash = aws_lc_rs::digest::digest(&SHA1_FOR_LEGACY_USE_ONLY, &framed);
        encode_hex(hash.as_ref()).parse().unwrap()
    }

    #[test]
    fn a_tree_is_read_as_git_writes_it_and_no_other_way() {
        let empty: GitOid = "4b825dc642cb6eb9a060e54bf8d69288fbee4904".parse().unwrap();
        assert!(tree(&empty, b"").unwrap().is_empty());
        let entry =
            |mode: &str, name: &str| [format!("{mode} {name}\0").as_bytes(), &[7; 20]].concat();
        let read = |parts: &[Vec<u8>]| {
            let bytes = parts.concat();
            tree(&hashed(&bytes), &bytes)
        };
        // A directory stands where its name with a slash would.
        let good = [
            entry("100644", "a.b"),
            entry("40000", "a"),
            entry("100755", "a0"),
        ];
        let all = read(&good).unwrap();
        assert_eq!(all.len(), 3);
        assert_eq!(all[&b"a".to_vec()].0, MODE_TREE);
        assert!(tree(&empty, &good.concat()).is_err());
        for bad in [
            vec![entry("100644", "b"), entry("100644", "a")],
            vec![entry("100644", "a"), entry("100644", "a")],
            // A file and a directory of one name stand apart in git's order.
            vec![
                entry("100644", "a"),
                entry("100644", "a.b"),
                entry("40000", "a"),
            ],
            vec![entry("100644", "a/b")],
            vec![entry("100644", "")],
            vec![entry("+00644", "a")],
            vec![entry("100649", "a")],
            vec![entry("100644", "a")[..20].to_vec()],
            vec![b"100644 a".to_vec()],
        ] {
            assert!(read(&bad).is_err(), "{bad:?}");
        }
    }
}
