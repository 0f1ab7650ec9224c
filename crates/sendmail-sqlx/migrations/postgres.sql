-- sendmail-rs, PostgreSQL 13 and later. Safe to run again, inside a transaction or outside one; where
-- several may run it at once, hold a lock around it (as the function `migrate` does).

-- Which database this is: mail that was attached here says so, and nobody else is asked about it.
CREATE TABLE IF NOT EXISTS sendmail_database (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    resource varchar(64) NOT NULL
);
INSERT INTO sendmail_database (resource)
    VALUES ('db-' || replace(gen_random_uuid()::text, '-', ''))
    ON CONFLICT (one) DO NOTHING;

-- One row for each mail whose transaction was not finished everywhere yet, and for each that was
-- fenced off as rolled back. kind: 1 mail, 2 transaction, 3 tombstone. at: when it was inserted, not
-- when its transaction began. Ids are UUIDv7, so that the key is in the order of time.
CREATE TABLE IF NOT EXISTS sendmail_marker (
    id uuid PRIMARY KEY,
    kind smallint NOT NULL CHECK (kind BETWEEN 1 AND 3),
    queue varchar(64) NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- How far each consumer has read the events of a queue.
CREATE TABLE IF NOT EXISTS sendmail_cursor (
    consumer varchar(64) NOT NULL,
    queue varchar(64) NOT NULL,
    position text NOT NULL,
    PRIMARY KEY (consumer, queue)
);
