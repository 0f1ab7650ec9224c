-- sendmail-rs, MariaDB 10.11 and later, MySQL 8. Safe to run again. It commits what came before it on
-- its connection, as all statements do there that create tables.

-- Which database this is: mail that was attached here says so, and nobody else is asked about it.
CREATE TABLE IF NOT EXISTS sendmail_database (
    one tinyint NOT NULL DEFAULT 1 PRIMARY KEY CHECK (one = 1),
    resource varchar(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL
) ENGINE = InnoDB;
-- Replicas receive the value of a variable, where they would draw other random bytes themselves.
SET @sendmail_resource = CONCAT('db-', LOWER(HEX(RANDOM_BYTES(16))));
INSERT IGNORE INTO sendmail_database (one, resource) VALUES (1, @sendmail_resource);

-- One row for each mail whose transaction was not finished everywhere yet, and for each that was
-- fenced off as rolled back. kind: 1 mail, 2 transaction, 3 tombstone. at: when it was inserted. Ids
-- are UUIDv7, so that the key is in the order of time.
CREATE TABLE IF NOT EXISTS sendmail_marker (
    id binary(16) NOT NULL PRIMARY KEY,
    kind tinyint NOT NULL CHECK (kind BETWEEN 1 AND 3),
    queue varchar(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    at timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3)
) ENGINE = InnoDB;

-- How far each consumer has read the events of a queue.
CREATE TABLE IF NOT EXISTS sendmail_cursor (
    consumer varchar(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    queue varchar(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    position text CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    PRIMARY KEY (consumer, queue)
) ENGINE = InnoDB;
