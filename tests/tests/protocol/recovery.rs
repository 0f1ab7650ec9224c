//! The processes that look after what is staged. Each may at any moment finish, fence or clean, so that
//! two of them are also two finishers, two recoveries, or one of each.

use crate::disk::{DISCARDED, File, NEW, STAGED, TMP, UNDECIDED};
use crate::model::{Phase, Process, Row, State, Task, Violation, World};
use crate::protocol::{Clean, Fence, Finish, Witness};
use crate::search::Next;
use crate::steps::Step;

impl World<'_> {
    pub(crate) fn process_steps(&self, state: &State, number: usize, to: &mut Next<Self>) {
        let Process { task, mail, at } = state.processes[number];
        let (mail, at) = (usize::from(mail), usize::from(at));
        match task {
            Task::Idle => {
                for mail in 0..self.scene.mails() {
                    self.look(state, number, mail, to);
                }
            }
            Task::Finish => {
                let step = self.protocol.finish[at];
                to.push((Step::Finish(number, mail, step), Ok(self.finish(state, number, step))));
            }
            Task::Fence => {
                let step = self.protocol.fence[at];
                let next = self.fence(state, number, step);
                to.extend(next.map(|next| (Step::Fence(number, mail, step), Ok(next))));
            }
            Task::Clean => {
                let step = self.protocol.clean[at];
                to.push((Step::Clean(number, mail, step), self.clean(state, number, step)));
            }
        }
    }

    /// What nobody has to be at work for: rows that are old, files that are junk, other queues.
    pub(crate) fn housekeeping(&self, state: &State, to: &mut Next<Self>) {
        let rules = &self.protocol.rules;
        for mail in 0..self.scene.mails() {
            let key = self.key(mail);
            let owner = state.transactions[self.scene.transaction_of[mail]].phase;
            let over = matches!(owner, Phase::Committed | Phase::Aborted);
            if state.rows[key] == Row::Tombstone && (over || !rules.tombstones_outlive_owners) {
                let mut next = *state;
                next.rows[key] = Row::Free;
                to.push((Step::CleanTombstone(mail), Ok(next)));
            }
            if state.rows[key] == Row::Marker && !rules.own_rows_only {
                to.push((Step::CleanForeign(mail), self.clean_foreign(state, mail)));
            }
            let file = state.mails[mail].file;
            let dead = !state.application.alive;
            if file.is_in(TMP) && !file.is_in(STAGED) && dead && !rules.ask_about_tmp_of_dead {
                let mut next = *state;
                next.mails[mail].file.unlink();
                next.mails[mail].given_up = true;
                to.push((Step::RemoveJunk(mail), Ok(next)));
            }
        }
    }

    pub(crate) fn sync_directories(&self, next: &mut State, directories: &[u8]) {
        for directory in directories {
            for mail in &mut next.mails {
                mail.file.sync_directory(*directory, self.scene.disk);
            }
        }
    }

    /// A process looks at a mail's file and row, and sees what is to be done.
    fn look(&self, state: &State, number: usize, mail: usize, to: &mut Next<Self>) {
        let file = state.mails[mail].file;
        let mut begin = |task| {
            let mut next = *state;
            next.processes[number] = Process::begin(task, mail);
            to.push((Step::Look(number, mail), Ok(next)));
        };
        if file.is_in(UNDECIDED) && self.is_visible(state, mail) {
            begin(Task::Finish);
        } else if file.is_in(UNDECIDED) && self.may_fence(state, file) {
            begin(Task::Fence);
        }
        if state.rows[self.key(mail)] == Row::Marker {
            begin(Task::Clean);
        }
    }

    /// Age says when to fence what is staged. So here it is always time.
    fn may_fence(&self, state: &State, file: File) -> bool {
        let rules = &self.protocol.rules;
        let is_its_owners = !file.is_in(STAGED) && rules.leave_tmp_of_living;
        !state.application.alive || !is_its_owners && rules.ask_while_owner_lives
    }

    fn is_visible(&self, state: &State, mail: usize) -> bool {
        let row = state.rows[self.key(mail)];
        match self.protocol.rules.witness {
            Witness::Marker => row == Row::Marker,
            Witness::DirtyMarker => matches!(row, Row::Marker | Row::Open { .. }),
            Witness::TransactionNumber => {
                let phase = state.transactions[self.scene.transaction_of[mail]].phase;
                phase == Phase::Committed || state.number_reused
            }
        }
    }

    fn finish(&self, state: &State, number: usize, step: Finish) -> State {
        let mail = usize::from(state.processes[number].mail);
        let mut next = *state;
        match step {
            Finish::Publish => {
                let renamed = next.mails[mail].file.rename(UNDECIDED, NEW, self.scene.disk);
                if !renamed && !self.protocol.rules.sync_when_gone {
                    let last = |step: &Finish| *step == Finish::DeleteMarker;
                    let at = self.protocol.finish.iter().position(last);
                    next.processes[number].at = at.map_or(0, |at| at as u8);
                    return next;
                }
            }
            Finish::SyncNew => self.sync_directories(&mut next, &[NEW]),
            Finish::SyncSource => self.sync_directories(&mut next, &[STAGED, TMP]),
            Finish::DeleteMarker => self.delete_marker(&mut next, mail),
        }
        advance(&mut next, number, self.protocol.finish.len());
        next
    }

    /// A step of a fence; nothing, while it has to wait.
    fn fence(&self, state: &State, number: usize, step: Fence) -> Option<State> {
        let mail = usize::from(state.processes[number].mail);
        let key = self.key(mail);
        let by = number as u8;
        let mut next = *state;
        match step {
            Fence::InsertTombstone => return Some(self.insert_tombstone(state, number)),
            Fence::SendCommit => {
                if state.rows[key] == (Row::OpenTombstone { by, commit_sent: false }) {
                    next.rows[key] = Row::OpenTombstone { by, commit_sent: true };
                }
            }
            Fence::AwaitCommit => match state.rows[key] {
                Row::OpenTombstone { by: holder, .. } if holder == by => return None,
                // If the connection was lost, the process has stopped waiting. So this is the answer.
                _ => give_up(&mut next, mail),
            },
            Fence::Discard => {
                let mail = &mut next.mails[mail];
                mail.given_up |= mail.file.rename(UNDECIDED, DISCARDED, self.scene.disk);
            }
            Fence::SyncDiscarded => {
                self.sync_directories(&mut next, &[DISCARDED, STAGED, TMP]);
            }
        }
        advance(&mut next, number, self.protocol.fence.len());
        Some(next)
    }

    /// The question, and all answers to it.
    fn insert_tombstone(&self, state: &State, number: usize) -> State {
        let rules = &self.protocol.rules;
        let mail = usize::from(state.processes[number].mail);
        let key = self.key(mail);
        let mut next = *state;
        match state.rows[key] {
            Row::Free => {
                next.rows[key] = Row::OpenTombstone { by: number as u8, commit_sent: false };
                advance(&mut next, number, self.protocol.fence.len());
            }
            Row::Tombstone => self.go_to_discard(&mut next, number),
            // It inserts another row, beside the owner's.
            Row::Open { .. } | Row::Marker if !rules.unique_key => {
                self.go_to_discard(&mut next, number);
            }
            Row::Marker if !rules.fresh_read => self.go_to_discard(&mut next, number),
            Row::Marker => next.processes[number] = Process::begin(Task::Finish, mail),
            Row::Open { .. } if !rules.waiting_is_no_answer => {
                self.go_to_discard(&mut next, number);
            }
            Row::Open { .. } | Row::OpenTombstone { .. } => next.processes[number] = Process::IDLE,
        }
        next
    }

    /// The answer is: rolled back.
    pub(crate) fn go_to_discard(&self, next: &mut State, number: usize) {
        let process = &mut next.processes[number];
        let at = self.protocol.fence.iter().position(|step| *step == Fence::Discard);
        match at {
            Some(at) => process.at = at as u8,
            None => *process = Process::IDLE,
        }
        let mail = usize::from(next.processes[number].mail);
        give_up(next, mail);
    }

    fn clean(&self, state: &State, number: usize, step: Clean) -> Result<State, Violation> {
        let mail = usize::from(state.processes[number].mail);
        let it = &state.mails[mail];
        let mut next = *state;
        let goes_on = match step {
            Clean::SyncDirectories => {
                self.sync_directories(&mut next, &[NEW, STAGED, TMP]);
                true
            }
            Clean::CheckUndecided => !it.file.is_in(UNDECIDED),
            // The alarm.
            Clean::CheckKnown if it.file.is_in(UNDECIDED) => return Err(Violation::FalseAlarm),
            Clean::CheckKnown => it.file.is_in(NEW) || it.sent,
            Clean::DeleteMarker => {
                self.delete_marker(&mut next, mail);
                true
            }
        };
        if goes_on {
            advance(&mut next, number, self.protocol.clean.len());
        } else {
            next.processes[number] = Process::IDLE;
        }
        Ok(next)
    }

    /// A cleaner that thinks the row is its own: its queue has no such file, and has never had it.
    fn clean_foreign(&self, state: &State, mail: usize) -> Result<State, Violation> {
        if self.protocol.clean.contains(&Clean::CheckKnown) {
            return Err(Violation::FalseAlarm);
        }
        let mut next = *state;
        self.delete_marker(&mut next, mail);
        Ok(next)
    }

    fn delete_marker(&self, next: &mut State, mail: usize) {
        let row = &mut next.rows[self.key(mail)];
        if *row == Row::Marker {
            *row = Row::Free;
        }
    }
}

/// Somebody has the answer that a mail is rolled back. It is about files that are undecided: once the file
/// is published and the marker deleted, the answer means nothing, and there is nothing to discard.
fn give_up(next: &mut State, mail: usize) {
    let mail = &mut next.mails[mail];
    mail.given_up |= mail.file.is_in(UNDECIDED);
}

/// On to the next step of the task, or to none.
fn advance(next: &mut State, number: usize, length: usize) {
    let process = &mut next.processes[number];
    process.at += 1;
    if usize::from(process.at) >= length {
        *process = Process::IDLE;
    }
}
