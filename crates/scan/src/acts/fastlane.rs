//! Lanes of a Fastfile: what they upload, and the lanes that they call.

use super::Act;
use super::command::Reader;

/// Actions that hand an app to those who use or test it.
const UPLOADS: &[&str] = &[
    "upload_to_testflight",
    "pilot",
    "testflight",
    "upload_to_app_store",
    "deliver",
    "appstore",
    "upload_to_play_store",
    "supply",
    "firebase_app_distribution",
    "appcenter_upload",
    "crashlytics",
    "pod_push",
    "huawei_appgallery_connect",
];
/// Deepest chain of lanes that call lanes.
const LANES_MAX: usize = 4;

impl Reader<'_> {
    /// Whether the repository's Fastfile has the lane that a command names.
    pub(super) fn has_lane(&self, words: &[&str]) -> bool {
        self.fastfile()
            .is_some_and(|(_, text)| lane_of(words).is_some_and(|lane| body(&text, lane).is_some()))
    }

    /// Reads the lane that a command names; false where there is none.
    pub(super) fn lane(&mut self, words: &[&str]) -> bool {
        let (Some((file, text)), Some(lane)) = (self.fastfile(), lane_of(words)) else {
            return false;
        };
        let Some(first) = body(&text, lane) else {
            return false;
        };
        let mut left = vec![(first, 0_usize)];
        while let Some(((from, lines), depth)) = left.pop() {
            for (index, line) in lines.iter().enumerate() {
                let word: String = line
                    .trim()
                    .chars()
                    .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                    .collect();
                if UPLOADS.contains(&word.as_str()) {
                    let mut act = Act::publish(format!("fastlane {lane} ({word})"));
                    act.line = from + index;
                    file.clone_into(&mut act.file);
                    self.acts.push(act);
                    return true;
                }
                if depth < LANES_MAX
                    && word != lane
                    && let Some(next) = body(&text, &word)
                {
                    left.push((next, depth + 1));
                }
            }
        }
        true
    }

    fn fastfile(&self) -> Option<(String, String)> {
        ["fastlane/Fastfile", "Fastfile"]
            .iter()
            .map(|name| self.within(None, name))
            .chain(
                self.shell
                    .directory
                    .iter()
                    .map(|place| self.within(Some(place), "fastlane/Fastfile")),
            )
            .find_map(|path| Some((path.clone(), self.tree.read(&path).ok()?.to_string())))
    }
}

/// The lane of `fastlane ios beta key:value`.
fn lane_of<'a>(words: &[&'a str]) -> Option<&'a str> {
    words
        .iter()
        .skip(1)
        .filter(|word| !word.starts_with('-') && !word.contains(':'))
        .find(|word| !matches!(**word, "ios" | "android" | "mac" | "run" | "lane"))
        .copied()
}

/// The lines of a lane, with the number of the first.
fn body<'t>(text: &'t str, lane: &str) -> Option<(usize, Vec<&'t str>)> {
    let lines: Vec<&str> = text.lines().collect();
    let start = lines.iter().position(|line| {
        let line = line.trim();
        ["lane ", "private_lane ", "override_lane "]
            .iter()
            .any(|word| {
                line.strip_prefix(word)
                    .and_then(|rest| rest.trim_start().strip_prefix(':'))
                    .is_some_and(|rest| {
                        rest.strip_prefix(lane).is_some_and(|rest| {
                            !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
                        })
                    })
            })
    })?;
    let indent = |line: &str| line.len() - line.trim_start().len();
    let at = indent(lines.get(start)?);
    let inside: Vec<&str> = lines
        .iter()
        .skip(start + 1)
        .take_while(|line| {
            line.trim().is_empty() || indent(line) > at || !line.trim().starts_with("end")
        })
        .copied()
        .collect();
    Some((start + 2, inside))
}
