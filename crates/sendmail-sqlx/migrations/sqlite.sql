-- sendmail-rs, SQLite. Safe to run again; where several may run it at once, inside BEGIN IMMEDIATE
-- (as the function `migrate` does).

-- Which database this is: mail that was attached here says so, and nobody else is asked about it.
CREATE TABLE IF NOT EXISTS sendmail_database (
    one INTEGER PRIMARY KEY DEFAULT 1 CHECK (one = 1),
    resource TEXT NOT NULL
);
INSERT OR IGNORE INTO sendmail_database (one, resource)
    VALUES (1, 'db-' || lower(hex(randomblob(16))));

-- One row for each mail whose transaction was not finished everywhere yet, and for each that was
-- fenced off as rolled back. kind: 1 mail, 2 transaction, 3 tombstone. at: when it was inserted, in
-- seconds since 1970. Ids are UUIDv7, so that the key is in the order of time.
CREATE TABLE IF NOT EXISTS sendmail_marker (
    id BLOB NOT NULL PRIMARY KEY CHECK (typeof(id) = 'blob' AND length(id) = 16),
    kind INTEGER NOT NULL CHECK (kind BETWEEN 1 AND 3),
    queue TEXT NOT NULL,
    at INTEGER NOT NULL DEFAULT (CAST(strftime('%s', 'now') AS INTEGER))
) WITHOUT ROWID;

-- How far each consumer has read the events of a queue.
CREATE TABLE IF NOT EXISTS sendmail_cursor (
    consumer TEXT NOT NULL,
    queue TEXT NOT NULL,
    position TEXT NOT NULL,
    PRIMARY KEY (consumer, queue)
) WITHOUT ROWID;
