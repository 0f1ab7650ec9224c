//! The configured databases: connections, and what decides their transactions.

mod pool;

pub(crate) use pool::DatabasePool;
