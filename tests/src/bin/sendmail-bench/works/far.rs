//! Draining messages of 1 KiB to a sink that is 40 ms of round trip away, over 64 connections.

use std::sync::Arc;

use sendmail_tests::peers::postfix::Settings;

use crate::contestants::relay::Distance;
use crate::contestants::{KIB, bare, lettre, postfix, processor};
use crate::row::Shared;

pub(crate) const NAME: &str = "far";

/// Messages, and how many if it is quick.
const MESSAGES: (usize, usize) = (6400, 640);
const CONNECTIONS: usize = 64;

pub(crate) fn ours() -> Shared {
    Arc::new(processor::Drain {
        connections: CONNECTIONS,
        processors: 1,
        distance: Distance::Far,
        messages: MESSAGES,
        length: KIB,
    })
}

pub(crate) fn lettre() -> Shared {
    Arc::new(lettre::Pool {
        connections: CONNECTIONS,
        distance: Distance::Far,
        messages: MESSAGES,
        length: KIB,
    })
}

pub(crate) fn round_trips() -> Shared {
    Arc::new(bare::RoundTrips { connections: CONNECTIONS, messages: MESSAGES, length: KIB })
}

pub(crate) fn postfix() -> Shared {
    Arc::new(postfix::Drain {
        settings: Settings { concurrency: 100, keeps_connections: true },
        distance: Distance::Far,
        messages: MESSAGES,
        length: KIB,
    })
}
