//! The parser behind [`super::Diff`].

use portcullis_model::{GitOid, Refusal};

use super::{
    DIFF_MAX_BYTES, DIFF_MAX_FILES, DIFF_MAX_LINES, Diff, FileChange, FileMode, GitPath, Hunk,
    Line, PATH_MAX_BYTES, Status,
};

/// How much of a side is looked at for a NUL to call it binary, in bytes; the same as git.
const BINARY_PROBE_BYTES: usize = 8_000;
/// Longest header line of a patch, in bytes: two quoted paths and some words.
const HEADER_MAX_BYTES: usize = 10 * PATH_MAX_BYTES;

/// Reads the output of git run with [`super::DIFF_ARGUMENTS`].
///
/// # Errors
/// The bytes are no such output (`malformed-diff`, with the place), or a bound is passed
/// (`diff-too-large`). A diff that can't be read whole is never half read.
pub fn parse(bytes: &[u8]) -> Result<Diff, Refusal> {
    if bytes.len() > DIFF_MAX_BYTES {
        return Err(too_large("bytes", DIFF_MAX_BYTES, bytes.len()));
    }
    let mut reader = Reader {
        bytes,
        at: 0,
        lines: 0,
    };
    let mut files = reader.raw_records()?;
    for file in &mut files {
        reader.patch(file)?;
    }
    if reader.at == bytes.len() {
        Ok(Diff { files })
    } else {
        Err(reader.malformed("the end after the last file's patch"))
    }
}

fn too_large(unit: &str, bound: usize, received: usize) -> Refusal {
    Refusal::limit("diff-too-large", format!("the diff has too many {unit}"))
        .expected(&format!("at most {bound} {unit}"))
        .received(&received.to_string())
        .next("split the change into smaller ones")
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    lines: usize,
}

impl<'a> Reader<'a> {
    /// `:mode mode oid oid status NUL path NUL [path NUL]`, until a lone NUL or the end.
    fn raw_records(&mut self) -> Result<Vec<FileChange>, Refusal> {
        let mut files = Vec::new();
        while self.peek() == Some(b':') {
            if files.len() >= DIFF_MAX_FILES {
                return Err(too_large("files", DIFF_MAX_FILES, files.len() + 1));
            }
            files.push(self.raw_record()?);
        }
        match self.peek() {
            Some(0) if !files.is_empty() => self.at += 1,
            None if files.is_empty() => {}
            _ => return Err(self.malformed("a record that begins with `:`, or a NUL after them")),
        }
        Ok(files)
    }

    fn raw_record(&mut self) -> Result<FileChange, Refusal> {
        let malformed = self.malformed(":mode mode object object status");
        self.at += 1;
        let head = self.until_nul(200)?;
        let head = std::str::from_utf8(head).map_err(|_| malformed.clone())?;
        let words: Vec<&str> = head.split(' ').collect();
        let [old_mode, new_mode, old_oid, new_oid, status] = words.as_slice() else {
            return Err(malformed);
        };
        let old_mode = mode(old_mode).ok_or_else(|| malformed.clone())?;
        let new_mode = mode(new_mode).ok_or_else(|| malformed.clone())?;
        let old_oid: GitOid = old_oid.parse()?;
        let new_oid: GitOid = new_oid.parse()?;
        let status = match status.as_bytes() {
            b"A" => Status::Added,
            b"D" => Status::Deleted,
            b"M" => Status::Modified,
            b"T" => Status::TypeChanged,
            [b'R', score @ ..] if is_score(score) => Status::Renamed,
            [b'C', score @ ..] if is_score(score) => Status::Copied,
            _ => return Err(malformed),
        };
        let first = self.path()?;
        let (old_path, new_path) = match status {
            Status::Added => (None, Some(first)),
            Status::Deleted => (Some(first), None),
            Status::Modified | Status::TypeChanged => (Some(first.clone()), Some(first)),
            Status::Renamed | Status::Copied => (Some(first), Some(self.path()?)),
        };
        let present = |path: &Option<GitPath>| path.is_some();
        if present(&old_path) != (old_mode != FileMode::Absent)
            || present(&new_path) != (new_mode != FileMode::Absent)
        {
            return Err(malformed);
        }
        Ok(FileChange {
            old_path,
            new_path,
            status,
            old_mode,
            new_mode,
            old_oid,
            new_oid,
            binary: false,
            hunks: Vec::new(),
        })
    }

    fn path(&mut self) -> Result<GitPath, Refusal> {
        let path = self.until_nul(PATH_MAX_BYTES)?;
        if path.is_empty() {
            return Err(self.malformed("a path"));
        }
        Ok(GitPath::new(path))
    }

    /// The patch of one record: one section, or two (away, then new) when its type changed.
    fn patch(&mut self, file: &mut FileChange) -> Result<(), Refusal> {
        if file.status == Status::TypeChanged {
            let zero = GitOid::zero();
            self.section(file, &file.old_oid.clone(), &zero)?;
            self.section(file, &zero, &file.new_oid.clone())?;
        } else {
            self.section(file, &file.old_oid.clone(), &file.new_oid.clone())?;
        }
        let probe = |lines: &mut dyn Iterator<Item = &Line>| {
            let mut seen = 0;
            lines
                .take_while(|line| {
                    let before = seen;
                    seen += line.content.len() + 1;
                    before < BINARY_PROBE_BYTES
                })
                .any(|line| line.content.contains(&0))
        };
        let nul = probe(&mut file.added()) || probe(&mut file.removed());
        file.binary |= nul;
        Ok(())
    }

    /// From `diff --git` to before the next one. `old` and `new` are what the index line must say.
    fn section(
        &mut self,
        file: &mut FileChange,
        old: &GitOid,
        new: &GitOid,
    ) -> Result<(), Refusal> {
        if !self.header_line()?.starts_with(b"diff --git ") {
            return Err(self.malformed("`diff --git` for the next file of the raw half"));
        }
        let mut indexed = old == new;
        loop {
            let rest = self.rest();
            if rest.is_empty() || rest.starts_with(b"diff --git ") {
                return if indexed {
                    Ok(())
                } else {
                    Err(self.malformed("an index line"))
                };
            }
            if rest.starts_with(b"@@ ") {
                let hunk = self.hunk()?;
                file.hunks.push(hunk);
                continue;
            }
            let line = self.header_line()?;
            if let Some(index) = line.strip_prefix(b"index ") {
                self.check_index(index, old, new)?;
                indexed = true;
            } else if line.starts_with(b"Binary files ") {
                file.binary = true;
            } else if !KNOWN_HEADERS.iter().any(|known| line.starts_with(known)) {
                return Err(self.malformed("a known header line of a patch"));
            }
        }
    }

    /// `old..new[ mode]` must be the objects of the raw record: the halves tell of the same file.
    fn check_index(&self, index: &[u8], old: &GitOid, new: &GitOid) -> Result<(), Refusal> {
        let objects = index.split(|byte| *byte == b' ').next().unwrap_or_default();
        let same = |found: Option<&[u8]>, oid: &GitOid| {
            found.is_some_and(|found| {
                found == oid.as_str().as_bytes()
                    // A repository of SHA-256 has a longer zero.
                    || (oid.is_zero() && found.len() >= 40 && found.iter().all(|b| *b == b'0'))
            })
        };
        let at = objects.windows(2).position(|pair| pair == b"..");
        let (first, second) = match at {
            Some(at) => (objects.get(..at), objects.get(at + 2..)),
            None => (None, None),
        };
        if same(first, old) && same(second, new) {
            Ok(())
        } else {
            Err(self.malformed("the object ids of the raw half"))
        }
    }

    /// `@@ -start[,count] +start[,count] @@…`, then exactly that many lines.
    fn hunk(&mut self) -> Result<Hunk, Refusal> {
        let malformed = self.malformed("@@ -start,count +start,count @@");
        let header = self.line(usize::MAX)?;
        let text = String::from_utf8_lossy(header);
        let mut words = text.split(' ').skip(1);
        let range = |word: Option<&str>, sign: char| {
            let word = word?.strip_prefix(sign)?;
            let (start, count) = word.split_once(',').unwrap_or((word, "1"));
            Some((start.parse::<u32>().ok()?, count.parse::<u32>().ok()?))
        };
        let (old_start, old_count) = range(words.next(), '-').ok_or_else(|| malformed.clone())?;
        let (new_start, new_count) = range(words.next(), '+').ok_or_else(|| malformed.clone())?;
        if words.next() != Some("@@") || (old_count == 0 && new_count == 0) {
            return Err(malformed);
        }
        Ok(Hunk {
            removed: self.side(b'-', old_start, old_count)?,
            added: self.side(b'+', new_start, new_count)?,
        })
    }

    fn side(&mut self, sign: u8, start: u32, count: u32) -> Result<Vec<Line>, Refusal> {
        let mut lines = Vec::new();
        for offset in 0..count {
            self.lines += 1;
            if self.lines > DIFF_MAX_LINES {
                return Err(too_large("lines", DIFF_MAX_LINES, self.lines));
            }
            if self.peek() != Some(sign) {
                return Err(self.malformed("as many lines as the hunk's header says"));
            }
            self.at += 1;
            let content = self.line(usize::MAX)?.to_vec();
            let number = start
                .checked_add(offset)
                .ok_or_else(|| self.malformed("a line number"))?;
            lines.push(Line {
                number,
                content,
                newline: true,
            });
        }
        if self.peek() == Some(b'\\') {
            // `\ No newline at end of file`, in any language.
            self.line(HEADER_MAX_BYTES)?;
            match lines.last_mut() {
                Some(last) => last.newline = false,
                None => return Err(self.malformed("a line before the note on its line feed")),
            }
        }
        Ok(lines)
    }

    fn header_line(&mut self) -> Result<&'a [u8], Refusal> {
        self.line(HEADER_MAX_BYTES)
    }

    /// Up to the next line feed, which must come within `max` bytes.
    fn line(&mut self, max: usize) -> Result<&'a [u8], Refusal> {
        self.until(b'\n', max)
    }

    fn until_nul(&mut self, max: usize) -> Result<&'a [u8], Refusal> {
        self.until(0, max)
    }

    fn until(&mut self, end: u8, max: usize) -> Result<&'a [u8], Refusal> {
        let rest = self.rest();
        let window = rest
            .get(..rest.len().min(max.saturating_add(1)))
            .unwrap_or_default();
        let Some(length) = window.iter().position(|byte| *byte == end) else {
            return Err(self.malformed(if end == 0 { "a NUL" } else { "a line feed" }));
        };
        self.at += length + 1;
        Ok(window.get(..length).unwrap_or_default())
    }

    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn malformed(&self, expected: &str) -> Refusal {
        let rest = self.rest();
        let shown = rest.get(..rest.len().min(60)).unwrap_or_default();
        Refusal::malformed("diff")
            .expected(expected)
            .received(&format!(
                "byte {}: {}",
                self.at,
                String::from_utf8_lossy(shown)
            ))
    }
}

/// The header lines of a section that say nothing the raw half doesn't.
const KNOWN_HEADERS: [&[u8]; 12] = [
    b"old mode ",
    b"new mode ",
    b"new file mode ",
    b"deleted file mode ",
    b"similarity index ",
    b"dissimilarity index ",
    b"rename from ",
    b"rename to ",
    b"copy from ",
    b"copy to ",
    b"--- ",
    b"+++ ",
];

fn mode(text: &str) -> Option<FileMode> {
    Some(match text {
        "000000" => FileMode::Absent,
        "100644" | "100664" => FileMode::Regular,
        "100755" => FileMode::Executable,
        "120000" => FileMode::Symlink,
        "160000" => FileMode::Submodule,
        _ => return None,
    })
}

fn is_score(score: &[u8]) -> bool {
    score.len() <= 3 && score.iter().all(u8::is_ascii_digit)
}
