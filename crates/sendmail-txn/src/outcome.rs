//! What became of a commit.

use sendmail_core::{Error, ErrorKind, Result};

/// What became of a commit. All four ends differ in what the application may do next.
#[derive(Debug)]
#[must_use = "a commit may have failed, or may have left something to recovery"]
pub enum CommitOutcome {
    /// Everything is committed and finished.
    Committed,
    /// Everything is committed; what is listed is finished by recovery. Not to be done again.
    CommittedFinishPending(Vec<Pending>),
    /// Nothing was committed, and nothing will be; the error is what caused it. May be done again.
    Aborted(Error),
    /// Whether it committed is not known yet: a crash may show either. Nothing was undone and nothing
    /// was sent; recovery decides. Doing it again may do it twice.
    Uncertain(Error),
}

/// A data manager whose part of a committed transaction is left to recovery.
#[derive(Debug)]
pub struct Pending {
    /// The data manager's name.
    pub manager: String,
    /// What kept it from finishing.
    pub error: Error,
}

impl CommitOutcome {
    /// Whether it is certain that the transaction committed.
    #[must_use]
    pub fn is_committed(&self) -> bool {
        matches!(self, Self::Committed | Self::CommittedFinishPending(_))
    }

    /// For `?`: what is left to recovery if it committed, which mostly is nothing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Aborted`], with the cause as its source, and temporary if the cause is;
    /// [`ErrorKind::Uncertain`].
    pub fn into_result(self) -> Result<Vec<Pending>> {
        match self {
            Self::Committed => Ok(Vec::new()),
            Self::CommittedFinishPending(pending) => Ok(pending),
            Self::Aborted(cause) => Err(aborted(cause)),
            Self::Uncertain(error) => Err(error),
        }
    }
}

fn aborted(cause: Error) -> Error {
    let temporary = cause.is_temporary();
    let error = Error::new(ErrorKind::Aborted, "commit the transaction", cause.to_string());
    let error = error.with_source(cause);
    if temporary { error.temporary() } else { error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_certain_to_have_committed_counts_as_committed() {
        let error = || Error::new(ErrorKind::Io, "commit", "injected");
        let pending = vec![Pending { manager: "mail queue a".to_owned(), error: error() }];
        for (outcome, committed) in [
            (CommitOutcome::Committed, true),
            (CommitOutcome::CommittedFinishPending(pending), true),
            (CommitOutcome::Aborted(error()), false),
            (CommitOutcome::Uncertain(error()), false),
        ] {
            assert_eq!(outcome.is_committed(), committed, "{outcome:?}");
        }
    }

    #[test]
    fn an_abort_keeps_its_cause_and_whether_it_is_temporary() {
        let full = Error::new(ErrorKind::Full, "write the message", "no space");
        let error = CommitOutcome::Aborted(full).into_result().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Aborted);
        assert!(error.is_temporary());
        assert!(error.to_string().contains("no space"));
        let refused = Error::new(ErrorKind::InvalidInput, "write the message", "too large");
        assert!(!CommitOutcome::Aborted(refused).into_result().unwrap_err().is_temporary());
    }
}
