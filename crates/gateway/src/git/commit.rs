//! Commits read from their own bytes: no mail map, no encoding tricks, no formatting by git.

use portcullis_model::{GitOid, Refusal};

/// Largest commit object in bytes that is read: a message longer than a book is no message.
pub const COMMIT_MAX_BYTES: u64 = 1024 * 1024;

/// Who, as a commit says. Nobody checked it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ident {
    /// Name.
    pub name: String,
    /// Mail address.
    pub email: String,
}

impl std::fmt::Display for Ident {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} <{}>", self.name, self.email)
    }
}

/// What a commit says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitInfo {
    /// Its id.
    pub oid: GitOid,
    /// Its tree.
    pub tree: GitOid,
    /// Its parents, first parent first.
    pub parents: Vec<GitOid>,
    /// Who wrote it.
    pub author: Ident,
    /// Who committed it.
    pub committer: Ident,
    /// Seconds since 1970, as the committer says.
    pub committed_at: i64,
    /// The signature in it, armored, if there is one. Nobody verified it.
    pub signature: Option<String>,
    /// The message; bytes that are no UTF-8 are replaced.
    pub message: String,
}

impl CommitInfo {
    /// The first line of the message.
    pub fn subject(&self) -> &str {
        self.message.lines().next().unwrap_or_default()
    }

    /// Whether it carries a signature.
    pub fn has_signature(&self) -> bool {
        self.signature.is_some()
    }
}

/// Reads a commit object.
///
/// # Errors
/// `malformed-commit`: a header is missing, given twice, or not as git writes it.
pub fn parse(oid: &GitOid, bytes: &[u8]) -> Result<CommitInfo, Refusal> {
    let malformed = |expected: &str| {
        Refusal::malformed("commit")
            .expected(expected)
            .received(oid.as_str())
    };
    let end = bytes.windows(2).position(|pair| pair == b"\n\n");
    let (head, message) = match end {
        Some(end) => (
            bytes.get(..end).unwrap_or_default(),
            bytes.get(end + 2..).unwrap_or_default(),
        ),
        None => (bytes.strip_suffix(b"\n").unwrap_or(bytes), &b""[..]),
    };
    let (mut tree, mut author, mut committer) = (None, None, None);
    let mut parents = Vec::new();
    let mut signature: Option<String> = None;
    let mut in_signature = false;
    for line in head.split(|byte| *byte == b'\n') {
        let text = String::from_utf8_lossy(line);
        if let Some(more) = text.strip_prefix(' ') {
            if let Some(signature) = signature.as_mut().filter(|_| in_signature) {
                signature.push('\n');
                signature.push_str(more);
            }
            continue;
        }
        in_signature = false;
        let (key, value) = text
            .split_once(' ')
            .ok_or_else(|| malformed("headers of a key and a value"))?;
        match key {
            "tree" if tree.is_none() => tree = Some(value.parse()?),
            "parent" => parents.push(value.parse()?),
            "author" if author.is_none() => {
                author =
                    Some(ident(value).ok_or_else(|| malformed("author: name <mail> time zone"))?);
            }
            "committer" if committer.is_none() => {
                committer = Some(
                    ident(value).ok_or_else(|| malformed("committer: name <mail> time zone"))?,
                );
            }
            "tree" | "author" | "committer" => {
                return Err(malformed("one tree, one author and one committer"));
            }
            "gpgsig" | "gpgsig-sha256" => {
                signature = Some(value.to_owned());
                in_signature = true;
            }
            // `encoding`, `mergetag` and what later versions add say nothing that we decide on.
            _ => {}
        }
    }
    let (author, _) = author.ok_or_else(|| malformed("an author"))?;
    let (committer, committed_at) = committer.ok_or_else(|| malformed("a committer"))?;
    Ok(CommitInfo {
        oid: oid.clone(),
        tree: tree.ok_or_else(|| malformed("a tree"))?,
        parents,
        author,
        committer,
        committed_at,
        signature,
        message: String::from_utf8_lossy(message).into_owned(),
    })
}

/// `name <mail> seconds zone`.
fn ident(text: &str) -> Option<(Ident, i64)> {
    let (name, rest) = text.split_once('<')?;
    let (email, rest) = rest.split_once('>')?;
    let seconds = rest.split_whitespace().next()?.parse().ok()?;
    let ident = Ident {
        name: name.strip_suffix(' ').unwrap_or(name).to_owned(),
        email: email.to_owned(),
    };
    Some((ident, seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn oid() -> GitOid {
        "1".repeat(40).parse().unwrap()
    }

    #[test]
    fn a_signed_commit_is_read_whole() {
        let text = "tree 2222222222222222222222222222222222222222\n\
                    parent 3333333333333333333333333333333333333333\n\
                    author A B <a@b> 1700000000 +0100\n\
                    committer C <c@d> 1700000001 +0000\n\
                    gpgsig -----BEGIN SSH SIGNATURE-----\n abc\n -----END SSH SIGNATURE-----\n\
                    \nSubject\n\nauthor Not <me> 1 +0\n";
        let commit = parse(&oid(), text.as_bytes()).unwrap();
        assert_eq!(commit.author.to_string(), "A B <a@b>");
        assert_eq!(
            (commit.committer.name.as_str(), commit.committed_at),
            ("C", 1_700_000_001)
        );
        assert_eq!(commit.parents.len(), 1);
        assert!(
            commit
                .signature
                .unwrap()
                .ends_with("END SSH SIGNATURE-----")
        );
        assert!(commit.message.starts_with("Subject"));
    }

    #[test]
    fn two_authors_are_no_author() {
        let line = "author A <a@b> 1 +0\n";
        let text = format!(
            "tree {}\n{line}{line}committer C <c@d> 1 +0\n\nx",
            "2".repeat(40)
        );
        assert!(parse(&oid(), text.as_bytes()).is_err());
        for text in ["", "tree x\n\n", "\n\nauthor A <a> 1 +0"] {
            assert!(parse(&oid(), text.as_bytes()).is_err(), "{text}");
        }
    }
}
