//! Draining 20,000 messages of 1 KiB to a sink on loopback.

use std::sync::Arc;

use sendmail_tests::peers::postfix::Settings;
use sendmail_tests::peers::zope::Package;

use crate::contestants::relay::Distance;
use crate::contestants::{KIB, bare, postfix, processor, python, source};
use crate::row::Shared;

pub(crate) const NAME: &str = "drain";

/// Messages, and how many if it is quick.
const MESSAGES: (usize, usize) = (20_000, 500);
/// Ours, and those of smtp-source.
const CONNECTIONS: usize = 16;

pub(crate) fn ours() -> Shared {
    Arc::new(processor::Drain {
        connections: CONNECTIONS,
        processors: 1,
        distance: Distance::Near,
        messages: MESSAGES,
        length: KIB,
    })
}

pub(crate) fn zope() -> Shared {
    Arc::new(python::Drain { package: Package::Zope, messages: MESSAGES, length: KIB })
}

pub(crate) fn repoze() -> Shared {
    Arc::new(python::Drain { package: Package::Repoze, messages: MESSAGES, length: KIB })
}

pub(crate) fn postfix() -> Shared {
    Arc::new(postfix::Drain {
        settings: Settings { concurrency: 50, keeps_connections: false },
        distance: Distance::Near,
        messages: MESSAGES,
        length: KIB,
    })
}

pub(crate) fn source() -> Shared {
    Arc::new(source::Source { connections: CONNECTIONS, messages: MESSAGES, length: KIB })
}

pub(crate) fn bare() -> Shared {
    Arc::new(bare::Drain { in_flight: 64, messages: MESSAGES, length: KIB })
}
