//! What the program prints: its end is kept for the reply, the rest is read and forgotten.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Stdio;

use sendmail_core::Reply;
use tokio::net::unix::pipe::{self, Receiver};

/// How much of the end is kept: what a reply has room for.
const KEPT: usize = Reply::MAX_TEXT;

/// How often what is left in the pipe is read when the program has ended. A pipe holds 64 KiB; a
/// helper that the program left behind may go on filling it, and is not waited for.
const READS_AFTER_THE_END: usize = 64;

/// The pipe that is to be the program's standard output and standard error.
pub(crate) struct Output {
    pub(crate) gathered: Gathered,
    pub(crate) stdout: Stdio,
    pub(crate) stderr: Stdio,
}

/// Our end of it.
pub(crate) struct Gathered {
    pipe: Receiver,
    tail: VecDeque<u8>,
}

impl Output {
    /// A new pipe.
    pub(crate) fn open() -> io::Result<Self> {
        let (sender, pipe) = pipe::pipe()?;
        let writer = outliving(sender.into_blocking_fd()?);
        let twin = writer.try_clone()?;
        let gathered = Gathered { pipe, tail: VecDeque::new() };
        Ok(Self { gathered, stdout: writer.into(), stderr: twin.into() })
    }
}

impl Gathered {
    /// Reads for as long as it is polled; ends never, and may be dropped at any time.
    pub(crate) async fn read_on(&mut self) -> Infallible {
        while self.pipe.readable().await.is_ok() {
            match self.read() {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
        }
        std::future::pending().await
    }

    /// The end of what was printed.
    pub(crate) fn into_text(mut self) -> String {
        for _ in 0..READS_AFTER_THE_END {
            if !matches!(self.read(), Ok(length) if length > 0) {
                break;
            }
        }
        let bytes: Vec<u8> = self.tail.into();
        String::from_utf8_lossy(&bytes).trim().to_owned()
    }

    fn read(&mut self) -> io::Result<usize> {
        let mut buffer = [0; 4096];
        let length = self.pipe.try_read(&mut buffer)?;
        keep_tail(&mut self.tail, buffer.get(..length).unwrap_or(&buffer));
        Ok(length)
    }
}

fn keep_tail(tail: &mut VecDeque<u8>, more: &[u8]) {
    tail.extend(more);
    tail.drain(..tail.len().saturating_sub(KEPT));
}

/// A write end that is a read end too, where the system has such.
///
/// When our process dies, the pipe loses its reader, and the first word that the program prints would
/// kill it (SIGPIPE) in the middle of its work. A program whose own descriptor is a reader is safe from
/// that. The price: if it prints more than the pipe holds, it stops and waits for ever.
fn outliving(writer: OwnedFd) -> OwnedFd {
    let path = format!("/proc/self/fd/{}", writer.as_raw_fd());
    match File::options().read(true).write(true).open(path) {
        Ok(both) => both.into(),
        Err(_) => writer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_kept_and_the_rest_forgotten() {
        let mut tail = VecDeque::new();
        keep_tail(&mut tail, &[b'x'; 3 * KEPT]);
        keep_tail(&mut tail, b"the end");
        assert_eq!(tail.len(), KEPT);
        assert!(tail.make_contiguous().ends_with(b"xxthe end"));
    }
}
