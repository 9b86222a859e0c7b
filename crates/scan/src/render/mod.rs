//! Printing a report.

pub mod html;
pub mod json;
pub mod sarif;
pub mod svg;
pub mod text;
