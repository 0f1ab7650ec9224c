//! Reading queue files, of whichever program, and what may be wrong with them.

use std::io;

use sendmail_core::{Envelope, Loaded, MailEvent, MailEventKind, Timestamp};

use crate::disk::{Dir, Stat};
use crate::foreign::{self, ForeignError};
use crate::format::{self, FormatError, Head, QueueFile};
use crate::name::MessageName;
use crate::queue::{Queue, is_bad};

/// What is in a queue file, of whichever program.
pub(crate) struct Content {
    pub(crate) loaded: Loaded,
    /// Whether it is as another program wrote it.
    pub(crate) foreign: bool,
    /// Whether the log is still to tell that it was queued.
    pub(crate) fresh: bool,
}

impl Content {
    fn ours(file: QueueFile, name: MessageName) -> Self {
        let QueueFile { head: Head { envelope, queued_at, .. }, message } = file;
        Self { loaded: Loaded { envelope, message, queued_at }, foreign: false, fresh: !name.told }
    }
}

/// Why a file is not claimed.
pub(crate) enum Misfit {
    /// It is not there any more, or somebody else's.
    Gone,
    /// It stays where it is and is reported.
    Stays(String),
    /// The disk fails at it: it stays where it is, and that is an event.
    Unreadable(String),
    /// Whatever the file is, nothing can be done in this queue now.
    Trouble(io::Error),
    /// It is one of our messages, or was meant to be one, and can never be sent.
    Damaged(String),
}

impl Queue {
    pub(crate) fn check_owner(&self, dir: &Dir, file: &[u8]) -> std::result::Result<(), Misfit> {
        let stat = dir.stat(file).map_err(misfit)?;
        if self.layout.trusts(stat.st_uid) {
            Ok(())
        } else {
            let why = format!("it belongs to user {}, who is not the queue's owner", stat.st_uid);
            Err(Misfit::Stays(why))
        }
    }

    /// Reads a message of ours, in whichever format its name says, and proves it whole.
    pub(crate) fn read_message(
        &self,
        dir: &Dir,
        file: &[u8],
        name: MessageName,
    ) -> std::result::Result<Content, Misfit> {
        self.check_owner(dir, file)?;
        let limit = self.options.max_message_len + format::MAX_HEAD;
        let bytes = read_limited(dir, file, limit)?;
        if name.foreign {
            // The rest of a foreign message is written in our format, and proves itself.
            if let Ok(file) = format::decode_any(&bytes, name.id) {
                return Ok(Content::ours(file, name));
            }
            let written = written_at(dir, file);
            return decode_foreign(&bytes, name, written)
                .map_err(|error| Misfit::Damaged(error.to_string()));
        }
        match format::decode(bytes, name.id) {
            Ok(file) => Ok(Content::ours(file, name)),
            Err(error @ FormatError::NewerVersion(_)) => {
                self.leave_alone(file);
                Err(Misfit::Stays(error.to_string()))
            }
            Err(error) => Err(Misfit::Damaged(error.to_string())),
        }
    }

    /// Leaves a file where it is at which the disk fails, and says so once.
    pub(crate) fn tell_unreadable(&self, dir: &Dir, file: &[u8], why: &str) {
        let why = format!("it cannot be read: {why}; it stays and is tried again");
        if self.is_told(dir, file, &why) {
            return;
        }
        let text = format!("{}: {why}", file.escape_ascii());
        let mut event = MailEvent::new(MailEventKind::Damaged, self.now()).with_detail(&text);
        if let Some(name) = MessageName::decode(file) {
            event = event.about(name.id, None);
        }
        // If it cannot be logged it is told the next time.
        if self.log(std::slice::from_ref(&event)).is_ok() {
            self.keep_events(vec![event]);
            self.set_aside(dir, file, &why);
        }
    }

    /// Puts a damaged entry with the failed mail, and says so.
    pub(crate) fn put_with_failed(&self, dir: &Dir, file: &[u8], why: &str) -> io::Result<()> {
        let bytes = dir.read(file, format::MAX_HEAD as u64).unwrap_or_default();
        let name = MessageName::decode(file).map_or_else(
            || MessageName { foreign: true, ..MessageName::new(foreign::id(file, &bytes)) },
            MessageName::published,
        );
        // What is kept there is never replaced: two damaged files may have one name.
        let mut kept = name;
        loop {
            match dir.rename_new(file, &self.layout.failed_new, &kept.encode()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => kept.kills += 1,
                other => break other?,
            }
        }
        self.layout.failed_new.sync()?;
        let text = format!("{} is damaged: {why}", file.escape_ascii());
        let event = MailEvent::new(MailEventKind::Damaged, self.now());
        let event = event.about(name.id, None).with_detail(&text);
        self.log(std::slice::from_ref(&event))?;
        self.keep_events(vec![event]);
        Ok(())
    }
}

pub(crate) fn read_limited(
    dir: &Dir,
    file: &[u8],
    limit: usize,
) -> std::result::Result<Vec<u8>, Misfit> {
    let bytes = dir.read(file, limit as u64 + 1).map_err(|error| match error.kind() {
        // The directory can be searched, or it would not have come to this: it is this file's own.
        io::ErrorKind::PermissionDenied => Misfit::Stays(error.to_string()),
        _ => misfit(error),
    })?;
    if bytes.len() > limit {
        return Err(Misfit::Stays(format!(
            "it is larger than {limit} bytes, the most this queue takes"
        )));
    }
    Ok(bytes)
}

/// What an error at a file says. Only a file that is known to be gone counts as gone.
///
/// A full disk, and a directory that may not be changed, are no fault of the file. What may not be done to
/// this one file alone is another error of the system (`EPERM`).
pub(crate) fn misfit(error: io::Error) -> Misfit {
    use rustix::io::Errno;
    if is_bad(&error) {
        return Misfit::Unreadable(error.to_string());
    }
    match Errno::from_io_error(&error) {
        Some(Errno::NOENT) => Misfit::Gone,
        Some(Errno::NOSPC | Errno::DQUOT | Errno::ACCESS | Errno::ROFS) => Misfit::Trouble(error),
        _ => Misfit::Stays(error.to_string()),
    }
}

/// When a file was last written, which does not change by being renamed or read.
pub(crate) fn written_at(dir: &Dir, file: &[u8]) -> Timestamp {
    dir.stat(file).map_or(Timestamp::EPOCH, |stat| modified(&stat))
}

pub(crate) fn modified(stat: &Stat) -> Timestamp {
    Timestamp::from_millis(stat.st_mtime.saturating_mul(1000))
}

pub(crate) fn decode_foreign(
    bytes: &[u8],
    name: MessageName,
    written: Timestamp,
) -> std::result::Result<Content, ForeignError> {
    let (envelope, message): (Envelope, _) = foreign::decode(bytes, name.id, written)?;
    let loaded = Loaded { envelope, message, queued_at: written };
    Ok(Content { loaded, foreign: true, fresh: !name.told })
}
