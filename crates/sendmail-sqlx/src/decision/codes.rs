//! What a database's error code means to a fence. Pure; whatever is not listed is doubt.

use super::speak::Flavour;

/// What a code says about the question "what became of this transaction?".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// Somebody holds what it takes to answer: ask again.
    Unfinished,
    /// The key is taken: what is under it is the answer.
    Exists,
    /// The server only reads: it is a standby or a replica, or was made read-only.
    WrongServer,
    /// It is another database than the one that is asked about.
    WrongDatabase,
    /// The migration was not run here.
    TableMissing,
    /// It says nothing.
    Doubt,
}

/// What `code` means: the SQLSTATE of PostgreSQL, the number of MariaDB, MySQL and SQLite.
pub(crate) fn meaning(flavour: Flavour, code: &str, message: &str) -> Meaning {
    match flavour {
        Flavour::Postgres => postgres(code),
        Flavour::MySql => mysql(code),
        Flavour::Sqlite => sqlite(code, message),
    }
}

fn postgres(code: &str) -> Meaning {
    match code {
        // Lock time-out, statement time-out, serialization failure, deadlock.
        "55P03" | "57014" | "40001" | "40P01" => Meaning::Unfinished,
        "25006" => Meaning::WrongServer,
        "23502" => Meaning::WrongDatabase,
        "42P01" => Meaning::TableMissing,
        _ => Meaning::Doubt,
    }
}

fn mysql(code: &str) -> Meaning {
    match code {
        // Lock time-out, deadlock.
        "1205" | "1213" => Meaning::Unfinished,
        "1062" => Meaning::Exists,
        "1290" | "1792" | "1836" => Meaning::WrongServer,
        "1048" => Meaning::WrongDatabase,
        "1146" => Meaning::TableMissing,
        _ => Meaning::Doubt,
    }
}

/// By primary code; by extended code where only that is clear.
fn sqlite(code: &str, message: &str) -> Meaning {
    const BUSY: u32 = 5;
    const LOCKED: u32 = 6;
    const READONLY: u32 = 8;
    let Ok(code) = code.parse::<u32>() else { return Meaning::Doubt };
    match (code, code & 0xff) {
        // The busy handler's time is over, or a snapshot is too old (517).
        (_, BUSY | LOCKED) => Meaning::Unfinished,
        (1555 | 2067, _) => Meaning::Exists,
        (_, READONLY) => Meaning::WrongServer,
        (1299, _) => Meaning::WrongDatabase,
        (1, _) if message.contains("no such table") => Meaning::TableMissing,
        _ => Meaning::Doubt,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KNOWN: &[(Flavour, &str, Meaning)] = &[
        (Flavour::Postgres, "55P03", Meaning::Unfinished),
        (Flavour::Postgres, "57014", Meaning::Unfinished),
        (Flavour::Postgres, "40001", Meaning::Unfinished),
        (Flavour::Postgres, "40P01", Meaning::Unfinished),
        (Flavour::Postgres, "25006", Meaning::WrongServer),
        (Flavour::Postgres, "23502", Meaning::WrongDatabase),
        (Flavour::Postgres, "42P01", Meaning::TableMissing),
        (Flavour::MySql, "1205", Meaning::Unfinished),
        (Flavour::MySql, "1213", Meaning::Unfinished),
        (Flavour::MySql, "1062", Meaning::Exists),
        (Flavour::MySql, "1290", Meaning::WrongServer),
        (Flavour::MySql, "1792", Meaning::WrongServer),
        (Flavour::MySql, "1836", Meaning::WrongServer),
        (Flavour::MySql, "1048", Meaning::WrongDatabase),
        (Flavour::MySql, "1146", Meaning::TableMissing),
        (Flavour::Sqlite, "5", Meaning::Unfinished),
        (Flavour::Sqlite, "6", Meaning::Unfinished),
        (Flavour::Sqlite, "517", Meaning::Unfinished),
        (Flavour::Sqlite, "1555", Meaning::Exists),
        (Flavour::Sqlite, "2067", Meaning::Exists),
        (Flavour::Sqlite, "8", Meaning::WrongServer),
        (Flavour::Sqlite, "1032", Meaning::WrongServer),
        (Flavour::Sqlite, "1299", Meaning::WrongDatabase),
    ];

    #[test]
    fn each_code_has_its_meaning() {
        for (flavour, code, expected) in KNOWN {
            assert_eq!(meaning(*flavour, code, ""), *expected, "{flavour:?} {code}");
        }
        let missing = meaning(Flavour::Sqlite, "1", "no such table: sendmail_marker");
        assert_eq!(missing, Meaning::TableMissing);
    }

    #[test]
    fn neither_a_lost_connection_nor_a_full_disk_is_an_answer() {
        for (flavour, code) in [
            (Flavour::Postgres, "57P01"),
            (Flavour::Postgres, "08006"),
            (Flavour::Postgres, "53100"),
            (Flavour::Postgres, "23505"),
            (Flavour::Postgres, "25P02"),
            (Flavour::MySql, "2013"),
            (Flavour::MySql, "1114"),
            (Flavour::MySql, "1927"),
            (Flavour::Sqlite, "13"),
            (Flavour::Sqlite, "10"),
            (Flavour::Sqlite, "1"),
            (Flavour::Sqlite, ""),
        ] {
            assert_eq!(meaning(flavour, code, "trouble"), Meaning::Doubt, "{flavour:?} {code}");
        }
    }

    proptest! {
        #[test]
        fn what_is_not_known_is_doubt(code in "[0-9A-Z]{0,6}", message in ".{0,40}") {
            for flavour in [Flavour::Postgres, Flavour::MySql] {
                let known = KNOWN.iter().any(|(of, known, _)| *of == flavour && *known == code);
                prop_assert_eq!(meaning(flavour, &code, &message) == Meaning::Doubt, !known);
            }
        }

        #[test]
        fn of_sqlite_only_the_listed_primary_codes_mean_something(code in 0_u32..10_000) {
            let listed = matches!(code & 0xff, 5 | 6 | 8) || matches!(code, 1555 | 2067 | 1299);
            let found = meaning(Flavour::Sqlite, &code.to_string(), "trouble");
            prop_assert_eq!(found != Meaning::Doubt, listed);
        }
    }
}
