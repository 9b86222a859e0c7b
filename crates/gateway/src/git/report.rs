//! What the client is told: a status per ref for git, and words for people.

use portcullis_model::{GitOid, Refusal};

use super::pkt::{self, Band};
use super::push::{Capabilities, PushHeader, ReportFormat};

/// Longest reason in a status line, in characters: one line of a terminal.
const REASON_MAX_CHARS: usize = 160;
/// Most lines for people in one answer.
const LINES_MAX: usize = 200;
/// Longest line for people, in characters.
const LINE_MAX_CHARS: usize = 1_000;

/// What became of a push.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Why the pack was not taken, if that is so.
    pub unpack_failed: Option<String>,
    /// One per command, in their order.
    pub refs: Vec<RefReport>,
    /// Lines for people; git prints each after `remote: `.
    pub lines: Vec<String>,
}

/// What became of one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefReport {
    /// The ref that the client named.
    pub name: String,
    /// What became of it.
    pub result: RefResult,
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefResult {
    /// Done as asked.
    Done,
    /// Done, and what moved is another ref (clients that know `report-status-v2` show it).
    DoneAs {
        /// Full name of the ref that moved.
        name: String,
        /// Where it was, if it was.
        old: Option<GitOid>,
        /// Where it is.
        new: GitOid,
    },
    /// Not done; the reason stands beside the ref.
    Refused(String),
}

impl Report {
    /// Everything refused for one reason.
    pub fn refused(header: &PushHeader, refusal: &Refusal) -> Self {
        Self {
            unpack_failed: None,
            refs: header
                .commands
                .iter()
                .map(|command| RefReport {
                    name: command.name.clone(),
                    result: RefResult::Refused(refusal.message.clone()),
                })
                .collect(),
            lines: refusal_lines(refusal),
        }
    }

    /// The body of the answer, of type [`super::receive::RESULT_TYPE`].
    pub fn encode(&self, capabilities: &Capabilities) -> Vec<u8> {
        let mut out = Vec::new();
        if capabilities.side_band {
            for line in self.lines.iter().take(LINES_MAX) {
                let line = format!("{}\n", printable(line, LINE_MAX_CHARS));
                pkt::encode_band(Band::Progress, line.as_bytes(), &mut out);
            }
        }
        if capabilities.report != ReportFormat::None {
            let status = self.status(capabilities.report);
            if capabilities.side_band {
                pkt::encode_band(Band::Data, &status, &mut out);
            } else {
                out.extend_from_slice(&status);
            }
        }
        if capabilities.side_band {
            pkt::flush(&mut out);
        }
        out
    }

    fn status(&self, format: ReportFormat) -> Vec<u8> {
        let mut out = Vec::new();
        let unpack = self.unpack_failed.as_deref().map_or_else(
            || "ok".to_owned(),
            |reason| printable(reason, REASON_MAX_CHARS),
        );
        pkt::encode(format!("unpack {unpack}\n").as_bytes(), &mut out);
        for entry in &self.refs {
            let name = &entry.name;
            match &entry.result {
                RefResult::Refused(reason) => {
                    let reason = printable(reason, REASON_MAX_CHARS);
                    pkt::encode(format!("ng {name} {reason}\n").as_bytes(), &mut out);
                }
                RefResult::Done => pkt::encode(format!("ok {name}\n").as_bytes(), &mut out),
                RefResult::DoneAs {
                    name: other,
                    old,
                    new,
                } => {
                    pkt::encode(format!("ok {name}\n").as_bytes(), &mut out);
                    if format == ReportFormat::V2 {
                        let mut option = |key: &str, value: &str| {
                            pkt::encode(format!("option {key} {value}\n").as_bytes(), &mut out);
                        };
                        option("refname", other);
                        if let Some(old) = old {
                            option("old-oid", old.as_str());
                        }
                        option("new-oid", new.as_str());
                    }
                }
            }
        }
        pkt::flush(&mut out);
        out
    }
}

/// A refusal as lines for people: what is wrong, the rule, what was missing, what to do.
pub fn refusal_lines(refusal: &Refusal) -> Vec<String> {
    let mut lines = vec![String::new(), format!("portcullis: {}", refusal.message)];
    for (label, text) in [
        ("expected", &refusal.expected),
        ("received", &refusal.received),
        ("rule", &refusal.rule),
        ("next", &refusal.next),
        ("code", &Some(refusal.code.clone())),
    ] {
        for (number, line) in text.iter().flat_map(|text| text.lines()).enumerate() {
            let label = if number == 0 {
                format!("{label}:")
            } else {
                String::new()
            };
            lines.push(format!("  {label:<10}{line}"));
        }
    }
    lines.push(String::new());
    lines
}

/// One line without control characters.
fn printable(text: &str, max_chars: usize) -> String {
    let mut shown: String = text
        .chars()
        .take(max_chars)
        .map(|c| if c == '\n' { ' ' } else { c })
        .flat_map(portcullis_model::refusal::visible)
        .collect();
    if text.chars().count() > max_chars {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_can_forge_a_status_line() {
        let report = Report {
            unpack_failed: None,
            refs: vec![RefReport {
                name: "refs/heads/a".into(),
                result: RefResult::Refused("no\nok refs/heads/b\u{1b}[2J".into()),
            }],
            lines: vec!["a\u{202e}b\r".into()],
        };
        let capabilities = Capabilities {
            report: ReportFormat::V1,
            ..Capabilities::default()
        };
        let text = String::from_utf8(report.encode(&capabilities)).unwrap();
        assert!(!text.contains("\nok "), "{text}");
        assert!(!text.contains('\u{1b}') && !text.contains('\r'), "{text}");
    }

    #[test]
    fn a_client_that_wants_no_report_gets_none() {
        let report = Report {
            lines: vec!["x".into()],
            ..Report::default()
        };
        assert!(report.encode(&Capabilities::default()).is_empty());
    }
}
