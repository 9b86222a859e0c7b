//! The launcher: an agent's process, its isolation and its one way out.
