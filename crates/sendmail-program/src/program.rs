//! Which file may be the program.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
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
            Self::Missing(_) => ErrorKind::NotFound,
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
    access(program, Access::EXEC_OK).map_err(|errno| Unusable::NotExecutable(errno.into()))
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
