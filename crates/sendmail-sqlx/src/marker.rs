//! The SQL that leaves a marker, and takes it back. Pure: texts without parameters, made of nothing but
//! ids and resource names, which have no character that could end a literal.

use std::fmt::Write;

use sendmail_core::{Dialect, Error, ErrorKind, QueueId, ResourceId, Result};

/// Who a marker belongs to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Marker<'a> {
    /// The message.
    pub(crate) id: QueueId,
    /// The queue that has the message, and that alone may judge and remove the marker.
    pub(crate) queue: &'a ResourceId,
    /// The database that is to decide.
    pub(crate) database: &'a ResourceId,
}

/// How to leave a marker, and only inside a transaction.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// One text, which fails before it inserts anything when there is no transaction.
    Guarded(String),
    /// Two texts: the first changes nothing and always fails, and how it fails tells whether there is a
    /// transaction.
    Asked {
        /// The question.
        question: &'static str,
        /// The insert.
        insert: String,
    },
}

/// A savepoint outside of a transaction is an error on PostgreSQL, and on MariaDB and MySQL it is gone
/// when the statement ends, so that releasing it is an error. Inside, the pair costs nothing. It has a
/// name that nobody uses, because on MariaDB it takes the place of a savepoint of the same name.
pub(crate) const SAVEPOINT: &str =
    "SAVEPOINT sendmail_rs_probe; RELEASE SAVEPOINT sendmail_rs_probe; ";

impl Marker<'_> {
    /// How to leave the marker.
    pub(crate) fn plan(&self, dialect: Dialect) -> Result<Plan> {
        let (id, values) = (id_literal(dialect, self.id)?, self.values());
        let insert =
            format!("INSERT INTO sendmail_marker (id, kind, queue) VALUES ({id}, {values})");
        Ok(match dialect {
            Dialect::Sqlite => Plan::Asked { question: SQLITE_QUESTION, insert },
            _ => Plan::Guarded(format!("{SAVEPOINT}{insert}")),
        })
    }

    /// How to take it back, in the transaction in which it was left.
    pub(crate) fn removal(&self, dialect: Dialect) -> Result<String> {
        let id = id_literal(dialect, self.id)?;
        Ok(format!("DELETE FROM sendmail_marker WHERE id = {id} AND kind = 1"))
    }

    /// Kind and queue. The kind is looked up in the database's own identity: in another database that
    /// is no row, which makes it NULL, which the column refuses.
    fn values(&self) -> String {
        let Self { queue, database, .. } = self;
        format!("(SELECT 1 FROM sendmail_database WHERE resource = '{database}'), '{queue}'")
    }
}

/// Both texts that this may fail with come before SQLite does anything: inside a transaction it says so,
/// outside it does not take a number for a file name. `BEGIN; ROLLBACK` would tell as well, but is two
/// statements: a future that is dropped between them leaves a transaction open.
pub(crate) const SQLITE_QUESTION: &str = "VACUUM INTO 1";

/// The id as the database's type of the column writes it.
fn id_literal(dialect: Dialect, id: QueueId) -> Result<String> {
    match dialect {
        Dialect::Postgres => Ok(format!("'{id}'")),
        Dialect::MySql | Dialect::Sqlite => Ok(format!("x'{}'", hex(id.as_bytes()))),
        _ => {
            let message = "this version does not know the connection's dialect of SQL";
            Err(Error::new(ErrorKind::Unsupported, "attach the message", message))
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marker<'a>(queue: &'a ResourceId, database: &'a ResourceId) -> Marker<'a> {
        Marker { id: QueueId::from_bytes([0xab; 16]), queue, database }
    }

    #[test]
    fn postgres_and_mysql_ask_and_insert_in_one_text() {
        let (queue, database) = ("queue-1".parse().unwrap(), "db-1".parse().unwrap());
        let marker = marker(&queue, &database);
        for (dialect, id) in [
            (Dialect::Postgres, "'abababab-abab-abab-abab-abababababab'"),
            (Dialect::MySql, "x'abababababababababababababababab'"),
        ] {
            let text = format!(
                "SAVEPOINT sendmail_rs_probe; RELEASE SAVEPOINT sendmail_rs_probe; INSERT INTO \
                 sendmail_marker (id, kind, queue) VALUES ({id}, (SELECT 1 FROM sendmail_database \
                 WHERE resource = 'db-1'), 'queue-1')"
            );
            assert_eq!(marker.plan(dialect).unwrap(), Plan::Guarded(text));
            assert_eq!(
                marker.removal(dialect).unwrap(),
                format!("DELETE FROM sendmail_marker WHERE id = {id} AND kind = 1")
            );
        }
    }

    #[test]
    fn sqlite_asks_first() {
        let (queue, database) = ("queue-1".parse().unwrap(), "db-1".parse().unwrap());
        let insert = "INSERT INTO sendmail_marker (id, kind, queue) VALUES \
                      (x'abababababababababababababababab', (SELECT 1 FROM sendmail_database WHERE \
                      resource = 'db-1'), 'queue-1')";
        assert_eq!(
            marker(&queue, &database).plan(Dialect::Sqlite).unwrap(),
            Plan::Asked { question: "VACUUM INTO 1", insert: insert.to_owned() }
        );
    }
}
