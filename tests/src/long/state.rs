//! The state file: what has been done, one line each, in JSON. A line is on the disk before the next round
//! begins.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::path::Path;

use super::record::{Line, Run};
use crate::Result;

/// An open state file, which nobody else writes to meanwhile.
#[derive(Debug)]
pub struct State {
    file: File,
    lines: Vec<Line>,
}

impl State {
    /// Opens it, makes it if it is not there, and takes away the part of a line that a killed process
    /// left at its end.
    ///
    /// # Errors
    ///
    /// It cannot be read, written or understood, or another process has it.
    pub fn open(path: &Path) -> Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut options = OpenOptions::new();
        let mut file = options.read(true).append(true).create(true).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let message = format!("another crash test writes to {}", path.display());
                return Err(message.into());
            }
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let whole = whole(&text);
        file.set_len(whole.len() as u64)?;
        Ok(Self { file, lines: parse(whole)? })
    }

    /// The lines of a file, as far as they are whole.
    ///
    /// # Errors
    ///
    /// It cannot be read or understood.
    pub fn read(path: &Path) -> Result<Vec<Line>> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("{}: {error}; there was no long run", path.display()))?;
        parse(whole(&text))
    }

    /// Writes a line, and has it written to the disk.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn append(&mut self, line: Line) -> Result<()> {
        let text = format!("{}\n", serde_json::to_string(&line)?);
        self.file.write_all(text.as_bytes())?;
        self.file.sync_data()?;
        self.lines.push(line);
        Ok(())
    }

    /// All lines.
    #[must_use]
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// The last run, if some of its rounds are not done.
    #[must_use]
    pub fn unfinished(&self) -> Option<&Run> {
        let mut runs = self.lines.iter().rev().filter_map(|line| match line {
            Line::Run(run) => Some(run),
            _ => None,
        });
        runs.next().filter(|run| !self.to_do(run).is_empty())
    }

    /// The rounds of a run that have no result.
    #[must_use]
    pub fn to_do(&self, run: &Run) -> Vec<u64> {
        let done: BTreeSet<u64> = self
            .lines
            .iter()
            .filter_map(|line| match line {
                Line::Fight(fight) if fight.seed == run.seed => Some(fight.round),
                Line::Race(race) if race.seed == run.seed => Some(race.round),
                _ => None,
            })
            .collect();
        (0..run.rounds + run.races).filter(|round| !done.contains(round)).collect()
    }

    /// The folder of the round that was broken off, if the last one was.
    #[must_use]
    pub fn broken_off(&self) -> Option<&str> {
        match self.lines.last() {
            Some(Line::Begun { folder, .. }) => Some(folder),
            _ => None,
        }
    }
}

/// What ends with a newline.
fn whole(text: &str) -> &str {
    text.rfind('\n').map_or("", |end| &text[..=end])
}

fn parse(text: &str) -> Result<Vec<Line>> {
    let parse = |(index, line): (usize, &str)| {
        serde_json::from_str(line)
            .map_err(|error| format!("line {} of the state file: {error}", index + 1).into())
    };
    text.lines().enumerate().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::super::record::{Fight, Race};
    use super::*;

    fn run() -> Run {
        Run {
            seed: u64::MAX,
            database: None,
            rounds: 2,
            kills: 20,
            mails: 40,
            races: 1,
            race_messages: 100,
        }
    }

    fn fight(round: u64) -> Line {
        Line::Fight(Fight { seed: u64::MAX, round, ..Fight::default() })
    }

    #[test]
    fn what_was_written_is_read_and_a_torn_line_is_taken_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sub/long.jsonl");
        let mut state = State::open(&path).unwrap();
        state.append(Line::Run(run())).unwrap();
        state.append(fight(0)).unwrap();
        assert!(State::open(&path).is_err(), "two at once");
        drop(state);
        let whole = std::fs::read(&path).unwrap();
        let torn = [&whole[..], b"{\"what\":\"fig"].concat();
        std::fs::write(&path, torn).unwrap();
        assert_eq!(State::read(&path).unwrap(), [Line::Run(run()), fight(0)]);
        let mut state = State::open(&path).unwrap();
        state.append(fight(1)).unwrap();
        assert_eq!(State::read(&path).unwrap(), [Line::Run(run()), fight(0), fight(1)]);
    }

    #[test]
    fn a_line_that_is_not_understood_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("long.jsonl");
        std::fs::write(&path, "{}\n").unwrap();
        assert!(State::open(&path).is_err());
        assert!(State::read(&path).is_err());
        assert!(State::read(&folder.path().join("none")).is_err());
    }

    #[test]
    fn a_run_is_unfinished_until_each_of_its_rounds_has_a_result() {
        let folder = tempfile::tempdir().unwrap();
        let mut state = State::open(&folder.path().join("long.jsonl")).unwrap();
        assert_eq!(state.unfinished(), None);
        state.append(Line::Run(run())).unwrap();
        assert_eq!(state.to_do(&run()), [0, 1, 2]);
        state.append(fight(1)).unwrap();
        assert_eq!(state.broken_off(), None);
        let begun = Line::Begun { seed: u64::MAX, round: 0, folder: "/tmp/x".to_owned() };
        state.append(begun).unwrap();
        assert_eq!(state.broken_off(), Some("/tmp/x"));
        assert_eq!(state.to_do(&run()), [0, 2]);
        let race = Race { seed: u64::MAX, round: 2, ..Race::default() };
        state.append(Line::Race(race)).unwrap();
        state.append(fight(0)).unwrap();
        assert_eq!(state.unfinished(), None);
    }
}
