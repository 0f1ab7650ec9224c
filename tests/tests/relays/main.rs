//! The whole way of a message to a relay that misbehaves: a real queue on disk, the real processor and the
//! real SMTP mailer, against a server that fails as its script says.
//!
//! Each test says what was seen afterwards, all of it: the files of the queue, the events, the relay's
//! state, and how many copies the relay took. What the cells mean is in `docs/smtp.md`.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails, and says where")]

mod connecting;
mod matrix;
mod scripted;
mod transactions;
mod world;
