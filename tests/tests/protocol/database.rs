//! The server: carries out what was sent, in the order of each session, whether or not whoever sent it
//! still lives.

use crate::model::{Insert, NOBODY, Phase, Row, State, Violation, World};
use crate::search::Next;
use crate::steps::Step;

impl World<'_> {
    pub(crate) fn database_steps(&self, state: &State, to: &mut Next<Self>) {
        for mail in 0..self.scene.mails() {
            if self.is_next_insert(state, mail) {
                to.extend(self.insert(state, mail).map(|it| (Step::CarryOutInsert(mail), it)));
            }
        }
        for transaction in 0..self.scene.transactions {
            let sent = state.transactions[transaction].commit_sent;
            if sent && !self.anything_sent(state, transaction) {
                to.push((Step::CarryOutCommit(transaction), Ok(self.commit(state, transaction))));
            }
        }
        for mail in 0..self.scene.mails() {
            let key = self.key(mail);
            if let Row::OpenTombstone { commit_sent: true, .. } = state.rows[key] {
                let mut next = *state;
                next.rows[key] = Row::Tombstone;
                to.push((Step::CarryOutTombstone(mail), Ok(next)));
            }
        }
        if !state.application.alive && is_any_open(state) {
            to.push((Step::EndSession, Ok(self.session_ends(state))));
        }
    }

    /// Whether an INSERT of this transaction is still to be carried out.
    pub(crate) fn anything_sent(&self, state: &State, transaction: usize) -> bool {
        let mut mails = (0..self.scene.mails()).zip(&state.mails);
        mails.any(|(number, mail)| {
            self.scene.transaction_of[number] == transaction && mail.insert == Insert::Sent
        })
    }

    /// The transaction's markers go, and what was sent in it comes to nothing.
    pub(crate) fn abort(&self, next: &mut State, transaction: usize) {
        next.transactions[transaction].phase = Phase::Aborted;
        next.transactions[transaction].commit_sent = false;
        for number in 0..self.scene.mails() {
            let mail = &mut next.mails[number];
            if self.scene.transaction_of[number] == transaction && mail.insert == Insert::Sent {
                mail.insert = Insert::None;
            }
        }
        self.replace_open(next, transaction, Row::Free);
    }

    /// All that the application's session has open is rolled back.
    pub(crate) fn session_ends(&self, state: &State) -> State {
        let mut next = *state;
        for transaction in 0..self.scene.transactions {
            if matches!(state.transactions[transaction].phase, Phase::Open | Phase::Failed) {
                self.abort(&mut next, transaction);
            }
        }
        next
    }

    fn is_next_insert(&self, state: &State, mail: usize) -> bool {
        let earlier = &state.mails[..mail];
        state.mails[mail].insert == Insert::Sent
            && earlier.iter().all(|other| other.insert != Insert::Sent)
    }

    /// The marker's INSERT; nothing, while it has to wait for another session's row.
    fn insert(&self, state: &State, mail: usize) -> Option<Result<State, Violation>> {
        let number = self.scene.transaction_of[mail];
        let mut next = *state;
        let transaction = &mut next.transactions[number];
        let row = &mut next.rows[self.key(mail)];
        let own = Row::Open { transaction: number as u8 };
        next.mails[mail].insert = match *row {
            _ if transaction.phase != Phase::Open => Insert::Refused,
            Row::OpenTombstone { .. } | Row::Open { .. } if *row != own => return None,
            Row::Free | Row::Open { .. } | Row::OpenTombstone { .. } => {
                *row = if self.protocol.rules.in_transaction { own } else { Row::Marker };
                Insert::Done
            }
            Row::Tombstone if state.application.alive => return Some(Err(Violation::Killed)),
            Row::Tombstone | Row::Marker => {
                if !self.scene.statement_only {
                    transaction.phase = Phase::Failed;
                }
                Insert::Refused
            }
        };
        Some(Ok(next))
    }

    fn commit(&self, state: &State, number: usize) -> State {
        let mut next = *state;
        if state.transactions[number].phase != Phase::Open {
            // The driver says Ok all the same.
            self.abort(&mut next, number);
            return next;
        }
        next.transactions[number].phase = Phase::Committed;
        next.transactions[number].commit_sent = false;
        self.replace_open(&mut next, number, Row::Marker);
        next
    }

    fn replace_open(&self, next: &mut State, transaction: usize, with: Row) {
        let own = Row::Open { transaction: transaction as u8 };
        next.rows.iter_mut().filter(|row| **row == own).for_each(|row| *row = with);
    }

    /// A session that was inserting a tombstone is gone: it comes to nothing, unless COMMIT was sent.
    pub(crate) fn fence_session_ends(next: &mut State, process: usize) {
        for row in &mut next.rows {
            *row = match *row {
                Row::OpenTombstone { by, commit_sent } if usize::from(by) == process => {
                    match commit_sent {
                        true => Row::OpenTombstone { by: NOBODY, commit_sent },
                        false => Row::Free,
                    }
                }
                other => other,
            };
        }
    }
}

fn is_any_open(state: &State) -> bool {
    state.transactions.iter().any(|it| matches!(it.phase, Phase::Open | Phase::Failed))
}
