//! The launcher's half of the one way out.
