//! The whole way of a message to a relay that misbehaves: a real queue on disk, the real processor and the
//! real SMTP mailer, against a server that fails as its script says, and against real relays.
//!
//! Each test says what was seen afterwards, all of it: the files of the queue, the events, the relay's
//! state, and how many copies the relay took. What the cells mean is in `docs/smtp.md`.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails, and says where")]

mod aiosmtpd;
mod cage;
mod connecting;
mod exim;
mod matrix;
mod opensmtpd;
mod postfix;
mod real;
mod scripted;
mod smtp_sink;
mod tap;
mod transactions;
mod world;
