//! What may go wrong at any moment, any number of times.

use crate::model::{Insert, MAILS, NOBODY, Phase, Process, Row, State, Task, World};
use crate::protocol::{Fence, Witness};
use crate::search::Next;
use crate::steps::Step;

impl World<'_> {
    pub(crate) fn faults(&self, state: &State, to: &mut Next<Self>) {
        if state.application.alive {
            to.push((Step::KillApplication, Ok(self.application_ends(state))));
            to.push((Step::CutSession, Ok(self.session_ends(state))));
        }
        for number in 0..self.scene.processes {
            if state.processes[number].task != Task::Idle || has_open_tombstone(state, number) {
                let mut next = *state;
                kill(&mut next, number);
                to.push((Step::KillProcess(number), Ok(next)));
            }
            if self.is_committing(state, number) {
                let mut next = *state;
                self.cut_fence(&mut next, number);
                to.push((Step::CutFence(number), Ok(next)));
            }
        }
        for mail in 0..self.scene.mails() {
            let key = self.key(mail);
            if matches!(state.rows[key], Row::OpenTombstone { by: NOBODY, .. }) {
                // The COMMIT that nobody waits for has not arrived, and never will.
                let mut next = *state;
                next.rows[key] = Row::Free;
                to.push((Step::LoseTombstone(mail), Ok(next)));
            }
        }
        to.push((Step::CrashServer, Ok(self.crash_server(state))));
        self.power_cuts(state, to);
    }

    /// Open transactions are rolled back, those of fences too; committed ones stay.
    fn crash_server(&self, state: &State) -> State {
        let mut next = self.session_ends(state);
        if self.scene.forgetful_database {
            forget_commits(&mut next);
        }
        for number in 0..self.scene.processes {
            if self.is_committing(state, number) {
                self.cut_fence(&mut next, number);
            }
        }
        for row in &mut next.rows {
            if let Row::OpenTombstone { .. } = row {
                *row = Row::Free;
            }
        }
        if self.protocol.rules.witness == Witness::TransactionNumber {
            next.number_reused |= (0..self.scene.mails()).any(|mail| {
                let transaction = self.scene.transaction_of[mail];
                let aborted = next.transactions[transaction] != state.transactions[transaction];
                aborted && state.mails[mail].insert == Insert::Done
            });
        }
        next
    }

    /// Everything on the queue's machine dies, and each file is left in one of the ways in which it may be.
    /// The database is on another machine; or on this one, which is a crash of the server after this one.
    fn power_cuts(&self, state: &State, to: &mut Next<Self>) {
        let mut dark = self.application_ends(state);
        (0..self.scene.processes).for_each(|number| kill(&mut dark, number));
        let [first, second]: [_; MAILS] = state.mails.map(|mail| mail.file);
        for first in first.cuts() {
            for second in second.cuts() {
                let mut next = dark;
                next.mails[0].file = first;
                next.mails[1].file = second;
                to.push((Step::PowerCut, Ok(next)));
            }
        }
    }

    /// Whether a fence waits for its own transaction.
    fn is_committing(&self, state: &State, number: usize) -> bool {
        let Process { task, mail, at } = state.processes[number];
        let row = state.rows[self.key(usize::from(mail))];
        let own = matches!(row, Row::OpenTombstone { by, .. } if usize::from(by) == number);
        task == Task::Fence && own && self.protocol.fence[usize::from(at)] != Fence::Discard
    }

    /// A fence loses its connection, and does not know whether its tombstone is there.
    fn cut_fence(&self, next: &mut State, number: usize) {
        Self::fence_session_ends(next, number);
        match self.protocol.rules.doubt_keeps {
            true => next.processes[number] = Process::IDLE,
            false => self.go_to_discard(next, number),
        }
    }
}

fn has_open_tombstone(state: &State, number: usize) -> bool {
    let own =
        |row: &Row| matches!(row, Row::OpenTombstone { by, .. } if usize::from(*by) == number);
    state.rows.iter().any(own)
}

/// What a database does that does not sync its log before it says Ok.
fn forget_commits(next: &mut State) {
    for transaction in &mut next.transactions {
        if transaction.phase == Phase::Committed {
            transaction.phase = Phase::Aborted;
        }
    }
    for row in &mut next.rows {
        if *row == Row::Marker {
            *row = Row::Free;
        }
    }
}

fn kill(next: &mut State, number: usize) {
    World::fence_session_ends(next, number);
    next.processes[number] = Process::IDLE;
}
