//! One module per stage: state machines as folds over the ledger. Pure.
#![forbid(unsafe_code)]
