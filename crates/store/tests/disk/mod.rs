//! A disk that loses and tears what was not synced: every file operation of a process is recorded
//! by `strace`, and any moment of the record can be turned into a directory as a power failure at
//! that moment could have left it.
//!
//! What survives is what a POSIX file system promises, no more:
//! - the contents of a file are those of its last finished sync; of the writes after it any subset
//!   may be there, in any order of arrival, each of them whole, torn at a sector, or absent;
//! - names (created, renamed, removed) are there once their directory was synced; of those after
//!   it, a prefix is there, as a journal keeps them in order;
//! - a name may be durable while the contents of its file are not.
//!
//! Killing the process would show none of this: the kernel keeps what a dead process wrote.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "part of a test, which may panic"
)]

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// What a disk writes at once or not at all, in bytes.
const SECTOR_BYTES: usize = 512;

/// The system calls that matter, as `strace -e trace=` takes them.
pub(crate) const CALLS: &str = "openat,write,writev,pwrite64,pwritev,lseek,ftruncate,fallocate,\
                                fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,mkdir,\
                                mkdirat,linkat,copy_file_range,sendfile";

/// One thing that the process did, at a place in the record.
#[derive(Debug)]
pub(crate) struct Step {
    /// Where in the record it takes effect.
    pub(crate) at: usize,
    pub(crate) what: What,
}

#[derive(Debug)]
pub(crate) enum What {
    /// A name was made for a new, empty file.
    Create(PathBuf),
    /// Bytes were handed over; they may be on the disk from here on.
    Write {
        path: PathBuf,
        offset: usize,
        bytes: Vec<u8>,
        /// Where the call had returned.
        done: usize,
    },
    Truncate {
        path: PathBuf,
        length: usize,
        done: usize,
    },
    /// A sync returned; it covers what had returned when it was called.
    Sync {
        path: PathBuf,
        called: usize,
    },
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    MakeDirectory(PathBuf),
    /// The process said something on its standard output.
    Said(String),
}

/// Reads what `strace -f -y -xx` wrote. Only files below `root` count.
pub(crate) fn read_record(text: &str, root: &Path) -> Vec<Step> {
    let mut reader = Reader {
        root: root.to_owned(),
        begun: HashMap::new(),
        positions: HashMap::new(),
        said: Vec::new(),
        steps: Vec::new(),
    };
    for (line_number, line) in text.lines().enumerate() {
        reader.line(line_number, line);
    }
    reader.steps.sort_by_key(|step| step.at);
    reader.steps
}

struct Reader {
    root: PathBuf,
    /// Calls that have not returned, by thread.
    begun: HashMap<String, (usize, String)>,
    /// Where plain writes go, by open file.
    positions: HashMap<u32, usize>,
    said: Vec<u8>,
    steps: Vec<Step>,
}

impl Reader {
    fn line(&mut self, at: usize, line: &str) {
        let (thread, rest) = line.split_once(' ').unwrap_or(("", line));
        let rest = rest.trim_start();
        if let Some(begun) = rest.strip_suffix("<unfinished ...>") {
            self.begun
                .insert(thread.to_owned(), (at, begun.trim_end().to_owned()));
        } else if rest.starts_with("<... ") {
            let (_, tail) = rest.split_once("resumed>").unwrap();
            if let Some((called, begun)) = self.begun.remove(thread) {
                self.call(called, at, &format!("{begun}{tail}"));
            }
        } else if !rest.starts_with("---") && !rest.starts_with("+++") {
            self.call(at, at, rest);
        }
    }

    /// One whole call, `name(arguments) = result`.
    fn call(&mut self, called: usize, done: usize, text: &str) {
        let Some((head, result)) = text.rsplit_once(" = ") else {
            return;
        };
        let (name, arguments) = head.split_once('(').unwrap();
        let arguments = arguments.trim_end();
        let arguments = split(arguments.strip_suffix(')').unwrap_or(arguments));
        if result.starts_with('-') {
            return;
        }
        let number = |text: &str| text.parse::<usize>().unwrap_or_else(|_| panic!("{text}"));
        match name {
            "openat" => self.open(done, &arguments, result),
            "write" | "pwrite64" => {
                let written = number(result.split(' ').next().unwrap());
                let mut bytes = quoted(arguments[1]);
                bytes.truncate(written);
                let file = file(arguments[0]);
                let offset = if name == "write" {
                    let position = self.positions.entry(file.number).or_default();
                    *position += written;
                    *position - written
                } else {
                    number(arguments[3])
                };
                if file.number == 1 {
                    self.say(called, &bytes);
                } else if let Some(path) = self.ours(file.path) {
                    self.steps.push(Step {
                        at: called,
                        what: What::Write {
                            path,
                            offset,
                            bytes,
                            done,
                        },
                    });
                }
            }
            "lseek" => {
                let file = file(arguments[0]);
                self.positions.insert(file.number, number(result));
            }
            "ftruncate" => {
                if let Some(path) = self.ours(file(arguments[0]).path) {
                    let length = number(arguments[1]);
                    self.steps.push(Step {
                        at: called,
                        what: What::Truncate { path, length, done },
                    });
                }
            }
            "fsync" | "fdatasync" => {
                if let Some(path) = self.ours(file(arguments[0]).path) {
                    self.steps.push(Step {
                        at: done,
                        what: What::Sync { path, called },
                    });
                }
            }
            "rename" => {
                let (from, to) = (text_of(arguments[0]), text_of(arguments[1]));
                self.names(called, |ours| Some(What::Rename(ours(from)?, ours(to)?)));
            }
            "unlink" => {
                let path = text_of(arguments[0]);
                self.names(called, |ours| Some(What::Remove(ours(path)?)));
            }
            "mkdir" => {
                let path = text_of(arguments[0]);
                self.names(called, |ours| Some(What::MakeDirectory(ours(path)?)));
            }
            // Anything else on our files would be missing from the picture.
            other => {
                let touches = arguments.iter().any(|argument| {
                    argument.contains('<') && self.ours(file(argument).path).is_some()
                        || argument.starts_with('"') && self.ours(text_of(argument)).is_some()
                });
                assert!(!touches, "the record can't be read: {other} on a file");
            }
        }
    }

    fn open(&mut self, done: usize, arguments: &[&str], result: &str) {
        let file = file(result);
        self.positions.insert(file.number, 0);
        if arguments[2].contains("O_CREAT")
            && let Some(path) = self.ours(file.path)
        {
            self.steps.push(Step {
                at: done,
                what: What::Create(path.clone()),
            });
            if arguments[2].contains("O_TRUNC") {
                self.steps.push(Step {
                    at: done,
                    what: What::Truncate {
                        path,
                        length: 0,
                        done,
                    },
                });
            }
        }
    }

    fn names(
        &mut self,
        at: usize,
        what: impl FnOnce(&dyn Fn(PathBuf) -> Option<PathBuf>) -> Option<What>,
    ) {
        if let Some(what) = what(&|path| self.ours(path)) {
            self.steps.push(Step { at, what });
        }
    }

    fn say(&mut self, at: usize, bytes: &[u8]) {
        self.said.extend_from_slice(bytes);
        while let Some(end) = self.said.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.said.drain(..=end).collect();
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            self.steps.push(Step {
                at,
                what: What::Said(text),
            });
        }
    }

    /// The path below the root, for files that count.
    fn ours(&self, path: PathBuf) -> Option<PathBuf> {
        let path = path.strip_prefix(&self.root).ok()?.to_owned();
        let name = path.to_string_lossy();
        // Shared memory between processes, and rebuilt after every crash.
        (!name.ends_with("-shm")).then_some(path)
    }
}

struct OpenFile {
    number: u32,
    path: PathBuf,
}

/// `3<\x2f…>`.
fn file(text: &str) -> OpenFile {
    let (number, path) = text.split_once('<').unwrap_or((text, ""));
    OpenFile {
        number: number.trim().parse().unwrap_or(u32::MAX),
        path: PathBuf::from(
            String::from_utf8(unescape(path.split('>').next().unwrap_or_default())).unwrap(),
        ),
    }
}

fn quoted(text: &str) -> Vec<u8> {
    assert!(!text.ends_with("..."), "strace cut a string");
    unescape(text.trim_matches('"'))
}

fn text_of(text: &str) -> PathBuf {
    PathBuf::from(String::from_utf8(quoted(text)).unwrap())
}

/// `\x41\x42` as bytes.
fn unescape(text: &str) -> Vec<u8> {
    let digits = text.as_bytes();
    let value = |digit: u8| match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        other => panic!("no hex digit: {other}"),
    };
    let (pieces, _) = digits.as_chunks::<4>();
    pieces
        .iter()
        .map(|[_, _, high, low]| value(*high) * 16 + value(*low))
        .collect()
}

/// The arguments of a call; strings hold no commas, since they are in hex.
fn split(arguments: &str) -> Vec<&str> {
    arguments.split(", ").map(str::trim).collect()
}

/// The disk at one moment of the record.
#[derive(Default)]
pub(crate) struct Disk {
    files: Vec<File>,
    /// Names as the process sees them.
    names: BTreeMap<PathBuf, Option<usize>>,
    /// Names that are durable.
    durable: BTreeMap<PathBuf, Option<usize>>,
    /// Changes of names that are not, in order, each with its directory.
    pending: Vec<(PathBuf, Name)>,
}

#[derive(Default)]
struct File {
    durable: Vec<u8>,
    pending: Vec<Pending>,
}

#[derive(Clone)]
enum Pending {
    Write {
        offset: usize,
        bytes: Vec<u8>,
        done: usize,
    },
    Truncate {
        length: usize,
        done: usize,
    },
}

#[derive(Clone)]
enum Name {
    Put(PathBuf, Option<usize>),
    Move(PathBuf, PathBuf, Option<usize>),
    Remove(PathBuf),
}

impl Name {
    fn apply(&self, names: &mut BTreeMap<PathBuf, Option<usize>>) {
        match self {
            Self::Put(path, what) => {
                names.insert(path.clone(), *what);
            }
            Self::Move(from, to, what) => {
                names.remove(from);
                names.insert(to.clone(), *what);
            }
            Self::Remove(path) => {
                names.remove(path);
            }
        }
    }
}

impl Disk {
    /// Takes one step in.
    pub(crate) fn take(&mut self, step: &Step) {
        match &step.what {
            What::Create(path) => {
                if !self.names.contains_key(path) {
                    self.files.push(File::default());
                    self.name(Name::Put(path.clone(), Some(self.files.len() - 1)), path);
                }
            }
            What::MakeDirectory(path) => self.name(Name::Put(path.clone(), None), path),
            What::Rename(from, to) => {
                // Of a file: a directory's own names would have to move with it.
                let what = self.names.get(from).copied().flatten();
                assert!(what.is_some(), "{} is renamed", from.display());
                self.name(Name::Move(from.clone(), to.clone(), what), to);
            }
            What::Remove(path) => self.name(Name::Remove(path.clone()), path),
            What::Write {
                path,
                offset,
                bytes,
                done,
            } => {
                if let Some(file) = self.file(path) {
                    file.pending.push(Pending::Write {
                        offset: *offset,
                        bytes: bytes.clone(),
                        done: *done,
                    });
                }
            }
            What::Truncate { path, length, done } => {
                if let Some(file) = self.file(path) {
                    file.pending.push(Pending::Truncate {
                        length: *length,
                        done: *done,
                    });
                }
            }
            What::Sync { path, called } => self.sync(path, *called),
            What::Said(_) => {}
        }
    }

    /// How many writes to a file no sync has covered.
    pub(crate) fn unsynced(&self, path: &Path) -> usize {
        let number = self.names.get(path).copied().flatten();
        number.map_or(0, |number| self.files[number].pending.len())
    }

    fn name(&mut self, name: Name, path: &Path) {
        name.apply(&mut self.names);
        self.pending.push((path.parent().unwrap().to_owned(), name));
    }

    fn file(&mut self, path: &Path) -> Option<&mut File> {
        let number = (*self.names.get(path)?)?;
        self.files.get_mut(number)
    }

    fn sync(&mut self, path: &Path, called: usize) {
        if path.as_os_str().is_empty() || self.names.get(path) == Some(&None) {
            let durable = &mut self.durable;
            self.pending.retain(|(directory, name)| {
                let covered = directory == path;
                if covered {
                    name.apply(durable);
                }
                !covered
            });
            return;
        }
        let Some(file) = self.file(path) else { return };
        let durable = &mut file.durable;
        file.pending.retain(|pending| {
            let covered = pending.done() < called;
            if covered {
                pending.apply(durable);
            }
            !covered
        });
    }

    /// Writes the disk as a power failure could leave it to `to`.
    pub(crate) fn fail(&self, to: &Path, chance: &mut Chance) {
        let mut names = self.durable.clone();
        let kept = match chance.below(3) {
            0 => 0,
            1 => self.pending.len(),
            _ => chance.below(self.pending.len() + 1),
        };
        for (_, name) in &self.pending[..kept] {
            name.apply(&mut names);
        }
        std::fs::create_dir_all(to).unwrap();
        for path in names
            .iter()
            .filter(|(_, what)| what.is_none())
            .map(|(path, _)| path)
        {
            // A directory whose parent's name was lost is lost.
            let _parent_lost = std::fs::create_dir(to.join(path));
        }
        for (path, number) in &names {
            let Some(number) = number else { continue };
            let target = to.join(path);
            if target.parent().is_some_and(Path::is_dir) {
                write_sparse(&target, &self.files[*number].fail(chance));
            }
        }
    }
}

impl File {
    fn fail(&self, chance: &mut Chance) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        let manner = chance.below(4);
        let cut = chance.below(self.pending.len() + 1);
        for (place, pending) in self.pending.iter().enumerate() {
            match manner {
                // Nothing that was not synced is there, or all of it.
                0 => {}
                1 => pending.apply(&mut bytes),
                // In order up to a moment, the last of them torn.
                2 if place + 1 < cut => pending.apply(&mut bytes),
                2 if place + 1 == cut => pending.tear(&mut bytes, chance),
                2 => {}
                // Each as chance has it.
                _ => match chance.below(3) {
                    0 => {}
                    1 => pending.apply(&mut bytes),
                    _ => pending.tear(&mut bytes, chance),
                },
            }
        }
        bytes
    }
}

impl Pending {
    fn done(&self) -> usize {
        match self {
            Self::Write { done, .. } | Self::Truncate { done, .. } => *done,
        }
    }

    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes, .. } => put(to, *offset, bytes),
            Self::Truncate { length, .. } => to.resize(*length, 0),
        }
    }

    /// Some of its sectors arrive.
    fn tear(&self, to: &mut Vec<u8>, chance: &mut Chance) {
        let Self::Write { offset, bytes, .. } = self else {
            return self.apply(to);
        };
        let prefix = chance.below(2) == 0;
        let mut at = 0;
        while at < bytes.len() {
            let sector_end = (offset + at) / SECTOR_BYTES * SECTOR_BYTES + SECTOR_BYTES;
            let end = (sector_end - offset).min(bytes.len());
            if chance.below(2) == 0 {
                put(to, offset + at, &bytes[at..end]);
            } else if prefix {
                return;
            }
            at = end;
        }
    }
}

fn put(to: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if to.len() < end {
        to.resize(end, 0);
    }
    to[offset..end].copy_from_slice(bytes);
}

/// Leaves out pieces of zeros: the reserve is large and mostly empty.
fn write_sparse(path: &Path, bytes: &[u8]) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::create(path).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    let piece_bytes = 64 * 1024;
    for (place, piece) in bytes.chunks(piece_bytes).enumerate() {
        if piece.iter().any(|byte| *byte != 0) {
            file.write_all_at(piece, (place * piece_bytes) as u64)
                .unwrap();
        }
    }
}

/// SplitMix64: the same seed gives the same failures.
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `bound`, which is not zero.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }
}
