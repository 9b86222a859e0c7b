//! Ledger entries, Merkle tree, checkpoints, proofs; DSSE, in-toto, SLSA, SSH signatures; offline verification.
#![forbid(unsafe_code)]
