//! Faults for tests of the real program: where the server dies, and how far its clock is off.
//!
//! Both are read from the environment in builds with debug assertions; in others they are nothing.

/// A point in an effect's life at which a restart must find its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FaultPoint {
    /// The intent is recorded, nothing else.
    Intended,
    /// An attempt is recorded; the world is as it was.
    Attempted,
    /// The world has changed; nobody recorded the outcome.
    Performed,
}

impl FaultPoint {
    #[cfg(debug_assertions)]
    const fn name(self) -> &'static str {
        match self {
            Self::Intended => "effect-intended",
            Self::Attempted => "effect-attempted",
            Self::Performed => "effect-performed",
        }
    }
}

/// Ends the process at once, with no destructor run, if `PORTCULLIS_CRASH_AT` names this point; with
/// `:2` behind its name, the second time that it is reached.
#[cfg(debug_assertions)]
pub(crate) fn reach(point: FaultPoint) {
    static REACHED: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let Ok(wanted) = std::env::var("PORTCULLIS_CRASH_AT") else {
        return;
    };
    let (name, times) = wanted.split_once(':').unwrap_or((&wanted, "1"));
    if name != point.name() {
        return;
    }
    let reached = REACHED.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
    if times.parse() == Ok(reached) {
        std::process::abort();
    }
}

/// Nothing: this build has no faults.
#[cfg(not(debug_assertions))]
pub(crate) const fn reach(_: FaultPoint) {}

/// How many milliseconds the clock is set ahead, or behind if negative: by
/// `PORTCULLIS_CLOCK_OFFSET_MS` from the start on, or at any time by the file that
/// `PORTCULLIS_CLOCK_OFFSET_FILE` names.
#[cfg(debug_assertions)]
pub(crate) fn clock_offset_ms() -> i64 {
    static OFFSET_MS: std::sync::LazyLock<i64> = std::sync::LazyLock::new(|| {
        std::env::var("PORTCULLIS_CLOCK_OFFSET_MS")
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or_default()
    });
    static FILE: std::sync::LazyLock<Option<std::ffi::OsString>> =
        std::sync::LazyLock::new(|| std::env::var_os("PORTCULLIS_CLOCK_OFFSET_FILE"));
    let told = FILE
        .as_ref()
        .and_then(|file| std::fs::read_to_string(file).ok())
        .and_then(|text| text.trim().parse().ok());
    told.unwrap_or(*OFFSET_MS)
}

/// None: this build reads the machine's clock as it is.
#[cfg(not(debug_assertions))]
pub(crate) const fn clock_offset_ms() -> i64 {
    0
}
