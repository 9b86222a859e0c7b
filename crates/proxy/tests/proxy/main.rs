//! The proxy over real sockets.

mod assignment;
mod control;
mod counting;
mod http;
mod restart;
mod support;
