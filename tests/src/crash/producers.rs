//! The producers of a crash test.

use std::path::PathBuf;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{ChildStdin, Command};
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;

use super::group::Group;
use crate::Result;
use crate::plan::Plan;
use crate::producer::Progress;
use crate::queue::Queue;

/// How many transactions a producer may have before it at once.
const MOST_AT_ONCE: usize = 4;

/// What a producer said.
pub(crate) struct Word {
    pub(crate) producer: u64,
    pub(crate) number: u64,
    pub(crate) progress: Progress,
    pub(crate) remark: String,
}

/// What belongs to a producer.
pub(crate) struct Producer {
    stdin: ChildStdin,
    reading: JoinHandle<()>,
    outstanding: Vec<u64>,
}

/// All of them that live.
pub(crate) struct Producers {
    program: PathBuf,
    queue: Queue,
    words: UnboundedSender<Word>,
    pub(crate) group: Group<Producer>,
    /// What those that were killed had said may still be on its way.
    readings: Vec<JoinHandle<()>>,
}

impl Producers {
    pub(crate) fn new(program: PathBuf, queue: Queue, words: UnboundedSender<Word>) -> Self {
        Self { program, queue, words, group: Group::new("producer"), readings: Vec::new() }
    }

    pub(crate) fn start(&mut self) -> Result<u64> {
        let mut command = Command::new(&self.program);
        command.arg("producer").arg(&self.queue.path).kill_on_drop(true);
        if let Some(url) = &self.queue.database {
            command.arg("--database").arg(url);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().ok_or("a producer has no standard output")?;
        let stdin = child.stdin.take().ok_or("a producer has no standard input")?;
        let (producer, words) = (self.group.next_id(), self.words.clone());
        let reading = tokio::spawn(async move {
            // What was written before a kill is read to its end.
            let mut lines = BufReader::new(stdout).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let Some((number, progress, remark)) = Progress::parse(&line) else { continue };
                let remark = remark.to_owned();
                if words.send(Word { producer, number, progress, remark }).is_err() {
                    break;
                }
            }
        });
        Ok(self.group.add(child, Producer { stdin, reading, outstanding: Vec::new() }))
    }

    /// The one with the least to do, if it may have more.
    pub(crate) fn idlest(&self) -> Option<u64> {
        let load = |id: u64, with: &Producer| (with.outstanding.len(), id);
        let all = self.group.members().iter().map(|member| load(member.id, &member.with));
        all.filter(|(load, _)| *load < MOST_AT_ONCE).min().map(|(_, id)| id)
    }

    pub(crate) async fn tell(&mut self, id: u64, plan: &Plan) -> Result<()> {
        let Some(producer) = self.group.get_mut(id) else { return Ok(()) };
        producer.with.outstanding.push(plan.number);
        let line = format!("{}\n", serde_json::to_string(plan)?);
        // One that is dying hears nothing any more; it will be missed soon enough.
        let _ = producer.with.stdin.write_all(line.as_bytes()).await;
        Ok(())
    }

    pub(crate) fn note(&mut self, word: &Word) {
        if word.progress != Progress::Committing
            && let Some(producer) = self.group.get_mut(word.producer)
        {
            producer.with.outstanding.retain(|number| *number != word.number);
        }
    }

    pub(crate) fn kill(&mut self, id: u64) -> Result<()> {
        self.readings.extend(self.group.kill(id)?.map(|producer| producer.reading));
        Ok(())
    }

    /// Lets all finish what they have, and waits until everything that was said is heard.
    pub(crate) async fn finish(&mut self) -> Result<Vec<String>> {
        let mut trouble = Vec::new();
        for mut member in self.group.take() {
            drop(member.with.stdin);
            let status = member.child.wait().await?;
            if !status.success() {
                trouble.push(format!("producer {} ended with {status}", member.id));
            }
            self.readings.push(member.with.reading);
        }
        for reading in std::mem::take(&mut self.readings) {
            // It ends with the pipe.
            let _ = reading.await;
        }
        Ok(trouble)
    }
}
