//! Looking for messages that are due, without ever listing a directory whole.
//!
//! A pass streams the names of all places where committed messages wait, some from each in turn, and
//! ends before the next one begins. So nothing starves, memory does not grow with the queue, and what
//! a message costs does not either.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use sendmail_core::Timestamp;

use crate::disk::{Dir, Kind, Name, Names};
use crate::layout::Layout;
use crate::queue::{due_folder, due_minute};

/// How many names one place may give before it is the next one's turn.
const TURN: usize = 8;
/// How many places are open at once.
const MOST_OPEN: usize = 8;

/// Where the present pass is.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    waiting: VecDeque<Source>,
    open: VecDeque<Open>,
    /// Whether the clock was seen to go back since all due times were looked at.
    recheck: bool,
    last_seen: Option<Timestamp>,
}

/// A place to look into.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    New,
    Cur,
    Lane(String),
    /// The folder of a minute that has come.
    Due(String),
    /// The folder of a minute that is still to come: looked into only to clamp.
    Early(String),
}

#[derive(Debug)]
struct Open {
    dir: Arc<Dir>,
    names: Names,
    kind: Found,
    turn: usize,
    folder: Option<String>,
}

/// In what kind of place a name was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// Everything in it is due.
    Due,
    /// What is in it is due when its name says so.
    Deferred,
}

impl Scan {
    /// Whether a pass is under way.
    pub(crate) fn is_running(&self) -> bool {
        !self.waiting.is_empty() || !self.open.is_empty()
    }

    /// Begins a pass.
    pub(crate) fn begin(&mut self, layout: &Layout, now: Timestamp) -> io::Result<()> {
        // A clock that went back, or that nobody has seen before, may have left due times too late.
        self.recheck |= self.last_seen.is_none_or(|last| now < last);
        self.last_seen = Some(now);
        let lanes = lanes(layout)?;
        let lane = |prefix: &'static str| {
            lanes.iter().filter(move |lane| lane.starts_with(prefix)).cloned().map(Source::Lane)
        };
        self.waiting.extend(lane("high"));
        self.waiting.extend([Source::New, Source::Cur]);
        let mut normal: VecDeque<Source> = lane("normal").collect();
        let mut due: VecDeque<Source> = due(layout, now, self.recheck)?.into();
        self.recheck = false;
        while !normal.is_empty() || !due.is_empty() {
            self.waiting.extend(normal.pop_front());
            self.waiting.extend(due.pop_front());
        }
        self.waiting.extend(lane("low"));
        Ok(())
    }

    /// The next name of the pass, and where it is; nothing at the pass's end.
    pub(crate) fn next(&mut self, layout: &Layout) -> io::Result<Option<(Arc<Dir>, Name, Found)>> {
        loop {
            while self.open.len() < MOST_OPEN
                && let Some(source) = self.waiting.pop_front()
            {
                self.open.extend(open(layout, source)?);
            }
            let Some(mut place) = self.open.pop_front() else { return Ok(None) };
            match place.names.next() {
                None => {
                    // It is removed only if it is empty; a message that comes now makes it again.
                    if let Some(folder) = place.folder {
                        let _ = layout.deferred.remove_dir(&folder);
                    }
                }
                // What cannot be read ends this place's turn in this pass, not the pass.
                Some(Err(_)) => {}
                Some(Ok(name)) => {
                    let found = (place.dir.clone(), name, place.kind);
                    place.turn += 1;
                    if place.turn % TURN == 0 {
                        self.open.push_back(place);
                    } else {
                        self.open.push_front(place);
                    }
                    return Ok(Some(found));
                }
            }
        }
    }
}

fn open(layout: &Layout, source: Source) -> io::Result<Option<Open>> {
    let (dir, kind, folder) = match source {
        Source::New => (layout.root.open_dir("new")?, Found::Due, None),
        Source::Cur => (layout.root.open_dir("cur")?, Found::Due, None),
        Source::Lane(name) => (layout.lanes.open_dir(&name)?, Found::Due, None),
        Source::Due(name) => (layout.deferred.open_dir(&name)?, Found::Deferred, Some(name)),
        Source::Early(name) => (layout.deferred.open_dir(&name)?, Found::Deferred, None),
    };
    let Some(dir) = dir else { return Ok(None) };
    let names = dir.names()?;
    Ok(Some(Open { dir: Arc::new(dir), names, kind, turn: 0, folder }))
}

/// The names of the lanes that exist.
pub(crate) fn lanes(layout: &Layout) -> io::Result<Vec<String>> {
    directories(&layout.lanes)
}

/// The due folders that exist, earliest first.
pub(crate) fn due_folders(layout: &Layout) -> io::Result<Vec<String>> {
    let mut folders = directories(&layout.deferred)?;
    folders.retain(|name| due_minute(name.as_bytes()).is_some());
    folders.sort_unstable();
    Ok(folders)
}

fn due(layout: &Layout, now: Timestamp, recheck: bool) -> io::Result<Vec<Source>> {
    let present = due_folder(now.as_secs().div_euclid(60));
    let source = |name: String| match name <= present {
        true => Some(Source::Due(name)),
        false => recheck.then_some(Source::Early(name)),
    };
    Ok(due_folders(layout)?.into_iter().filter_map(source).collect())
}

fn directories(dir: &Dir) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for name in dir.names()? {
        let name = name?;
        if matches!(name.kind, Kind::Directory | Kind::Unknown)
            && let Ok(text) = String::from_utf8(name.bytes)
            && !text.starts_with('.')
        {
            found.push(text);
        }
    }
    Ok(found)
}
