//! Where the mail of a drain goes: Postfix's sink, nearby or far away.

use std::net::SocketAddr;
use std::time::Duration;

use sendmail_tests::Result;
use sendmail_tests::peers::delay::Delay;
use sendmail_tests::peers::sink::Sink;

/// How long a byte takes in one direction.
const ONE_WAY: Duration = Duration::from_millis(20);

/// How far the relay is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Distance {
    /// On loopback.
    Near,
    /// 40 ms of round trip away.
    Far,
}

/// A running sink.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    _sink: Sink,
    _delay: Option<Delay>,
}

impl Relay {
    pub(crate) async fn start(distance: Distance) -> Result<Self> {
        let sink = Sink::start()?;
        let delay = match distance {
            Distance::Near => None,
            Distance::Far => Some(Delay::start(sink.address, ONE_WAY).await?),
        };
        let address = delay.as_ref().map_or(sink.address, |delay| delay.address);
        Ok(Self { address, _sink: sink, _delay: delay })
    }
}

/// A line to `target` that is as long.
pub(crate) async fn far(target: SocketAddr) -> Result<Delay> {
    Ok(Delay::start(target, ONE_WAY).await?)
}
