//! Mail that joins a database transaction which the application begins and commits: PostgreSQL,
//! MariaDB, MySQL or SQLite.

#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
mod events;

#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
pub use events::{
    Consumed, EventDatabase, EventSource, EventTrouble, SqlEventConsumer, SqlEventHandler, StartAt,
    TroubleHook,
};
