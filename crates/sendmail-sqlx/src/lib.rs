//! Mail that joins a database transaction which the application begins and commits: PostgreSQL,
//! MariaDB, MySQL or SQLite.
