//! What is said in messages, one after the other, as over a WebSocket.
//!
//! Each message is looked at whole before it leaves, once alone and once behind what was said just
//! before, so that cutting a secret up into messages that follow one another does not hide it: what
//! leaves of it is all but its last part. As with a body that pauses, one that reaches back further
//! than is read again may not be found. However small a message is, what was said before is read
//! again: a caller bounds how many there are.

use std::collections::{BTreeMap, BTreeSet};

use super::rolling::{BEFORE_BYTES, Found, HELD_BYTES};
use super::{Kept, secrets};

/// Looks at messages in the order in which they leave.
#[derive(Debug, Default)]
pub struct Messages {
    /// The end of what was said so far.
    before: Vec<u8>,
    /// Lines of kept files that were seen so far.
    lines: BTreeMap<usize, BTreeSet<u64>>,
}

impl Messages {
    /// Looks at the next message.
    ///
    /// # Errors
    /// What was found in it.
    pub fn look(&mut self, kept: &Kept, message: &[u8]) -> Result<(), Found> {
        if message.is_empty() {
            return Ok(());
        }
        let mut found = Found {
            secrets: secrets(message),
            kept_files: kept.found_after(message, &mut self.lines),
        };
        let alone = self.before.is_empty();
        let begin = message.get(..HELD_BYTES).unwrap_or(message);
        self.before.extend_from_slice(begin);
        if !alone {
            found.secrets.extend(secrets(&self.before));
            let across = kept.found_after(&self.before, &mut self.lines);
            found.kept_files.extend(across);
        }
        self.remember(message);
        if found.is_empty() { Ok(()) } else { Err(found) }
    }

    /// Keeps the end of what was said. The beginning of the message is in it already.
    fn remember(&mut self, message: &[u8]) {
        let rest = message.get(HELD_BYTES..).unwrap_or_default();
        let rest = rest.get(rest.len().saturating_sub(BEFORE_BYTES)..);
        self.before.extend_from_slice(rest.unwrap_or_default());
        let forgotten = self.before.len().saturating_sub(BEFORE_BYTES);
        self.before.drain(..forgotten);
        self.before.shrink_to(2 * BEFORE_BYTES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = concat!("ghp_", "wWPw5k4aXcaT4fNP0UcnZwJUVFk6LO0pINUx");

    #[test]
    fn a_secret_is_found_alone_behind_others_and_cut_up() {
        let none = Kept::default();
        let mut messages = Messages::default();
        for said in ["", "hello", "ends in a word", "{\"a\":1}"] {
            assert_eq!(messages.look(&none, said.as_bytes()), Ok(()));
        }
        // Behind a letter it would be no token.
        assert_eq!(messages.look(&none, b"x"), Ok(()));
        assert!(messages.look(&none, TOKEN.as_bytes()).is_err());
        for cut in 1..TOKEN.len() {
            let (begin, end) = TOKEN.split_at(cut);
            let mut messages = Messages::default();
            assert_eq!(messages.look(&none, b"the key is "), Ok(()));
            if messages.look(&none, begin.as_bytes()).is_ok() {
                let found = messages.look(&none, end.as_bytes()).unwrap_err();
                assert!(found.secrets.contains("github-token"), "{cut}");
            }
        }
        let mut messages = Messages::default();
        let found = TOKEN
            .bytes()
            .map(|byte| messages.look(&none, &[byte]))
            .filter(Result::is_err)
            .count();
        assert!(found > 0);
    }

    #[test]
    fn it_is_found_wherever_it_stands_in_a_large_message_and_after_one() {
        let none = Kept::default();
        let filler = "nothing to see here\n".repeat(20_000);
        for place in [0, 8_000, 65_500, 65_536, 100_000, filler.len()] {
            let mut said = filler.clone().into_bytes();
            said.splice(place..place, format!("\n{TOKEN}\n").into_bytes());
            assert!(Messages::default().look(&none, &said).is_err(), "{place}");
        }
        let mut messages = Messages::default();
        let (begin, end) = TOKEN.split_at(10);
        let said = format!("{filler}{begin}");
        assert_eq!(messages.look(&none, said.as_bytes()), Ok(()));
        assert!(messages.before.len() <= BEFORE_BYTES);
        assert!(messages.look(&none, end.as_bytes()).is_err());
    }

    #[test]
    fn the_lines_of_a_kept_file_count_over_all_messages() {
        let file =
            "The next thing is a toaster.\nIt toasts on both sides.\nNobody may know of it yet.\n";
        let kept = Kept::new([("plans/next.md".to_owned(), file.as_bytes())]);
        let mut messages = Messages::default();
        let said: Vec<_> = file
            .lines()
            .map(|line| messages.look(&kept, line.as_bytes()).is_ok())
            .collect();
        assert_eq!(said, [true, true, false]);
        let mut messages = Messages::default();
        let parts: Vec<_> = file
            .as_bytes()
            .chunks(7)
            .map(|part| messages.look(&kept, part))
            .collect();
        assert!(parts.iter().any(Result::is_err));
    }
}
