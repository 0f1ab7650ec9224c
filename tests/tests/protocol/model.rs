//! The system: one application, a database, a queue on a disk, and the processes that recover it.
//!
//! Here are its state, what must never happen, and what ends a run. What each party may do next is in
//! `application.rs`, `database.rs`, `recovery.rs` and `faults.rs`; the protocol that they follow is data,
//! in `protocol.rs`. Between any two steps of one party, any step of another may come.

use std::fmt::{self, Display, Formatter};

use crate::disk::{Content, File, NEW, UNDECIDED};
use crate::protocol::{Key, Protocol};
use crate::scenes::Scene;
use crate::search::{self, Next};
use crate::steps::Step;

/// As many mails, transactions and processes as any scene has.
pub(crate) const MAILS: usize = 2;
const PROCESSES: usize = 3;
/// The session of a process that is dead: what it has sent, the server may still carry out.
pub(crate) const NOBODY: u8 = u8::MAX;

/// A protocol in a scene.
pub(crate) struct World<'a> {
    pub(crate) protocol: &'a Protocol,
    pub(crate) scene: &'a Scene,
    /// Goes on past a disagreement, to see what comes of it.
    pub(crate) past_disagreement: bool,
}

/// Everything at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) application: Application,
    /// As the server knows them.
    pub(crate) transactions: [Transaction; MAILS],
    pub(crate) mails: [Mail; MAILS],
    /// The marker table: a row for each key.
    pub(crate) rows: [Row; MAILS],
    pub(crate) processes: [Process; PROCESSES],
    /// The number of a transaction that a crash aborted was given out again, to one that committed.
    pub(crate) number_reused: bool,
}

/// The process that attaches mails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Application {
    /// Its next act in the scene's script.
    pub(crate) act: u8,
    /// Its next step of that act, if it is an attach.
    pub(crate) step: u8,
    /// Holds its lock, so that all can tell.
    pub(crate) alive: bool,
}

/// A transaction of the application's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Transaction {
    pub(crate) phase: Phase,
    /// COMMIT is on its way to the server; the client may be dead by now.
    pub(crate) commit_sent: bool,
}

/// How far a transaction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    /// It can do either.
    Open,
    /// A statement failed, and the database lets it do nothing but roll back.
    Failed,
    /// The truth: it happened.
    Committed,
    /// The truth: it did not, and will not.
    Aborted,
}

/// A mail: its file, what is known of its marker, and what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Mail {
    pub(crate) file: File,
    pub(crate) insert: Insert,
    /// `attach` returned, and said that it is attached.
    pub(crate) attached: bool,
    /// Its savepoint was rolled back.
    pub(crate) taken_back: bool,
    /// Somebody was told that it is rolled back, for good.
    pub(crate) given_up: bool,
    /// A relay has taken it; the journal knows.
    pub(crate) sent: bool,
}

/// How far the INSERT of a marker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Insert {
    /// Not sent, or lost with its session.
    None,
    /// On its way to the server.
    Sent,
    /// Carried out, in a transaction that is still to end.
    Done,
    /// There was a row with this key.
    Refused,
}

/// What the table holds under one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Row {
    /// Nothing.
    Free,
    /// A marker, inserted by a transaction that is still open.
    Open { transaction: u8 },
    /// A marker, committed.
    Marker,
    /// A tombstone, inserted by the session of a process, and not committed.
    OpenTombstone { by: u8, commit_sent: bool },
    /// A tombstone, committed.
    Tombstone,
}

/// A process that finishes, fences and cleans, and what it is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Process {
    pub(crate) task: Task,
    pub(crate) mail: u8,
    /// Its next step in that task's list.
    pub(crate) at: u8,
}

/// What a process is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Task {
    Idle,
    Finish,
    Fence,
    Clean,
}

impl Process {
    pub(crate) const IDLE: Self = Self { task: Task::Idle, mail: 0, at: 0 };

    pub(crate) fn begin(task: Task, mail: usize) -> Self {
        Self { task, mail: mail as u8, at: 0 }
    }
}

/// What must never happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Violation {
    /// A committed mail is neither sent nor anywhere from where it could be.
    Lost,
    /// A mail was sent whose transaction had not committed, or whose savepoint was rolled back.
    Phantom,
    /// A mail was sent of which a part was missing.
    Half,
    /// A mail was sent twice.
    Duplicate,
    /// A mail was given up as rolled back, and its marker is committed: two answers to one question.
    Disagreement,
    /// The marker of a live transaction ran into a tombstone.
    Killed,
    /// An alarm that a committed mail's file is gone, when it is not.
    FalseAlarm,
}

impl World<'_> {
    /// The row that stands for a mail.
    pub(crate) fn key(&self, mail: usize) -> usize {
        match self.protocol.rules.key {
            Key::QueueId => mail,
            Key::Transaction => self.scene.transaction_of[mail],
            // A scene with two transactions is one that is run again with the same message.
            Key::MessageId if self.scene.transactions > 1 => 0,
            Key::MessageId => mail,
        }
    }

    /// Whether the transaction of a mail has committed: the truth, which no party of the model asks.
    fn committed(&self, state: &State, mail: usize) -> bool {
        let transaction = self.scene.transaction_of[mail];
        state.transactions[transaction].phase == Phase::Committed
    }

    /// Whether a mail has to be sent.
    ///
    /// An `attach` that did not return promises nothing: such a mail may go along or not, but all must
    /// agree on which.
    pub(crate) fn owed(&self, state: &State, mail: usize) -> bool {
        let Mail { attached, taken_back, .. } = state.mails[mail];
        attached && !taken_back && self.committed(state, mail)
    }

    /// Whether a mail may be sent.
    pub(crate) fn sendable(&self, state: &State, mail: usize) -> bool {
        let Mail { insert, taken_back, .. } = state.mails[mail];
        !taken_back && insert != Insert::Refused && self.committed(state, mail)
    }

    /// What is wrong in `state` that shows without looking at the step that led there.
    fn violation(&self, state: &State) -> Option<Violation> {
        (0..self.scene.mails()).find_map(|number| {
            let mail = &state.mails[number];
            let reachable = mail.file.is_in(UNDECIDED | NEW) && mail.file.content != Content::Torn;
            let marked = mail.insert == Insert::Done && self.sendable(state, number);
            if self.owed(state, number) && !mail.sent && !reachable {
                Some(Violation::Lost)
            } else if mail.sent && !self.sendable(state, number) {
                Some(Violation::Phantom)
            } else if mail.given_up && marked && !self.past_disagreement {
                Some(Violation::Disagreement)
            } else {
                None
            }
        })
    }

    /// A worker takes a mail out of the queue, and hands it to the relay.
    ///
    /// What it does between the final dot and the record of the reply is another protocol, with a test of
    /// its own; here it is one step.
    fn deliver(&self, state: &State, number: usize) -> Result<State, Violation> {
        let torn = state.mails[number].file.content == Content::Torn;
        let mut next = *state;
        let mail = &mut next.mails[number];
        mail.file.take_out();
        if torn && self.protocol.rules.send_whole_only {
            Ok(next) // Set aside as damaged. If it was owed, it was lost before, and counted so.
        } else if torn {
            Err(Violation::Half)
        } else if mail.sent && self.scene.workers_ask_journal {
            Ok(next) // Removed: the journal knows the id.
        } else if mail.sent {
            Err(Violation::Duplicate)
        } else {
            mail.sent = true;
            Ok(next) // A phantom, if it was too early: `violation` tells.
        }
    }
}

impl search::Model for World<'_> {
    type State = State;
    type Step = Step;
    type Violation = Violation;

    fn start(&self) -> State {
        let no_mail = Mail {
            file: File::NONE,
            insert: Insert::None,
            attached: false,
            taken_back: false,
            given_up: false,
            sent: false,
        };
        let mut transactions = [Transaction { phase: Phase::Aborted, commit_sent: false }; MAILS];
        transactions[..self.scene.transactions].iter_mut().for_each(|it| it.phase = Phase::Open);
        State {
            application: Application { act: 0, step: 0, alive: true },
            transactions,
            mails: [no_mail; MAILS],
            rows: [Row::Free; MAILS],
            processes: [Process::IDLE; PROCESSES],
            number_reused: false,
        }
    }

    fn steps(&self, state: &State, to: &mut Next<Self>) {
        self.application_steps(state, to);
        self.database_steps(state, to);
        for process in 0..self.scene.processes {
            self.process_steps(state, process, to);
        }
        for mail in 0..self.scene.mails() {
            if state.mails[mail].file.is_in(NEW) {
                to.push((Step::Deliver(mail), self.deliver(state, mail)));
            }
        }
        self.housekeeping(state, to);
        self.faults(state, to);
        for (_, result) in to {
            if let Some(violation) = result.ok().and_then(|state| self.violation(&state)) {
                *result = Err(violation);
            }
        }
    }

    fn is_fault(step: &Step) -> bool {
        step.is_fault()
    }

    /// Nobody waits for anything, no mail is undecided or still to be sent, and no marker is left over
    /// but one that an alarm was raised about: of an `attach` that did not return.
    fn is_settled(&self, state: &State) -> bool {
        let ended = |it: &Transaction| matches!(it.phase, Phase::Committed | Phase::Aborted);
        let decided = |number: usize| {
            let mail = &state.mails[number];
            let row_is_over = match state.rows[self.key(number)] {
                Row::Free | Row::Tombstone => true,
                Row::Marker => !mail.attached,
                Row::Open { .. } | Row::OpenTombstone { .. } => false,
            };
            row_is_over && !mail.file.is_in(UNDECIDED | NEW)
        };
        !state.application.alive
            && state.transactions.iter().all(ended)
            && state.processes.iter().all(|process| process.task == Task::Idle)
            && (0..self.scene.mails()).all(decided)
    }
}

impl Display for Violation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lost => "lost",
            Self::Phantom => "phantom",
            Self::Half => "half",
            Self::Duplicate => "duplicate",
            Self::Disagreement => "disagreement",
            Self::Killed => "live transaction killed",
            Self::FalseAlarm => "false alarm",
        })
    }
}
