//! The programs are beside this folder: `cargo run -p sendmail-examples --example transactional`.
//!
//! What is here is the Rust code in the project's pages, which is compiled and run as documentation
//! tests, so that it cannot rot.

/// The snippet in the project's first page.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;

/// The snippets in the guide for authors of stores.
#[cfg(doctest)]
#[doc = include_str!("../../docs/write-a-store.md")]
pub struct WriteAStore;
