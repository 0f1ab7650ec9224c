//! The SQL that makes the tables, for those who run their migrations themselves: the files of the
//! crate's `migrations` folder. Each may be run again.

/// For PostgreSQL 13 and later: `migrations/postgres.sql`.
pub const POSTGRES: &str = include_str!("../migrations/postgres.sql");

/// For MariaDB 10.11 and later, and MySQL 8: `migrations/mysql.sql`.
pub const MYSQL: &str = include_str!("../migrations/mysql.sql");

/// For SQLite: `migrations/sqlite.sql`.
pub const SQLITE: &str = include_str!("../migrations/sqlite.sql");
