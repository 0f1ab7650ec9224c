//! Where a consumer stands: the log that it reads, and its row in the database.

use sendmail_core::{Error, ErrorKind, EventPage, Result};
use sqlx::Pool;

use super::attempt::{Attempt, Work, attempt};
use super::cursor::{EventDatabase, Position, RowKey, Step};
use super::handler::{EventSource, StartAt};
use super::trouble::trouble;

/// How many events are read at once where they are not handled.
const LONG_PAGE: usize = 1000;

/// A log and a row; neither is remembered beyond a call.
pub(super) struct Place<DB: EventDatabase> {
    source: EventSource,
    key: RowKey,
    pool: Pool<DB>,
    /// Where to start if there is no row.
    pub(super) first: StartAt,
}

/// What became of one move of the cursor.
pub(super) enum Stepped {
    Done,
    /// Somebody else has moved it.
    Moved,
    /// It is where it was.
    Failed(Error),
}

impl<DB: EventDatabase> Place<DB> {
    pub(super) fn new(source: EventSource, key: RowKey, pool: Pool<DB>) -> Self {
        Self { source, key, pool, first: StartAt::default() }
    }

    pub(super) fn key(&self) -> &RowKey {
        &self.key
    }

    /// Moves the cursor, and does the work with it. Where the COMMIT was not confirmed, the cursor tells.
    pub(super) async fn step(
        &self,
        from: &Position,
        to: &Position,
        work: Option<Work<'_, DB>>,
    ) -> Result<Stepped> {
        let step = Step { key: &self.key, from, to };
        let attempted = attempt(&self.pool, step, work).await;
        let error = match attempted.map_err(|error| self.about(error))? {
            Attempt::Committed => return Ok(Stepped::Done),
            Attempt::Moved => return Ok(Stepped::Moved),
            Attempt::Failed(error) => return Ok(Stepped::Failed(error)),
            Attempt::Unknown(error) => error,
        };
        let position = self.position().await.map_err(|unknown| {
            let text = format!("{} ({})", error.message(), unknown.message());
            self.about(Error::new(ErrorKind::Uncertain, error.operation(), text))
        })?;
        Ok(match position {
            position if position == *to => Stepped::Done,
            // If the COMMIT still runs on the server, the next try waits for it, and finds the cursor
            // moved.
            position if position == *from => Stepped::Failed(error),
            _ => Stepped::Moved,
        })
    }

    /// Moves the cursor, wherever it is.
    pub(super) async fn start_at(&self, start: StartAt) -> Result<()> {
        let position = self.find(start).await?;
        self.row(&position).await?;
        let set = async {
            let mut tx = self.pool.begin_with(DB::BEGIN).await?;
            DB::set(&mut tx, &self.key, &position).await?;
            tx.commit().await
        };
        set.await.map_err(|error| self.about(trouble("move the event cursor", error)))
    }

    /// Where the cursor stands; it is made if there is none.
    pub(super) async fn position(&self) -> Result<Position> {
        if let Some(position) = self.load().await? {
            return Ok(position);
        }
        let first = self.find(self.first).await?;
        self.row(&first).await
    }

    /// Where the cursor stands; it is made at `first` if there is none.
    async fn row(&self, first: &Position) -> Result<Position> {
        let operation = "make an event cursor";
        let create = async {
            let mut tx = self.pool.begin_with(DB::BEGIN).await?;
            DB::create(&mut tx, &self.key, first).await?;
            tx.commit().await
        };
        match create.await {
            Ok(()) => return Ok(first.clone()),
            // Somebody else was first.
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {}
            Err(error) => return Err(self.about(trouble(operation, error))),
        }
        let text = "the cursor was there, and is gone: somebody deletes rows of sendmail_cursor";
        let gone = || self.about(Error::new(ErrorKind::Busy, operation, text));
        self.load().await?.ok_or_else(gone)
    }

    /// In a transaction, however short, for a connection that the application has set to begin one by
    /// itself would go on in its last one, and at REPEATABLE READ see what was there then.
    async fn load(&self) -> Result<Option<Position>> {
        let load = async {
            let mut tx = self.pool.begin().await?;
            let position = DB::load(&mut tx, &self.key).await?;
            tx.commit().await.map(|()| position)
        };
        load.await.map_err(|error| self.about(trouble("read the event cursor", error)))
    }

    /// Where `start` is in the log.
    async fn find(&self, start: StartAt) -> Result<Position> {
        let mut position = Position::OLDEST;
        if start == StartAt::Oldest {
            return Ok(position);
        }
        loop {
            let page = self.read(&position, LONG_PAGE).await?;
            let Some((cursor, _)) = page.events.last() else { return Ok(position) };
            position = Position::at(cursor);
        }
    }

    /// Reads on behind `position`.
    pub(super) async fn read(&self, position: &Position, limit: usize) -> Result<EventPage> {
        let read = self.source.log().read(position.cursor(), limit).await;
        read.map_err(|error| match error.kind() {
            ErrorKind::CursorExpired | ErrorKind::InvalidInput => self.astray(error),
            _ => self.about(error),
        })
    }

    /// The error of a cursor with which the log can do nothing, with what can be done.
    fn astray(&self, error: Error) -> Error {
        let text = format!(
            "{}; decide where to go on: SqlEventConsumer::start_at(StartAt::Oldest) handles all that is \
             kept, also what was handled before; StartAt::Now none of it",
            error.message()
        );
        let mut told = Error::new(error.kind(), error.operation(), text).permanent();
        for (key, value) in error.context() {
            told = told.with(key, value);
        }
        self.about(told.with_source(error))
    }

    /// Says whose error it is.
    pub(super) fn about(&self, error: Error) -> Error {
        error.with("consumer", &self.key.consumer).with("queue", &self.key.queue)
    }
}
