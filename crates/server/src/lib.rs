//! Configuration, API, the worker that performs effects; roles serve and builder.
#![forbid(unsafe_code)]
