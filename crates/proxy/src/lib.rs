//! The data plane: seeded, weighted assignment that outlives the control plane.
#![forbid(unsafe_code)]
