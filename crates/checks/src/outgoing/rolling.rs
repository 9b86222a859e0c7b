//! A body that is too large to be held: looked at while it passes.
//!
//! What was looked at may go; the last [`HELD_BYTES`] always wait for what follows, since a secret
//! may begin in them, and [`BEFORE_BYTES`] of what went are kept to read on from. So no secret of up
//! to [`HELD_BYTES`] begins to leave, unless the body pauses within it. Of a kept file, a body is known by several lines: what went
//! before the last of them was seen has left.

use std::collections::{BTreeMap, BTreeSet};

use super::{Kept, secrets};

/// How much is looked at in one go, in bytes.
const LOOK_BYTES: usize = 256 * 1024;
/// How much waits for what follows, in bytes: longer than every format of a secret.
pub const HELD_BYTES: usize = 64 * 1024;
/// How much of what went is read again with what follows, in bytes: a line's beginning.
pub(super) const BEFORE_BYTES: usize = 8 * 1024;

/// What must not leave and was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Rules of the secret scanner.
    pub secrets: BTreeSet<&'static str>,
    /// Paths of kept files.
    pub kept_files: BTreeSet<String>,
}

impl Found {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.secrets.is_empty() && self.kept_files.is_empty()
    }
}

/// Looks at a body piece by piece.
#[derive(Debug, Default)]
pub struct Rolling {
    /// What went lately, then what waits.
    window: Vec<u8>,
    /// How much of the window went.
    gone: usize,
    /// Lines of kept files that were seen so far.
    lines: BTreeMap<usize, BTreeSet<u64>>,
}

impl Rolling {
    /// Takes a piece in, and gives what may go now, which may be nothing.
    ///
    /// # Errors
    /// What was found; nothing more may go.
    pub fn push(&mut self, kept: &Kept, piece: &[u8]) -> Result<Vec<u8>, Found> {
        self.window.extend_from_slice(piece);
        if self.window.len() < self.gone + LOOK_BYTES {
            return Ok(Vec::new());
        }
        self.look(kept)?;
        let held = self.window.len().saturating_sub(HELD_BYTES);
        // A line that is whole is read better than the two halves of one.
        let line = self
            .window
            .iter()
            .enumerate()
            .skip(self.gone)
            .take(held.saturating_sub(self.gone))
            .rev()
            .take(BEFORE_BYTES)
            .find(|(_, byte)| **byte == b'\n')
            .map(|(at, _)| at + 1);
        Ok(self.release(line.unwrap_or(held)))
    }

    /// Looks at what came so far and gives all of it, for a body that pauses: whoever speaks and
    /// waits for an answer would wait for ever otherwise. What went is still read on from, so a
    /// secret that pauses cut up is found once its last part is here, which alone stays then; one
    /// that reaches back further than is read again (8 KiB) may not be found.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub fn pause(&mut self, kept: &Kept) -> Result<Vec<u8>, Found> {
        if self.window.len() == self.gone {
            return Ok(Vec::new());
        }
        self.look(kept)?;
        Ok(self.release(self.window.len()))
    }

    /// Looks at the rest, and gives it.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub fn finish(mut self, kept: &Kept) -> Result<Vec<u8>, Found> {
        self.look(kept)?;
        Ok(self.release(self.window.len()))
    }

    fn look(&mut self, kept: &Kept) -> Result<(), Found> {
        let found = Found {
            secrets: secrets(&self.window),
            kept_files: kept.found_after(&self.window, &mut self.lines),
        };
        if found.is_empty() { Ok(()) } else { Err(found) }
    }

    /// Lets go of the window up to `end`.
    fn release(&mut self, end: usize) -> Vec<u8> {
        let released = self.window.get(self.gone..end).unwrap_or_default().to_vec();
        let forgotten = end.saturating_sub(BEFORE_BYTES);
        self.window.drain(..forgotten);
        self.gone = end - forgotten;
        released
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = concat!("ghp_", "wWPw5k4aXcaT4fNP0UcnZwJUVFk6LO0pINUx");

    /// Passes a body in pieces of `size`; what went, and what was found.
    fn pass(kept: &Kept, body: &[u8], size: usize) -> (Vec<u8>, Option<Found>) {
        let mut rolling = Rolling::default();
        let mut gone = Vec::new();
        for piece in body.chunks(size) {
            match rolling.push(kept, piece) {
                Ok(more) => gone.extend(more),
                Err(found) => return (gone, Some(found)),
            }
        }
        match rolling.finish(kept) {
            Ok(more) => {
                gone.extend(more);
                (gone, None)
            }
            Err(found) => (gone, Some(found)),
        }
    }

    #[test]
    fn what_is_clean_passes_byte_for_byte_in_any_pieces() {
        let lines: String = (0..60_000).map(|n| format!("line number {n}\n")).collect();
        let without_lines = vec![7_u8; 900_000];
        for body in [lines.as_bytes(), &without_lines, b"", b"short"] {
            for size in [999, 64 * 1024, 1024 * 1024] {
                assert!(pass(&Kept::default(), body, size) == (body.to_vec(), None));
            }
        }
    }

    #[test]
    fn no_byte_of_a_secret_leaves_wherever_the_pieces_are_cut() {
        let filler = |count: usize| "some text here\n".repeat(count / 15 + 1).into_bytes();
        for at in [
            0, 190_000, 196_600, 262_100, 262_144, 300_000, 524_280, 700_000,
        ] {
            let mut body = filler(at);
            body.truncate(at);
            body.extend(format!("\nkey {TOKEN}\n").bytes());
            body.extend(filler(400_000));
            for size in [997, 16 * 1024, 262_144] {
                let (gone, found) = pass(&Kept::default(), &body, size);
                let found = found.unwrap();
                assert!(
                    found.secrets.contains("github-token"),
                    "{at} {size} {found:?}"
                );
                assert!(gone.len() <= at + 5, "{at} {size}: {} went", gone.len());
                assert!(body.starts_with(&gone));
            }
        }
    }

    #[test]
    fn a_pause_lets_go_of_what_came_and_never_of_a_whole_secret() {
        let none = Kept::default();
        let mut rolling = Rolling::default();
        assert_eq!(rolling.pause(&none), Ok(Vec::new()));
        for part in ["one\n", "two\n", "three"] {
            assert_eq!(rolling.push(&none, part.as_bytes()), Ok(Vec::new()));
            assert_eq!(rolling.pause(&none), Ok(part.as_bytes().to_vec()));
            assert_eq!(rolling.pause(&none), Ok(Vec::new()));
        }
        for cut in 1..TOKEN.len() {
            let (begin, end) = TOKEN.split_at(cut);
            let mut rolling = Rolling::default();
            let begin = format!("key {begin}");
            assert_eq!(rolling.push(&none, begin.as_bytes()), Ok(Vec::new()));
            // Nothing of it is a secret yet.
            let Ok(gone) = rolling.pause(&none) else {
                continue;
            };
            assert_eq!(gone, begin.as_bytes());
            let rest = format!("{end}\nand more");
            assert_eq!(rolling.push(&none, rest.as_bytes()), Ok(Vec::new()));
            let found = rolling.pause(&none).unwrap_err();
            assert!(found.secrets.contains("github-token"), "{cut}");
        }
    }

    #[test]
    fn the_lines_of_a_kept_file_count_over_the_whole_body() {
        let file =
            "The next thing is a toaster.\nIt toasts on both sides.\nNobody may know of it yet.\n";
        let kept = Kept::new([("plans/next.md".to_owned(), file.as_bytes())]);
        let mut body = Vec::new();
        for line in file.lines() {
            body.extend(b"nothing to see on this line\n".repeat(12_000));
            body.extend(line.bytes());
            body.push(b'\n');
        }
        let (gone, found) = pass(&kept, &body, 10_000);
        assert!(found.unwrap().kept_files.contains("plans/next.md"));
        assert!(!String::from_utf8_lossy(&gone).contains("Nobody may know"));
    }
}
