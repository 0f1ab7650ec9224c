//! Reads an event log and handles each event exactly once, together with its cursor.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use sendmail_core::{Clock, Error, ErrorKind, MailEvent, Result};
use sqlx::Pool;

use super::attempt::Work;
use super::backoff::Backoff;
use super::cursor::{EventDatabase, Position, RowKey, index_behind};
use super::handler::{EventSource, EventTrouble, SqlEventHandler, StartAt, TroubleHook};
use super::panics::caught;
use super::place::{Place, Stepped};

/// How many events are read at once.
const PAGE: usize = 100;

/// Handles the events of a queue in a database: the effect of each on that database happens exactly once,
/// whatever is killed, and from whichever process.
///
/// How far it is stands in the table `sendmail_cursor` of the same database. For each event it
///
/// 1. begins a transaction (`BEGIN IMMEDIATE` on SQLite), and moves its row from where it stood to behind
///    the event, which locks it. Somebody else has moved it: roll back, and go on from there;
/// 2. lets the handler do what it does;
/// 3. reads the row back. Only in a transaction that still holds all it did is it where it was moved to:
///    drivers answer `Ok` to the COMMIT of a transaction that failed underneath the handler;
/// 4. commits. If the answer is lost, the row says what became of it.
///
/// So several processes may run a consumer of the same name: they take turns, none handles an event twice,
/// and when one dies the others go on. Consumers with different names have rows of their own, and neither
/// waits for the other. A backup of the database that is restored takes cursor and effects back together.
///
/// A handler that fails or panics holds up its own consumer and nobody else: the event is tried again after
/// 1 s, doubling to 5 min, and each failure is reported. Nothing is passed over, for it would be lost for
/// that handler; [`giving_up_after`](Self::giving_up_after) says otherwise. Events come in the order
/// of the log, one at a time, so that a handler may rely on it; keep it short, above all on SQLite, where
/// nobody else can write meanwhile.
///
/// A handler may attach mail to its transaction. Mail about mail has events as well: a handler that answers
/// each event with a mail would never come to an end.
///
/// ```
/// # #[cfg(feature = "postgres")] mod example {
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// use async_trait::async_trait;
/// use sendmail_core::{Clock, Error, ErrorKind, EventLog, MailEvent, MailEventKind, QueueStore, Result};
/// use sendmail_sqlx::{EventSource, SqlEventConsumer, SqlEventHandler};
/// use sqlx::{PgConnection, PgPool, Postgres};
///
/// /// Keeps a list of addresses that cannot be reached.
/// struct Bounces;
///
/// #[async_trait]
/// impl SqlEventHandler<Postgres> for Bounces {
///     async fn handle(&self, tx: &mut PgConnection, event: &MailEvent) -> Result<()> {
///         let (MailEventKind::Failed, Some(recipient)) = (event.kind, &event.recipient) else {
///             return Ok(());
///         };
///         sqlx::query("INSERT INTO bounces (address, event) VALUES ($1, $2)")
///             .bind(recipient.to_string())
///             .bind(event.id.to_string())
///             .execute(tx)
///             .await
///             .map_err(|error| {
///                 Error::new(ErrorKind::Io, "note the bounce", error.to_string()).with_source(error)
///             })?;
///         Ok(())
///     }
/// }
///
/// /// Runs until the log or the database asks for a person.
/// async fn note_bounces<S: QueueStore + EventLog + 'static>(
///     queue: &Arc<S>,
///     pool: PgPool,
///     clock: Arc<dyn Clock>,
/// ) -> Result<()> {
///     let mut consumer = SqlEventConsumer::new(
///         "bounces",
///         EventSource::of(queue),
///         pool,
///         clock,
///         Arc::new(Bounces),
///         Arc::new(|trouble| eprintln!("bounces: {} ({} times)", trouble.error, trouble.failures)),
///     )?;
///     consumer.follow(Duration::from_secs(1)).await
/// }
/// # }
/// ```
pub struct SqlEventConsumer<DB: EventDatabase> {
    place: Place<DB>,
    clock: Arc<dyn Clock>,
    handler: Arc<dyn SqlEventHandler<DB>>,
    on_trouble: TroubleHook,
    patience: Option<NonZeroU32>,
    backoff: Backoff,
}

/// What one look at the log came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Consumed {
    /// Events that were handled by this consumer.
    pub handled: usize,
    /// Events that were passed over; each was reported.
    pub passed_over: usize,
    /// How long the next event has to wait, if its handling failed.
    pub waits: Option<Duration>,
}

impl<DB: EventDatabase> SqlEventConsumer<DB> {
    /// The longest name of a consumer, in bytes.
    pub const MAX_NAME: usize = 64;

    /// A consumer of the events of `source` by the name `name`, under which its cursor is kept: 1 to 64
    /// printable ASCII characters without spaces. What keeps it from going on is told to `on_trouble`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`]: the name is not one.
    pub fn new(
        name: &str,
        source: EventSource,
        pool: Pool<DB>,
        clock: Arc<dyn Clock>,
        handler: Arc<dyn SqlEventHandler<DB>>,
        on_trouble: TroubleHook,
    ) -> Result<Self> {
        let fits = !name.is_empty() && name.len() <= Self::MAX_NAME;
        if !fits || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
            let text = "a consumer's name has 1 to 64 printable ASCII characters, none a space";
            let error = Error::new(ErrorKind::InvalidInput, "make an event consumer", text);
            return Err(error.with("name", name.escape_debug()));
        }
        let key = RowKey { consumer: name.to_owned(), queue: source.queue().clone() };
        Ok(Self {
            place: Place::new(source, key, pool),
            clock,
            handler,
            on_trouble,
            patience: None,
            backoff: Backoff::default(),
        })
    }

    /// The same, which starts here if there is no cursor of that name yet. Otherwise it is the oldest
    /// event that is kept.
    #[must_use]
    pub fn starting_at(mut self, first: StartAt) -> Self {
        self.place.first = first;
        self
    }

    /// The same, which passes over an event that failed so often in a row in one process. It is reported
    /// as passed over, and never handled; whoever has to know keeps a record in the hook.
    #[must_use]
    pub fn giving_up_after(mut self, failures: NonZeroU32) -> Self {
        self.patience = Some(failures);
        self
    }

    /// Handles what is new, until there is no more or an event has to wait.
    ///
    /// # Errors
    ///
    /// The log or the database could not be used; repeat it later if the error is temporary.
    /// [`ErrorKind::CursorExpired`]: events behind the cursor are no longer kept, and somebody has to say
    /// with [`start_at`](Self::start_at) where to go on.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the event that was being handled is handled again, unless its COMMIT was under way
    /// and succeeds; the cursor tells.
    pub async fn poll(&mut self) -> Result<Consumed> {
        let mut consumed = Consumed::default();
        let mut position = self.place.position().await?;
        loop {
            let page = self.place.read(&position, PAGE).await?;
            if page.events.is_empty() {
                return Ok(consumed);
            }
            let mut next = 0;
            while let Some((cursor, event)) = page.events.get(next) {
                let behind = Position::at(cursor);
                match self.consume(&position, &behind, event).await? {
                    End::Handled => consumed.handled += 1,
                    End::PassedOver => consumed.passed_over += 1,
                    End::Waits(pause) => {
                        consumed.waits = Some(pause);
                        return Ok(consumed);
                    }
                    End::Moved => {
                        position = self.place.position().await?;
                        let Some(index) = index_behind(&page, &position) else { break };
                        next = index;
                        continue;
                    }
                }
                position = behind;
                next += 1;
            }
        }
    }

    /// Handles what is new, waits for `pause`, and so on, also through the trouble that passes: log or
    /// database that cannot be reached are reported, and tried again after growing pauses.
    ///
    /// # Errors
    ///
    /// What does not pass by waiting, as [`poll`](Self::poll) tells it. It returns only then.
    ///
    /// # Cancel safety
    ///
    /// As [`poll`](Self::poll); this is how it is stopped.
    pub async fn follow(&mut self, pause: Duration) -> Result<()> {
        let mut unreachable = Backoff::default();
        loop {
            let wait = match self.poll().await {
                Ok(consumed) => {
                    unreachable.clear();
                    consumed.waits.map_or(pause, |wait| wait.min(pause))
                }
                Err(error) if error.is_temporary() => {
                    let (failures, wait) = unreachable.failed(None, self.clock.now(), luck());
                    self.report(None, &error, failures, Some(wait)).await;
                    wait
                }
                Err(error) => return Err(error),
            };
            self.clock.sleep(wait).await;
        }
    }

    /// Moves the cursor, whatever it says now: the events between are not handled, or handled once more.
    /// For an operator, after [`ErrorKind::CursorExpired`] or after a mistake.
    ///
    /// # Errors
    ///
    /// The log or the database could not be used.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it is moved or it is not.
    pub async fn start_at(&self, start: StartAt) -> Result<()> {
        self.place.start_at(start).await
    }

    /// Handles one event, in a transaction of its own, if its time has come.
    async fn consume(&mut self, from: &Position, to: &Position, event: &MailEvent) -> Result<End> {
        if let Some(left) = self.backoff.wait(event.id, self.clock.now()) {
            return Ok(End::Waits(left));
        }
        let work = Work { handler: &*self.handler, event };
        match self.place.step(from, to, Some(work)).await? {
            Stepped::Done => {
                self.backoff.clear();
                Ok(End::Handled)
            }
            Stepped::Moved => {
                self.backoff.clear();
                Ok(End::Moved)
            }
            Stepped::Failed(error) => self.failed(from, to, event, &error).await,
        }
    }

    /// Reports a failure, and passes the event over if it was one too many.
    async fn failed(
        &mut self,
        from: &Position,
        to: &Position,
        event: &MailEvent,
        error: &Error,
    ) -> Result<End> {
        let (failures, pause) = self.backoff.failed(Some(event.id), self.clock.now(), luck());
        if self.patience.is_none_or(|most| failures < most.get()) {
            self.report(Some(event), error, failures, Some(pause)).await;
            return Ok(End::Waits(pause));
        }
        match self.place.step(from, to, None).await? {
            Stepped::Done => {}
            Stepped::Moved => return Ok(End::Moved),
            Stepped::Failed(error) => return Err(self.place.about(error)),
        }
        self.backoff.clear();
        self.report(Some(event), error, failures, None).await;
        Ok(End::PassedOver)
    }

    /// Tells the hook; if that panics too, there is nobody left to tell.
    async fn report(
        &self,
        event: Option<&MailEvent>,
        error: &Error,
        failures: u32,
        retry_after: Option<Duration>,
    ) {
        let trouble = EventTrouble { event, error, failures, retry_after };
        let told = async {
            (self.on_trouble)(&trouble);
            Ok(())
        };
        let _ = caught("report an event that failed", told).await;
    }
}

impl<DB: EventDatabase> fmt::Debug for SqlEventConsumer<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlEventConsumer").field("key", self.place.key()).finish_non_exhaustive()
    }
}

/// What became of one event.
enum End {
    Handled,
    PassedOver,
    Waits(Duration),
    /// Somebody else has moved the cursor.
    Moved,
}

fn luck() -> f64 {
    fastrand::f64()
}
