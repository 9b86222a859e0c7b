//! SSH's wire encoding (RFC 4251 section 5) over byte slices: only what signatures and keys need.

/// Reads from the front of a slice; every method answers `None` where the bytes don't suffice.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All that is left.
    pub(super) const fn rest(&self) -> &'a [u8] {
        self.0
    }

    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_be_bytes)
    }

    /// A `string`: length and bytes.
    pub(super) fn string(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()?;
        self.take(usize::try_from(length).ok()?)
    }

    /// A `string` of UTF-8.
    pub(super) fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.string()?).ok()
    }

    /// A positive `mpint` in its shortest spelling, without the sign byte.
    pub(super) fn positive_integer(&mut self) -> Option<&'a [u8]> {
        match self.string()? {
            [0, rest @ ..] if rest.first().is_some_and(|byte| *byte >= 0x80) => Some(rest),
            all @ [first, ..] if (1..0x80).contains(first) => Some(all),
            _ => None,
        }
    }
}

/// Writes to a growing buffer.
#[derive(Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    /// A `string`. Every caller's bytes are far below 4 GiB; were they not, the length would be
    /// wrong, and no reader would take the blob.
    pub(super) fn string(&mut self, bytes: &[u8]) {
        self.u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        self.bytes(bytes);
    }

    /// An unsigned big-endian integer as `mpint` in its shortest spelling.
    pub(super) fn positive_integer(&mut self, big_endian: &[u8]) {
        let zeros = big_endian.iter().take_while(|byte| **byte == 0).count();
        let digits = big_endian.get(zeros..).unwrap_or_default();
        let mut signed = Vec::with_capacity(digits.len() + 1);
        if digits.first().is_some_and(|first| *first >= 0x80) {
            signed.push(0);
        }
        signed.extend_from_slice(digits);
        self.string(&signed);
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.0
    }
}
