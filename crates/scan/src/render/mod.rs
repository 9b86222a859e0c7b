//! Printing a report.

pub mod json;
