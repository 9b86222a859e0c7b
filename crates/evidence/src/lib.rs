//! Evidence: what makes a claim checkable by someone who doesn't trust the one who made it.
//!
//! From the ground up:
//! - [`merkle`]: the RFC 6962 tree over the ledger's entries, its proofs, their verification;
//! - [`signer`]: Ed25519 keys of services and of the log;
//! - [`note`], [`checkpoint`], [`tlog_proof`]: the log's signed tree heads and the proof file of one
//!   entry, as C2SP writes them;
//! - [`cosignature`]: what witnesses say of a checkpoint, and what they are asked;
//! - [`tiles`]: the tree's hashes and the entries in the pieces in which a log is served;
//! - [`sshsig`]: signatures by people's SSH keys, hardware keys included;
//! - [`dsse`]: the envelope around every signed payload;
//! - [`intoto`], [`slsa`], [`test_result`], [`vsa`]: what attestations say;
//! - [`statement`]: what people sign, one namespace per type; [`approval`]: the one statement by
//!   which they approve anything.
//!
//! Types tell what is trusted: a parser makes `UnverifiedX`, and only a check against keys that the
//! caller trusts makes a [`statement::Verified`], a [`note::VerifiedNote`], a
//! [`checkpoint::VerifiedCheckpoint`] or a [`tlog_proof::LoggedEntry`].
//! Nothing here does I/O or reads a clock.
#![forbid(unsafe_code)]

pub mod approval;
pub mod chain;
pub mod checkpoint;
pub mod cosignature;
pub mod dsse;
pub mod intoto;
pub mod merkle;
pub mod note;
pub mod signer;
pub mod slsa;
pub mod sshsig;
pub mod statement;
pub mod test_result;
pub mod tiles;
pub mod tlog_proof;
pub mod vsa;
