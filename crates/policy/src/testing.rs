//! Policies under test.
