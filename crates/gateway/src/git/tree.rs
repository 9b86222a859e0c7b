//! Trees by our own code: read, changed and hashed without asking git for the result.
//!
//! [`super::objects::ObjectView::recompute_tree`] takes the base's trees and the raw entries of a
//! diff, and computes the id that the resulting tree must have. Landing compares it with the tree
//! that git made: a difference that the diff doesn't show (an empty directory, a defect in either
//! code) can't land.

use portcullis_model::{GitOid, Refusal};

#[cfg(test)]
mod tests;

/// Deepest tree in directories that is recomputed: what paths of 4,096 bytes allow, and more than
/// people use.
pub const TREE_DEPTH_MAX: usize = 256;

/// Mode of a directory in a tree object.
pub const MODE_TREE: u32 = 0o040_000;
/// Mode of a plain file.
pub const MODE_FILE: u32 = 0o100_644;
/// Mode of an executable file.
pub const MODE_EXECUTABLE: u32 = 0o100_755;
/// Mode of a symbolic link.
pub const MODE_SYMLINK: u32 = 0o120_000;
/// Mode of a submodule.
pub const MODE_SUBMODULE: u32 = 0o160_000;

/// How a repository names objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectFormat {
    /// 20-byte ids.
    Sha1,
    /// 32-byte ids.
    Sha256,
}

impl ObjectFormat {
    /// The format that this id is of.
    pub fn of(oid: &GitOid) -> Self {
        if oid.as_str().len() == 64 {
            Self::Sha256
        } else {
            Self::Sha1
        }
    }

    /// The format of this name.
    ///
    /// # Errors
    /// `unknown-object-format`.
    pub fn named(name: &str) -> Result<Self, Refusal> {
        match name {
            "sha1" => Ok(Self::Sha1),
            "sha256" => Ok(Self::Sha256),
            other => Err(Refusal::unavailable(
                "unknown-object-format",
                "this repository is of a kind that we don't know",
            )
            .expected("sha1 or sha256")
            .received(other)),
        }
    }

    /// Git's name for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
        }
    }

    /// Bytes of an id.
    pub const fn id_bytes(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }

    /// The id that means "no object".
    pub fn zero(self) -> Result<GitOid, Refusal> {
        "0".repeat(self.id_bytes() * 2).parse()
    }

    /// The id of an object.
    pub fn hash(self, kind: &str, content: &[u8]) -> Result<GitOid, Refusal> {
        let algorithm = match self {
            Self::Sha1 => &aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => &aws_lc_rs::digest::SHA256,
        };
        let mut context = aws_lc_rs::digest::Context::new(algorithm);
        context.update(format!("{kind} {}\0", content.len()).as_bytes());
        context.update(content);
        portcullis_model::digest::encode_hex(context.finish().as_ref()).parse()
    }

    /// The id of the tree with nothing in it.
    pub fn empty_tree(self) -> Result<GitOid, Refusal> {
        self.hash("tree", &[])
    }
}

/// One entry of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeEntry {
    /// File type and permission bits, as in [`MODE_FILE`].
    pub mode: u32,
    /// One part of a path.
    pub name: Vec<u8>,
    /// What stands there.
    pub oid: GitOid,
}

/// One difference between two trees, of a file, link or submodule. Directories are not listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawEntry {
    /// Mode before; 0 if there was nothing.
    pub old_mode: u32,
    /// Mode after; 0 if there is nothing.
    pub new_mode: u32,
    /// Object before; zero if there was nothing.
    pub old_oid: GitOid,
    /// Object after; zero if there is nothing.
    pub new_oid: GitOid,
    /// Path from the root.
    pub path: Vec<u8>,
}

/// Reads a tree object.
///
/// # Errors
/// `malformed-tree`.
pub fn parse_tree(format: ObjectFormat, mut bytes: &[u8]) -> Result<Vec<TreeEntry>, Refusal> {
    let malformed = || Refusal::malformed("tree").expected("mode, name and id of each entry");
    let mut entries = Vec::new();
    while !bytes.is_empty() {
        let space = bytes
            .iter()
            .take(8)
            .position(|byte| *byte == b' ')
            .ok_or_else(malformed)?;
        let (mode, rest) = bytes.split_at(space);
        let mode = std::str::from_utf8(mode)
            .ok()
            .and_then(|text| u32::from_str_radix(text, 8).ok())
            .ok_or_else(malformed)?;
        let rest = rest.get(1..).ok_or_else(malformed)?;
        let end = rest
            .iter()
            .position(|byte| *byte == 0)
            .ok_or_else(malformed)?;
        let (name, rest) = rest.split_at(end);
        let (id, rest) = rest
            .get(1..)
            .and_then(|rest| rest.split_at_checked(format.id_bytes()))
            .ok_or_else(malformed)?;
        entries.push(TreeEntry {
            mode,
            name: name.to_vec(),
            oid: portcullis_model::digest::encode_hex(id).parse()?,
        });
        bytes = rest;
    }
    Ok(entries)
}

/// Writes a tree object, its entries in git's order: directories as if their names ended in `/`.
///
/// # Errors
/// `malformed-tree`: a name is empty or given twice.
pub fn encode_tree(entries: &[TreeEntry]) -> Result<Vec<u8>, Refusal> {
    let key = |entry: &TreeEntry| {
        let mut key = entry.name.clone();
        if entry.mode == MODE_TREE {
            key.push(b'/');
        }
        key
    };
    let mut sorted: Vec<&TreeEntry> = entries.iter().collect();
    sorted.sort_by_key(|entry| key(entry));
    let names: std::collections::BTreeSet<&[u8]> =
        entries.iter().map(|entry| entry.name.as_slice()).collect();
    if names.len() != entries.len() || names.contains(&b""[..]) {
        return Err(Refusal::malformed("tree").expected("each name once, and none empty"));
    }
    let mut out = Vec::new();
    for entry in sorted {
        out.extend_from_slice(format!("{:o} ", entry.mode).as_bytes());
        out.extend_from_slice(&entry.name);
        out.push(0);
        let id = portcullis_model::digest::decode_hex(entry.oid.as_str())
            .ok_or_else(|| Refusal::malformed("tree").received(entry.oid.as_str()))?;
        out.extend_from_slice(&id);
    }
    Ok(out)
}

/// What a directory's entries become, and which directories below must be changed first.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    /// Entries that stay or are set at this level.
    pub(crate) entries: Vec<TreeEntry>,
    /// Directories to descend into: name, the tree that stands there, and the differences below.
    pub(crate) below: Vec<(Vec<u8>, Option<GitOid>, Vec<Difference<'a>>)>,
}

/// A raw entry and the part of its path that is still to go.
#[derive(Clone, Debug)]
pub(crate) struct Difference<'a> {
    pub(crate) rest: &'a [u8],
    pub(crate) entry: &'a RawEntry,
}

/// Applies `differences` to the entries of one directory, holding each against what stands there.
pub(crate) fn plan<'a>(
    mut entries: Vec<TreeEntry>,
    differences: &[Difference<'a>],
) -> Result<Plan<'a>, Refusal> {
    let mut below: Vec<(Vec<u8>, Option<GitOid>, Vec<Difference<'a>>)> = Vec::new();
    let mut set = Vec::new();
    for difference in differences {
        let slash = difference.rest.iter().position(|byte| *byte == b'/');
        let (name, rest) = match slash {
            Some(at) => {
                let (name, rest) = difference.rest.split_at(at);
                (name, rest.get(1..))
            }
            None => (difference.rest, None),
        };
        if name.is_empty() {
            return Err(contradicts(difference.entry, "a path without empty parts"));
        }
        if let Some(rest) = rest {
            let difference = Difference {
                rest,
                entry: difference.entry,
            };
            match below.iter_mut().rev().find(|(known, ..)| known == name) {
                Some((_, _, list)) => list.push(difference),
                None => below.push((name.to_vec(), None, vec![difference])),
            }
            continue;
        }
        let entry = difference.entry;
        let at = entries.iter().position(|known| known.name == name);
        let standing = at.and_then(|at| entries.get(at));
        let as_said = match standing {
            Some(known) if known.mode == MODE_TREE => entry.old_mode == 0,
            Some(known) => known.mode == entry.old_mode && known.oid == entry.old_oid,
            None => entry.old_mode == 0,
        };
        if !as_said {
            return Err(contradicts(entry, "what the base holds at this path"));
        }
        if let Some(at) = at.filter(|_| entry.old_mode != 0) {
            entries.remove(at);
        }
        if entry.new_mode != 0 {
            set.push(TreeEntry {
                mode: entry.new_mode,
                name: name.to_vec(),
                oid: entry.new_oid.clone(),
            });
        }
    }
    for (name, tree, _) in &mut below {
        if let Some(at) = entries
            .iter()
            .position(|known| known.name == *name && known.mode == MODE_TREE)
        {
            *tree = Some(entries.remove(at).oid);
        }
    }
    entries.append(&mut set);
    Ok(Plan { entries, below })
}

fn contradicts(entry: &RawEntry, expected: &str) -> Refusal {
    Refusal::conflict(
        "diff-contradicts-base",
        "the diff does not fit the tree that it is applied to",
    )
    .expected(expected)
    .received(&String::from_utf8_lossy(&entry.path))
}

/// Reads `git diff-tree -r -z --raw --no-abbrev --no-renames` of two trees.
///
/// # Errors
/// `malformed-raw-diff`.
pub fn parse_raw(bytes: &[u8]) -> Result<Vec<RawEntry>, Refusal> {
    let mut fields = bytes.split(|byte| *byte == 0);
    let mut entries = Vec::new();
    while let Some(head) = fields.next() {
        if head.is_empty() {
            continue;
        }
        let path = fields.next().unwrap_or_default();
        entries.push(parse_raw_record(head, path)?);
    }
    Ok(entries)
}

/// One record: `:mode mode oid oid status`, and its path.
pub(crate) fn parse_raw_record(head: &[u8], path: &[u8]) -> Result<RawEntry, Refusal> {
    let shown = || String::from_utf8_lossy(head).into_owned();
    let malformed = || {
        Refusal::malformed("raw diff")
            .expected(":mode mode object object status, then a path")
            .received(&shown())
    };
    let text = std::str::from_utf8(head).map_err(|_| malformed())?;
    let words: Vec<&str> = text
        .strip_prefix(':')
        .ok_or_else(malformed)?
        .split(' ')
        .collect();
    let [old_mode, new_mode, old_oid, new_oid, _status] = words.as_slice() else {
        return Err(malformed());
    };
    let mode = |word: &str| u32::from_str_radix(word, 8).map_err(|_| malformed());
    if path.is_empty() {
        return Err(malformed());
    }
    Ok(RawEntry {
        old_mode: mode(old_mode)?,
        new_mode: mode(new_mode)?,
        old_oid: old_oid.parse()?,
        new_oid: new_oid.parse()?,
        path: path.to_vec(),
    })
}
