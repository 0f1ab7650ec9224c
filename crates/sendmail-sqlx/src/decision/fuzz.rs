//! What the fuzzers call here. Only built for them.

use super::codes::{Meaning, meaning};
use super::facts::{judge, relaxed};
use super::speak::{Flavour, Rows};
use super::text::parse_id;

const FLAVOURS: [Flavour; 3] = [Flavour::Postgres, Flavour::MySql, Flavour::Sqlite];

/// An id as a database wrote it: read in every spelling as the same.
pub(crate) fn id(text: &str) {
    let Some(id) = parse_id(text) else { return };
    let spelling = id.to_string();
    assert_eq!(parse_id(&spelling), Some(id));
    assert_eq!(parse_id(&spelling.replace('-', "").to_uppercase()), Some(id));
    assert_eq!(text.replace('-', "").to_lowercase(), spelling.replace('-', ""));
}

/// A code of any length and any bytes: "it exists", which settles a question, only ever by the codes
/// that say so.
pub(crate) fn code(code: &str, message: &str) {
    for flavour in FLAVOURS {
        if meaning(flavour, code, message) == Meaning::Exists {
            let number = code.parse::<u32>();
            assert!(matches!(number, Ok(1062 | 1555 | 2067)), "{code:?}");
        }
    }
}

/// What a database says of itself: fit only if it names itself as expected.
pub(crate) fn facts(rows: &Rows) {
    let expected = "db-1".parse().expect("it is a resource id");
    if judge(rows, &expected).is_ok() {
        assert!(rows.iter().any(
            |row| matches!(row.as_slice(), [key, value] if key == "resource" && value == "db-1")
        ));
    }
    let _ = relaxed(rows);
}
