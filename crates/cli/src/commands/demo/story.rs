//! The telling: chapters, what is typed, what comes back, what it means. Nothing is done here.

use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use portcullis_model::Refusal;
use serde_json::json;

use crate::output::{self, Format, clean, clean_line};

/// Widest line of prose, in characters.
const WIDTH: usize = 92;
/// Widest line of quoted output, in characters; what is longer goes on in the next line.
const QUOTED_WIDTH: usize = 104;
/// Most lines of a command's output that are quoted; the middle is left out.
const QUOTED_MAX_LINES: usize = 40;
/// How long a reader on a terminal gets to breathe between two chapters.
const BREATH: Duration = Duration::from_millis(350);

/// Tells the story, as text or as a line of JSON a statement.
pub(super) struct Story {
    format: Format,
    colour: bool,
    breathing: bool,
    chapter: AtomicUsize,
    started: Instant,
}

/// What a line is.
#[derive(Clone, Copy)]
enum Kind {
    Chapter,
    Say,
    Type,
    Output,
    Good,
    Refused,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Chapter => "chapter",
            Self::Say => "say",
            Self::Type => "command",
            Self::Output => "output",
            Self::Good => "shown",
            Self::Refused => "refused",
        }
    }

    /// The colour on a terminal (ECMA-48 SGR parameters).
    const fn colour(self) -> &'static str {
        match self {
            Self::Chapter => "1;36",
            Self::Say => "0",
            Self::Type => "1",
            Self::Output => "2",
            Self::Good => "32",
            Self::Refused => "33",
        }
    }
}

impl Story {
    /// A story on standard output. `fast` leaves out the pauses for the reader, which only a
    /// terminal gets.
    pub(super) fn new(format: Format, fast: bool) -> Self {
        let terminal = std::io::stdout().is_terminal() && matches!(format, Format::Text);
        Self {
            format,
            colour: terminal && std::env::var_os("NO_COLOR").is_none(),
            breathing: terminal && !fast,
            chapter: AtomicUsize::new(0),
            started: Instant::now(),
        }
    }

    /// A chapter begins.
    pub(super) fn chapter(&self, title: &str) -> Result<(), Refusal> {
        if self.breathing {
            std::thread::sleep(BREATH);
        }
        let number = self.chapter.fetch_add(1, Ordering::Relaxed) + 1;
        if matches!(self.format, Format::Text) {
            output::stdout("")?;
        }
        self.line(Kind::Chapter, &format!("{number}. {title}"))
    }

    /// What happens, and why it matters, in prose.
    pub(super) fn say(&self, text: &str) -> Result<(), Refusal> {
        match self.format {
            Format::Text => wrap(text.split_whitespace(), WIDTH)
                .iter()
                .try_for_each(|line| self.line(Kind::Say, line)),
            Format::Json => self.line(Kind::Say, text),
        }
    }

    /// A command as one could type it.
    pub(super) fn typed(&self, command: &str) -> Result<(), Refusal> {
        self.line(Kind::Type, &format!("  $ {command}"))
    }

    /// What a command printed.
    pub(super) fn printed(&self, text: &str) -> Result<(), Refusal> {
        for line in quoted(text, QUOTED_MAX_LINES) {
            let text = line.trim_start();
            let indent = format!("    {}", " ".repeat(line.len() - text.len()));
            self.lines(
                Kind::Output,
                &indent,
                &format!("{indent}    "),
                text.trim_end(),
            )?;
        }
        Ok(())
    }

    /// Something that was shown to be so.
    pub(super) fn good(&self, text: &str) -> Result<(), Refusal> {
        self.lines(Kind::Good, "  ok ", "     ", text)
    }

    /// Something that was tried and refused: what, what the agent saw, what the ledger says.
    pub(super) fn refused(
        &self,
        number: usize,
        tried: &str,
        seen: &[String],
        ledger: &str,
    ) -> Result<(), Refusal> {
        self.line(Kind::Refused, &format!("  {number:>2} {tried}"))?;
        for line in seen {
            self.lines(
                Kind::Output,
                "       saw     ",
                "               ",
                &clean_line(line),
            )?;
        }
        self.lines(Kind::Output, "       ledger  ", "               ", ledger)
    }

    /// Something that was altered: what, which link broke, in whose words.
    pub(super) fn altered(&self, what: &str, link: &str, says: &str) -> Result<(), Refusal> {
        let says: String = clean_line(says).chars().take(140).collect();
        let first = format!("  {what:<20} ");
        self.lines(
            Kind::Refused,
            &first,
            &" ".repeat(first.len()),
            &format!("breaks `{link}`: {says}"),
        )
    }

    /// How long it took so far.
    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Says on a terminal what is being waited for, beside the story.
    pub(super) fn waiting(&self, what: &str, since: Instant) {
        if std::io::stderr().is_terminal() && since.elapsed() > Duration::from_secs(1) {
            let _ = write!(
                std::io::stderr(),
                "\r\x1b[K  … {what} ({} s)",
                since.elapsed().as_secs()
            );
        }
    }

    /// The wait is over.
    pub(super) fn waited(&self, since: Instant) {
        if std::io::stderr().is_terminal() && since.elapsed() > Duration::from_secs(1) {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }

    /// A text that may take several lines, all but the first with a hanging indent.
    fn lines(&self, kind: Kind, first: &str, next: &str, text: &str) -> Result<(), Refusal> {
        if matches!(self.format, Format::Json) {
            return self.line(kind, text);
        }
        let width = QUOTED_WIDTH.saturating_sub(next.len());
        let parts = wrap(text.split(' '), width);
        let mut indent = first;
        for part in parts {
            self.line(kind, &format!("{indent}{part}"))?;
            indent = next;
        }
        Ok(())
    }

    fn line(&self, kind: Kind, text: &str) -> Result<(), Refusal> {
        match self.format {
            Format::Text if self.colour => {
                output::stdout(&format!("\x1b[{}m{}\x1b[0m", kind.colour(), clean(text)))
            }
            Format::Text => output::stdout(&clean(text)),
            Format::Json => {
                let chapter = self.chapter.load(Ordering::Relaxed);
                let line = json!({ "chapter": chapter, "kind": kind.name(), "text": text.trim() });
                output::stdout(&line.to_string())
            }
        }
    }
}

/// Words in lines of at most `width` characters; an empty word is one more space.
fn wrap<'a>(words: impl Iterator<Item = &'a str>, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in words {
        let room = |line: &String| line.chars().count() + 1 + word.chars().count() <= width;
        match lines.last_mut().filter(|line| room(line)) {
            Some(line) => {
                line.push(' ');
                line.push_str(word);
            }
            None => lines.push(word.to_owned()),
        }
    }
    lines
}

/// At most `max` lines of a text, the middle left out; no empty lines at either end.
fn quoted(text: &str, max: usize) -> Vec<String> {
    let lines: Vec<&str> = text.trim_matches('\n').lines().collect();
    if lines.len() <= max {
        return lines.into_iter().map(str::to_owned).collect();
    }
    let (head, tail) = (max - max / 3, max / 3);
    let left_out = lines.len() - head - tail;
    let mut shown: Vec<String> = lines
        .iter()
        .take(head)
        .map(|line| (*line).to_owned())
        .collect();
    shown.push(format!("… {left_out} lines more …"));
    shown.extend(
        lines
            .iter()
            .skip(lines.len() - tail)
            .map(|line| (*line).to_owned()),
    );
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prose_is_wrapped_at_words_and_long_output_loses_its_middle() {
        let lines = wrap("word ".repeat(60).split_whitespace(), WIDTH);
        assert!(lines.len() > 2 && lines.iter().all(|line| line.chars().count() <= WIDTH));
        assert_eq!(wrap("a  column".split(' '), WIDTH), ["a  column"]);
        let text: String = (0..100).map(|n| format!("{n}\n")).collect();
        let shown = quoted(&text, 12);
        assert_eq!(shown.len(), 13);
        assert_eq!(shown.first().map(String::as_str), Some("0"));
        assert_eq!(shown.last().map(String::as_str), Some("99"));
        assert!(
            shown.iter().any(|line| line == "… 88 lines more …"),
            "{shown:?}"
        );
    }
}
