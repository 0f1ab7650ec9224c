//! The processors of a crash test: `sendmail-queue run`.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Child;

use crate::Result;
use crate::queue::{Processor, Queue};

struct Living {
    name: String,
    child: Child,
    /// When it goes on, if it is stopped.
    stopped_until: Option<Instant>,
}

/// All of them that live.
pub(crate) struct Processors {
    queue: Queue,
    relay: SocketAddr,
    living: Vec<Living>,
    next: u64,
}

impl Processors {
    /// How many connections each opens, and so how many messages it has in flight at most.
    pub(crate) const CONNECTIONS: u16 = 8;

    pub(crate) fn new(queue: Queue, relay: SocketAddr) -> Self {
        Self { queue, relay, living: Vec::new(), next: 0 }
    }

    pub(crate) fn count(&self) -> usize {
        self.living.len()
    }

    /// Starts one and returns its name.
    pub(crate) fn start(&mut self) -> Result<String> {
        let name = format!("p{}", self.next);
        self.next += 1;
        let (relay, connections) = (self.relay, Self::CONNECTIONS);
        let child = self.queue.start(&Processor { name: name.clone(), relay, connections })?;
        self.living.push(Living { name: name.clone(), child, stopped_until: None });
        Ok(name)
    }

    pub(crate) fn nth(&self, which: usize) -> Option<String> {
        let count = self.living.len();
        (count > 0).then(|| self.living[which % count].name.clone())
    }

    pub(crate) fn kill(&mut self, name: &str) -> Result<()> {
        if let Some(index) = self.living.iter().position(|each| each.name == name) {
            let mut killed = self.living.swap_remove(index);
            killed.child.start_kill()?;
            tokio::spawn(async move { killed.child.wait().await });
        }
        Ok(())
    }

    /// Stops one in whatever it does, for `pause`.
    pub(crate) fn stop(&mut self, name: &str, pause: Duration) -> Result<()> {
        if let Some(living) = self.living.iter_mut().find(|each| each.name == name) {
            living.signal(Signal::STOP)?;
            living.stopped_until = Some(Instant::now() + pause);
        }
        Ok(())
    }

    pub(crate) fn continue_those_due(&mut self) -> Result<()> {
        let now = Instant::now();
        let due = |living: &&mut Living| living.stopped_until.is_some_and(|until| until <= now);
        for living in self.living.iter_mut().filter(due) {
            living.stopped_until = None;
            living.signal(Signal::CONT)?;
        }
        Ok(())
    }

    /// Those that ended without being killed, in words.
    pub(crate) fn buried(&mut self) -> Result<Vec<String>> {
        let mut ended = Vec::new();
        for index in (0..self.living.len()).rev() {
            if let Some(status) = self.living[index].child.try_wait()? {
                let living = self.living.swap_remove(index);
                ended.push(format!("processor {} ended by itself: {status}", living.name));
            }
        }
        Ok(ended)
    }

    /// Lets all that are stopped go on.
    pub(crate) fn continue_all(&mut self) -> Result<()> {
        for living in &mut self.living {
            living.stopped_until = None;
            living.signal(Signal::CONT)?;
        }
        Ok(())
    }

    /// Asks all to end in order, and waits for them.
    pub(crate) async fn finish(&mut self) -> Result<Vec<String>> {
        let mut trouble = Vec::new();
        for living in &self.living {
            living.signal(Signal::TERM)?;
        }
        for mut living in std::mem::take(&mut self.living) {
            let ended = tokio::time::timeout(Duration::from_secs(30), living.child.wait()).await;
            match ended {
                Ok(status) if status.as_ref().is_ok_and(|status| status.success()) => {}
                Ok(status) => trouble.push(format!("processor {}: {status:?}", living.name)),
                Err(_) => trouble.push(format!("processor {} does not end", living.name)),
            }
        }
        Ok(trouble)
    }
}

impl Living {
    fn signal(&self, signal: Signal) -> Result<()> {
        let Some(id) = self.child.id() else { return Ok(()) };
        let pid = i32::try_from(id).ok().and_then(Pid::from_raw).ok_or("no such process id")?;
        Ok(kill_process(pid, signal)?)
    }
}
