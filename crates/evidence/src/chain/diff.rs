//! What differs between two commits, from their tree objects alone.
//!
//! A landing on a later base claims the diff that people signed. Here that is computed anew, by
//! code that shares nothing with the server's: the tree objects of the bundle are hashed, read, and
//! walked where they differ. What is equal has the same id, and needs no object.

use std::collections::{BTreeMap, BTreeSet};

use portcullis_model::{GitOid, Refusal};

use super::book::Book;
use super::git::{MODE_TREE, Tree};

/// Most directories that are walked for one diff: as many as a bundle has objects.
const DIRECTORIES_MAX: usize = super::bundle::OBJECTS_MAX;
/// Most paths that one diff may have.
const PATHS_MAX: usize = 1_000_000;
/// Deepest path in directories.
const DEPTH_MAX: usize = 1_024;

/// What stands at a path: mode and object.
type Place = Option<(u32, GitOid)>;

/// By path, what stood there and what stands there. Directories have no line of their own, unless
/// they are empty: those would come and go unseen.
pub(super) type Diff = BTreeMap<Vec<u8>, (Place, Place)>;

/// What differs between the trees of two commits.
pub(super) fn between(book: &Book<'_>, from: &GitOid, to: &GitOid) -> Result<Diff, Refusal> {
    let (from, to) = (book.commit(from)?.tree, book.commit(to)?.tree);
    between_trees(from, to, |oid| book.tree(oid))
}

fn between_trees(
    from: GitOid,
    to: GitOid,
    read_tree: impl Fn(&GitOid) -> Result<Tree, Refusal>,
) -> Result<Diff, Refusal> {
    let mut diff = Diff::new();
    let mut to_do = vec![(Vec::new(), 0_usize, Some(from), Some(to))];
    let mut walked = 0_usize;
    while let Some((folder, depth, old, new)) = to_do.pop() {
        if old == new {
            continue;
        }
        walked += 1;
        if walked > DIRECTORIES_MAX || depth > DEPTH_MAX || diff.len() > PATHS_MAX {
            return Err(Refusal::limit(
                "diff-too-large",
                "what a landing changes is too much to be recomputed",
            )
            .expected(&format!(
                "at most {DIRECTORIES_MAX} directories and {PATHS_MAX} paths"
            )));
        }
        let read = |side: &Option<GitOid>| match side {
            Some(oid) => read_tree(oid).map(Some),
            None => Ok(None),
        };
        let (old, new) = (read(&old)?, read(&new)?);
        if depth > 0 {
            let emptied = |side: &Option<Tree>| {
                side.as_ref()
                    .filter(|tree| tree.is_empty())
                    .map(|_| (MODE_TREE, GitOid::zero()))
            };
            let places = (emptied(&old), emptied(&new));
            if places.0 != places.1 {
                // A file may have stood here, or stand here now: its line is not to be lost.
                let line = diff.entry(folder.clone()).or_default();
                line.0 = line.0.take().or(places.0);
                line.1 = line.1.take().or(places.1);
            }
        }
        let (old, new) = (old.unwrap_or_default(), new.unwrap_or_default());
        let names: BTreeSet<&Vec<u8>> = old.keys().chain(new.keys()).collect();
        for name in names {
            let (before, after) = (old.get(name), new.get(name));
            if before == after {
                continue;
            }
            let mut path = folder.clone();
            if depth > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(name);
            let file =
                |side: Option<&(u32, GitOid)>| side.filter(|(mode, _)| *mode != MODE_TREE).cloned();
            let below = |side: Option<&(u32, GitOid)>| {
                side.filter(|(mode, _)| *mode == MODE_TREE)
                    .map(|(_, oid)| oid.clone())
            };
            let files = (file(before), file(after));
            if files.0 != files.1 {
                diff.insert(path.clone(), files);
            }
            let folders = (below(before), below(after));
            if folders.0 != folders.1 {
                to_do.push((path, depth + 1, folders.0, folders.1));
            }
        }
    }
    Ok(diff)
}

/// Proves that two pairs of commits differ by exactly the same, and says by how many paths.
pub(super) fn same(
    book: &Book<'_>,
    signed: (&GitOid, &GitOid),
    landed: (&GitOid, &GitOid),
) -> Result<usize, Refusal> {
    let seen = between(book, signed.0, signed.1)?;
    let found = between(book, landed.0, landed.1)?;
    let paths: BTreeSet<&Vec<u8>> = seen.keys().chain(found.keys()).collect();
    match paths
        .into_iter()
        .find(|path| seen.get(*path) != found.get(*path))
    {
        None => Ok(seen.len()),
        Some(path) => {
            let shown: String = String::from_utf8_lossy(path)
                .chars()
                .flat_map(portcullis_model::refusal::visible)
                .collect();
            Err(Refusal::denied(
                "not-the-same-diff",
                "what landed on a later base is not the diff that was signed",
            )
            .expected(&format!("{shown}: {}", told(seen.get(path))))
            .received(&told(found.get(path))))
        }
    }
}

fn told(line: Option<&(Place, Place)>) -> String {
    let place = |place: &Place| match place {
        Some((mode, oid)) => format!("{mode:06o} {}", oid.short()),
        None => "nothing".to_owned(),
    };
    match line {
        Some((old, new)) => format!("{} becomes {}", place(old), place(new)),
        None => "unchanged".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn oid(digit: char) -> GitOid {
        digit.to_string().repeat(40).parse().unwrap()
    }

    fn tree(entries: &[(&str, u32, char)]) -> Tree {
        entries
            .iter()
            .map(|(name, mode, digit)| (name.as_bytes().to_vec(), (*mode, oid(*digit))))
            .collect()
    }

    #[test]
    fn a_file_that_an_empty_folder_replaces_keeps_its_line() {
        const FILE: u32 = 0o100_644;
        let trees: BTreeMap<GitOid, Tree> = [
            ('a', tree(&[("p", FILE, '1')])),
            ('b', tree(&[("p", FILE, '2')])),
            ('c', tree(&[("p", MODE_TREE, 'e')])),
            ('e', Tree::new()),
        ]
        .into_iter()
        .map(|(digit, tree)| (oid(digit), tree))
        .collect();
        let diff = |from: char, to: char| {
            between_trees(oid(from), oid(to), |id| {
                trees
                    .get(id)
                    .cloned()
                    .ok_or_else(|| Refusal::not_found("tree", id))
            })
            .unwrap()
        };
        let (file, folder) = (Some((FILE, oid('1'))), Some((MODE_TREE, GitOid::zero())));
        let line =
            |old: &Place, new: &Place| Diff::from([(b"p".to_vec(), (old.clone(), new.clone()))]);
        assert_eq!(diff('a', 'c'), line(&file, &folder));
        assert_eq!(diff('c', 'a'), line(&folder, &file));
        assert_ne!(diff('a', 'c'), diff('b', 'c'));
    }
}
