//! The hidden entry: this program, started again to build a sandbox and to watch over it.

mod bridge;
mod capture;
mod cgroup;
mod confine;
mod init;
mod landlock;
mod network;
mod probe;
mod relay;
mod root;
mod seccomp;
mod stdio;
mod supervise;
mod watch;

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use portcullis_model::Refusal;

use crate::plan::{Answer, HELPER_ARGUMENT, Order};
use crate::sys::{self, SingleThreaded};
use crate::wire;

/// Turns this process into the helper when it was started as one, and then never returns; else
/// returns at once.
///
/// Call it first in `main`, before an async runtime, a logger or any thread starts (so not below
/// `#[tokio::main]`). A program that forgets it can start no sandbox: [`spawn`](crate::spawn)
/// says so.
pub fn helper_main() {
    if std::env::args_os()
        .nth(1)
        .is_none_or(|word| word != HELPER_ARGUMENT)
    {
        return;
    }
    // Standard input is the control socket; standard output and error are /dev/null.
    if sys::close_range(3, u32::MAX).is_err() {
        sys::exit_now(1);
    }
    let code = serve_one_order();
    sys::exit_now(code);
}

fn serve_one_order() -> u8 {
    let Ok(control) = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3) else {
        return 1;
    };
    let control = UnixStream::from(control);
    let null = std::fs::File::open("/dev/null");
    if null.is_ok_and(|null| rustix::stdio::dup2_stdin(null).is_err()) {
        return 1;
    }
    let (order, descriptors) = match wire::receive::<Order>(&control) {
        Ok(Some(received)) => received,
        // The caller is gone before it said anything.
        Ok(None) | Err(_) => return 1,
    };
    let single = match SingleThreaded::check() {
        Ok(single) => single,
        Err(error) => {
            let refusal = Refusal::internal(format!("the sandbox helper can't fork: {error}"));
            return u8::from(wire::send(&control, &Answer::Refused(refusal), &[]).is_err());
        }
    };
    match order {
        Order::Probe => u8::from(wire::send(&control, &probe::all(single), &[]).is_err()),
        Order::Run(plan) => {
            let refused = match Inherited::of(descriptors) {
                Some(inherited) => supervise::run(single, &plan, &control, inherited).err(),
                None => Some(Refusal::internal("the sandbox helper got no descriptors")),
            };
            match refused {
                Some(refusal) => {
                    u8::from(wire::send(&control, &Answer::Refused(refusal), &[]).is_err())
                }
                None => 0,
            }
        }
    }
}

/// The descriptors that come with [`Order::Run`].
struct Inherited {
    events: UnixStream,
    caller: OwnedFd,
    /// Standard input, output and error of the caller, where it wants them relayed.
    stdio: Vec<OwnedFd>,
}

impl Inherited {
    fn of(descriptors: Vec<OwnedFd>) -> Option<Self> {
        let mut descriptors = descriptors.into_iter();
        Some(Self {
            events: descriptors.next()?.into(),
            caller: descriptors.next()?,
            stdio: descriptors.collect(),
        })
    }
}
