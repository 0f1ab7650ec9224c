//! What processes use of the processors, as the kernel tells it in `/proc`.

use std::fs;
use std::time::Duration;

use crate::Result;

/// What a process and its children have used so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Times {
    /// The process itself, in ticks.
    own: u64,
    /// Those of its children that have ended and were waited for, in ticks.
    ended_children: u64,
    /// Its parent.
    parent: u32,
}

/// What the children of this process have used that have ended and were waited for.
///
/// # Errors
///
/// The kernel does not tell.
pub fn of_ended_children() -> Result<Duration> {
    let times = Times::of(std::process::id()).ok_or("/proc/self/stat cannot be read")?;
    Ok(duration(times.ended_children))
}

/// What a process has used that runs, with all its descendants: those that run, and those that have ended
/// and were waited for.
#[must_use]
pub fn of_tree(root: u32) -> Duration {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let all: Vec<(u32, Times)> = ids.filter_map(|id| Some((id, Times::of(id)?))).collect();
    duration(in_tree(&all, root))
}

fn in_tree(all: &[(u32, Times)], root: u32) -> u64 {
    let mut family = vec![root];
    let mut ticks = 0;
    let mut next = 0;
    while let Some(&id) = family.get(next) {
        next += 1;
        for (other, times) in all {
            if *other == id {
                ticks += times.own + times.ended_children;
            }
            if times.parent == id && !family.contains(other) {
                family.push(*other);
            }
        }
    }
    ticks
}

impl Times {
    fn of(process: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{process}/stat")).ok()?)
    }

    fn parse(stat: &str) -> Option<Self> {
        // The program's name stands in parentheses, and may have any of them in it.
        let (_, rest) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let ticks = |index: usize| fields.get(index)?.parse::<u64>().ok();
        Some(Self {
            parent: fields.get(1)?.parse().ok()?,
            own: ticks(11)? + ticks(12)?,
            ended_children: ticks(13)? + ticks(14)?,
        })
    }
}

fn duration(ticks: u64) -> Duration {
    Duration::from_secs(ticks)
        / u32::try_from(rustix::param::clock_ticks_per_second()).unwrap_or(100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_found_behind_any_name() {
        let stat = "42 (a) b (c) S 7 42 42 0 -1 4194304 1 2 3 4 10 20 30 40 20 0 5 0 100";
        let times = Times { own: 30, ended_children: 70, parent: 7 };
        assert_eq!(Times::parse(stat), Some(times));
        assert_eq!(Times::parse("42 (a) S 7"), None);
    }

    #[test]
    fn a_tree_has_all_descendants_and_nobody_else() {
        let process = |parent, own| Times { own, ended_children: 100, parent };
        let all = [
            (9, process(8, 1)),
            (8, process(7, 2)),
            (7, process(1, 4)),
            (6, process(1, 8)),
            (1, process(0, 16)),
        ];
        assert_eq!(in_tree(&all, 7), 307);
        assert_eq!(in_tree(&all, 6), 108);
        assert_eq!(in_tree(&all, 5), 0);
    }
}
