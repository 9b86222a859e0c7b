//! Analyses of a revision: what changed, what kind of file it is, and what a human must look at.
//!
//! Everything here is a function over values. A caller runs git with [`diff::DIFF_ARGUMENTS`],
//! parses the bytes with [`diff::parse`], hands the [`diff::Diff`] to [`analyse::analyse`] and gets
//! a [`analyse::Report`]. [`classes`] and [`secrets`] stand alone, so that the git gateway and the
//! repository scanner ask the same questions with the same answers.
#![forbid(unsafe_code)]

pub mod analyse;
pub mod classes;
pub mod diff;
pub mod graph;
pub mod outgoing;
pub mod path;
pub mod rules;
pub mod sarif;
pub mod scope;
pub mod secrets;
pub mod testreport;
