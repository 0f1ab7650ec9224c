//! The SQL of the fence. Pure.
//!
//! Literals only: ids are hex digits, and the names of queues and databases cannot end a literal.

use std::fmt::Write;
use std::time::Duration;

use sendmail_core::{QueueId, ResourceId};

use super::speak::Flavour;

/// How old a tombstone or a transaction marker must be before it is removed, by the database's clock.
pub(crate) const KEEP: Duration = Duration::from_secs(24 * 60 * 60);

/// Whose rows it is about, in which database.
#[derive(Debug, Clone)]
pub(crate) struct Text {
    pub(crate) flavour: Flavour,
    pub(crate) database: ResourceId,
    pub(crate) queue: ResourceId,
    /// MySQL's shortest lock time-out is a second, MariaDB's is none.
    pub(crate) zero_wait: bool,
}

impl Text {
    /// Begins a transaction in which every statement sees what is committed when it starts, and no other
    /// isolation level that the session may have by default matters.
    ///
    /// A pool may give a connection on which somebody has left a transaction open. In it, what is not
    /// committed would be seen, and be committed by us. PostgreSQL only warns of a second BEGIN, so that the
    /// text fails by itself if anything was written before; MariaDB would commit what was left, which is
    /// therefore rolled back (without `autocommit` a read is enough to leave one); SQLite refuses.
    pub(crate) fn begin(&self) -> &'static str {
        match self.flavour {
            Flavour::Postgres => {
                "BEGIN ISOLATION LEVEL READ COMMITTED; \
                 SELECT 1 WHERE 1 = CAST(CASE WHEN pg_current_xact_id_if_assigned() IS NULL THEN '0' \
                 ELSE 'the pool gave a connection that was left in a transaction' END AS int); "
            }
            Flavour::MySql => {
                "ROLLBACK; SET TRANSACTION ISOLATION LEVEL READ COMMITTED; START TRANSACTION; "
            }
            Flavour::Sqlite => "BEGIN IMMEDIATE; ",
        }
    }

    /// What [`judge`](super::facts::judge) reads: rows of a name and a value.
    pub(crate) fn facts(&self) -> &'static str {
        match self.flavour {
            Flavour::Postgres => {
                "SELECT 'resource', resource FROM sendmail_database; \
                 SELECT 'standby', pg_is_in_recovery()::text; \
                 SELECT 'read only', current_setting('transaction_read_only'); "
            }
            Flavour::MySql => {
                "SELECT 'resource', resource FROM sendmail_database; \
                 SELECT 'read only', CAST(@@global.read_only AS CHAR); \
                 SELECT 'engine', engine FROM information_schema.tables \
                 WHERE table_schema = DATABASE() AND table_name = 'sendmail_marker'; "
            }
            Flavour::Sqlite => "SELECT 'resource', resource FROM sendmail_database; ",
        }
    }

    /// What [`relaxed`](super::facts::relaxed) reads.
    pub(crate) fn durability(&self) -> &'static str {
        match self.flavour {
            Flavour::Postgres => {
                "SELECT name, setting FROM pg_settings \
                 WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit')"
            }
            Flavour::MySql => {
                "SELECT 'innodb_flush_log_at_trx_commit', \
                 CAST(@@global.innodb_flush_log_at_trx_commit AS CHAR); \
                 SELECT 'log_bin', CAST(@@global.log_bin AS CHAR); \
                 SELECT 'sync_binlog', CAST(@@global.sync_binlog AS CHAR); \
                 SELECT 'version', VERSION()"
            }
            Flavour::Sqlite => {
                "SELECT 'journal_mode', journal_mode FROM pragma_journal_mode; \
                 SELECT 'synchronous', CAST(synchronous AS TEXT) FROM pragma_synchronous"
            }
        }
    }

    /// Fails where nothing can be written, and changes nothing.
    pub(crate) fn write_nothing(&self) -> &'static str {
        "DELETE FROM sendmail_marker WHERE 1 = 0"
    }

    /// The markers of own mail and transactions among `ids`, in a transaction of their own, and the facts.
    pub(crate) fn visible(&self, ids: &[QueueId]) -> String {
        let (facts, id, queue, list) = (self.facts(), self.id(), &self.queue, self.list(ids));
        let select = format!(
            "{facts}SELECT 'marker', {id} FROM sendmail_marker \
             WHERE id IN ({list}) AND kind IN (1, 2) AND queue = '{queue}'"
        );
        match self.flavour {
            // Ended in the same text: a reader that stays is in a writer's way. On a connection that came
            // back with a transaction open, where what is not committed is seen, the BEGIN fails.
            Flavour::Sqlite => format!("BEGIN; {select}; COMMIT"),
            _ => format!("{}{select}; COMMIT", self.begin()),
        }
    }

    /// A transaction that writes, and leaves nothing, where a commit can be seen before it is durable.
    pub(crate) fn write_behind(&self, fresh: QueueId) -> Option<String> {
        match self.flavour {
            Flavour::MySql => {
                let (insert, id) = (self.markers(&[fresh], 2), self.literal(fresh));
                let delete = format!("DELETE FROM sendmail_marker WHERE id = {id}");
                Some(self.alone(format!("{insert}; {delete}")))
            }
            Flavour::Postgres | Flavour::Sqlite => None,
        }
    }

    /// What is needed before a fence's transaction, on a server: how long it may wait for a lock.
    /// `bound` is more than that, and ends a statement that hangs for other reasons.
    fn waiting(&self, wait: Duration, bound: Duration) -> String {
        match self.flavour {
            Flavour::Postgres => {
                // Zero would mean without end.
                let (wait, bound) = (millis(wait).max(1), millis(bound).max(1));
                format!(
                    "SET LOCAL lock_timeout = {wait}; SET LOCAL statement_timeout = {bound}; \
                     SET LOCAL synchronous_commit = on; "
                )
            }
            Flavour::MySql => {
                let seconds = (wait.as_millis().saturating_add(500) / 1000).min(31_536_000);
                let seconds = if self.zero_wait { seconds } else { seconds.max(1) };
                format!(
                    "SET @sendmail_rs_lock = @@session.innodb_lock_wait_timeout, \
                     @sendmail_rs_meta = @@session.lock_wait_timeout, \
                     SESSION innodb_lock_wait_timeout = {seconds}, \
                     SESSION lock_wait_timeout = {}; ",
                    seconds.max(1)
                )
            }
            Flavour::Sqlite => String::new(),
        }
    }

    /// Begins a fence's transaction and puts the tombstone, if the key is free.
    pub(crate) fn fence(&self, id: QueueId, wait: Duration, bound: Duration) -> String {
        let (begin, waiting) = (self.begin(), self.waiting(wait, bound));
        let tombstone = self.tombstones(&[id]);
        match self.flavour {
            Flavour::Postgres => format!("{begin}{waiting}{tombstone}"),
            _ => format!("{waiting}{begin}{tombstone}"),
        }
    }

    /// Puts tombstones under the keys that are free. The kind is looked up by the database's identity: in
    /// another database it is NULL, which the column refuses.
    pub(crate) fn tombstones(&self, ids: &[QueueId]) -> String {
        let Self { database, queue, .. } = self;
        let mut text = String::from("INSERT INTO sendmail_marker (id, kind, queue) VALUES ");
        for (index, id) in ids.iter().enumerate() {
            let (comma, id) = (if index == 0 { "" } else { ", " }, self.literal(*id));
            // Writing to a String cannot fail.
            let _ = write!(
                text,
                "{comma}({id}, (SELECT 3 FROM sendmail_database WHERE resource = '{database}'), '{queue}')"
            );
        }
        if self.flavour != Flavour::MySql {
            text.push_str(" ON CONFLICT (id) DO NOTHING");
        }
        text
    }

    /// The facts, and what is under `ids`, by a locking read where the level of isolation could hide it.
    /// Rows are `row`, id, kind and queue.
    pub(crate) fn state(&self, ids: &[QueueId]) -> String {
        let (id, kind, list) = (self.id(), self.kind(), self.list(ids));
        let lock = if self.flavour == Flavour::MySql { " LOCK IN SHARE MODE" } else { "" };
        format!(
            "{}SELECT 'row', {id}, {kind}, queue FROM sendmail_marker WHERE id IN ({list}){lock}",
            self.facts()
        )
    }

    /// Commits a fence, and puts the session back as it was.
    pub(crate) fn commit(&self) -> String {
        format!("COMMIT{}", self.restore())
    }

    /// Rolls a fence back, and puts the session back as it was.
    pub(crate) fn rollback(&self) -> String {
        format!("ROLLBACK{}", self.restore())
    }

    fn restore(&self) -> &'static str {
        match self.flavour {
            Flavour::MySql => {
                "; SET SESSION innodb_lock_wait_timeout = @sendmail_rs_lock, \
                 SESSION lock_wait_timeout = @sendmail_rs_meta"
            }
            // There the settings were the transaction's own.
            Flavour::Postgres | Flavour::Sqlite => "",
        }
    }

    /// Deletes own rows of mail by their keys.
    pub(crate) fn forget(&self, ids: &[QueueId]) -> String {
        self.delete(ids, "kind = 1")
    }

    /// Own rows of mail that are older than `age`, the oldest ids first.
    pub(crate) fn remembered(&self, age: Duration, limit: usize) -> String {
        let (id, queue, old) = (self.id(), &self.queue, self.older_than(age));
        self.alone(format!(
            "SELECT {id} FROM sendmail_marker WHERE queue = '{queue}' AND kind = 1 AND {old} \
             ORDER BY sendmail_marker.id LIMIT {limit}"
        ))
    }

    /// The next `limit` rows in the order of their keys, whosesoever, and which of them have had their
    /// time: rows of id and `1` or `0`.
    pub(crate) fn page(&self, after: Option<QueueId>, limit: usize) -> String {
        let (id, queue, old) = (self.id(), &self.queue, self.older_than(KEEP));
        let after = after.map(|after| format!("WHERE id > {} ", self.literal(after)));
        self.alone(format!(
            "SELECT {id}, CASE WHEN queue = '{queue}' AND kind IN (2, 3) AND {old} \
             THEN '1' ELSE '0' END FROM sendmail_marker {}ORDER BY sendmail_marker.id LIMIT {limit}",
            after.unwrap_or_default()
        ))
    }

    /// Deletes own tombstones and transaction markers by their keys.
    pub(crate) fn bury(&self, ids: &[QueueId]) -> String {
        self.delete(ids, "kind IN (2, 3)")
    }

    /// Deletes own rows of `kinds` by their keys, and waits for no row but those.
    ///
    /// InnoDB locks what a deletion looks at, and would look at the whole table where most of it is named:
    /// it would wait for every transaction that is open. Therefore it must use the key, and, by READ
    /// COMMITTED, lock no gaps.
    fn delete(&self, ids: &[QueueId], kinds: &str) -> String {
        let from = match self.flavour {
            Flavour::MySql => "DELETE m FROM sendmail_marker AS m FORCE INDEX (PRIMARY)",
            Flavour::Postgres | Flavour::Sqlite => "DELETE FROM sendmail_marker",
        };
        let (queue, list) = (&self.queue, self.list(ids));
        self.alone(format!("{from} WHERE id IN ({list}) AND {kinds} AND queue = '{queue}'"))
    }

    /// Inserts markers of `kind` in the transaction that is open.
    pub(crate) fn markers(&self, ids: &[QueueId], kind: u8) -> String {
        let Self { database, queue, .. } = self;
        let row = |id: &QueueId| {
            format!(
                "({}, (SELECT {kind} FROM sendmail_database WHERE resource = '{database}'), '{queue}')",
                self.literal(*id)
            )
        };
        let rows: Vec<String> = ids.iter().map(row).collect();
        format!("INSERT INTO sendmail_marker (id, kind, queue) VALUES {}", rows.join(", "))
    }

    /// Inserts a transaction's own marker, with the time of the statement and not of the transaction's
    /// begin, which may be long ago.
    pub(crate) fn transaction_marker(&self, id: QueueId) -> String {
        let Self { flavour, database, queue, .. } = self;
        let id = self.literal(id);
        let kind = format!("(SELECT 2 FROM sendmail_database WHERE resource = '{database}')");
        let (column, value) = match flavour {
            Flavour::Postgres => (", at", ", clock_timestamp()"),
            Flavour::MySql | Flavour::Sqlite => ("", ""),
        };
        format!(
            "INSERT INTO sendmail_marker (id, kind, queue{column}) \
             VALUES ({id}, {kind}, '{queue}'{value})"
        )
    }

    /// `statement` in a transaction of its own. A session may begin one by itself, and would give its
    /// connection back with it open; another's level of isolation could fail an application's transaction.
    fn alone(&self, statement: String) -> String {
        match self.flavour {
            Flavour::Sqlite => statement,
            Flavour::Postgres | Flavour::MySql => format!("{}{statement}; COMMIT", self.begin()),
        }
    }

    fn older_than(&self, age: Duration) -> String {
        let seconds = age.as_secs();
        match self.flavour {
            Flavour::Postgres => {
                format!("at <= clock_timestamp() - interval '1 second' * {seconds}")
            }
            Flavour::MySql => format!("at <= CURRENT_TIMESTAMP(3) - INTERVAL {seconds} SECOND"),
            Flavour::Sqlite => {
                format!("at <= CAST(strftime('%s', 'now') AS INTEGER) - {seconds}")
            }
        }
    }

    fn list(&self, ids: &[QueueId]) -> String {
        ids.iter().map(|id| self.literal(*id)).collect::<Vec<_>>().join(", ")
    }

    fn literal(&self, id: QueueId) -> String {
        match self.flavour {
            Flavour::Postgres => format!("'{id}'"),
            Flavour::MySql | Flavour::Sqlite => format!("x'{}'", id.to_string().replace('-', "")),
        }
    }

    fn id(&self) -> &'static str {
        match self.flavour {
            Flavour::Postgres => "id::text",
            Flavour::MySql | Flavour::Sqlite => "HEX(id)",
        }
    }

    fn kind(&self) -> &'static str {
        match self.flavour {
            Flavour::MySql => "CAST(kind AS CHAR)",
            Flavour::Postgres | Flavour::Sqlite => "CAST(kind AS TEXT)",
        }
    }
}

/// An id as the database wrote it: hex digits, with hyphens or without.
pub(crate) fn parse_id(text: &str) -> Option<QueueId> {
    let digits = text.bytes().filter(|byte| *byte != b'-');
    let digits: Option<Vec<u8>> =
        digits.map(|byte| char::from(byte).to_digit(16)?.try_into().ok()).collect();
    let digits: [u8; 32] = digits?.try_into().ok()?;
    let mut bytes = [0; 16];
    for (byte, [high, low]) in bytes.iter_mut().zip(digits.as_chunks().0) {
        *byte = high << 4 | low;
    }
    Some(QueueId::from_bytes(bytes))
}

/// As PostgreSQL takes a time-out: an `int` of milliseconds.
fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(flavour: Flavour) -> Text {
        let (database, queue) = ("db-1".parse().unwrap(), "queue-1".parse().unwrap());
        Text { flavour, database, queue, zero_wait: true }
    }

    #[test]
    fn no_wait_at_all_is_never_said_as_a_wait_without_end() {
        let id = QueueId::from_bytes([0xab; 16]);
        let second = Duration::from_secs(1);
        let postgres = text(Flavour::Postgres).fence(id, Duration::ZERO, second);
        assert!(postgres.contains("lock_timeout = 1; SET LOCAL statement_timeout = 1000;"));
        let mysql = |zero_wait, wait| {
            let text = Text { zero_wait, ..text(Flavour::MySql) };
            text.fence(id, Duration::from_millis(wait), second)
        };
        assert!(mysql(true, 0).contains("innodb_lock_wait_timeout = 0,"));
        assert!(mysql(false, 0).contains("innodb_lock_wait_timeout = 1,"));
        assert!(mysql(true, 1600).contains("innodb_lock_wait_timeout = 2,"));
    }

    #[test]
    fn a_tombstone_names_its_queue_and_its_database() {
        let id = QueueId::from_bytes([0xab; 16]);
        assert_eq!(
            text(Flavour::Sqlite).tombstones(&[id]),
            "INSERT INTO sendmail_marker (id, kind, queue) VALUES \
             (x'abababababababababababababababab', (SELECT 3 FROM sendmail_database \
             WHERE resource = 'db-1'), 'queue-1') ON CONFLICT (id) DO NOTHING"
        );
        let plain = text(Flavour::MySql).tombstones(&[id]);
        assert!(plain.ends_with("'queue-1')"), "duplicates must be an error there: {plain}");
    }

    #[test]
    fn housekeeping_leaves_no_transaction_open_where_a_session_begins_one_by_itself() {
        for flavour in [Flavour::Postgres, Flavour::MySql] {
            let (text, ids) = (text(flavour), [QueueId::from_bytes([0xab; 16])]);
            let page = text.page(None, 1);
            for said in [text.forget(&ids), text.bury(&ids), text.remembered(KEEP, 1), page] {
                assert!(said.starts_with(text.begin()) && said.ends_with("; COMMIT"), "{said}");
            }
        }
    }

    proptest! {
        #[test]
        fn an_id_is_read_as_it_was_written(bytes: [u8; 16]) {
            let id = QueueId::from_bytes(bytes);
            prop_assert_eq!(parse_id(&id.to_string()), Some(id));
            prop_assert_eq!(parse_id(&id.to_string().replace('-', "").to_uppercase()), Some(id));
        }

        #[test]
        fn whatever_else_is_no_id(text in ".{0,40}") {
            let digits = text.chars().filter(|c| *c != '-').collect::<String>();
            let valid = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            prop_assert_eq!(parse_id(&text).is_some(), valid);
        }
    }
}
