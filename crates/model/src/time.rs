//! Points in time as values. Nothing here reads a clock.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::serde_as_text;
use crate::refusal::Refusal;

/// Milliseconds since 1970-01-01T00:00:00Z, written as RFC 3339 with milliseconds and `Z`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

/// 9999-12-31T23:59:59.999Z, the last instant RFC 3339 can write, in milliseconds.
const MAX_MS: u64 = 253_402_300_799_999;

impl Timestamp {
    /// A point in time from milliseconds since the epoch; later than year 9999 is clamped to it.
    pub const fn from_ms(ms: u64) -> Self {
        Self(if ms > MAX_MS { MAX_MS } else { ms })
    }

    /// Milliseconds since the epoch.
    pub const fn as_ms(self) -> u64 {
        self.0
    }

    /// This much later, clamped to year 9999.
    #[must_use]
    pub const fn plus_ms(self, ms: u64) -> Self {
        Self::from_ms(self.0.saturating_add(ms))
    }

    /// Milliseconds since `earlier`; 0 if that is in the future.
    pub const fn ms_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = i64::try_from(self.0).unwrap_or(i64::MAX);
        match jiff::Timestamp::from_millisecond(ms) {
            Ok(time) => write!(f, "{time:.3}"),
            Err(_) => write!(f, "{}ms", self.0),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Timestamp {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        text.parse::<jiff::Timestamp>()
            .ok()
            .and_then(|time| u64::try_from(time.as_millisecond()).ok())
            .map(Self::from_ms)
            .ok_or_else(|| {
                Refusal::malformed("time")
                    .expected("RFC 3339 with a zone, such as 2026-11-21T09:00:00Z")
                    .received(text)
            })
    }
}

serde_as_text!(Timestamp);

/// Milliseconds in a text such as `90s`, `15m`, `8h` or `30d`.
pub fn parse_duration_ms(text: &str) -> Result<u64, Refusal> {
    let malformed = || {
        Refusal::malformed("duration")
            .expected("a whole number and s, m, h or d, such as 15m")
            .received(text)
    };
    let unit_at = text
        .find(|c: char| !c.is_ascii_digit())
        .ok_or_else(malformed)?;
    let (digits, unit) = text.split_at(unit_at);
    let count: u64 = digits.parse().map_err(|_| malformed())?;
    let unit_ms: u64 = match unit {
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(malformed()),
    };
    count.checked_mul(unit_ms).ok_or_else(malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_written_in_one_way() {
        let time = Timestamp::from_ms(1_795_250_000_123);
        assert_eq!(time.to_string().len(), "2026-11-21T08:33:20.123Z".len());
        assert_eq!(time.to_string().parse::<Timestamp>().unwrap(), time);
        assert!("2026-11-21 08:33".parse::<Timestamp>().is_err());
        assert!("1969-01-01T00:00:00Z".parse::<Timestamp>().is_err());
    }

    #[test]
    fn durations_are_bounded() {
        assert_eq!(parse_duration_ms("15m").unwrap(), 900_000);
        for text in [
            "",
            "m",
            "15",
            "1.5h",
            "-1s",
            "99999999999999999999d",
            "999999999999999999d",
        ] {
            assert!(parse_duration_ms(text).is_err(), "{text}");
        }
    }
}
