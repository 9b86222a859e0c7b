//! Holds a pack against its limits while it streams by, before git sees the bytes.
//!
//! `git index-pack` bounds only the compressed size. This reads the format of gitformat-pack(5)
//! itself, inflates every entry into nothing, and stops at the first object that is too large, so
//! that a bomb costs neither memory nor disk. Whether the objects are sound is git's to say.

use flate2::{Decompress, FlushDecompress, Status};
use portcullis_model::Refusal;

use super::quarantine::PackLimits;
use super::tree::ObjectFormat;

#[cfg(test)]
mod tests;

/// Output of one inflation step in bytes; it is dropped.
const SCRATCH_BYTES: usize = 32 * 1024;
/// Bytes at the head of a delta that hold its two sizes: two numbers of at most ten bytes.
const DELTA_HEAD_BYTES: usize = 20;

/// What a pack holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PackSummary {
    /// Bytes of the pack.
    pub bytes: u64,
    /// Objects in it.
    pub objects: u32,
    /// Bytes of all objects once inflated and rebuilt from their deltas.
    pub inflated_bytes: u64,
    /// The largest object in bytes.
    pub largest_bytes: u64,
}

/// A pack under way.
pub struct PackScanner {
    limits: PackLimits,
    format: ObjectFormat,
    summary: PackSummary,
    objects_left: u32,
    state: State,
    scratch: Vec<u8>,
}

enum State {
    /// `PACK`, version, count: 12 bytes.
    Head(Vec<u8>),
    /// Type and size, seven bits a byte after the first four.
    EntryHead {
        kind: u8,
        size: u64,
        shift: u32,
        begun: bool,
    },
    /// The distance to a delta's base.
    BaseOffset { kind: u8, size: u64, bytes: u32 },
    /// The id of a delta's base.
    BaseId { kind: u8, size: u64, left: usize },
    /// Compressed content.
    Content {
        inflate: Box<Decompress>,
        size: u64,
        delta: Option<Vec<u8>>,
    },
    /// The pack's own checksum.
    Trailer { left: usize },
    /// Whole.
    End,
}

impl PackScanner {
    /// A scanner with these limits.
    pub fn new(format: ObjectFormat, limits: PackLimits) -> Self {
        Self {
            limits,
            format,
            summary: PackSummary::default(),
            objects_left: 0,
            state: State::Head(Vec::new()),
            scratch: vec![0; SCRATCH_BYTES],
        }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// `malformed-pack`, or the limit that is passed: `pack-too-large`, `pack-too-many-objects`,
    /// `object-too-large`, `pack-inflates-too-large`.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<(), Refusal> {
        let count = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.summary.bytes = self.summary.bytes.saturating_add(count);
        if self.summary.bytes > self.limits.pack_bytes {
            return Err(limit(
                "pack-too-large",
                "the pack is too large",
                self.limits.pack_bytes,
                "bytes",
            )
            .next("push fewer or smaller files at once, or ask for a higher limit"));
        }
        while !bytes.is_empty() {
            bytes = self.step(bytes)?;
        }
        Ok(())
    }

    /// The pack's end: what it held.
    ///
    /// # Errors
    /// `malformed-pack`: it is not whole.
    pub fn finish(self) -> Result<PackSummary, Refusal> {
        match self.state {
            State::End => Ok(self.summary),
            State::Head(_)
            | State::EntryHead { .. }
            | State::BaseOffset { .. }
            | State::BaseId { .. }
            | State::Content { .. }
            | State::Trailer { .. } => Err(malformed("a whole pack")),
        }
    }

    fn step<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Refusal> {
        match std::mem::replace(&mut self.state, State::End) {
            State::Head(head) => self.head(head, bytes),
            State::EntryHead {
                kind,
                size,
                shift,
                begun,
            } => self.entry_head(kind, size, shift, begun, bytes),
            State::BaseOffset {
                kind,
                size,
                bytes: seen,
            } => {
                let (first, rest) = bytes.split_first().ok_or_else(|| malformed("bytes"))?;
                if seen >= 10 {
                    return Err(malformed("a distance of at most ten bytes"));
                }
                self.state = if first & 0x80 == 0 {
                    self.content(kind, size)?
                } else {
                    State::BaseOffset {
                        kind,
                        size,
                        bytes: seen + 1,
                    }
                };
                Ok(rest)
            }
            State::BaseId { kind, size, left } => {
                let (skipped, rest) = bytes.split_at(bytes.len().min(left));
                let left = left - skipped.len();
                self.state = if left == 0 {
                    self.content(kind, size)?
                } else {
                    State::BaseId { kind, size, left }
                };
                Ok(rest)
            }
            State::Content {
                inflate,
                size,
                delta,
            } => self.inflate(inflate, size, delta, bytes),
            State::Trailer { left } => {
                let (skipped, rest) = bytes.split_at(bytes.len().min(left));
                let left = left - skipped.len();
                self.state = if left == 0 {
                    State::End
                } else {
                    State::Trailer { left }
                };
                Ok(rest)
            }
            State::End => Err(malformed("nothing after the pack's checksum")),
        }
    }

    fn head<'a>(&mut self, mut head: Vec<u8>, bytes: &'a [u8]) -> Result<&'a [u8], Refusal> {
        let (taken, rest) = bytes.split_at(bytes.len().min(12 - head.len()));
        head.extend_from_slice(taken);
        if head.len() < 12 {
            self.state = State::Head(head);
            return Ok(rest);
        }
        let count = head
            .strip_prefix(b"PACK\0\0\0\x02")
            .or_else(|| head.strip_prefix(b"PACK\0\0\0\x03"))
            .and_then(|count| <[u8; 4]>::try_from(count).ok())
            .map(u32::from_be_bytes)
            .ok_or_else(|| malformed("a pack of version 2 or 3"))?;
        if count > self.limits.objects {
            return Err(limit(
                "pack-too-many-objects",
                "the pack holds too many objects",
                u64::from(self.limits.objects),
                "objects",
            )
            .received(&count.to_string())
            .next("push the work in smaller steps"));
        }
        self.summary.objects = count;
        self.objects_left = count;
        self.state = self.next_entry();
        Ok(rest)
    }

    fn next_entry(&self) -> State {
        if self.objects_left == 0 {
            State::Trailer {
                left: self.format.id_bytes(),
            }
        } else {
            State::EntryHead {
                kind: 0,
                size: 0,
                shift: 0,
                begun: false,
            }
        }
    }

    fn entry_head<'a>(
        &mut self,
        mut kind: u8,
        mut size: u64,
        mut shift: u32,
        begun: bool,
        bytes: &'a [u8],
    ) -> Result<&'a [u8], Refusal> {
        let (first, rest) = bytes.split_first().ok_or_else(|| malformed("bytes"))?;
        if begun {
            let part = u64::from(first & 0x7f);
            if shift > 56 {
                return Err(malformed("a size below 2^60"));
            }
            size |= part << shift;
            shift += 7;
        } else {
            kind = (first >> 4) & 7;
            size = u64::from(first & 0x0f);
            shift = 4;
        }
        self.state = if first & 0x80 != 0 {
            State::EntryHead {
                kind,
                size,
                shift,
                begun: true,
            }
        } else {
            match kind {
                1..=4 => {
                    self.count(size)?;
                    self.content(kind, size)?
                }
                6 => State::BaseOffset {
                    kind,
                    size,
                    bytes: 0,
                },
                7 => State::BaseId {
                    kind,
                    size,
                    left: self.format.id_bytes(),
                },
                _ => return Err(malformed("an entry of a known type")),
            }
        };
        Ok(rest)
    }

    /// The state that inflates an entry. A delta larger than an object may be is no sane delta.
    fn content(&self, kind: u8, size: u64) -> Result<State, Refusal> {
        if size > self.limits.blob_bytes {
            return Err(self.too_large(size));
        }
        Ok(State::Content {
            inflate: Box::new(Decompress::new(true)),
            size,
            delta: (kind > 4).then(Vec::new),
        })
    }

    /// An object of this size is in the pack.
    fn count(&mut self, size: u64) -> Result<(), Refusal> {
        if size > self.limits.blob_bytes {
            return Err(self.too_large(size));
        }
        let summary = &mut self.summary;
        summary.largest_bytes = summary.largest_bytes.max(size);
        summary.inflated_bytes = summary.inflated_bytes.saturating_add(size);
        if summary.inflated_bytes > self.limits.inflated_bytes {
            return Err(limit(
                "pack-inflates-too-large",
                "the pack's objects are too large together",
                self.limits.inflated_bytes,
                "bytes",
            )
            .next("push fewer or smaller files at once"));
        }
        Ok(())
    }

    fn inflate<'a>(
        &mut self,
        mut inflate: Box<Decompress>,
        size: u64,
        mut delta: Option<Vec<u8>>,
        bytes: &'a [u8],
    ) -> Result<&'a [u8], Refusal> {
        let (read, written) = (inflate.total_in(), inflate.total_out());
        let status = inflate
            .decompress(bytes, &mut self.scratch, FlushDecompress::None)
            .map_err(|_| malformed("compressed objects"))?;
        let used = usize::try_from(inflate.total_in() - read).unwrap_or(usize::MAX);
        let made = usize::try_from(inflate.total_out() - written).unwrap_or(usize::MAX);
        let rest = bytes
            .get(used..)
            .ok_or_else(|| malformed("compressed objects"))?;
        if inflate.total_out() > size {
            return Err(malformed("objects of the size that they announce"));
        }
        if let Some(head) = &mut delta {
            let room = DELTA_HEAD_BYTES.saturating_sub(head.len()).min(made);
            head.extend_from_slice(self.scratch.get(..room).unwrap_or_default());
        }
        if status == Status::StreamEnd {
            if inflate.total_out() != size {
                return Err(malformed("objects of the size that they announce"));
            }
            if let Some(head) = delta {
                let size = result_size(&head).ok_or_else(|| malformed("a delta's sizes"))?;
                self.count(size)?;
            }
            self.objects_left = self.objects_left.saturating_sub(1);
            self.state = self.next_entry();
            return Ok(rest);
        }
        if used == 0 && made == 0 {
            return Err(malformed("compressed objects"));
        }
        self.state = State::Content {
            inflate,
            size,
            delta,
        };
        Ok(rest)
    }

    fn too_large(&self, size: u64) -> Refusal {
        limit(
            "object-too-large",
            "a file in the push is too large",
            self.limits.blob_bytes,
            "bytes",
        )
        .received(&format!("{size} bytes"))
        .next("take the file out of the commits that add it, then push again")
    }
}

/// The second number at a delta's head: the size of what it makes.
fn result_size(head: &[u8]) -> Option<u64> {
    let mut bytes = head.iter();
    let mut number = || {
        let mut value = 0_u64;
        for shift in (0..63).step_by(7) {
            let byte = bytes.next()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    };
    number()?;
    number()
}

fn limit(code: &str, message: &str, max: u64, unit: &str) -> Refusal {
    Refusal::limit(code, message).expected(&format!("at most {max} {unit}"))
}

fn malformed(expected: &str) -> Refusal {
    Refusal::malformed("pack")
        .expected(expected)
        .next("run `git fsck` in the clone, then push again")
}
