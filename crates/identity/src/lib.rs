//! Verifying outside tokens, issuing SVIDs and tokens, proof of possession, key custody.
#![forbid(unsafe_code)]
