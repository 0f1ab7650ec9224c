//! Errors of the fence, in words that say what to do.

use sendmail_core::{Error, ErrorKind, ResourceId};

use super::codes::{Meaning, meaning};
use super::facts::Unfit;
use super::speak::Flavour;
use crate::error::from_sqlx;

/// What went wrong in a step of a fence.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The driver's error, and what its code means.
    Sql(Meaning, sqlx::Error),
    /// The database may not decide.
    Unfit(Unfit),
    /// The answer makes no sense.
    Odd(&'static str),
}

impl Trouble {
    pub(crate) fn of(flavour: Flavour, error: sqlx::Error) -> Self {
        let core = error.as_database_error().map(|database| database.message().to_owned());
        let said = core.map_or(Meaning::Doubt, |message| {
            meaning(flavour, crate::error::code(&error).unwrap_or_default().as_str(), &message)
        });
        Self::Sql(said, error)
    }

    pub(crate) fn meaning(&self) -> Meaning {
        match self {
            Self::Sql(meaning, _) | Self::Unfit(Unfit::Known(meaning)) => *meaning,
            Self::Unfit(Unfit::Engine(_)) | Self::Odd(_) => Meaning::Doubt,
        }
    }

    /// As an error of `operation` on `database`. All but a mistake in the set-up may mend itself, and a
    /// mistake in the set-up is mended by people: asking again later is right always.
    pub(crate) fn into_error(
        self,
        operation: &'static str,
        database: Option<&ResourceId>,
    ) -> Error {
        let error = match self.meaning() {
            Meaning::Doubt | Meaning::Exists => self.into_doubt(operation),
            Meaning::Unfinished => self.explain(
                operation,
                ErrorKind::Busy,
                "other transactions are in the way; ask again",
            ),
            Meaning::WrongServer => self.explain(
                operation,
                ErrorKind::PermissionDenied,
                "the server is a standby or a replica, or read-only, and cannot decide; \
                 connect to the primary",
            ),
            Meaning::WrongDatabase => self.explain(
                operation,
                ErrorKind::InvalidInput,
                "this is not the database that is asked about; correct the connection, or, if the \
                 database was replaced on purpose, let `sendmail-queue recover --decide` decide",
            ),
            Meaning::TableMissing => self.explain(
                operation,
                ErrorKind::NotFound,
                "the tables sendmail_marker and sendmail_database are not there; restore them from the \
                 backup, or, if there have never been any, call `sendmail_sqlx::migrate(&pool)`",
            ),
        };
        match database {
            Some(database) => error.with("resource", database).temporary(),
            None => error.temporary(),
        }
    }

    fn explain(self, operation: &'static str, kind: ErrorKind, words: &'static str) -> Error {
        let error = Error::new(kind, operation, words);
        match self {
            Self::Sql(_, sql) => {
                let said = from_sqlx(operation, sql);
                let code = said.context().iter().find(|(key, _)| *key == "code").cloned();
                match code {
                    Some((key, code)) => error.with(key, code).with_source(said),
                    None => error.with_source(said),
                }
            }
            Self::Unfit(_) | Self::Odd(_) => error,
        }
    }

    fn into_doubt(self, operation: &'static str) -> Error {
        match self {
            Self::Sql(_, sql) => from_sqlx(operation, sql),
            Self::Unfit(Unfit::Engine(engine)) => {
                let message = format!(
                    "the table sendmail_marker is {engine}: a rollback does not take back what is \
                     written to it; ALTER TABLE sendmail_marker ENGINE = InnoDB"
                );
                Error::new(ErrorKind::Unsupported, operation, message)
            }
            Self::Unfit(Unfit::Known(_)) => Error::new(ErrorKind::Uncertain, operation, ""),
            Self::Odd(words) => Error::new(ErrorKind::Uncertain, operation, words),
        }
    }
}
