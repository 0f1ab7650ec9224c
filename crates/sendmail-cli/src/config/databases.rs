//! `[databases.NAME]`: the databases that decide transactions with mail in them.

use std::borrow::Borrow;
use std::fmt;
use std::path::PathBuf;

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Deserializer};
use sqlx::mysql::MySqlConnectOptions;
use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use toml::Spanned;

use super::mask_url;

/// One database.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DatabaseSection {
    /// Where it is.
    pub(crate) url: Spanned<DatabaseUrl>,
    /// A file whose first line is the password.
    pub(crate) password_file: Option<Spanned<PathBuf>>,
    /// Whether it is refused if it can forget what it has committed.
    #[serde(default)]
    pub(crate) require_durable: bool,
}

/// What a database is called here: letters, digits, `-` and `_`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DatabaseName(String);

/// Where a database is. It may hold a password.
#[derive(Debug, Clone)]
pub(crate) struct DatabaseUrl {
    kind: DatabaseKind,
    url: SecretString,
}

/// What a database is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DatabaseKind {
    Postgres,
    MySql,
    Sqlite,
}

impl DatabaseSection {
    /// A database of which nothing but the URL is said.
    pub(crate) fn at(url: DatabaseUrl) -> Self {
        Self { url: Spanned::new(0..0, url), password_file: None, require_durable: false }
    }

    /// What is wrong with its password file, and where that stands.
    pub(super) fn check(&self) -> Result<(), (usize, &'static str)> {
        let Some(file) = &self.password_file else { return Ok(()) };
        let url = self.url.get_ref();
        let why = match url.kind {
            DatabaseKind::Sqlite => "SQLite knows no password",
            _ if url.has_password() => "there is a password in `url` too",
            _ if !url.has_user() => "there is no user in `url` to go with it",
            _ => return Ok(()),
        };
        Err((file.span().start, why))
    }
}

impl DatabaseName {
    /// The longest name.
    const MAX_LEN: usize = 64;

    /// What a database is called that the command line or the environment names.
    pub(crate) fn default_name() -> Self {
        Self("default".to_owned())
    }

    pub(crate) fn parse(text: String) -> Result<Self, &'static str> {
        let is_fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if text.is_empty() || text.len() > Self::MAX_LEN || !text.chars().all(is_fine) {
            return Err("a database's name is 1 to 64 letters, digits, `-` and `_`");
        }
        Ok(Self(text))
    }
}

impl Borrow<str> for DatabaseName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DatabaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for DatabaseName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for DatabaseUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl DatabaseUrl {
    /// Reads a URL; the error does not repeat it.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        const SCHEMES: &str = "a database is written as postgres://USER@HOST/NAME, \
                               mysql://USER@HOST/NAME, mariadb://USER@HOST/NAME or sqlite:/PATH";
        let (scheme, rest) = text.split_once(':').ok_or(SCHEMES)?;
        let kind = match scheme {
            "postgres" | "postgresql" => DatabaseKind::Postgres,
            "mysql" | "mariadb" => DatabaseKind::MySql,
            "sqlite" => DatabaseKind::Sqlite,
            _ => return Err(SCHEMES),
        };
        if kind == DatabaseKind::Sqlite {
            let path = rest.trim_start_matches("//").split('?').next().unwrap_or_default();
            if path.is_empty() || path.contains(":memory:") || rest.contains("mode=memory") {
                return Err("an SQLite database is a file that other processes can ask as well: \
                            sqlite:/PATH");
            }
        } else if !rest.starts_with("//") {
            return Err(SCHEMES);
        }
        let query = rest.split_once('?').map_or("", |(_, query)| query);
        if query.to_ascii_lowercase().split('&').any(|each| each.starts_with("pass")) {
            return Err("a password stands before the @, or in password_file");
        }
        // The drivers' own messages may repeat what they do not understand.
        let understood = match kind {
            DatabaseKind::Postgres => text.parse::<PgConnectOptions>().is_ok(),
            DatabaseKind::MySql => text.parse::<MySqlConnectOptions>().is_ok(),
            DatabaseKind::Sqlite => text.parse::<SqliteConnectOptions>().is_ok(),
        };
        if !understood {
            return Err("the driver does not understand it; what is special in user and password \
                        is percent-encoded");
        }
        Ok(Self { kind, url: SecretString::from(text) })
    }

    pub(crate) fn kind(&self) -> DatabaseKind {
        self.kind
    }

    /// Itself, with its password.
    pub(crate) fn expose(&self) -> &str {
        self.url.expose_secret()
    }

    /// Itself, as it may be shown to people.
    pub(crate) fn shown(&self) -> String {
        mask_url(self.expose())
    }

    pub(crate) fn has_password(&self) -> bool {
        self.kind != DatabaseKind::Sqlite && self.shown() != self.expose()
    }

    fn has_user(&self) -> bool {
        let rest = self.expose().split_once("://").map_or("", |(_, rest)| rest);
        rest.split(['/', '?']).next().is_some_and(|authority| authority.contains('@'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_shown_without_their_password() {
        for (text, kind, shown) in [
            ("postgres://u:p@h/d", DatabaseKind::Postgres, "postgres://u:***@h/d"),
            ("postgresql://h/d", DatabaseKind::Postgres, "postgresql://h/d"),
            ("mysql://u:p@h:3307/d", DatabaseKind::MySql, "mysql://u:***@h:3307/d"),
            ("mariadb://u@h/d", DatabaseKind::MySql, "mariadb://u@h/d"),
            ("sqlite:/var/lib/d.db", DatabaseKind::Sqlite, "sqlite:/var/lib/d.db"),
            ("sqlite://d.db?mode=rw", DatabaseKind::Sqlite, "sqlite://d.db?mode=rw"),
        ] {
            let url = DatabaseUrl::parse(text).unwrap();
            assert_eq!((url.kind(), url.shown().as_str()), (kind, shown));
            assert_eq!(url.has_password(), text != shown);
            assert!(!format!("{url:?}").contains(":p@"));
        }
    }

    #[test]
    fn what_is_no_database_is_refused() {
        for bad in [
            "",
            "postgres",
            "postgres:h/d",
            "oracle://h/d",
            "POSTGRES://h/d",
            "postgres://h:port/d",
            "mysql://h/d?PASSWORD=p",
            "postgres://h/d?sslmode=p455",
            "sqlite:",
            "sqlite://",
            "sqlite::memory:",
            "sqlite:x?mode=memory",
        ] {
            let why = DatabaseUrl::parse(bad).unwrap_err();
            assert!(!why.contains("p455"), "{why}");
        }
    }

    #[test]
    fn names_are_short_and_plain() {
        assert!(DatabaseName::parse("shop_1-b".to_owned()).is_ok());
        for bad in ["", "a b", "a.b", "é", &"x".repeat(65)] {
            assert!(DatabaseName::parse(bad.to_owned()).is_err(), "{bad:?}");
        }
    }
}
