//! What differs between the databases when a whole service is tested: making one, backing it up, and rows
//! that tests make by hand.

use std::path::Path;
use std::process::{Command, Stdio};

use sendmail_core::QueueId;
use sendmail_tests::orders::Orders;
use sendmail_tests::servers::{MariaDb, Postgres};
use sqlx::{MySql, Sqlite};

/// What a test needs of a database beyond taking orders.
pub(crate) trait Whole: Orders {
    /// A new database; nothing where the test is skipped.
    fn create(test: &str, database: &str, folder: &Path) -> Option<String>;

    /// The program that makes a backup, where one is needed.
    const BACKUP: Option<&'static str>;

    /// The content of the database, which is then restored by [`Whole::load`].
    fn dump(url: &str) -> Vec<u8>;

    /// Replaces what is in the database by that backup.
    fn load(url: &str, backup: &[u8]);

    /// Makes all rows of ours older by so many minutes.
    fn aged(minutes: u32) -> String;

    /// Inserts a million tombstones of `queue` that are two days old.
    fn million_tombstones(queue: &str) -> String;

    /// An id as SQL has it.
    fn literal(id: QueueId) -> String {
        format!("x'{}'", id.to_string().replace('-', ""))
    }
}

impl Whole for sqlx::Postgres {
    fn create(test: &str, database: &str, _: &Path) -> Option<String> {
        Some(Postgres::shared(test)?.create_database(database).unwrap())
    }

    const BACKUP: Option<&'static str> = Some("pg_dump");

    fn dump(url: &str) -> Vec<u8> {
        let mut command = Command::new("pg_dump");
        command.args(["--clean", "--if-exists", "--no-owner", "--dbname"]).arg(url);
        finish(command, &[])
    }

    fn load(url: &str, backup: &[u8]) {
        let mut command = Command::new("psql");
        command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "--single-transaction", "-d", url]);
        finish(command, backup);
    }

    fn aged(minutes: u32) -> String {
        format!("UPDATE sendmail_marker SET at = at - interval '{minutes} minutes'")
    }

    fn million_tombstones(queue: &str) -> String {
        format!(
            "INSERT INTO sendmail_marker (id, kind, queue, at) \
             SELECT lpad(to_hex(n), 32, '0')::uuid, 3, '{queue}', now() - interval '2 days' \
             FROM generate_series(1, 1000000) n"
        )
    }

    fn literal(id: QueueId) -> String {
        format!("'{id}'")
    }
}

impl Whole for MySql {
    fn create(test: &str, database: &str, _: &Path) -> Option<String> {
        Some(MariaDb::shared(test)?.create_database(database).unwrap())
    }

    const BACKUP: Option<&'static str> = Some("mariadb-dump");

    fn dump(url: &str) -> Vec<u8> {
        finish(mariadb("mariadb-dump", &["--single-transaction"], url), &[])
    }

    fn load(url: &str, backup: &[u8]) {
        finish(mariadb("mariadb", &[], url), backup);
    }

    fn aged(minutes: u32) -> String {
        format!("UPDATE sendmail_marker SET at = at - INTERVAL {minutes} MINUTE")
    }

    fn million_tombstones(queue: &str) -> String {
        format!(
            "INSERT INTO sendmail_marker (id, kind, queue, at) \
             SELECT UNHEX(LPAD(HEX(seq), 32, '0')), 3, '{queue}', NOW() - INTERVAL 2 DAY \
             FROM seq_1_to_1000000"
        )
    }
}

impl Whole for Sqlite {
    fn create(_: &str, database: &str, folder: &Path) -> Option<String> {
        Some(format!("sqlite://{}/{database}.db?mode=rwc", folder.display()))
    }

    const BACKUP: Option<&'static str> = None;

    fn dump(url: &str) -> Vec<u8> {
        std::fs::read(file(url)).unwrap()
    }

    fn load(url: &str, backup: &[u8]) {
        std::fs::write(file(url), backup).unwrap();
    }

    fn aged(minutes: u32) -> String {
        format!("UPDATE sendmail_marker SET at = at - 60 * {minutes}")
    }

    fn million_tombstones(queue: &str) -> String {
        format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000) \
             INSERT INTO sendmail_marker (id, kind, queue, at) SELECT CAST(printf('%016d', i) AS BLOB), \
             3, '{queue}', CAST(strftime('%s', 'now') AS INTEGER) - 172800 FROM n"
        )
    }
}

fn file(url: &str) -> &str {
    url.trim_start_matches("sqlite://").trim_end_matches("?mode=rwc")
}

/// A client of MariaDB for the database of `url`.
fn mariadb(program: &str, options: &[&str], url: &str) -> Command {
    let (user, rest) = url.strip_prefix("mysql://").unwrap().split_once(':').unwrap();
    let (password, rest) = rest.split_once('@').unwrap();
    let (address, database) = rest.split_once('/').unwrap();
    let (host, port) = address.split_once(':').unwrap();
    let mut command = Command::new(program);
    command.env("MYSQL_PWD", password).args(["--no-defaults", "--protocol=tcp", "--skip-ssl"]);
    command.args(options).args([format!("--host={host}"), format!("--port={port}")]);
    command.arg(format!("--user={user}")).arg(database);
    command
}

/// Runs a program to its end with `input`, and gives what it wrote.
fn finish(mut command: Command, input: &[u8]) -> Vec<u8> {
    let source = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(source.path(), input).unwrap();
    command.stdin(source.reopen().unwrap()).stderr(Stdio::piped());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
