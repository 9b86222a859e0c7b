//! Bytes between the sandbox and the outside, one bounded buffer per direction, never blocking.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

use rustix::event::PollFlags;
use rustix::fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl, open};
use rustix::io::Errno;

/// Bytes moved at a time; the size of a Linux pipe.
const BUFFER_BYTES: usize = 64 * 1024;
/// Most bytes that a blocking descriptor takes without blocking once it polls as writable.
const PIPE_ATOMIC_BYTES: usize = 4096;

/// One direction.
pub(super) struct Pump {
    from: Option<OwnedFd>,
    to: Sink,
    buffer: Vec<u8>,
    written: usize,
    /// Whether it leads out of the sandbox; only then must all of it be delivered.
    outward: bool,
    done: bool,
}

/// Where bytes go.
pub(super) enum Sink {
    /// A descriptor of the caller or of the sandbox.
    Descriptor { to: OwnedFd, blocking: bool },
    /// A bounded file in memory; the rest is counted and dropped.
    Memory { file: File, most: u64, seen: u64 },
    /// A file that is begun anew at its bound.
    Log(Log),
}

impl Pump {
    pub(super) fn inward(from: OwnedFd, to: Sink) -> Self {
        Self {
            outward: false,
            ..Self::outward(from, to)
        }
    }

    pub(super) fn outward(from: OwnedFd, to: Sink) -> Self {
        Self {
            outward: true,
            from: Some(from),
            to,
            buffer: Vec::new(),
            written: 0,
            done: false,
        }
    }

    /// What to poll for now: at most one thing.
    pub(super) fn interest(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        if self.done {
            return None;
        }
        if self.pending() {
            return match &self.to {
                Sink::Descriptor { to, .. } => Some((to.as_fd(), PollFlags::OUT)),
                Sink::Memory { .. } | Sink::Log(_) => None,
            };
        }
        let from = self.from.as_ref()?;
        Some((from.as_fd(), PollFlags::IN))
    }

    fn pending(&self) -> bool {
        self.written < self.buffer.len()
    }

    /// Whether there may be more to deliver.
    pub(super) const fn is_owed(&self) -> bool {
        self.outward && !self.done
    }

    /// Whether somebody outside must take what it delivers.
    pub(super) const fn can_block(&self) -> bool {
        matches!(self.to, Sink::Descriptor { .. })
    }

    /// Whether it waits for its source, not for its sink.
    pub(super) fn reads(&self) -> bool {
        !self.pending()
    }

    /// Bytes that came through, where they are counted.
    pub(super) const fn seen(&self) -> u64 {
        match &self.to {
            Sink::Memory { seen, .. } => *seen,
            Sink::Descriptor { .. } | Sink::Log(_) => 0,
        }
    }

    /// Moves what can be moved now. `ready`: what [`Self::interest`] asked for has come. `last`:
    /// nobody writes any more, so that nothing to read is the end.
    pub(super) fn turn(&mut self, ready: bool, last: bool) {
        if self.done || !(ready || last && self.outward && !self.pending()) {
            return;
        }
        if self.pending() {
            self.empty();
            return;
        }
        self.fill(last);
        // A descriptor that may block is written only once it polls as writable.
        if self.pending() && !matches!(self.to, Sink::Descriptor { blocking: true, .. }) {
            self.empty();
        }
    }

    fn fill(&mut self, last: bool) {
        let Some(from) = &self.from else {
            self.done = true;
            return;
        };
        self.buffer.resize(BUFFER_BYTES, 0);
        self.written = 0;
        match rustix::io::read(from, &mut self.buffer) {
            Ok(0) => self.finish(),
            Ok(count) => self.buffer.truncate(count),
            Err(Errno::AGAIN | Errno::INTR) => {
                self.buffer.clear();
                if last {
                    self.finish();
                }
            }
            // A terminal whose other side is closed, or one that we may not read in the
            // background: nothing more comes.
            Err(_) => self.finish(),
        }
    }

    fn finish(&mut self) {
        self.buffer.clear();
        self.from = None;
        self.done = true;
        // Closing it tells the reader; a terminal or the caller's own output stays as it is.
        if let Sink::Descriptor { to, .. } = &mut self.to
            && let Ok(null) = File::open("/dev/null")
        {
            *to = null.into();
        }
    }

    fn empty(&mut self) {
        let rest = self.buffer.get(self.written..).unwrap_or_default();
        match &mut self.to {
            Sink::Descriptor { to, blocking } => {
                let most = if *blocking {
                    PIPE_ATOMIC_BYTES
                } else {
                    rest.len()
                };
                let part = rest.get(..most.min(rest.len())).unwrap_or_default();
                match rustix::io::write(&*to, part) {
                    Ok(count) => self.written += count,
                    Err(Errno::AGAIN | Errno::INTR) => {}
                    // Nobody reads any more; the writer learns it as a closed pipe.
                    Err(_) => self.finish(),
                }
            }
            Sink::Memory { file, most, seen } => {
                let room = usize::try_from(most.saturating_sub(*seen)).unwrap_or(usize::MAX);
                let part = rest.get(..room.min(rest.len())).unwrap_or_default();
                // A machine without memory drops output rather than the run.
                let _ = file.write_all(part);
                *seen += rest.len() as u64;
                self.written = self.buffer.len();
            }
            Sink::Log(log) => {
                log.write(rest);
                self.written = self.buffer.len();
            }
        }
    }
}

/// A descriptor of the caller, made non-blocking without touching the one that other processes
/// share: terminals and pipes can be opened again by their number.
pub(super) fn unblocked(descriptor: OwnedFd, access: OFlags) -> (OwnedFd, bool) {
    let path = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
    let again = fs::metadata(&path)
        .ok()
        .filter(|data| data.file_type().is_fifo() || data.file_type().is_char_device());
    let flags = access | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    match again.map(|_| open(&path, flags, Mode::empty())) {
        Some(Ok(reopened)) => (reopened, false),
        Some(Err(_)) | None => (descriptor, true),
    }
}

/// Makes a descriptor that is ours alone non-blocking.
pub(super) fn nonblocking(descriptor: impl AsFd) -> io::Result<()> {
    let flags = fcntl_getfl(&descriptor)?;
    fcntl_setfl(&descriptor, flags | OFlags::NONBLOCK)?;
    Ok(())
}

/// A log of bounded size: the file, and the one before it.
pub(super) struct Log {
    path: PathBuf,
    most: u64,
    size: u64,
    file: File,
}

impl Log {
    pub(super) fn open(path: PathBuf, most: u64) -> io::Result<Self> {
        let file = fs::OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)?;
        let size = file.metadata()?.len();
        Ok(Self {
            path,
            most,
            size,
            file,
        })
    }

    pub(super) fn again(&self) -> io::Result<Self> {
        Self::open(self.path.clone(), self.most)
    }

    fn write(&mut self, bytes: &[u8]) {
        // Another direction may have begun the file anew; what is at the path counts.
        let current = fs::metadata(&self.path).map(|data| data.len()).unwrap_or(0);
        if current < self.size || current + bytes.len() as u64 > self.most {
            if current >= self.size {
                let mut older = self.path.clone().into_os_string();
                older.push(".1");
                let _ = fs::rename(&self.path, older);
            }
            if let Ok(next) = self.again() {
                *self = next;
            }
        }
        // A full disk loses log lines, not the run.
        if self.file.write_all(bytes).is_ok() {
            self.size = current.max(self.size) + bytes.len() as u64;
        }
    }
}
