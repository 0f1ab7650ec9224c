//! The row that says how far a consumer is.

use async_trait::async_trait;
use sendmail_core::{Cursor, EventPage, ResourceId};

use crate::Engine;

/// A database in which a consumer can keep its cursor: `sqlx::Postgres`, `sqlx::MySql` or
/// `sqlx::Sqlite`, each with its feature. It is sealed.
pub trait EventDatabase: Engine + sealed::CursorTable {}

/// A place in a log, as it stands in the row: a cursor, or nothing for the oldest event that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position(String);

/// Whose row it is.
#[derive(Debug, Clone)]
pub struct RowKey {
    pub(super) consumer: String,
    pub(super) queue: ResourceId,
}

impl Position {
    pub(super) const OLDEST: Self = Self(String::new());

    pub(super) fn at(cursor: &Cursor) -> Self {
        Self(cursor.as_str().to_owned())
    }

    pub(super) fn cursor(&self) -> Option<Cursor> {
        (!self.0.is_empty()).then(|| Cursor::new(self.0.as_str()))
    }
}

/// A move of the cursor.
pub struct Step<'a> {
    pub(super) key: &'a RowKey,
    pub(super) from: &'a Position,
    pub(super) to: &'a Position,
}

/// Where to go on in `page` from `position`; nothing if its cursor is not in it.
pub(super) fn index_behind(page: &EventPage, position: &Position) -> Option<usize> {
    page.events.iter().position(|(cursor, _)| cursor.as_str() == position.0).map(|index| index + 1)
}

pub(super) mod sealed {
    use super::{Position, RowKey, Step, async_trait};

    /// What is said to each database in its own words.
    #[async_trait]
    pub trait CursorTable: sqlx::Database {
        /// Begins a transaction that writes.
        const BEGIN: &'static str;

        /// Reads the row.
        async fn load(tx: &mut Self::Connection, key: &RowKey) -> sqlx::Result<Option<Position>>;

        /// Makes the row; a unique violation if somebody else did.
        async fn create(
            tx: &mut Self::Connection,
            key: &RowKey,
            position: &Position,
        ) -> sqlx::Result<()>;

        /// Moves the row if it stands where the step begins, and keeps it locked until the
        /// transaction ends. Whether it did. Waits for whoever has it locked, and judges by what is there then.
        async fn advance(tx: &mut Self::Connection, step: &Step<'_>) -> sqlx::Result<bool>;

        /// Moves the row to `to`, wherever it stands.
        async fn set(tx: &mut Self::Connection, key: &RowKey, to: &Position) -> sqlx::Result<()>;
    }
}

macro_rules! cursor_table {
    (
        $database:ty,
        begin: $begin:literal,
        load: $load:literal,
        create: $create:literal,
        advance: $advance:literal,
        set: $set:literal $(,)?
    ) => {
        impl EventDatabase for $database {}

        #[async_trait]
        impl sealed::CursorTable for $database {
            const BEGIN: &'static str = $begin;

            async fn load(
                tx: &mut Self::Connection,
                key: &RowKey,
            ) -> sqlx::Result<Option<Position>> {
                let query = sqlx::query_scalar::<Self, String>($load)
                    .bind(&key.consumer)
                    .bind(key.queue.as_str());
                Ok(query.fetch_optional(tx).await?.map(Position))
            }

            async fn create(
                tx: &mut Self::Connection,
                key: &RowKey,
                position: &Position,
            ) -> sqlx::Result<()> {
                let query = sqlx::query::<Self>($create)
                    .bind(&key.consumer)
                    .bind(key.queue.as_str())
                    .bind(&position.0);
                query.execute(tx).await.map(|_| ())
            }

            async fn advance(tx: &mut Self::Connection, step: &Step<'_>) -> sqlx::Result<bool> {
                let query = sqlx::query::<Self>($advance)
                    .bind(&step.to.0)
                    .bind(&step.key.consumer)
                    .bind(step.key.queue.as_str())
                    .bind(&step.from.0);
                Ok(query.execute(tx).await?.rows_affected() == 1)
            }

            async fn set(
                tx: &mut Self::Connection,
                key: &RowKey,
                to: &Position,
            ) -> sqlx::Result<()> {
                let query = sqlx::query::<Self>($set)
                    .bind(&to.0)
                    .bind(&key.consumer)
                    .bind(key.queue.as_str());
                query.execute(tx).await.map(|_| ())
            }
        }
    };
}

#[cfg(feature = "postgres")]
cursor_table! {
    sqlx::Postgres,
    begin: "BEGIN",
    load: "SELECT position FROM sendmail_cursor WHERE consumer = $1 AND queue = $2",
    create: "INSERT INTO sendmail_cursor (consumer, queue, position) VALUES ($1, $2, $3)",
    advance: "UPDATE sendmail_cursor SET position = $1 \
              WHERE consumer = $2 AND queue = $3 AND position = $4",
    set: "UPDATE sendmail_cursor SET position = $1 WHERE consumer = $2 AND queue = $3",
}

// The UPDATE reads what is newest at every isolation level, and takes no snapshot: at REPEATABLE READ the
// handler's first look is what fixes what it sees.
#[cfg(feature = "mysql")]
cursor_table! {
    sqlx::MySql,
    begin: "BEGIN",
    load: "SELECT position FROM sendmail_cursor WHERE consumer = ? AND queue = ?",
    create: "INSERT INTO sendmail_cursor (consumer, queue, position) VALUES (?, ?, ?)",
    advance: "UPDATE sendmail_cursor SET position = ? \
              WHERE consumer = ? AND queue = ? AND position = ?",
    set: "UPDATE sendmail_cursor SET position = ? WHERE consumer = ? AND queue = ?",
}

// A transaction that began by reading would be refused its first write, with 517, if anybody wrote since.
#[cfg(feature = "sqlite")]
cursor_table! {
    sqlx::Sqlite,
    begin: "BEGIN IMMEDIATE",
    load: "SELECT position FROM sendmail_cursor WHERE consumer = ? AND queue = ?",
    create: "INSERT INTO sendmail_cursor (consumer, queue, position) VALUES (?, ?, ?)",
    advance: "UPDATE sendmail_cursor SET position = ? \
              WHERE consumer = ? AND queue = ? AND position = ?",
    set: "UPDATE sendmail_cursor SET position = ? WHERE consumer = ? AND queue = ?",
}
