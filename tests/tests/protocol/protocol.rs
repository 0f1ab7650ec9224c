//! The protocol, as data: four lists of steps, and the rules that they rest upon.
//!
//! [`Protocol::default`] is the protocol. Every other value of the type is a protocol that somebody might
//! have written in its place; `mutations.rs` makes them by leaving out a step, swapping two, or breaking
//! a rule.

use std::fmt::{self, Display, Formatter};

/// What the application does to attach a mail to its transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Attach {
    /// P1: writes `tmp/id`.
    Write,
    /// P2: sends the INSERT of the marker to the server.
    SendMarker,
    /// P2: awaits that the server has carried it out.
    AwaitMarker,
    /// P3: renames the file to `.staged/<resource>/id`.
    Stage,
    /// P3: syncs the file.
    SyncFile,
    /// P3: syncs that directory.
    SyncStaged,
}

/// What whoever saw the marker committed does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Finish {
    /// F1: renames the file to `new/id`; finds it gone if somebody else did.
    Publish,
    /// F2: syncs `new/`.
    SyncNew,
    /// F2: syncs `.staged/<resource>/`, and `tmp/` if it may have come from there.
    SyncSource,
    /// F3: deletes the marker.
    DeleteMarker,
}

/// What whoever did not see the marker does, when the file is old or its owner is dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Fence {
    /// Inserts a tombstone under the marker's key. A marker that is there ends the question (finish), a
    /// tombstone too (discard), an insert in progress means unfinished: ask later.
    InsertTombstone,
    /// Sends the tombstone's own COMMIT.
    SendCommit,
    /// Awaits that the server has confirmed it.
    AwaitCommit,
    /// Renames the file to `.discarded/`.
    Discard,
    /// Syncs both directories.
    SyncDiscarded,
}

/// What the cleaner does with a mail's marker that was left over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Clean {
    /// Keeps the marker if the file is still undecided.
    CheckUndecided,
    /// Raises an alarm, and keeps the marker, if neither queue nor journal knows the id.
    CheckKnown,
    /// Syncs the directories, now that the file was seen not to be there.
    SyncDirectories,
    /// Deletes the marker.
    DeleteMarker,
}

/// The protocol.
#[derive(Debug, Clone)]
pub(crate) struct Protocol {
    pub(crate) attach: Vec<Attach>,
    pub(crate) finish: Vec<Finish>,
    pub(crate) fence: Vec<Fence>,
    pub(crate) clean: Vec<Clean>,
    pub(crate) rules: Rules,
}

impl Default for Protocol {
    fn default() -> Self {
        Self {
            attach: vec![
                Attach::Write,
                Attach::SendMarker,
                Attach::AwaitMarker,
                Attach::Stage,
                Attach::SyncFile,
                Attach::SyncStaged,
            ],
            finish: vec![
                Finish::Publish,
                Finish::SyncNew,
                Finish::SyncSource,
                Finish::DeleteMarker,
            ],
            fence: vec![
                Fence::InsertTombstone,
                Fence::SendCommit,
                Fence::AwaitCommit,
                Fence::Discard,
                Fence::SyncDiscarded,
            ],
            clean: vec![
                Clean::CheckUndecided,
                Clean::CheckKnown,
                Clean::SyncDirectories,
                Clean::DeleteMarker,
            ],
            rules: Rules::default(),
        }
    }
}

/// What the marker's key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    /// The queue id, minted anew for every mail that is attached.
    QueueId,
    /// One marker for all mails of a transaction.
    Transaction,
    /// The Message-ID: a transaction that is run again has the same one.
    MessageId,
}

/// Who is asked whether a transaction committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Witness {
    /// The marker, once it is committed.
    Marker,
    /// The marker, also if it is not committed yet (READ UNCOMMITTED).
    DirtyMarker,
    /// The status of the transaction's number, as PostgreSQL's `pg_xact_status` tells it.
    TransactionNumber,
}

/// The rules. `true` is how it must be, in every one that is yes or no.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// What the marker's key is.
    pub(crate) key: Key,
    /// Who is asked.
    pub(crate) witness: Witness,
    /// The marker goes where the transaction goes: `attach` is refused outside of one, and the table is one
    /// that can roll back.
    pub(crate) in_transaction: bool,
    /// The key is unique, and the fence inserts where the owner does: on the writable primary.
    pub(crate) unique_key: bool,
    /// A fence that runs into an insert in progress says unfinished; no time-out makes it an answer.
    pub(crate) waiting_is_no_answer: bool,
    /// The fence reads what is committed now, not a snapshot of before.
    pub(crate) fresh_read: bool,
    /// A fence whose COMMIT got no answer keeps the file.
    pub(crate) doubt_keeps: bool,
    /// A staged file is asked about when it is old, also while its owner lives. It does no harm, and is the
    /// only way to come to an end if the owner lives long.
    pub(crate) ask_while_owner_lives: bool,
    /// Files in `tmp/` of a process that lives are left to it.
    pub(crate) leave_tmp_of_living: bool,
    /// Files in `tmp/` of a dead process get the same question as those that are staged.
    pub(crate) ask_about_tmp_of_dead: bool,
    /// F2 is done also if the file was already gone.
    pub(crate) sync_when_gone: bool,
    /// A tombstone is kept until nothing that its owner sent can still be under way (24 h).
    pub(crate) tombstones_outlive_owners: bool,
    /// A row is judged by its own queue only.
    pub(crate) own_rows_only: bool,
    /// A file that does not prove itself whole is not sent.
    pub(crate) send_whole_only: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            key: Key::QueueId,
            witness: Witness::Marker,
            in_transaction: true,
            unique_key: true,
            waiting_is_no_answer: true,
            fresh_read: true,
            doubt_keeps: true,
            ask_while_owner_lives: true,
            leave_tmp_of_living: true,
            ask_about_tmp_of_dead: true,
            sync_when_gone: true,
            tombstones_outlive_owners: true,
            own_rows_only: true,
            send_whole_only: true,
        }
    }
}

impl Display for Attach {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Write => "writes the file into tmp/",
            Self::SyncFile => "syncs the file",
            Self::SendMarker => "sends the marker's INSERT",
            Self::AwaitMarker => "awaits the INSERT",
            Self::Stage => "renames the file to .staged/",
            Self::SyncStaged => "syncs .staged/",
        })
    }
}

impl Display for Finish {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Publish => "renames the file to new/",
            Self::SyncNew => "syncs new/",
            Self::SyncSource => "syncs .staged/ and tmp/",
            Self::DeleteMarker => "deletes the marker",
        })
    }
}

impl Display for Fence {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InsertTombstone => "inserts a tombstone",
            Self::SendCommit => "sends the tombstone's COMMIT",
            Self::AwaitCommit => "awaits the tombstone's COMMIT",
            Self::Discard => "renames the file to .discarded/",
            Self::SyncDiscarded => "syncs .discarded/ and .staged/",
        })
    }
}

impl Display for Clean {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SyncDirectories => "syncs new/, .staged/ and tmp/",
            Self::CheckUndecided => "looks whether the file is still undecided",
            Self::CheckKnown => "looks whether queue or journal know the id",
            Self::DeleteMarker => "deletes the left-over marker",
        })
    }
}
