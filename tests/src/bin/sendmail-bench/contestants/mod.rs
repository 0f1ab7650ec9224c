//! Who takes part. A further one is one small type here, and a line in the rows that compare with it.

pub(crate) mod apalis;
pub(crate) mod bare;
pub(crate) mod calls;
pub(crate) mod commit;
pub(crate) mod enqueue;
pub(crate) mod idle;
pub(crate) mod latency;
pub(crate) mod lettre;
pub(crate) mod life;
pub(crate) mod long;
pub(crate) mod postfix;
pub(crate) mod processor;
pub(crate) mod python;
pub(crate) mod relay;
pub(crate) mod shell;
pub(crate) mod source;

use sendmail_clock::SystemClock;
use sendmail_core::{Clock as _, Envelope, Message};
use sendmail_tests::Result;

/// A message of 1 KiB.
pub(crate) const KIB: usize = 1024;
/// A message of 1 MB.
pub(crate) const MB: usize = 1_000_000;
/// The mail that a transaction takes along.
pub(crate) const ATTACHED: usize = 4096;

/// A message of this length, and from whom to whom it goes.
pub(crate) fn mail(length: usize) -> Result<(Envelope, Message)> {
    let mut raw = "From: shop@example.org\r\nTo: customer@example.net\r\nSubject: Your order\r\n\
                   Date: Tue, 24 Nov 2026 07:08:55 +0000\r\n\r\n"
        .to_owned();
    while raw.len() < length {
        let line = (length - raw.len()).clamp(2, 74) - 2;
        raw.push_str(&"x".repeat(line));
        raw.push_str("\r\n");
    }
    let message = Message::from_raw(raw.as_bytes(), SystemClock.now(), "bench.example.org")?;
    Ok((Envelope::parse("shop@example.org", ["customer@example.net"])?, message))
}
