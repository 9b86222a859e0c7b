//! SQLite behind the sequencer: the only writer of the ledger.
#![forbid(unsafe_code)]
