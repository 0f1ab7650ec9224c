//! The application: attaches mails, may give an attach up half-way, and commits or rolls back.

use crate::disk::{File, STAGED, TMP};
use crate::model::{Application, Insert, Phase, Row, State, World};
use crate::protocol::Attach;
use crate::scenes::Act;
use crate::search::Next;
use crate::steps::Step;

impl World<'_> {
    pub(crate) fn application_steps(&self, state: &State, to: &mut Next<Self>) {
        if !state.application.alive {
            return;
        }
        match self.scene.script.get(usize::from(state.application.act)) {
            Some(Act::Attach(mail)) => self.attach_steps(state, *mail, to),
            Some(Act::RollBackTo(mail)) => self.roll_back_to(state, *mail, to),
            Some(Act::RollBack(transaction)) => self.roll_back(state, *transaction, to),
            Some(Act::End(transaction)) => {
                self.roll_back(state, *transaction, to);
                let mut next = *state;
                next.application.act += 1;
                // The server remembers nothing of a transaction that is gone.
                next.transactions[*transaction].commit_sent = is_there(state, *transaction);
                to.push((Step::SendCommit(*transaction), Ok(next)));
            }
            None => {
                let ended = |phase| matches!(phase, Phase::Committed | Phase::Aborted);
                if state.transactions.iter().all(|it| ended(it.phase)) {
                    to.push((Step::Exit, Ok(self.application_ends(state))));
                }
            }
        }
    }

    /// The application's process is gone. What it has sent is the server's to carry out.
    pub(crate) fn application_ends(&self, state: &State) -> State {
        let mut next = *state;
        next.application = Application { act: 0, step: 0, alive: false };
        next
    }

    fn attach_steps(&self, state: &State, mail: usize, to: &mut Next<Self>) {
        let insert = state.mails[mail].insert;
        if self.scene.impatient && state.application.step > 0 {
            // A time-out, or a future that was dropped: the application may go on without it.
            let mut next = *state;
            next.application.act += 1;
            next.application.step = 0;
            to.push((Step::GiveUp(mail), Ok(next)));
        }
        let step = self.protocol.attach[usize::from(state.application.step)];
        let there = is_there(state, self.scene.transaction_of[mail]);
        let next = match step {
            Attach::AwaitMarker if there && insert == Insert::Sent => return,
            Attach::AwaitMarker if !there || insert == Insert::Refused => self.fail(state),
            Attach::SendMarker if !there => self.fail(state),
            _ => self.attached(state, mail, step),
        };
        to.push((Step::Attach(mail, step), Ok(next)));
    }

    /// A step of an attach that succeeds.
    fn attached(&self, state: &State, number: usize, step: Attach) -> State {
        let mut next = *state;
        let mail = &mut next.mails[number];
        match step {
            Attach::Write => mail.file = File::written(),
            Attach::SyncFile => mail.file.sync(),
            Attach::SendMarker => mail.insert = Insert::Sent,
            Attach::AwaitMarker => {}
            Attach::Stage => drop(mail.file.rename(TMP, STAGED, self.scene.disk)),
            Attach::SyncStaged => self.sync_directories(&mut next, &[STAGED]),
        }
        next.application.step += 1;
        if usize::from(next.application.step) == self.protocol.attach.len() {
            next.application.step = 0;
            next.application.act += 1;
            next.mails[number].attached = true;
        }
        next
    }

    /// `attach` returned an error: the application goes to the end of its transaction.
    fn fail(&self, state: &State) -> State {
        let mut next = *state;
        next.application.step = 0;
        let ends = |act: &Act| matches!(act, Act::RollBack(_) | Act::End(_));
        let acts = &self.scene.script;
        while acts.get(usize::from(next.application.act)).is_some_and(|act| !ends(act)) {
            next.application.act += 1;
        }
        next
    }

    /// ROLLBACK TO the savepoint around a mail; awaited, and after everything sent before.
    fn roll_back_to(&self, state: &State, mail: usize, to: &mut Next<Self>) {
        let transaction = self.scene.transaction_of[mail];
        if is_there(state, transaction) && self.anything_sent(state, transaction) {
            return;
        }
        let mut next = *state;
        next.application.act += 1;
        next.mails[mail].taken_back = true;
        let key = self.key(mail);
        let first = (0..self.scene.mails()).find(|other| self.key(*other) == key);
        let own = Row::Open { transaction: transaction as u8 };
        // A row that was there before the savepoint stays.
        if first == Some(mail) && state.rows[key] == own {
            next.rows[key] = Row::Free;
        }
        to.push((Step::RollBackTo(mail), Ok(next)));
    }

    /// ROLLBACK; awaited, and after everything sent before.
    fn roll_back(&self, state: &State, transaction: usize, to: &mut Next<Self>) {
        if is_there(state, transaction) && self.anything_sent(state, transaction) {
            return;
        }
        let mut next = *state;
        self.abort(&mut next, transaction);
        next.application.act += 1;
        to.push((Step::RollBack(transaction), Ok(next)));
    }
}

/// Whether the server still has this transaction.
fn is_there(state: &State, transaction: usize) -> bool {
    matches!(state.transactions[transaction].phase, Phase::Open | Phase::Failed)
}
