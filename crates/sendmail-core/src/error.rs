//! The one error type of every trait in this crate.

use std::error::Error as StdError;
use std::fmt;

/// The result of a fallible operation of this crate's traits.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of trouble it was; what a caller can decide by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument or an input is not acceptable. Permanent.
    InvalidInput,
    /// There is nothing by that id.
    NotFound,
    /// The caller no longer holds the claim; nothing was done.
    LeaseLost,
    /// Stored bytes do not prove themselves whole.
    Damaged,
    /// The format version, the option or the operation is not known or not offered.
    Unsupported,
    /// A quota, a limit or the medium is full. Temporary.
    Full,
    /// The operating system or the peer does not allow it.
    PermissionDenied,
    /// Another process holds what is needed. Temporary.
    Busy,
    /// Reading, writing or syncing failed.
    Io,
    /// The relay cannot be reached, or does not greet. Temporary.
    Unreachable,
    /// TLS could not be set up as required.
    Tls,
    /// The relay refused our credentials, or offers no mechanism that we may use.
    Auth,
    /// The peer does not speak the protocol.
    Protocol,
    /// A deadline passed. Temporary.
    Timeout,
    /// The caller withdrew: the handover was refused, or a stop was asked for.
    Cancelled,
    /// Called in a state in which it makes no sense: a mistake of the caller.
    InvalidState,
    /// The transaction was not committed, and will not be.
    Aborted,
    /// The transaction is committed; publishing some of it is left to recovery.
    CommittedFinishPending,
    /// Whether the transaction committed is not known. Nothing was sent, nothing was deleted.
    Uncertain,
    /// A cursor points to history that is no longer kept.
    CursorExpired,
    /// A permanent refusal for a reason that is none of the above.
    Refused,
}

impl ErrorKind {
    /// The kind's name as it is written in messages and in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidInput => "invalid input",
            Self::NotFound => "not found",
            Self::LeaseLost => "lease lost",
            Self::Damaged => "damaged",
            Self::Unsupported => "unsupported",
            Self::Full => "full",
            Self::PermissionDenied => "permission denied",
            Self::Busy => "busy",
            Self::Io => "input/output error",
            Self::Unreachable => "relay unreachable",
            Self::Tls => "TLS failed",
            Self::Auth => "authentication failed",
            Self::Protocol => "protocol error",
            Self::Timeout => "timed out",
            Self::Cancelled => "cancelled",
            Self::InvalidState => "invalid state",
            Self::Aborted => "transaction aborted",
            Self::CommittedFinishPending => "committed, finish pending",
            Self::Uncertain => "outcome uncertain",
            Self::CursorExpired => "cursor expired",
            Self::Refused => "refused",
        }
    }

    /// Whether waiting and trying the same again can help, as far as the kind alone tells.
    #[must_use]
    pub const fn is_usually_temporary(self) -> bool {
        matches!(
            self,
            Self::Full
                | Self::Busy
                | Self::Io
                | Self::Unreachable
                | Self::Timeout
                | Self::Cancelled
                | Self::CommittedFinishPending
                | Self::Uncertain
        )
    }
}

/// What went wrong: a kind, whether it is temporary, the operation, its context and its source.
///
/// It never holds a credential: whoever builds one puts in only what may be printed.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    temporary: bool,
    operation: &'static str,
    message: String,
    context: Vec<(&'static str, String)>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// A new error of `kind`, met in `operation` (a verb phrase: `"claim messages"`), described by
    /// `message`: what happened, in words that say what to do next where something can be done.
    pub fn new(kind: ErrorKind, operation: &'static str, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            temporary: kind.is_usually_temporary(),
            operation,
            message: message.into(),
            context: Vec::new(),
            source: None,
        }))
    }

    /// An error of the operating system, met in `operation`, with its kind told by its code.
    ///
    /// A full disk, an exhausted quota and missing permission are kinds of their own; everything else
    /// is [`ErrorKind::Io`].
    pub fn io(operation: &'static str, error: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let kind = match error.kind() {
            Io::StorageFull | Io::QuotaExceeded => ErrorKind::Full,
            Io::PermissionDenied | Io::ReadOnlyFilesystem => ErrorKind::PermissionDenied,
            Io::NotFound => ErrorKind::NotFound,
            Io::TimedOut => ErrorKind::Timeout,
            _ => ErrorKind::Io,
        };
        Self::new(kind, operation, error.to_string()).with_source(error)
    }

    /// Adds a fact to the context: `("path", …)`, `("queue id", …)`.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        self.0.context.push((key, value.to_string()));
        self
    }

    /// Sets the underlying error.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Says that trying again can help, whatever is usual for the kind.
    #[must_use]
    pub fn temporary(mut self) -> Self {
        self.0.temporary = true;
        self
    }

    /// Says that trying again cannot help, whatever is usual for the kind.
    #[must_use]
    pub fn permanent(mut self) -> Self {
        self.0.temporary = false;
        self
    }

    /// What kind of trouble it was.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether waiting and trying the same again can help.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        self.0.temporary
    }

    /// The operation in which it was met.
    #[must_use]
    pub fn operation(&self) -> &'static str {
        self.0.operation
    }

    /// What happened, without operation and context.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The facts that go with it, in the order in which they were added.
    #[must_use]
    pub fn context(&self) -> &[(&'static str, String)] {
        &self.0.context
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}: ", self.0.operation)?;
        if self.0.message.is_empty() {
            f.write_str(self.0.kind.as_str())?;
        } else {
            f.write_str(&self.0.message)?;
        }
        for (index, (key, value)) in self.0.context.iter().enumerate() {
            let open = if index == 0 { " (" } else { ", " };
            write!(f, "{open}{key}: {value}")?;
        }
        if !self.0.context.is_empty() {
            f.write_str(")")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("temporary", &self.0.temporary)
            .field("operation", &self.0.operation)
            .field("message", &self.0.message)
            .field("context", &self.0.context)
            .field("source", &self.0.source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_as_a_sentence() {
        let error = Error::new(ErrorKind::NotFound, "load the message", "no such claim")
            .with("queue id", 7)
            .with("path", "q/new/x");
        assert_eq!(
            error.to_string(),
            "cannot load the message: no such claim (queue id: 7, path: q/new/x)"
        );
        assert!(!error.is_temporary());
    }

    #[test]
    fn a_full_disk_is_told_from_other_trouble() {
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let error = Error::io("write the message", full);
        assert_eq!(error.kind(), ErrorKind::Full);
        assert!(error.is_temporary());
        assert!(error.source().is_some());
        assert!(!error.permanent().is_temporary());
    }

    #[test]
    fn it_is_small_and_can_cross_threads() {
        fn check<T: Send + Sync + 'static>() {}
        check::<Error>();
        assert_eq!(size_of::<Error>(), size_of::<usize>());
    }
}
