//! YAML as a tree with line numbers.
//!
//! Pipelines are read, never obeyed: every scalar stays text, keys may repeat (the last wins, as
//! in most readers), aliases are expanded under a budget, and a file that is not YAML is an error
//! of that file alone.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle};

/// Most nodes of one file after aliases are expanded. Real pipelines stay below 20,000; an alias
/// bomb passes any number.
pub(crate) const NODES_MAX: usize = 200_000;
/// Most bytes of text of one file after aliases are expanded; a file itself has at most 1 MiB.
const TEXT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Deepest nesting; GitHub's own reader stops far earlier.
const DEPTH_MAX: usize = 96;

/// A value with the place where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    /// First line, counted from 1. For block scalars the first line of the text.
    pub(crate) line: usize,
    /// What is in here, itself included.
    size: Size,
}

/// What a value costs: an alias repeats all of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Size {
    nodes: usize,
    bytes: usize,
}

impl Size {
    /// One node with a text of so many bytes.
    fn of(bytes: usize) -> Self {
        Self { nodes: 1, bytes }
    }

    fn and(self, other: Self) -> Self {
        Self {
            nodes: self.nodes.saturating_add(other.nodes),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Any scalar, as text. `plain` is true for unquoted ones.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    /// Line of the key.
    pub(crate) line: usize,
    pub(crate) value: Node,
}

/// Why a file could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct YamlError {
    pub(crate) line: usize,
    pub(crate) message: String,
}

/// Every document of a stream.
///
/// Within brackets a line may begin as far left as it likes, as the readers of the forges have it.
/// The parser here wants it further right than what the brackets belong to, so a line that it
/// stops at is moved there and the file read again.
pub(crate) fn parse(text: &str) -> Result<Vec<Node>, YamlError> {
    /// Most bytes that are read again for lines that stand too far left.
    const AGAIN_BYTES_MAX: usize = 8 * 1024 * 1024;
    let mut moved;
    let mut again = 0_usize;
    let mut text = text;
    loop {
        let error = match documents(text) {
            Err(error) if error.message.starts_with("invalid indentation") => error,
            done => return done,
        };
        again = again.saturating_add(text.len());
        let Some(next) = moved_right(text, error.line).filter(|_| again <= AGAIN_BYTES_MAX) else {
            return Err(error);
        };
        moved = next;
        text = &moved;
    }
}

/// The text with one of its lines further right than any nesting; `None` where it is there already.
fn moved_right(text: &str, line: usize) -> Option<String> {
    const FAR: &str = "                                                                ";
    let (at, found) = text
        .split_inclusive('\n')
        .scan(0_usize, |at, line| {
            let start = *at;
            *at += line.len();
            Some((start, line))
        })
        .nth(line.checked_sub(1)?)?;
    if found.starts_with(FAR) {
        return None;
    }
    let (before, after) = text.split_at_checked(at)?;
    Some([before, FAR, after].concat())
}

fn documents(text: &str) -> Result<Vec<Node>, YamlError> {
    let mut builder = Builder::default();
    let mut parser = Parser::new_from_str(text);
    let mut last_line = 1;
    loop {
        match parser.next_event() {
            None => break,
            Some(Err(error)) => {
                return Err(YamlError {
                    line: error.marker().line().max(1),
                    message: error.info().to_owned(),
                });
            }
            Some(Ok((event, span))) => {
                last_line = span.start.line().max(1);
                if builder.take(event, last_line)? {
                    break;
                }
            }
        }
    }
    if !builder.stack.is_empty() {
        return Err(YamlError {
            line: last_line,
            message: "the file ends inside a value".to_owned(),
        });
    }
    Ok(builder.documents)
}

/// The first document, or an empty mapping for an empty file.
pub(crate) fn parse_one(text: &str) -> Result<Node, YamlError> {
    Ok(parse(text)?.into_iter().next().unwrap_or_else(Node::empty))
}

impl Node {
    /// The first name that stands twice in one mapping, and the line of the second.
    pub(crate) fn doubled(&self) -> Option<(&str, usize)> {
        match &self.kind {
            Kind::Map(entries) => {
                let mut seen = std::collections::HashSet::new();
                entries.iter().find_map(|entry| {
                    if entry.key != "<<" && !seen.insert(entry.key.as_str()) {
                        return Some((entry.key.as_str(), entry.line));
                    }
                    entry.value.doubled()
                })
            }
            Kind::List(items) => items.iter().find_map(Self::doubled),
            Kind::Scalar { .. } => None,
        }
    }

    /// The same place with something else in it.
    pub(crate) fn with_kind(&self, kind: Kind) -> Self {
        Self {
            kind,
            line: self.line,
            size: self.size,
        }
    }

    pub(crate) fn empty() -> Self {
        Self {
            kind: Kind::Map(Vec::new()),
            line: 1,
            size: Size::of(0),
        }
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        match &self.kind {
            Kind::Map(entries) => entries,
            Kind::Scalar { .. } | Kind::List(_) => &[],
        }
    }

    pub(crate) fn items(&self) -> &[Self] {
        match &self.kind {
            Kind::List(items) => items,
            Kind::Scalar { .. } | Kind::Map(_) => &[],
        }
    }

    pub(crate) fn is_map(&self) -> bool {
        matches!(self.kind, Kind::Map(_))
    }

    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().rev().find(|entry| entry.key == key)
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        self.entry(key).map(|entry| &entry.value)
    }

    pub(crate) fn at(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |node, key| node.get(key))
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar { text, .. } => Some(text),
            Kind::List(_) | Kind::Map(_) => None,
        }
    }

    /// The text of `key`, where it is a scalar.
    pub(crate) fn str_of(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Self::text)
    }

    pub(crate) fn is_null(&self) -> bool {
        match &self.kind {
            Kind::Scalar { text, plain } => {
                *plain && matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL")
            }
            Kind::List(_) | Kind::Map(_) => false,
        }
    }

    /// A list of texts, where one text alone counts as a list of one.
    pub(crate) fn texts(&self) -> Vec<&str> {
        match &self.kind {
            Kind::Scalar { text, .. } => {
                if self.is_null() {
                    Vec::new()
                } else {
                    vec![text.as_str()]
                }
            }
            Kind::List(items) => items.iter().flat_map(Self::texts).collect(),
            Kind::Map(_) => Vec::new(),
        }
    }

    /// Every scalar below, with its line.
    pub(crate) fn scalars<'a>(&'a self, into: &mut Vec<(&'a str, usize)>) {
        match &self.kind {
            Kind::Scalar { text, .. } => into.push((text, self.line)),
            Kind::List(items) => items.iter().for_each(|item| item.scalars(into)),
            Kind::Map(entries) => entries.iter().for_each(|entry| entry.value.scalars(into)),
        }
    }
}

#[derive(Default)]
struct Builder {
    documents: Vec<Node>,
    stack: Vec<Open>,
    anchors: HashMap<usize, Node>,
    /// Placed so far, copies by alias included.
    placed: Size,
    /// Kept under anchors so far.
    kept: Size,
}

struct Open {
    line: usize,
    anchor: usize,
    shape: Shape,
}

enum Shape {
    List(Vec<Node>),
    Map {
        entries: Vec<Entry>,
        key: Option<(String, usize)>,
    },
}

impl Builder {
    /// Takes one event; true at the end of the stream.
    fn take(&mut self, event: Event<'_>, line: usize) -> Result<bool, YamlError> {
        match event {
            Event::Nothing | Event::StreamStart | Event::DocumentStart(_) => {}
            Event::DocumentEnd => self.anchors.clear(),
            Event::StreamEnd => return Ok(true),
            Event::Alias(id) => {
                let size = self.anchors.get(&id).map_or(Size::of(0), |node| node.size);
                self.placed = within(self.placed.and(size), line)?;
                let node = self.anchors.get(&id).cloned().unwrap_or_else(|| Node {
                    kind: Kind::Scalar {
                        text: String::new(),
                        plain: true,
                    },
                    line,
                    size,
                });
                self.place(node, 0)?;
            }
            Event::Scalar(text, style, anchor, _) => {
                let size = Size::of(text.len());
                self.placed = within(self.placed.and(size), line)?;
                let node = Node {
                    kind: Kind::Scalar {
                        text: text.into_owned(),
                        plain: style == ScalarStyle::Plain,
                    },
                    line,
                    size,
                };
                self.place(node, anchor)?;
            }
            Event::SequenceStart(anchor, _) => {
                self.open(line, anchor, Shape::List(Vec::new()))?;
            }
            Event::MappingStart(anchor, _) => {
                let shape = Shape::Map {
                    entries: Vec::new(),
                    key: None,
                };
                self.open(line, anchor, shape)?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(open) = self.stack.pop() {
                    // Its children were counted when they were placed.
                    self.placed = within(self.placed.and(Size::of(0)), line)?;
                    let (node, anchor) = close(open);
                    self.place(node, anchor)?;
                }
            }
        }
        Ok(false)
    }

    fn open(&mut self, line: usize, anchor: usize, shape: Shape) -> Result<(), YamlError> {
        if self.stack.len() >= DEPTH_MAX {
            return Err(YamlError {
                line,
                message: format!("nested deeper than {DEPTH_MAX} levels"),
            });
        }
        self.stack.push(Open {
            line,
            anchor,
            shape,
        });
        Ok(())
    }

    fn place(&mut self, node: Node, anchor: usize) -> Result<(), YamlError> {
        if anchor != 0 {
            // Anchors inside anchors keep their content once each.
            self.kept = within(self.kept.and(node.size), node.line)?;
            self.anchors.insert(anchor, node.clone());
        }
        match self.stack.last_mut() {
            None => self.documents.push(node),
            Some(open) => match &mut open.shape {
                Shape::List(items) => items.push(node),
                Shape::Map { entries, key } => match key.take() {
                    None => {
                        let line = node.line;
                        *key = Some((node.text().unwrap_or_default().to_owned(), line));
                    }
                    Some((key, line)) => entries.push(Entry {
                        key,
                        line,
                        value: node,
                    }),
                },
            },
        }
        Ok(())
    }
}

fn within(size: Size, line: usize) -> Result<Size, YamlError> {
    let too_much = if size.nodes > NODES_MAX {
        format!("aliases expand to more than {NODES_MAX} values")
    } else if size.bytes > TEXT_BYTES_MAX {
        format!("aliases expand to more than {TEXT_BYTES_MAX} bytes of text")
    } else {
        return Ok(size);
    };
    Err(YamlError {
        line,
        message: too_much,
    })
}

fn close(open: Open) -> (Node, usize) {
    let kind = match open.shape {
        Shape::List(items) => Kind::List(items),
        Shape::Map { entries, .. } => Kind::Map(merge(entries)),
    };
    let size = match &kind {
        Kind::Scalar { .. } => Size::of(0),
        Kind::List(items) => items
            .iter()
            .fold(Size::of(0), |sum, item| sum.and(item.size)),
        Kind::Map(entries) => entries.iter().fold(Size::of(0), |sum, entry| {
            sum.and(Size::of(entry.key.len())).and(entry.value.size)
        }),
    };
    let line = open.line;
    (Node { kind, line, size }, open.anchor)
}

/// Replaces `<<` by the entries of the mappings it names; entries of the mapping itself win.
fn merge(entries: Vec<Entry>) -> Vec<Entry> {
    if entries.iter().all(|entry| entry.key != "<<") {
        return entries;
    }
    let (merged, own): (Vec<Entry>, Vec<Entry>) =
        entries.into_iter().partition(|entry| entry.key == "<<");
    let mut all = Vec::new();
    for entry in merged {
        let sources = match entry.value.kind {
            Kind::List(items) => items,
            kind @ (Kind::Map(_) | Kind::Scalar { .. }) => vec![Node {
                kind,
                line: entry.value.line,
                size: entry.value.size,
            }],
        };
        for source in sources.into_iter().rev() {
            if let Kind::Map(inner) = source.kind {
                all.extend(inner);
            }
        }
    }
    all.extend(own);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_those_an_editor_shows() {
        let text = "on: push\njobs:\n  a:\n    steps:\n      - run: |\n          one\n          two\n      - run: three\n";
        let node = parse_one(text).unwrap();
        let steps = node.at(&["jobs", "a", "steps"]).unwrap().items();
        assert_eq!(steps[0].get("run").unwrap().line, 6);
        assert_eq!(steps[0].str_of("run"), Some("one\ntwo\n"));
        assert_eq!(steps[1].get("run").unwrap().line, 8);
        assert_eq!(node.entry("jobs").unwrap().line, 2);
        assert_eq!(node.str_of("on"), Some("push"));
    }

    #[test]
    fn lines_within_brackets_stand_where_they_like() {
        for list in [
            "[\n      'main',\n      \"dev\"\n    ]",
            "[\n    main,\n    dev\n    ]",
            "[main,\n  'dev']",
            "[\nmain,\ndev\n]",
            "[\n  # one\n  'main', # two\n'dev'\n]",
        ] {
            let text = format!("on:\n  push:\n    branches: {list}\njobs: {{\na: {{}}\n}}\n");
            let node = parse_one(&text).unwrap();
            let branches = node.at(&["on", "push", "branches"]).unwrap();
            assert_eq!(branches.texts(), ["main", "dev"], "{list}");
            let line = text
                .lines()
                .position(|line| line.contains("a: {}"))
                .unwrap();
            assert_eq!(node.get("jobs").unwrap().entry("a").unwrap().line, line + 1);
        }
        // Elsewhere a line further left ends what it stood in, and this file is none.
        assert!(parse("a:\n   b: 1\n  c: 2\n").is_err());
        let left = format!("a:\n  b: [\n{}'x']\n", "'x',\n".repeat(200_000));
        assert!(
            parse(&left)
                .unwrap_err()
                .message
                .contains("invalid indentation")
        );
    }

    #[test]
    fn an_alias_bomb_is_an_error_of_its_file() {
        let mut text = String::from("a: &a [x,x,x,x,x,x,x,x,x,x]\n");
        for (from, to) in "abcdefgh".chars().zip("bcdefghi".chars()) {
            text.push_str(&format!("{to}: &{to} [*{from},*{from},*{from},*{from},*{from},*{from},*{from},*{from},*{from},*{from}]\n"));
        }
        let error = parse(&text).unwrap_err();
        assert!(error.message.contains("aliases"), "{error:?}");
    }

    #[test]
    fn bombs_of_text_and_of_anchors_are_errors_too() {
        let long = "x".repeat(500_000);
        let text = format!("a: &a {long}\nb: [{}]\n", vec!["*a"; 1_000].join(","));
        let error = parse(&text).unwrap_err();
        assert!(error.message.contains("bytes of text"), "{error:?}");
        // Every anchor keeps what is below it: without a bound, this would keep 90 copies.
        let items = vec!["x"; 100_000].join(",");
        let nested: String = (0..90).map(|n| format!("&n{n} [")).collect();
        let text = format!("a: {nested}{items}{}", "]".repeat(90));
        assert!(parse(&text).unwrap_err().message.contains("values"));
        // Merges of merges.
        let mut text = String::from("a0: &a0 {x: 1, y: 2, z: 3}\n");
        for n in 1..60 {
            let p = n - 1;
            text.push_str(&format!("a{n}: &a{n} {{<<: [*a{p}, *a{p}, *a{p}]}}\n"));
        }
        assert!(parse(&text).is_err());
    }

    #[test]
    fn merge_keys_give_way_to_the_mapping_itself() {
        let node =
            parse_one("base: &b {x: 1, y: 2}\nmine:\n  <<: *b\n  y: 3\nall:\n  <<: [*b, {z: 4}]\n")
                .unwrap();
        assert_eq!(node.at(&["mine", "x"]).unwrap().text(), Some("1"));
        assert_eq!(node.at(&["mine", "y"]).unwrap().text(), Some("3"));
        assert_eq!(node.at(&["all", "z"]).unwrap().text(), Some("4"));
    }

    #[test]
    fn deep_nesting_is_refused_not_a_stack_overflow() {
        let text = "[".repeat(5_000);
        assert!(parse(&text).is_err());
        let text = format!("{}{}", "- ".repeat(5_000), "x");
        assert!(parse(&text).is_err());
    }
}
