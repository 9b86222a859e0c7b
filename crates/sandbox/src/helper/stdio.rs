//! The command's input and output: which pipes, terminals and files lead where.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use portcullis_model::Refusal;
use rustix::fs::{MemfdFlags, OFlags, memfd_create};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::termios::{
    OptionalActions, Termios, Winsize, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize,
};

use super::relay::{Log, Pump, Sink, nonblocking, unblocked};
use super::supervise::{broken, take_first};
use crate::plan::{Plan, PlanTerminal};

/// Both ends of the command's input and output.
#[derive(Default)]
pub(super) struct Stdio {
    /// What the command gets; `None`: the pty.
    pub(super) inside: [Option<OwnedFd>; 3],
    pub(super) pumps: Vec<Pump>,
    pub(super) captured: Vec<OwnedFd>,
    /// The caller's terminal, whose settings are given back at the end.
    terminal: Option<CallersTerminal>,
    /// Held so that the pty stays open while programs inside open and close it.
    slave: Option<OwnedFd>,
    master: Option<OwnedFd>,
    outer: Vec<OwnedFd>,
}

impl Stdio {
    pub(super) fn of(plan: &Plan, outer: Vec<OwnedFd>) -> Result<Self, Refusal> {
        let mut stdio = Self::default();
        match &plan.terminal {
            PlanTerminal::Inherit => stdio.inherit(outer).map_err(broken("input and output"))?,
            PlanTerminal::Pty { .. } => {}
            PlanTerminal::Capture { max_bytes } => {
                let sink = |captured: &mut Vec<OwnedFd>| {
                    let file = File::from(memfd_create("captured", MemfdFlags::CLOEXEC)?);
                    captured.push(file.try_clone()?.into());
                    Ok(Sink::Memory {
                        file,
                        most: *max_bytes,
                        seen: 0,
                    })
                };
                stdio.output_only(sink).map_err(broken("output"))?;
            }
            PlanTerminal::Log { path, max_bytes } => {
                let log = Log::open(path.to_path(), *max_bytes).map_err(broken("log"))?;
                let sink = |_: &mut Vec<OwnedFd>| Ok(Sink::Log(log.again()?));
                stdio.output_only(sink).map_err(broken("output"))?;
            }
        }
        Ok(stdio)
    }

    fn output_only(
        &mut self,
        sink: impl Fn(&mut Vec<OwnedFd>) -> io::Result<Sink>,
    ) -> io::Result<()> {
        let null = File::open("/dev/null")?;
        let mut outputs = Vec::new();
        for _ in 0..2 {
            let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
            nonblocking(&reader)?;
            let sink = sink(&mut self.captured)?;
            self.pumps.push(Pump::outward(reader, sink));
            outputs.push(writer);
        }
        let mut outputs = outputs.into_iter();
        self.inside = [Some(null.into()), outputs.next(), outputs.next()];
        Ok(())
    }

    /// A pipe for each of the caller's three that isn't a terminal.
    fn inherit(&mut self, outer: Vec<OwnedFd>) -> io::Result<()> {
        for (place, (descriptor, slot)) in outer.into_iter().zip(&mut self.inside).enumerate() {
            if isatty(&descriptor) {
                self.outer.push(descriptor);
                continue;
            }
            let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
            if place == 0 {
                nonblocking(&writer)?;
                let (from, _) = unblocked(descriptor, OFlags::RDONLY);
                let to = Sink::Descriptor {
                    to: writer,
                    blocking: false,
                };
                self.pumps.push(Pump::inward(from, to));
                *slot = Some(reader);
            } else {
                nonblocking(&reader)?;
                let (to, blocking) = unblocked(descriptor, OFlags::WRONLY);
                self.pumps
                    .push(Pump::outward(reader, Sink::Descriptor { to, blocking }));
                *slot = Some(writer);
            }
        }
        Ok(())
    }

    /// Takes over the pty that init opened; returns the master where the caller is to hold it.
    pub(super) fn attach(
        &mut self,
        plan: &Plan,
        handles: Vec<OwnedFd>,
    ) -> Result<Option<OwnedFd>, Refusal> {
        let mut handles = handles.into_iter();
        let (Some(master), slave) = (handles.next(), handles.next()) else {
            return Ok(None);
        };
        self.slave = slave;
        match &plan.terminal {
            PlanTerminal::Pty { rows, columns } => {
                let size = Winsize {
                    ws_row: *rows,
                    ws_col: *columns,
                    ws_xpixel: 0,
                    ws_ypixel: 0,
                };
                tcsetwinsize(&master, size).map_err(broken("terminal size"))?;
                Ok(Some(master))
            }
            PlanTerminal::Inherit => {
                self.mirror(master).map_err(broken("terminal"))?;
                Ok(None)
            }
            PlanTerminal::Capture { .. } | PlanTerminal::Log { .. } => Ok(None),
        }
    }

    /// Joins the caller's terminal to the pty.
    fn mirror(&mut self, master: OwnedFd) -> io::Result<()> {
        let Some(outer) = take_first(&mut self.outer) else {
            return Ok(());
        };
        nonblocking(&master)?;
        // One terminal stands behind all three, as a rule; the first is read and written.
        let (reader, _) = unblocked(outer.try_clone()?, OFlags::RDONLY);
        let (writer, blocking) = unblocked(outer.try_clone()?, OFlags::WRONLY);
        let to_inside = Sink::Descriptor {
            to: master.try_clone()?,
            blocking: false,
        };
        let to_outside = Sink::Descriptor {
            to: writer,
            blocking,
        };
        self.pumps.push(Pump::inward(reader, to_inside));
        self.pumps
            .push(Pump::outward(master.try_clone()?, to_outside));
        self.terminal = Some(CallersTerminal::raw(outer)?);
        self.master = Some(master);
        self.resize();
        Ok(())
    }

    /// Gives the pty the size of the caller's terminal.
    pub(super) fn resize(&self) {
        if let (Some(master), Some(terminal)) = (&self.master, &self.terminal)
            && let Ok(size) = tcgetwinsize(&terminal.descriptor)
        {
            // The kernel tells the programs inside.
            let _ = tcsetwinsize(master, size);
        }
    }

    pub(super) fn seen(&self, output: usize) -> u64 {
        self.pumps.get(output).map_or(0, Pump::seen)
    }
}

/// The caller's terminal in raw mode; dropped, it is as it was.
struct CallersTerminal {
    descriptor: OwnedFd,
    before: Termios,
}

impl CallersTerminal {
    fn raw(descriptor: OwnedFd) -> io::Result<Self> {
        let before = tcgetattr(&descriptor)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&descriptor, OptionalActions::Drain, &raw)?;
        Ok(Self { descriptor, before })
    }
}

impl Drop for CallersTerminal {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.descriptor, OptionalActions::Drain, &self.before);
    }
}
