//! The producers of a crash test.

use std::io;
use std::path::PathBuf;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;

use crate::Result;
use crate::plan::Plan;
pub(crate) use crate::producer::Progress;

/// How many transactions a producer may have before it at once.
const MOST_AT_ONCE: usize = 4;

/// What a producer said.
pub(crate) struct Word {
    pub(crate) producer: u64,
    pub(crate) number: u64,
    pub(crate) progress: Progress,
    pub(crate) remark: String,
}

struct Producer {
    id: u64,
    child: Child,
    stdin: Option<ChildStdin>,
    reading: JoinHandle<()>,
    outstanding: Vec<u64>,
}

/// All of them that live.
pub(crate) struct Producers {
    program: PathBuf,
    queue: PathBuf,
    words: UnboundedSender<Word>,
    living: Vec<Producer>,
    /// What those that were killed had said may still be on its way.
    readings: Vec<JoinHandle<()>>,
    next_id: u64,
}

impl Producers {
    pub(crate) fn new(program: PathBuf, queue: PathBuf, words: UnboundedSender<Word>) -> Self {
        Self { program, queue, words, living: Vec::new(), readings: Vec::new(), next_id: 0 }
    }

    pub(crate) fn count(&self) -> usize {
        self.living.len()
    }

    pub(crate) fn start(&mut self) -> Result<()> {
        let mut command = Command::new(&self.program);
        command.arg("producer").arg(&self.queue).kill_on_drop(true);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().ok_or("a producer has no standard output")?;
        let (id, words) = (self.next_id, self.words.clone());
        self.next_id += 1;
        let reading = tokio::spawn(async move {
            // What was written before a kill is read to its end.
            let mut lines = BufReader::new(stdout).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let Some((number, progress, remark)) = Progress::parse(&line) else { continue };
                let remark = remark.to_owned();
                if words.send(Word { producer: id, number, progress, remark }).is_err() {
                    break;
                }
            }
        });
        let stdin = child.stdin.take();
        self.living.push(Producer { id, child, stdin, reading, outstanding: Vec::new() });
        Ok(())
    }

    /// The one with the least to do, if it may have more.
    pub(crate) fn idlest(&self) -> Option<u64> {
        let free = self.living.iter().filter(|each| each.outstanding.len() < MOST_AT_ONCE);
        free.min_by_key(|each| each.outstanding.len()).map(|each| each.id)
    }

    pub(crate) fn nth(&self, which: usize) -> Option<u64> {
        let count = self.living.len();
        (count > 0).then(|| self.living[which % count].id)
    }

    pub(crate) async fn tell(&mut self, id: u64, plan: &Plan) -> Result<()> {
        let Some(producer) = self.living.iter_mut().find(|each| each.id == id) else {
            return Ok(());
        };
        producer.outstanding.push(plan.number);
        let line = format!("{}\n", serde_json::to_string(plan)?);
        if let Some(stdin) = &mut producer.stdin {
            // One that is dying hears nothing any more; it will be missed soon enough.
            let _ = stdin.write_all(line.as_bytes()).await;
        }
        Ok(())
    }

    pub(crate) fn note(&mut self, word: &Word) {
        if word.progress != Progress::Committing
            && let Some(producer) = self.living.iter_mut().find(|each| each.id == word.producer)
        {
            producer.outstanding.retain(|number| *number != word.number);
        }
    }

    pub(crate) fn kill(&mut self, id: u64) -> Result<()> {
        if let Some(index) = self.living.iter().position(|each| each.id == id) {
            let mut producer = self.living.swap_remove(index);
            producer.child.start_kill()?;
            self.readings.push(producer.reading);
            tokio::spawn(async move { producer.child.wait().await });
        }
        Ok(())
    }

    /// Those that ended without being killed, in words.
    pub(crate) fn buried(&mut self) -> Result<Vec<String>> {
        let mut ended = Vec::new();
        for index in (0..self.living.len()).rev() {
            if let Some(status) = self.living[index].child.try_wait()? {
                let producer = self.living.swap_remove(index);
                ended.push(format!("producer {} ended by itself: {status}", producer.id));
            }
        }
        Ok(ended)
    }

    /// Lets all finish what they have, and waits until everything that was said is heard.
    pub(crate) async fn finish(&mut self) -> io::Result<Vec<String>> {
        let mut trouble = Vec::new();
        for mut producer in std::mem::take(&mut self.living) {
            drop(producer.stdin.take());
            let status = producer.child.wait().await?;
            if !status.success() {
                trouble.push(format!("producer {} ended with {status}", producer.id));
            }
            self.readings.push(producer.reading);
        }
        for reading in std::mem::take(&mut self.readings) {
            // It ends with the pipe.
            let _ = reading.await;
        }
        Ok(trouble)
    }
}
