//! Exit codes, as in sysexits.h, and failures that carry one.

use std::fmt;
use std::process::ExitCode;

use sendmail_core::{Error, ErrorKind};

/// An exit code with its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Code(u8);

pub(crate) const OK: Code = Code(0);
/// `EX_USAGE`: the command line is wrong.
pub(crate) const USAGE: Code = Code(64);
/// `EX_DATAERR`: what was given to work on is wrong.
pub(crate) const DATA: Code = Code(65);
/// `EX_NOINPUT`: what is asked for is not there.
pub(crate) const NO_INPUT: Code = Code(66);
/// `EX_UNAVAILABLE`: something needed is not there.
pub(crate) const UNAVAILABLE: Code = Code(69);
/// `EX_SOFTWARE`: a mistake of ours.
pub(crate) const SOFTWARE: Code = Code(70);
/// `EX_OSERR`: the operating system failed.
pub(crate) const OS: Code = Code(71);
/// `EX_CANTCREAT`: there is no room for a new message.
pub(crate) const CANNOT_CREATE: Code = Code(73);
/// `EX_IOERR`: reading, writing or syncing failed.
pub(crate) const IO: Code = Code(74);
/// `EX_TEMPFAIL`: try again later.
pub(crate) const TEMPORARY: Code = Code(75);
/// `EX_NOPERM`: not allowed.
pub(crate) const NO_PERMISSION: Code = Code(77);
/// `EX_CONFIG`: the configuration is wrong.
pub(crate) const CONFIG: Code = Code(78);

impl Code {
    pub(crate) fn number(self) -> u8 {
        self.0
    }
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code.0)
    }
}

/// Why a command ends without having done what it should: a sentence for people, and a code.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    message: String,
}

pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(USAGE, message)
    }

    pub(crate) fn system(operation: &str, error: &std::io::Error) -> Self {
        Self::new(OS, format!("cannot {operation}: {error}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::new(code(&error), error.to_string())
    }
}

fn code(error: &Error) -> Code {
    // What made a transaction abort is what the caller can act on.
    if let (ErrorKind::Aborted, Some(cause)) = (error.kind(), cause(error)) {
        return code(cause);
    }
    match error.kind() {
        ErrorKind::InvalidInput | ErrorKind::Damaged => DATA,
        ErrorKind::NotFound | ErrorKind::CursorExpired => NO_INPUT,
        ErrorKind::Unsupported => UNAVAILABLE,
        ErrorKind::Full => CANNOT_CREATE,
        ErrorKind::PermissionDenied => NO_PERMISSION,
        ErrorKind::Io => IO,
        ErrorKind::InvalidState => SOFTWARE,
        _ if error.is_temporary() => TEMPORARY,
        _ => UNAVAILABLE,
    }
}

fn cause(error: &Error) -> Option<&Error> {
    std::error::Error::source(error)?.downcast_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_aborted_transaction_has_the_code_of_its_cause() {
        let aborted = || Error::new(ErrorKind::Aborted, "commit the transaction", "no");
        let full = Error::new(ErrorKind::Full, "write the message", "no space");
        assert_eq!(Failure::from(aborted().with_source(full)).code, CANNOT_CREATE);
        let deep = aborted().with_source(Error::new(ErrorKind::InvalidInput, "write", "too large"));
        assert_eq!(Failure::from(aborted().with_source(deep)).code, DATA);
        assert_eq!(Failure::from(aborted().temporary()).code, TEMPORARY);
    }
}
