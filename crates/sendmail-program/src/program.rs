//! Which file may be the program.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use sendmail_core::{Error, ErrorKind};

/// The name of this project's own command line.
const OUR_NAME: &str = "sendmail-queue";

/// Why a file cannot be the program.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("its path is not absolute; write it from the root, as /usr/sbin/sendmail")]
    Relative,
    #[error("it cannot be found: {0}; install it, or name another program")]
    Missing(#[source] io::Error),
    #[error("it is not a regular file")]
    NotAFile,
    #[error("it may not be executed: {0}; check its mode and its file system's `noexec`")]
    NotExecutable(#[source] io::Error),
    #[error(
        "its first line names an interpreter that may not be executed, {interpreter}: {source}"
    )]
    NoInterpreter { interpreter: String, source: io::Error },
    #[error(
        "it is this queue's own program: it would put every message back into the queue from which \
         it came, and so on without end; name the program that really sends mail"
    )]
    Ourselves,
}

impl Unusable {
    /// As an error about what was configured.
    pub(crate) fn refused(self, program: &Path) -> Error {
        let kind = match self {
            Self::Relative | Self::NotAFile | Self::Ourselves => ErrorKind::InvalidInput,
            Self::Missing(_) | Self::NoInterpreter { .. } => ErrorKind::NotFound,
            Self::NotExecutable(_) => ErrorKind::PermissionDenied,
        };
        self.error(kind, "use the program", program).permanent()
    }

    /// As an outage of a relay that worked before.
    pub(crate) fn outage(self, program: &Path) -> Error {
        self.error(ErrorKind::Unreachable, "reach the program", program).temporary()
    }

    fn error(self, kind: ErrorKind, operation: &'static str, program: &Path) -> Error {
        Error::new(kind, operation, self.to_string())
            .with("program", program.display())
            .with_source(self)
    }
}

/// Looks at `program` as it is now.
pub(crate) fn inspect(program: &Path) -> Result<(), Unusable> {
    if !program.is_absolute() {
        return Err(Unusable::Relative);
    }
    let metadata = fs::metadata(program).map_err(Unusable::Missing)?;
    if !metadata.is_file() {
        return Err(Unusable::NotAFile);
    }
    if is_ourselves(program, &metadata) {
        return Err(Unusable::Ourselves);
    }
    access(program, Access::EXEC_OK).map_err(|errno| Unusable::NotExecutable(errno.into()))?;
    check_interpreter(program)
}

/// A script whose interpreter is missing passes for executable and cannot be started.
fn check_interpreter(program: &Path) -> Result<(), Unusable> {
    let mut start = Vec::new();
    // What may be executed and not read is no script.
    let read = File::open(program).and_then(|file| file.take(256).read_to_end(&mut start));
    let Some(interpreter) = read.ok().and_then(|_| interpreter_of(&start)) else { return Ok(()) };
    access(OsStr::from_bytes(interpreter), Access::EXEC_OK).map_err(|errno| {
        let interpreter = String::from_utf8_lossy(interpreter).into_owned();
        Unusable::NoInterpreter { interpreter, source: errno.into() }
    })
}

/// The interpreter in a script's first line, `#!/bin/sh -e`.
fn interpreter_of(start: &[u8]) -> Option<&[u8]> {
    let line = start.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let name = line.trim_ascii_start().split(|byte| matches!(byte, b' ' | b'\t' | 0)).next()?;
    (!name.is_empty()).then_some(name)
}

/// By name, which still holds when the running executable was replaced by a newer one, or by inode,
/// which holds whatever it is called.
fn is_ourselves(program: &Path, metadata: &Metadata) -> bool {
    let named_so = |path: &Path| path.file_name().is_some_and(|name| name == OUR_NAME);
    named_so(program)
        || fs::canonicalize(program).is_ok_and(|real| named_so(&real))
        || running().is_some_and(|it| (it.dev(), it.ino()) == (metadata.dev(), metadata.ino()))
}

/// The running executable. `/proc/self/exe` leads to it also after its file was replaced.
fn running() -> Option<Metadata> {
    fs::metadata("/proc/self/exe").or_else(|_| fs::metadata(std::env::current_exe()?)).ok()
}

/// The path in `program:/usr/sbin/sendmail` or `program:///usr/sbin/sendmail`, taken as it is written.
pub(crate) fn path_of_url(url: &str) -> Result<PathBuf, Error> {
    let refused = |message: &str| {
        Err(Error::new(ErrorKind::InvalidInput, "read the program's URL", message).with("url", url))
    };
    let Some((scheme, rest)) = url.split_once(':') else {
        return refused("it does not start with program:");
    };
    if !scheme.eq_ignore_ascii_case("program") {
        return refused("it does not start with program:");
    }
    let path = rest.strip_prefix("//").unwrap_or(rest);
    if !path.starts_with('/') {
        return refused("an absolute path must follow, as in program:/usr/sbin/sendmail");
    }
    Ok(PathBuf::from(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_with_one_slash_or_three_name_the_same_path() {
        for url in [
            "program:/usr/sbin/sendmail",
            "program:///usr/sbin/sendmail",
            "Program:/usr/sbin/sendmail",
        ] {
            assert_eq!(path_of_url(url).unwrap(), Path::new("/usr/sbin/sendmail"), "{url}");
        }
        assert_eq!(path_of_url("program:/a b/%41?x").unwrap(), Path::new("/a b/%41?x"));
    }

    #[test]
    fn the_interpreter_is_read_as_the_system_reads_it() {
        for (start, expected) in [
            (&b"#!/bin/sh\nexit\n"[..], Some(&b"/bin/sh"[..])),
            (b"#! /usr/bin/env -S python3\n", Some(b"/usr/bin/env")),
            (b"#!\t/bin/sh\t-e", Some(b"/bin/sh")),
            (b"#!\n/bin/sh", None),
            (b"\x7fELF", None),
            (b"", None),
        ] {
            assert_eq!(interpreter_of(start), expected);
        }
    }

    #[test]
    fn urls_that_name_no_absolute_path_are_refused() {
        for url in [
            "",
            "program",
            "program:",
            "program:sendmail",
            "program://host/bin/x",
            "smtp://h",
            "programs:/x",
        ] {
            let error = path_of_url(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{url}");
            assert!(!error.is_temporary());
        }
    }
}
