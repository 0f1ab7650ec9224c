//! A mailer that hands messages to a program: `/usr/sbin/sendmail`, msmtp, a script of your own.
//!
//! ```no_run
//! use std::time::Duration;
//! use sendmail_program::ProgramMailer;
//!
//! # fn main() -> sendmail_core::Result<()> {
//! let mailer = ProgramMailer::from_url("program:/usr/sbin/sendmail")?
//!     .with_time_limit(Duration::from_secs(60))
//!     .with_max_running(4);
//! # drop(mailer);
//! # Ok(())
//! # }
//! ```
//!
//! # How the program is called
//!
//! `PROGRAM -i -f REVERSE-PATH -- RECIPIENT…`, as sendmail-like programs understand it. The null
//! reverse-path is `<>`. Every address is an argument of its own and no shell is involved. Recipients
//! stand behind `--`, so that one that begins with `-` is no option; a reverse-path that begins with
//! `-` has no such place and is refused, as Postfix refuses it by default.
//! More recipients than fit into one command line ([`ARGUMENT_BYTES`]) are served by several runs, one
//! after the other.
//!
//! * **Standard input** is the whole message, as an unlinked temporary file in the system's directory
//!   for such files (`TMPDIR`), read from its start. It is never a pipe: a pipe ends when its writer
//!   dies, and the program would take a message that was cut short for a whole one.
//! * **Line ends** are LF, the local convention and what such programs expect on their standard input.
//!   Nothing is lost by that: a [`Message`](sendmail_core::Message) has no line end but CRLF. Dots are
//!   left alone: there is no dot-stuffing outside SMTP, and `-i` says that a line with a single dot
//!   ends nothing.
//! * **Standard output and standard error** are gathered; the last 512 bytes go into the reply.
//! * **The environment** is empty but for `PATH` ([`PATH`]), and `HOME`, `USER`, `LOGNAME` and `TZ`
//!   where we have them. The working directory is `/`.
//! * **Its process group is its own**: an interrupt from the terminal does not reach it, and when its
//!   time is up, the whole group is killed.
//!
//! # What became of it
//!
//! The program has one exit code for all recipients of a run:
//!
//! | exit code | | outcome |
//! |---|---|---|
//! | 0 | `EX_OK` | accepted |
//! | 64, 65 | `EX_USAGE`, `EX_DATAERR` | refused |
//! | 67, 68, 77 | `EX_NOUSER`, `EX_NOHOST`, `EX_NOPERM` | refused |
//! | 66, 71 to 76 | `EX_NOINPUT`, `EX_OSERR`, `EX_OSFILE`, `EX_CANTCREAT`, `EX_IOERR`, `EX_TEMPFAIL`, `EX_PROTOCOL` | deferred |
//! | 69, 70, 78 | `EX_UNAVAILABLE`, `EX_SOFTWARE`, `EX_CONFIG` | deferred: they speak of the program, not of the message, and an operator can mend it |
//! | 129 to 192 | what a shell exits with when a signal killed its last command | unknown |
//! | any other | | deferred: it failed, and did not say that it is for good |
//!
//! Killed by a signal, or killed by us because its time was up: unknown. No later run is then made
//! for the same message; recipients who had no run yet are deferred.
//!
//! If the program is not there or may not be executed, nobody was attempted, and
//! [`send`](sendmail_core::Mailer::send) is an error. That is looked at, and the files are made, before
//! the handover is announced. A program that cannot be started after that (it vanished in the instant
//! between, or the system has no process left) defers its recipients: nothing was handed over, and an
//! error would not be believed any more.
//!
//! # When we go and the program stays
//!
//! A program that was started is never killed half-way but by its time limit. If the future of `send`
//! is dropped, a task of its own goes on watching the program: it keeps its place among those that may
//! run at once, its output is read, and the time limit holds. If our process dies, the program has its
//! message whole and goes on (unless something kills it too: systemd does by default, see
//! `KillMode=`). What became of it is not known to us in either case; that the handover was announced
//! tells whoever comes next.
//!
//! # The endless loop
//!
//! The command line of this project can be installed as `sendmail`. A queue that hands its messages to
//! that gets them back, for ever. So a program that is the running executable, or bears the name
//! `sendmail-queue`, is refused, through links too; this is looked at again before each run. A script
//! that calls it in turn is not noticed.

// No panic that input can reach: the rule is the same in each library, and `cargo xtask tidy` wants it.
#![cfg_attr(
    not(test),
    deny(
        clippy::allow_attributes_without_reason,
        clippy::expect_used,
        clippy::get_unwrap,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::string_slice,
        clippy::todo,
        clippy::unreachable,
        clippy::unwrap_in_result,
        clippy::unwrap_used
    )
)]

mod arguments;
mod exit;
mod input;
mod mailer;
mod output;
mod program;
mod run;

pub use arguments::ARGUMENT_BYTES;
pub use mailer::ProgramMailer;
pub use run::PATH;
