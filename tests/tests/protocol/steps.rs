//! The steps from one state to the next, and their words in a trace.

use std::fmt::{self, Display, Formatter};

use crate::protocol::{Attach, Clean, Fence, Finish};

/// What happens between two states. Numbers are those of processes, of mails and of transactions.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    /// The application goes on with an attach.
    Attach(usize, Attach),
    /// The application drops an attach half-way.
    GiveUp(usize),
    /// The application rolls back the savepoint around a mail.
    RollBackTo(usize),
    /// The application sends the COMMIT of a transaction.
    SendCommit(usize),
    /// The application rolls a transaction back.
    RollBack(usize),
    /// The application's process ends in order.
    Exit,
    /// The server inserts the marker of a mail, or refuses it.
    CarryOutInsert(usize),
    /// The server commits a transaction.
    CarryOutCommit(usize),
    /// The server commits a tombstone, of a mail.
    CarryOutTombstone(usize),
    /// The server notices that its client is gone.
    EndSession,
    /// A process looks at a mail.
    Look(usize, usize),
    /// Somebody removes a file from `tmp/` without a question.
    RemoveJunk(usize),
    /// A process goes on to finish a mail.
    Finish(usize, usize, Finish),
    /// A process goes on to fence a mail.
    Fence(usize, usize, Fence),
    /// A process goes on to clean up a mail's marker.
    Clean(usize, usize, Clean),
    /// Somebody deletes a tombstone.
    CleanTombstone(usize),
    /// The cleaner of another queue comes across a marker.
    CleanForeign(usize),
    /// A worker delivers a mail.
    Deliver(usize),
    /// Fault: `kill -9` of the application.
    KillApplication,
    /// Fault: `kill -9` of a process.
    KillProcess(usize),
    /// Fault: a process loses the connection of its fence.
    CutFence(usize),
    /// Fault: a tombstone's COMMIT gets lost with its connection.
    LoseTombstone(usize),
    /// Fault: the server ends the application's session.
    CutSession,
    /// Fault: the server crashes, and starts again.
    CrashServer,
    /// Fault: the queue's machine loses power, and starts again.
    PowerCut,
}

impl Step {
    /// Whether it may happen at any moment, and nobody may count on it.
    pub(crate) fn is_fault(&self) -> bool {
        matches!(
            self,
            Self::KillApplication
                | Self::KillProcess(_)
                | Self::CutFence(_)
                | Self::LoseTombstone(_)
                | Self::CutSession
                | Self::CrashServer
                | Self::PowerCut
        )
    }
}

impl Display for Step {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attach(mail, step) => write!(f, "application, mail {mail}: {step}"),
            Self::GiveUp(mail) => write!(f, "application, mail {mail}: drops the attach"),
            Self::RollBackTo(mail) => {
                write!(f, "application, mail {mail}: rolls its savepoint back")
            }
            Self::SendCommit(it) => write!(f, "application, transaction {it}: sends COMMIT"),
            Self::RollBack(it) => write!(f, "application, transaction {it}: rolls back"),
            Self::Exit => f.write_str("application: exits"),
            Self::CarryOutInsert(mail) => {
                write!(f, "server, mail {mail}: carries out the INSERT")
            }
            Self::CarryOutCommit(it) => {
                write!(f, "server, transaction {it}: carries out the COMMIT")
            }
            Self::CarryOutTombstone(mail) => {
                write!(f, "server, mail {mail}: carries out the tombstone's COMMIT")
            }
            Self::EndSession => f.write_str("server: notices that the application is gone"),
            Self::Look(process, mail) => write!(f, "process {process}, mail {mail}: looks"),
            Self::RemoveJunk(mail) => {
                write!(f, "somebody, mail {mail}: removes the file from tmp/")
            }
            Self::Finish(process, mail, step) => {
                write!(f, "process {process}, mail {mail}: {step}")
            }
            Self::Fence(process, mail, step) => write!(f, "process {process}, mail {mail}: {step}"),
            Self::Clean(process, mail, step) => write!(f, "process {process}, mail {mail}: {step}"),
            Self::CleanTombstone(mail) => write!(f, "somebody, mail {mail}: deletes the tombstone"),
            Self::CleanForeign(mail) => write!(f, "another queue, mail {mail}: judges the marker"),
            Self::Deliver(mail) => write!(f, "worker, mail {mail}: delivers"),
            Self::KillApplication => f.write_str("application: killed"),
            Self::KillProcess(process) => write!(f, "process {process}: killed"),
            Self::CutFence(process) => write!(f, "process {process}: loses its connection"),
            Self::LoseTombstone(mail) => {
                write!(f, "network, mail {mail}: loses the tombstone's COMMIT")
            }
            Self::CutSession => f.write_str("server: ends the application's session"),
            Self::CrashServer => f.write_str("server: crashes"),
            Self::PowerCut => f.write_str("the queue's machine: power cut"),
        }
    }
}
