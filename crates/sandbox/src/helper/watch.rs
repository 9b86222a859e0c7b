//! The supervisor's loop: everything that can happen to a run, in one place.

use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;

use super::cgroup::Cgroups;
use super::init::{FromInit, ToInit};
use super::relay::Pump;
use super::stdio::Stdio;
use super::supervise::Init;
use crate::plan::Control;
use crate::{Ending, wire};

/// The loop.
pub(super) struct Watch<'run> {
    pub(super) init: Init,
    pub(super) cgroups: Cgroups,
    pub(super) stdio: Stdio,
    pub(super) control: &'run UnixStream,
    pub(super) caller: OwnedFd,
    pub(super) signals: OwnedFd,
    pub(super) deadline: Option<OwnedFd>,
    /// Why we ended it, if we did.
    pub(super) by_us: Option<Ending>,
    /// How the command ended, if it did.
    pub(super) by_itself: Option<Ending>,
    /// Whether init is frozen with the rest, so that it can't be spoken to.
    pub(super) frozen: bool,
    /// Whether somebody wants the end now.
    pub(super) hurry: bool,
}

/// What a poll said, by place in the list of fixed descriptors.
#[derive(Clone, Copy)]
enum Source {
    InitEnded,
    InitSpoke,
    Control,
    Caller,
    Signal,
    Deadline,
}

impl Watch<'_> {
    /// Runs until nothing is left inside and the last output is delivered.
    pub(super) fn until_the_end(&mut self) -> Ending {
        let mut init_lives = true;
        let mut init_speaks = true;
        loop {
            let (sources, pumps) = self.poll(init_lives, init_speaks);
            for source in sources {
                match source {
                    Source::InitEnded => init_lives = false,
                    Source::InitSpoke => init_speaks = self.hear_init(),
                    Source::Control => self.obey(),
                    Source::Caller => self.end(Ending::Killed),
                    Source::Signal => self.pass_signals(),
                    Source::Deadline => self.end(Ending::Deadline),
                }
            }
            for (pump, ready) in self.stdio.pumps.iter_mut().zip(pumps) {
                pump.turn(ready, !init_lives);
            }
            // What the command wrote last is delivered, unless somebody wants the end now and
            // nobody takes it.
            let owed = |pump: &Pump| pump.is_owed() && !(self.hurry && pump.can_block());
            let delivered = !self.stdio.pumps.iter().any(owed);
            if !init_lives && delivered {
                if init_speaks {
                    self.hear_init();
                }
                return self.by_us.or(self.by_itself).unwrap_or(Ending::Killed);
            }
        }
    }

    /// Waits; says which of the fixed sources and which of the pumps are ready.
    fn poll(&self, init_lives: bool, init_speaks: bool) -> (Vec<Source>, Vec<bool>) {
        let pumps = &self.stdio.pumps;
        let mut sources = vec![(Source::Signal, self.signals.as_fd())];
        if !self.hurry {
            sources.push((Source::Control, self.control.as_fd()));
            sources.push((Source::Caller, self.caller.as_fd()));
        }
        if init_lives {
            sources.push((Source::InitEnded, self.init.pidfd.as_fd()));
        }
        if init_speaks {
            sources.push((Source::InitSpoke, self.init.socket.as_fd()));
        }
        if let Some(deadline) = &self.deadline {
            sources.push((Source::Deadline, deadline.as_fd()));
        }
        let interests: Vec<_> = pumps.iter().map(Pump::interest).collect();
        let mut polled: Vec<PollFd<'_>> = sources
            .iter()
            .map(|(_, descriptor)| (*descriptor, PollFlags::IN))
            .chain(interests.iter().flatten().copied())
            .map(|(descriptor, flags)| PollFd::from_borrowed_fd(descriptor, flags))
            .collect();
        // With nobody left inside, what is there to read is read without waiting for it.
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let unread = pumps.iter().any(|pump| pump.is_owed() && pump.reads());
        let patience = (!init_lives && unread).then_some(&now);
        if poll(&mut polled, patience).is_err() {
            return (Vec::new(), vec![false; pumps.len()]);
        }
        let mut answers = polled.iter().map(|polled| !polled.revents().is_empty());
        let ready = sources
            .iter()
            .zip(answers.by_ref().take(sources.len()).collect::<Vec<_>>())
            .filter_map(|((source, _), ready)| ready.then_some(*source))
            .collect();
        let pumps = interests
            .iter()
            .map(|interest| interest.is_some() && answers.next().unwrap_or(false))
            .collect();
        (ready, pumps)
    }

    /// Ends everything, for the first reason that comes.
    fn end(&mut self, ending: Ending) {
        if self.by_itself.is_none() {
            self.by_us.get_or_insert(ending);
        }
        self.hurry = true;
        self.deadline = None;
        self.init.kill();
    }

    /// Whether it may speak again.
    fn hear_init(&mut self) -> bool {
        match wire::receive::<FromInit>(&self.init.socket) {
            Ok(Some((FromInit::Exited(code), _))) => {
                self.by_itself = Some(Ending::Exited { code });
                true
            }
            Ok(Some((FromInit::Signalled(signal), _))) => {
                self.by_itself = Some(Ending::Signalled { signal });
                true
            }
            Ok(Some((FromInit::Refused(_), _))) | Ok(None) | Err(_) => false,
            Ok(Some((
                FromInit::Built { .. }
                | FromInit::Started
                | FromInit::Done(_)
                | FromInit::Counted(_),
                _,
            ))) => true,
        }
    }

    fn obey(&mut self) {
        match wire::receive::<Control>(self.control) {
            Ok(Some((order, _))) => {
                let done = self.carry_out(order);
                // A caller that is gone by now is noticed by its pidfd.
                let _ = wire::send(self.control, &done, &[]);
            }
            // The caller let go of it.
            Ok(None) | Err(_) => self.end(Ending::Killed),
        }
    }

    /// Does what the caller says; a number where it asked for one.
    fn carry_out(&mut self, order: Control) -> Result<u64, String> {
        let frozen = match order {
            Control::Freeze => true,
            Control::Thaw => false,
            Control::Signal(number) => return self.through_init(&ToInit::Signal(number)),
            Control::Started => return self.through_init(&ToInit::Count),
            Control::Listening => return Ok(0),
        };
        if let Some(result) = self.cgroups.freeze(frozen) {
            self.frozen = frozen;
            return result.map(|()| 0).map_err(|error| error.to_string());
        }
        self.through_init(if frozen {
            &ToInit::Stop
        } else {
            &ToInit::Continue
        })
    }

    fn through_init(&mut self, order: &ToInit) -> Result<u64, String> {
        if self.frozen {
            return Err("the run is frozen".to_owned());
        }
        wire::send(&self.init.socket, order, &[]).map_err(|error| error.to_string())?;
        loop {
            match wire::receive::<FromInit>(&self.init.socket) {
                Ok(Some((FromInit::Done(done), _))) => return done.map(|()| 0),
                Ok(Some((FromInit::Counted(count), _))) => return Ok(count),
                Ok(Some((FromInit::Exited(code), _))) => {
                    self.by_itself = Some(Ending::Exited { code });
                }
                Ok(Some((FromInit::Signalled(signal), _))) => {
                    self.by_itself = Some(Ending::Signalled { signal });
                }
                Ok(Some((
                    FromInit::Built { .. } | FromInit::Started | FromInit::Refused(_),
                    _,
                )))
                | Ok(None)
                | Err(_) => return Err("the run has ended".to_owned()),
            }
        }
    }

    /// Signals that a terminal or a person sent to the launcher's group.
    fn pass_signals(&mut self) {
        // `struct signalfd_siginfo`: 128 bytes, the number first.
        let mut buffer = [0_u8; 128];
        while let Ok(128) = rustix::io::read(&self.signals, &mut buffer) {
            let [a, b, c, d, ..] = buffer;
            let number = i32::from_ne_bytes([a, b, c, d]);
            if number == libc::SIGWINCH {
                self.stdio.resize();
            } else {
                // A run that is ending anyway needs no signal.
                let _ = self.through_init(&ToInit::Signal(number));
            }
        }
    }
}
