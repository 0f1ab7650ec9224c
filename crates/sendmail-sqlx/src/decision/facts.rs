//! What a database says about itself, judged. Pure.

use sendmail_core::ResourceId;

use super::codes::Meaning;
use super::speak::Rows;

/// Why a database may not decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// A code would have said the same.
    Known(Meaning),
    /// A rollback does not take back what is written to the table.
    Engine(String),
}

/// Whether the database that answered `rows` is `database`, keeps its transactions, and writes.
pub(crate) fn judge(rows: &Rows, database: &ResourceId) -> Result<(), Unfit> {
    if value(rows, "resource") != Some(database.as_str()) {
        return Err(Unfit::Known(Meaning::WrongDatabase));
    }
    let refuses = |name| value(rows, name).is_some_and(|said| !is_off(said));
    if refuses("standby") || refuses("read only") {
        return Err(Unfit::Known(Meaning::WrongServer));
    }
    match value(rows, "engine") {
        Some(engine) if !engine.eq_ignore_ascii_case("InnoDB") => {
            Err(Unfit::Engine(engine.to_owned()))
        }
        _ => Ok(()),
    }
}

/// Which settings of those in `rows` let a crash forget what was committed.
pub(crate) fn relaxed(rows: &Rows) -> Vec<String> {
    let mut found = Vec::new();
    for name in ["fsync", "full_page_writes", "synchronous_commit"] {
        if value(rows, name).is_some_and(is_off) {
            found
                .push(format!("PostgreSQL's {name} is off: a crash can forget what was committed"));
        }
    }
    let flush = "innodb_flush_log_at_trx_commit";
    if let Some(setting) = value(rows, flush).filter(|setting| *setting != "1") {
        found.push(format!(
            "{flush} is {setting}: a crash can forget what was committed; set it to 1"
        ));
    }
    // With a binary log it is that log which says after a crash what was committed.
    if value(rows, "log_bin").is_some_and(|said| !is_off(said))
        && let Some(setting) = value(rows, "sync_binlog").filter(|setting| *setting != "1")
    {
        found.push(format!(
            "sync_binlog is {setting}, and the binary log is on: a crash can forget what was committed; \
             set it to 1"
        ));
    }
    found.extend(relaxed_sqlite(rows));
    found
}

fn relaxed_sqlite(rows: &Rows) -> Option<String> {
    let synchronous = value(rows, "synchronous")?;
    let journal = value(rows, "journal_mode")?;
    let forgets = match (journal, synchronous) {
        ("memory" | "off", _) | (_, "0") => true,
        ("wal", synchronous) => synchronous == "1",
        _ => false,
    };
    forgets.then(|| {
        format!(
            "SQLite's journal_mode is {journal} and synchronous is {synchronous}: a crash can forget \
             what was committed; set synchronous to FULL on every connection"
        )
    })
}

/// Whether it is MariaDB, where a lock time-out may be zero.
pub(crate) fn is_mariadb(rows: &Rows) -> bool {
    value(rows, "version").is_some_and(|version| version.contains("MariaDB"))
}

pub(crate) fn value<'a>(rows: &'a Rows, name: &str) -> Option<&'a str> {
    rows.iter().find_map(|row| match row.as_slice() {
        [key, value] if key == name => Some(value.as_str()),
        _ => None,
    })
}

fn is_off(said: &str) -> bool {
    matches!(said, "off" | "false" | "0" | "OFF")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(pairs: &[(&str, &str)]) -> Rows {
        pairs.iter().map(|(key, value)| vec![(*key).to_owned(), (*value).to_owned()]).collect()
    }

    #[test]
    fn only_the_writable_primary_may_decide() {
        let database = "db-1".parse().unwrap();
        let wrong_server = Err(Unfit::Known(Meaning::WrongServer));
        let wrong_database = Err(Unfit::Known(Meaning::WrongDatabase));
        for (said, expected) in [
            (&[("resource", "db-1")][..], Ok(())),
            (&[("resource", "db-1"), ("standby", "false"), ("read only", "off")], Ok(())),
            (
                &[("resource", "db-1"), ("standby", "true"), ("read only", "on")],
                wrong_server.clone(),
            ),
            (
                &[("resource", "db-1"), ("standby", "false"), ("read only", "on")],
                wrong_server.clone(),
            ),
            (&[("resource", "db-1"), ("read only", "0"), ("engine", "InnoDB")], Ok(())),
            (&[("resource", "db-1"), ("read only", "1"), ("engine", "InnoDB")], wrong_server),
            (
                &[("resource", "db-1"), ("read only", "0"), ("engine", "Aria")],
                Err(Unfit::Engine("Aria".to_owned())),
            ),
            (&[("resource", "db-2")], wrong_database.clone()),
            (&[], wrong_database),
        ] {
            assert_eq!(judge(&rows(said), &database), expected, "{said:?}");
        }
    }

    #[test]
    fn relaxed_settings_are_found() {
        for (said, count) in [
            (&[("fsync", "on"), ("full_page_writes", "on"), ("synchronous_commit", "on")][..], 0),
            (&[("fsync", "on"), ("full_page_writes", "on"), ("synchronous_commit", "local")], 0),
            (&[("fsync", "off"), ("full_page_writes", "off"), ("synchronous_commit", "off")], 3),
            (&[("innodb_flush_log_at_trx_commit", "1")], 0),
            (&[("innodb_flush_log_at_trx_commit", "2")], 1),
            (&[("log_bin", "0"), ("sync_binlog", "0")], 0),
            (&[("log_bin", "1"), ("sync_binlog", "1")], 0),
            (&[("log_bin", "1"), ("sync_binlog", "0")], 1),
            (&[("innodb_flush_log_at_trx_commit", "0")], 1),
            (&[("journal_mode", "wal"), ("synchronous", "2")], 0),
            (&[("journal_mode", "wal"), ("synchronous", "1")], 1),
            (&[("journal_mode", "delete"), ("synchronous", "1")], 0),
            (&[("journal_mode", "delete"), ("synchronous", "0")], 1),
            (&[("journal_mode", "memory"), ("synchronous", "2")], 1),
        ] {
            assert_eq!(relaxed(&rows(said)).len(), count, "{said:?}");
        }
    }

    #[test]
    fn mariadb_is_told_from_mysql() {
        assert!(is_mariadb(&rows(&[("version", "10.11.19-MariaDB-0+deb12u1")])));
        assert!(!is_mariadb(&rows(&[("version", "8.0.36")])));
    }
}
