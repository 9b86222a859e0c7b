//! Commit objects: their id from their bytes, their tree and parents.

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
    // The repository chooses its hash; SHA-1 is what most have, and git's own ids can't be others.
    let algorithm = if oid.as_str().len() == 40 {
        &SHA1_FOR_LEGACY_USE_ONLY
    } else {
        &SHA256
    };
    let mut context = Context::new(algorithm);
    context.update(format!("commit {}\0", bytes.len()).as_bytes());
    context.update(bytes);
    let computed = encode_hex(context.finish().as_ref());
    if computed != oid.as_str() {
        return Err(Refusal::denied(
            "commit-altered",
            "a commit object is not the commit that it is given for",
        )
        .expected(oid.as_str())
        .received(&computed));
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
}
