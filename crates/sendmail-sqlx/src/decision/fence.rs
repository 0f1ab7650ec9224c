//! The fence itself: puts a tombstone where no marker is, and reads what is there.

use std::collections::HashMap;
use std::time::Duration;

use sendmail_core::{Decision, QueueId, ResourceId, Timestamp};
use sqlx::Pool;

use super::codes::Meaning;
use super::facts::judge;
use super::lease::Lease;
use super::speak::{Rows, Speak};
use super::text::{Text, parse_id};
use super::trouble::Trouble;

/// What was found about one transaction.
pub(crate) type Found = Result<Decision, Trouble>;

/// What is under a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Row {
    Owner,
    Tombstone,
    Foreign,
}

/// Runs `text`, and says what an error means. From here until it is rolled back or committed the
/// connection is not in order.
async fn run<DB: Speak>(lease: &mut Lease<DB>, text: String) -> Result<u64, Trouble> {
    lease.in_order(false);
    DB::tell(lease, text).await.map_err(|error| Trouble::of(DB::FLAVOUR, error))
}

async fn rows<DB: Speak>(lease: &mut Lease<DB>, text: String) -> Result<Rows, Trouble> {
    lease.in_order(false);
    DB::answer(lease, text).await.map_err(|error| Trouble::of(DB::FLAVOUR, error))
}

/// Ends what a fence began. Whatever is not confirmed closes the connection.
async fn roll_back<DB: Speak>(lease: &mut Lease<DB>, text: &Text) {
    let rolled_back = run(lease, text.rollback()).await.is_ok();
    lease.in_order(rolled_back);
}

/// Which of `ids` are visible as committed, each of at most some hundreds, and durably so.
pub(crate) async fn visible<DB: Speak>(
    lease: &mut Lease<DB>,
    text: &Text,
    ids: &[QueueId],
    now: Timestamp,
) -> Result<Vec<QueueId>, Trouble> {
    // Outside of a fence nothing of the session was changed, so that there is nothing to put back: an
    // error closes the connection, since the server may have left the transaction open.
    let rows = rows(lease, text.visible(ids)).await?;
    lease.in_order(true);
    judge(&rows, &text.database).map_err(Trouble::Unfit)?;
    let markers = rows.iter().filter_map(|row| match row.as_slice() {
        [tag, id] if tag == "marker" => Some(parse_id(id)),
        _ => None,
    });
    let markers: Option<Vec<QueueId>> = markers.collect();
    let markers = markers.ok_or(Trouble::Odd("an id in sendmail_marker is malformed"))?;
    if !markers.is_empty() {
        make_durable(lease, text, now).await?;
    }
    Ok(markers)
}

/// Returns when what was seen as committed cannot be forgotten any more.
///
/// Invariant: nothing is called committed on MariaDB and MySQL before this. InnoDB shows a commit to others
/// before it has written it to its log, and a server that is killed in between has never heard of it. A
/// transaction of our own that comes later in the log is durable only when the earlier ones are.
/// PostgreSQL and SQLite show a commit when it is durable.
async fn make_durable<DB: Speak>(
    lease: &mut Lease<DB>,
    text: &Text,
    now: Timestamp,
) -> Result<(), Trouble> {
    let Some(write) = text.write_behind(QueueId::mint(now)) else { return Ok(()) };
    run(lease, write).await?;
    lease.in_order(true);
    Ok(())
}

/// Fences one id on a server, in a transaction of its own.
///
/// Invariant: `Aborted` is answered only after the COMMIT of the tombstone was confirmed, whoever put it.
pub(crate) async fn fence_one<DB: Speak>(
    lease: &mut Lease<DB>,
    text: &Text,
    id: QueueId,
    wait: Duration,
    bound: Duration,
    now: Timestamp,
) -> Found {
    if let Err(trouble) = run(lease, text.fence(id, wait, bound)).await
        && trouble.meaning() != Meaning::Exists
    {
        roll_back(lease, text).await;
        return unfinished_or(trouble);
    }
    let state = match rows(lease, text.state(&[id])).await {
        Ok(rows) => judge(&rows, &text.database).map_err(Trouble::Unfit).and_then(|()| {
            let state = read_states(&rows, &text.queue)?;
            state.get(&id).copied().ok_or(Trouble::Odd(GONE))
        }),
        Err(trouble) => Err(trouble),
    };
    match state {
        Ok(Row::Tombstone) => {
            run(lease, text.commit()).await?;
            lease.in_order(true);
            Ok(Decision::Aborted)
        }
        Ok(Row::Owner) => {
            roll_back(lease, text).await;
            make_durable(lease, text, now).await?;
            Ok(Decision::Committed)
        }
        Ok(Row::Foreign) => {
            roll_back(lease, text).await;
            Err(Trouble::Odd(FOREIGN))
        }
        Err(trouble) => {
            roll_back(lease, text).await;
            unfinished_or(trouble)
        }
    }
}

fn unfinished_or(trouble: Trouble) -> Found {
    match trouble.meaning() {
        Meaning::Unfinished => Ok(Decision::Unfinished),
        _ => Err(trouble),
    }
}

/// What became of each of some hundred `ids` in SQLite: those that are not known to be committed already
/// are fenced in one transaction, which waits for the one write lock that there is, for `wait` at most.
pub(crate) async fn fence_file<DB: Speak>(
    pool: &Pool<DB>,
    text: &Text,
    ids: &[QueueId],
    wait: Duration,
    now: Timestamp,
) -> Result<HashMap<QueueId, Found>, Trouble> {
    let mut lease = take(pool).await?;
    let committed = visible(&mut lease, text, ids, now).await?;
    let mut found: HashMap<QueueId, Found> =
        committed.iter().map(|id| (*id, Ok(Decision::Committed))).collect();
    let open: Vec<QueueId> = ids.iter().filter(|id| !found.contains_key(id)).copied().collect();
    if open.is_empty() {
        return Ok(found);
    }
    let before = busy_timeout(&mut lease, wait).await?;
    let fenced = fence_open(&mut lease, text, &open).await;
    if lease.is_in_order() {
        let restored = DB::tell(&mut lease, format!("PRAGMA busy_timeout = {before}")).await;
        lease.in_order(restored.is_ok());
    }
    match fenced {
        Ok(states) => found.extend(states),
        // Busy says nothing about any of them.
        Err(trouble) if trouble.meaning() == Meaning::Unfinished => {
            found.extend(open.iter().map(|id| (*id, Ok(Decision::Unfinished))));
        }
        // What is visible is the truth, whatever went wrong afterwards.
        Err(trouble) if committed.is_empty() => return Err(trouble),
        Err(_) => found.extend(open.iter().map(|id| (*id, Err(Trouble::Odd(NOT_REACHED))))),
    }
    Ok(found)
}

async fn fence_open<DB: Speak>(
    lease: &mut Lease<DB>,
    text: &Text,
    open: &[QueueId],
) -> Result<HashMap<QueueId, Found>, Trouble> {
    if let Err(trouble) = run(lease, text.begin().to_owned()).await {
        // Nothing was begun, so that there is nothing to roll back. But a transaction that somebody else
        // left open is ended by closing the connection.
        lease.in_order(trouble.meaning() == Meaning::Unfinished);
        return Err(trouble);
    }
    let states = match run(lease, text.tombstones(open)).await {
        Ok(_) => rows(lease, text.state(open)).await,
        Err(trouble) => Err(trouble),
    };
    let states = states.and_then(|rows| {
        judge(&rows, &text.database).map_err(Trouble::Unfit)?;
        read_states(&rows, &text.queue)
    });
    let states = match states {
        Ok(states) => states,
        Err(trouble) => {
            roll_back(lease, text).await;
            return Err(trouble);
        }
    };
    // A commit that meets readers leaves the transaction open.
    let committed = run(lease, text.commit()).await;
    match &committed {
        Ok(_) => lease.in_order(true),
        Err(_) => roll_back(lease, text).await,
    }
    let sure = committed.is_ok();
    let answer = |id: &QueueId| match states.get(id) {
        Some(Row::Owner) => Ok(Decision::Committed),
        // Without the commit nobody knows whose tombstone it was.
        Some(Row::Tombstone) => Ok(if sure { Decision::Aborted } else { Decision::Unfinished }),
        Some(Row::Foreign) => Err(Trouble::Odd(FOREIGN)),
        None => Err(Trouble::Odd(GONE)),
    };
    let answers = open.iter().map(|id| (*id, answer(id))).collect();
    match committed {
        Err(trouble) if trouble.meaning() != Meaning::Unfinished => Err(trouble),
        _ => Ok(answers),
    }
}

/// Sets how long the connection waits for a lock, and says how long it did before.
pub(crate) async fn busy_timeout<DB: Speak>(
    lease: &mut Lease<DB>,
    wait: Duration,
) -> Result<u64, Trouble> {
    let read = "SELECT CAST(timeout AS TEXT) FROM pragma_busy_timeout";
    let before = rows(lease, read.to_owned()).await?;
    let before = before.first().and_then(|row| row.first()).and_then(|text| text.parse().ok());
    let before = before.ok_or(Trouble::Odd("the busy time-out could not be read"))?;
    let millis = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
    run(lease, format!("PRAGMA busy_timeout = {millis}")).await?;
    Ok(before)
}

pub(crate) async fn take<DB: Speak>(pool: &Pool<DB>) -> Result<Lease<DB>, Trouble> {
    Lease::take(pool).await.map_err(|error| Trouble::of(DB::FLAVOUR, error))
}

const GONE: &str =
    "the marker was there and is gone, as when it was forgotten meanwhile; ask again";
const FOREIGN: &str = "the marker belongs to another queue, and only that queue may ask about it";
const NOT_REACHED: &str = "the database could not be asked about it; ask again";

fn read_states(rows: &Rows, queue: &ResourceId) -> Result<HashMap<QueueId, Row>, Trouble> {
    let states = rows.iter().filter_map(|row| match row.as_slice() {
        [tag, id, kind, owner] if tag == "row" => Some(parse_id(id).zip(state(kind, owner, queue))),
        _ => None,
    });
    states.collect::<Option<_>>().ok_or(Trouble::Odd("a row of sendmail_marker is malformed"))
}

fn state(kind: &str, owner: &str, queue: &ResourceId) -> Option<Row> {
    match kind {
        "1" | "2" | "3" if owner != queue.as_str() => Some(Row::Foreign),
        "1" | "2" => Some(Row::Owner),
        "3" => Some(Row::Tombstone),
        _ => None,
    }
}
