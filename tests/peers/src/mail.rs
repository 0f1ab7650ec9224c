//! The message, and lettre's transport.

use lettre::address::Envelope;
use lettre::transport::smtp::PoolConfig;
use lettre::{AsyncSmtpTransport, Tokio1Executor};

use crate::{Result, Sending};

/// A transport with a pool of as many connections as may be open.
pub(crate) type Transport = AsyncSmtpTransport<Tokio1Executor>;

/// Builds the transport.
pub(crate) fn transport(sending: &Sending) -> Transport {
    let relay = sending.relay;
    let builder = Transport::builder_dangerous(relay.ip().to_string()).port(relay.port());
    builder.pool_config(PoolConfig::new().max_size(sending.connections)).build()
}

/// From whom to whom.
pub(crate) fn envelope() -> Result<Envelope> {
    let parse = |address: &str| address.parse::<lettre::Address>();
    let to = vec![parse("customer@example.net")?];
    Ok(Envelope::new(Some(parse("shop@example.org")?), to)?)
}

/// A message of this many bytes.
pub(crate) fn message(length: usize) -> String {
    let mut text = "From: shop@example.org\r\nTo: customer@example.net\r\nSubject: Your order\r\n\
                    Message-ID: <1@bench.test>\r\nDate: Tue, 24 Nov 2026 07:08:55 +0000\r\n\r\n"
        .to_owned();
    while text.len() < length {
        let line = (length - text.len()).clamp(2, 74) - 2;
        text.push_str(&"x".repeat(line));
        text.push_str("\r\n");
    }
    text
}
