//! What can go wrong on a connection, in the words of a reply and in those of an error.

use std::time::Duration;

use sendmail_core::{Error, ErrorKind, Reply};

use crate::reply::{ReplyError, WireReply};

/// A connection that cannot be used any more, and why.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error("{0}; is the relay running, and are its host and port right?")]
    NoConnection(std::io::Error),
    #[error("the relay closed the connection")]
    Closed,
    #[error("the connection broke: {0}")]
    Io(#[from] std::io::Error),
    #[error("the relay took longer than {0:?}")]
    Timeout(Duration),
    #[error("the relay does not speak SMTP: {0}")]
    Reply(#[from] ReplyError),
    #[error("the relay answered {0} where that makes no sense")]
    Unexpected(Reply),
    #[error("the relay sent a reply to nothing: which replies answer which commands is unknown")]
    OutOfTurn,
}

impl Broken {
    /// What is told of a recipient for whom no answer came; `step` says what was waited for.
    pub(crate) fn to_reply(&self, step: &str) -> Reply {
        let status = match self {
            Self::NoConnection(_) | Self::Closed | Self::Io(_) | Self::Timeout(_) => "4.4.2",
            Self::Reply(_) | Self::Unexpected(_) | Self::OutOfTurn => "4.5.0",
        };
        Reply::local(451, status, format!("{self}, {step}"))
    }

    /// The error that ends an attempt before a message was in play.
    pub(crate) fn into_error(self, operation: &'static str) -> Error {
        let kind = match &self {
            Self::NoConnection(_) | Self::Closed | Self::Io(_) => ErrorKind::Unreachable,
            Self::Timeout(_) => ErrorKind::Timeout,
            Self::Reply(_) | Self::Unexpected(_) | Self::OutOfTurn => ErrorKind::Protocol,
        };
        Error::new(kind, operation, self.to_string()).with_source(self)
    }
}

/// The error of a relay that answered, with a refusal. A 5yz is permanent: waiting will not help,
/// somebody has to look.
pub(crate) fn refusal(kind: ErrorKind, operation: &'static str, reply: &WireReply) -> Error {
    let error = Error::new(kind, operation, format!("the relay answered {}", reply.to_reply()));
    match (reply.code(), reply.code() / 100) {
        (421, _) | (_, 4) => error.temporary(),
        (_, 5) => error.permanent(),
        _ => Broken::Unexpected(reply.to_reply()).into_error(operation),
    }
}
