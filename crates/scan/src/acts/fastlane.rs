//! Lanes of a Fastfile: what they upload, and the lanes that they call.

use std::collections::BTreeMap;

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
/// Most lanes of one Fastfile.
const LANES_MAX: usize = 200;

impl Reader<'_> {
    /// Reads the lane that a command names; false where there is none.
    pub(super) fn lane(&mut self, words: &[&str]) -> bool {
        let Some(lane) = lane_of(words) else {
            return false;
        };
        let place = self.shell.directory.clone().unwrap_or_default();
        // A lane that is called again does nothing new, and a Fastfile is read anew for each.
        let found = format!("{place}#a lane of fastlane: {lane}");
        if self.followed.contains(&found) {
            return true;
        }
        if !self.enter(&format!("{place}#fastlane {lane}")) {
            return false;
        }
        let Some((file, text)) = self.fastfile() else {
            return false;
        };
        let lanes = Lanes::of(&text);
        if lanes.find(lane).is_none() {
            return false;
        }
        self.followed.push(found);
        let mut read: Vec<&str> = Vec::new();
        let mut left = vec![lane];
        while let Some(name) = left.pop() {
            let Some((from, lines)) = lanes.find(name).filter(|_| !read.contains(&name)) else {
                continue;
            };
            read.push(name);
            for (index, line) in lines.iter().enumerate() {
                let word = first_word(line);
                if UPLOADS.contains(&word) {
                    let mut act = Act::publish(format!("fastlane {lane} ({word})"));
                    act.line = from + index;
                    file.clone_into(&mut act.file);
                    self.acts.push(act);
                    return true;
                }
                if !read.contains(&word) && !left.contains(&word) && lanes.find(word).is_some() {
                    left.push(word);
                }
            }
        }
        true
    }

    fn fastfile(&self) -> Option<(String, String)> {
        let here = self
            .shell
            .directory
            .iter()
            .map(|place| self.within(Some(place), "fastlane/Fastfile"));
        here.chain(["fastlane/Fastfile", "Fastfile"].map(str::to_owned))
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

fn first_word(line: &str) -> &str {
    let line = line.trim();
    let end = line
        .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .unwrap_or(line.len());
    line.get(..end).unwrap_or_default()
}

/// The lanes of a Fastfile: each by its name, with the line that it starts on, from 0.
struct Lanes<'t> {
    lines: Vec<&'t str>,
    starts: BTreeMap<&'t str, usize>,
}

impl<'t> Lanes<'t> {
    fn of(text: &'t str) -> Self {
        let lines: Vec<&str> = text.lines().collect();
        let mut starts = BTreeMap::new();
        for (index, line) in lines.iter().enumerate() {
            let name = ["lane ", "private_lane ", "override_lane "]
                .iter()
                .find_map(|word| line.trim().strip_prefix(word))
                .and_then(|rest| rest.trim_start().strip_prefix(':'))
                .map(first_word);
            if let Some(name) = name {
                starts.entry(name).or_insert(index);
            }
            if starts.len() >= LANES_MAX {
                break;
            }
        }
        Self { lines, starts }
    }

    /// The lines of a lane, with the number of the first.
    fn find(&self, lane: &str) -> Option<(usize, &[&'t str])> {
        let start = *self.starts.get(lane)?;
        let indent = |line: &str| line.len() - line.trim_start().len();
        let at = indent(self.lines.get(start)?);
        let inside = self.lines.get(start + 1..)?;
        let end = inside
            .iter()
            .position(|line| indent(line) <= at && line.trim().starts_with("end"))
            .unwrap_or(inside.len());
        Some((start + 2, inside.get(..end)?))
    }
}
