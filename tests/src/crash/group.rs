//! Child processes of one kind, which are killed and stopped.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::process::Child;

use crate::Result;
use crate::process::signal;

/// A child that nobody has killed, and what belongs to it.
pub(crate) struct Member<T> {
    pub(crate) id: u64,
    pub(crate) child: Child,
    pub(crate) with: T,
    /// When it goes on, if it is stopped.
    stopped_until: Option<Instant>,
}

/// All that live.
pub(crate) struct Group<T> {
    kind: &'static str,
    members: Vec<Member<T>>,
    next_id: u64,
}

impl<T> Group<T> {
    pub(crate) fn new(kind: &'static str) -> Self {
        Self { kind, members: Vec::new(), next_id: 0 }
    }

    /// The id that the next one gets.
    pub(crate) fn next_id(&self) -> u64 {
        self.next_id
    }

    pub(crate) fn add(&mut self, child: Child, with: T) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.members.push(Member { id, child, with, stopped_until: None });
        id
    }

    pub(crate) fn members(&self) -> &[Member<T>] {
        &self.members
    }

    pub(crate) fn get_mut(&mut self, id: u64) -> Option<&mut Member<T>> {
        self.members.iter_mut().find(|member| member.id == id)
    }

    /// One of them, as a random number says.
    pub(crate) fn nth(&self, which: usize) -> Option<u64> {
        let count = self.members.len();
        (count > 0).then(|| self.members[which % count].id)
    }

    /// Kills one, and returns what belonged to it.
    pub(crate) fn kill(&mut self, id: u64) -> Result<Option<T>> {
        let Some(index) = self.members.iter().position(|member| member.id == id) else {
            return Ok(None);
        };
        let Member { mut child, with, .. } = self.members.swap_remove(index);
        child.start_kill()?;
        tokio::spawn(async move { child.wait().await });
        Ok(Some(with))
    }

    /// Stops one in whatever it does, for `pause`.
    pub(crate) fn stop(&mut self, id: u64, pause: Duration) -> Result<()> {
        if let Some(member) = self.get_mut(id) {
            signal(&member.child, Signal::STOP)?;
            member.stopped_until = Some(Instant::now() + pause);
        }
        Ok(())
    }

    /// Lets those go on that were stopped for long enough.
    pub(crate) fn continue_those_due(&mut self) -> Result<()> {
        let now = Instant::now();
        self.members.iter_mut().try_for_each(|member| member.go_on(now))
    }

    /// Lets all go on.
    pub(crate) fn continue_all(&mut self) -> Result<()> {
        let far = Instant::now() + Duration::from_secs(3600);
        self.members.iter_mut().try_for_each(|member| member.go_on(far))
    }

    /// Takes out those that ended without being killed, in words.
    pub(crate) fn buried(&mut self) -> Result<Vec<String>> {
        let mut ended = Vec::new();
        for index in (0..self.members.len()).rev() {
            if let Some(status) = self.members[index].child.try_wait()? {
                let member = self.members.swap_remove(index);
                ended.push(format!("{} {} ended by itself: {status}", self.kind, member.id));
            }
        }
        Ok(ended)
    }

    /// Takes all out.
    pub(crate) fn take(&mut self) -> Vec<Member<T>> {
        std::mem::take(&mut self.members)
    }
}

impl<T> Member<T> {
    fn go_on(&mut self, now: Instant) -> Result<()> {
        if self.stopped_until.is_some_and(|until| until <= now) {
            self.stopped_until = None;
            signal(&self.child, Signal::CONT)?;
        }
        Ok(())
    }
}
