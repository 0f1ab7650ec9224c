//! The programs are beside this folder: `cargo run -p sendmail-examples --example transactional`.
//!
//! What is here is what they share: [`adaptors`] for database drivers, made to be copied, and the
//! [`orders`] that the programs with a database take. The Rust code in the project's pages is here too: it
//! is compiled and run as documentation tests, so that it cannot rot.

pub mod adaptors;
pub mod orders;

/// The snippet in the project's first page.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;

/// The snippets in the guide for authors of stores.
#[cfg(doctest)]
#[doc = include_str!("../../docs/write-a-store.md")]
pub struct WriteAStore;
