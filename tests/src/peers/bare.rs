//! Bare loops: nothing but the calls without which the work is not durable. They are the limit that the
//! file system sets.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Instant;

/// What a reply needs in a log, about.
const RECORD: [u8; 96] = [b'r'; 96];

/// Makes so many files of this length durable one after the other: create, write, fsync, rename, fsync of the
/// directory. Each of the threads has its share of them, in the same directory. How many seconds it took.
///
/// # Errors
///
/// The file system refuses it.
pub fn enqueue(folder: &Path, files: usize, length: usize, threads: usize) -> io::Result<f64> {
    let (tmp, new) = (folder.join("tmp"), folder.join("new"));
    fs::create_dir(&tmp)?;
    fs::create_dir(&new)?;
    let content = vec![b'x'; length];
    let write = |thread: usize| -> io::Result<()> {
        let directory = File::open(&new)?;
        for number in (thread..files).step_by(threads) {
            let name = number.to_string();
            let mut file = File::create(tmp.join(&name))?;
            file.write_all(&content)?;
            file.sync_all()?;
            fs::rename(tmp.join(&name), new.join(&name))?;
            directory.sync_all()?;
        }
        Ok(())
    };
    let begin = Instant::now();
    std::thread::scope(|scope| {
        let write = &write;
        let all: Vec<_> = (0..threads).map(|thread| scope.spawn(move || write(thread))).collect();
        all.into_iter()
            .try_for_each(|one| one.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into())))
    })?;
    Ok(begin.elapsed().as_secs_f64())
}

/// Takes so many files out of a queue, as many at a time as are in flight: each is renamed, and the directory
/// synced; a record of each goes to a log before and after, and the log is synced; each is unlinked. How many
/// seconds that took, without making the files.
///
/// # Errors
///
/// The file system refuses it.
pub fn drain(folder: &Path, files: usize, length: usize, in_flight: usize) -> io::Result<f64> {
    let (new, claimed) = (folder.join("new"), folder.join("claimed"));
    fs::create_dir(&new)?;
    fs::create_dir(&claimed)?;
    let content = vec![b'x'; length];
    for number in 0..files {
        fs::write(new.join(number.to_string()), &content)?;
    }
    let mut log = OpenOptions::new().append(true).create(true).open(folder.join("log"))?;
    let directory = File::open(&claimed)?;
    // What was only made for it is not to be paid by it.
    rustix::fs::syncfs(&directory)?;
    let names: Vec<String> = (0..files).map(|number| number.to_string()).collect();
    let begin = Instant::now();
    for batch in names.chunks(in_flight) {
        for name in batch {
            fs::rename(new.join(name), claimed.join(name))?;
        }
        directory.sync_all()?;
        for _ in batch {
            log.write_all(&RECORD)?;
        }
        for _ in batch {
            log.write_all(&RECORD)?;
        }
        log.sync_data()?;
        for name in batch {
            fs::remove_file(claimed.join(name))?;
        }
    }
    Ok(begin.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(folder: &Path) -> usize {
        fs::read_dir(folder).map(Iterator::count).unwrap_or_default()
    }

    #[test]
    fn a_bare_loop_does_the_whole_work() {
        let folder = tempfile::tempdir().expect("a folder");
        let threads = folder.path().join("threads");
        fs::create_dir(&threads).expect("a folder");
        enqueue(&threads, 10, 100, 3).expect("files");
        assert_eq!((count(&threads.join("new")), count(&threads.join("tmp"))), (10, 0));
        let queue = folder.path().join("queue");
        fs::create_dir(&queue).expect("a folder");
        drain(&queue, 10, 100, 4).expect("files");
        assert_eq!((count(&queue.join("new")), count(&queue.join("claimed"))), (0, 0));
        let log = fs::metadata(queue.join("log")).expect("a log").len();
        assert_eq!(log, 2 * 10 * RECORD.len() as u64);
    }
}
