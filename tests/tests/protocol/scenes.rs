//! The scenes: small enough to be searched whole, large enough that every party meets every other.

use crate::disk::Disk;

/// What the application does, one after the other.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Act {
    /// Attaches a mail.
    Attach(usize),
    /// Rolls back the savepoint around a mail, and goes on.
    RollBackTo(usize),
    /// Rolls a transaction back.
    RollBack(usize),
    /// Commits a transaction, or rolls it back.
    End(usize),
}

/// Who is there, and what the application does.
#[derive(Debug, Clone)]
pub(crate) struct Scene {
    pub(crate) name: &'static str,
    pub(crate) script: Vec<Act>,
    /// The transaction of each mail.
    pub(crate) transaction_of: Vec<usize>,
    pub(crate) transactions: usize,
    /// How many processes finish, fence and clean.
    pub(crate) processes: usize,
    pub(crate) disk: Disk,
    /// A statement that fails leaves its transaction usable, as on MariaDB and SQLite.
    pub(crate) statement_only: bool,
    /// A crash of the server may forget what it had committed.
    pub(crate) forgetful_database: bool,
    /// The application may drop an attach half-way and go on: a time-out, a cancelled future.
    pub(crate) impatient: bool,
    /// Workers ask the journal whether they have sent a message before, and do not send it again.
    pub(crate) workers_ask_journal: bool,
}

impl Scene {
    pub(crate) fn mails(&self) -> usize {
        self.transaction_of.len()
    }

    /// One transaction with one mail.
    pub(crate) fn one_mail() -> Self {
        Self {
            name: "one mail",
            script: vec![Act::Attach(0), Act::End(0)],
            transaction_of: vec![0],
            transactions: 1,
            processes: 2,
            disk: Disk::Measured,
            statement_only: false,
            forgetful_database: false,
            impatient: false,
            workers_ask_journal: false,
        }
    }

    /// The same, on a database that goes on after a statement that failed.
    pub(crate) fn statement_only() -> Self {
        Self {
            name: "one mail, attach dropped, MariaDB",
            statement_only: true,
            impatient: true,
            ..Self::one_mail()
        }
    }

    /// The same, on a disk that promises less.
    pub(crate) fn weak_disk() -> Self {
        Self {
            name: "one mail, weak disk",
            disk: Disk::Weak,
            impatient: true,
            workers_ask_journal: true,
            ..Self::one_mail()
        }
    }

    /// An application that may drop an attach half-way.
    pub(crate) fn impatient() -> Self {
        Self { name: "one mail, attach dropped", impatient: true, ..Self::one_mail() }
    }

    /// One transaction with two mails.
    pub(crate) fn two_mails() -> Self {
        Self {
            name: "two mails",
            script: vec![Act::Attach(0), Act::Attach(1), Act::End(0)],
            transaction_of: vec![0, 0],
            processes: 1,
            ..Self::one_mail()
        }
    }

    /// Two mails, whose attaches may be dropped half-way.
    pub(crate) fn two_impatient() -> Self {
        Self { name: "two mails, attach dropped", impatient: true, ..Self::two_mails() }
    }

    /// Two mails, and the savepoint of the second is rolled back.
    pub(crate) fn savepoint() -> Self {
        Self {
            name: "two mails, one in a savepoint",
            script: vec![Act::Attach(0), Act::Attach(1), Act::RollBackTo(1), Act::End(0)],
            ..Self::two_mails()
        }
    }

    /// A transaction that is rolled back, and run again with the same message.
    pub(crate) fn run_again() -> Self {
        Self {
            name: "transaction run again",
            script: vec![Act::Attach(0), Act::RollBack(0), Act::Attach(1), Act::End(1)],
            transaction_of: vec![0, 1],
            transactions: 2,
            ..Self::two_mails()
        }
    }

    /// The scenes, each as small as it can be.
    pub(crate) fn all() -> Vec<Self> {
        vec![
            Self::one_mail(),
            Self::impatient(),
            Self::statement_only(),
            Self::two_mails(),
            Self::savepoint(),
            Self::run_again(),
            Self::weak_disk(),
        ]
    }

    /// The same scene with more processes.
    pub(crate) fn with_processes(self, processes: usize) -> Self {
        Self { processes, ..self }
    }
}
