//! Tests of the crate from the outside.

#![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]

mod object_safe;
mod transaction;
