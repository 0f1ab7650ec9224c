//! The steps of which histories are made.

use proptest::prelude::*;

use super::history::PROCESSES;

/// One step of a history: who does what, with a number that says which and how.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deed {
    pub(super) process: usize,
    pub(super) what: What,
    pub(super) pick: u8,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum What {
    /// Writes and publishes one message.
    Send,
    /// Writes one message, and publishes or discards it later.
    Write,
    Publish,
    Abort,
    /// Writes, stages and proposes several messages.
    Propose,
    Decide,
    PublishDecided,
    Retract,
    /// Writes and stages a message whose fate a database decides.
    Stage,
    /// Somebody learns what the database decided.
    Resolve,
    Claim,
    HandOver,
    Settle,
    Release,
    Sweep,
    Kill,
    Close,
    Advance,
    StepClock,
    Operate,
    /// An operator freezes the queue, or thaws it.
    Freeze,
    /// An operator puts a discarded message back.
    PutBack,
}

pub(super) fn any_deed() -> impl Strategy<Value = Deed> {
    let what = prop_oneof![
        3 => Just(What::Send),
        1 => Just(What::Write),
        1 => Just(What::Publish),
        1 => Just(What::Abort),
        1 => Just(What::Propose),
        1 => Just(What::Decide),
        1 => Just(What::PublishDecided),
        1 => Just(What::Retract),
        1 => Just(What::Stage),
        1 => Just(What::Resolve),
        4 => Just(What::Claim),
        5 => Just(What::HandOver),
        5 => Just(What::Settle),
        1 => Just(What::Release),
        2 => Just(What::Sweep),
        2 => Just(What::Kill),
        1 => Just(What::Close),
        2 => Just(What::Advance),
        1 => Just(What::StepClock),
        2 => Just(What::Operate),
        1 => Just(What::Freeze),
        1 => Just(What::PutBack),
    ];
    (0..PROCESSES, what, any::<u8>()).prop_map(|(process, what, pick)| Deed { process, what, pick })
}
