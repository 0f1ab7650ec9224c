//! The configured databases: connections, and what decides their transactions.

mod pool;

use std::sync::Arc;
use std::time::Duration;

use sendmail_core::{DecisionStore, Error, ErrorKind, ResourceId, Result};
use tokio::task::JoinSet;

use crate::config::{DatabaseName, DatabaseSection};
use crate::exit::Failure;
use crate::setup::Setup;
pub(crate) use pool::DatabasePool;

/// How long it may take until a database can be asked.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A configured database.
pub(crate) struct Database {
    pub(crate) name: DatabaseName,
    pub(crate) shown: String,
    require_durable: bool,
    pool: DatabasePool,
}

/// A database that can be asked.
pub(crate) struct Connected {
    pub(crate) decisions: Arc<dyn DecisionStore>,
    /// What makes its commits less than durable, in words.
    pub(crate) warnings: Vec<String>,
}

impl Database {
    /// All that are configured. No connection is made yet.
    pub(crate) fn all(setup: &Setup) -> Result<Vec<Self>, Failure> {
        let databases = setup.config.databases.iter();
        databases.map(|(name, section)| Self::new(name, section)).collect()
    }

    fn new(name: &DatabaseName, section: &DatabaseSection) -> Result<Self, Failure> {
        Ok(Self {
            name: name.clone(),
            shown: section.url.get_ref().shown(),
            require_durable: section.require_durable,
            pool: DatabasePool::new(name, section)?,
        })
    }

    /// Connects, and looks whether it can be relied on to decide for `queue`.
    pub(crate) async fn connect(&self, queue: &ResourceId) -> Result<Connected> {
        const OPERATION: &str = "connect to the database";
        let connecting = async {
            // The pool goes on trying until its time is over, and has forgotten why then.
            self.pool.reach().await?;
            self.pool.decisions(queue.clone()).await.map_err(|error| match error.kind() {
                ErrorKind::NotFound => self.without_tables(error),
                _ => error,
            })
        };
        let connected =
            tokio::time::timeout(CONNECT_TIMEOUT, connecting).await.map_err(|_| {
                let text = format!("it did not answer in {} s", CONNECT_TIMEOUT.as_secs());
                Error::new(ErrorKind::Timeout, OPERATION, text)
            })??;
        if self.require_durable && !connected.warnings.is_empty() {
            let text = format!(
                "it is refused, since require_durable is set: {}",
                connected.warnings.join("; ")
            );
            return Err(Error::new(ErrorKind::Unsupported, OPERATION, text));
        }
        Ok(connected)
    }

    /// For an operator, in place of the library's words about its functions.
    fn without_tables(&self, error: Error) -> Error {
        let text = format!(
            "its tables sendmail_database and sendmail_marker are not there; if they have been, restore \
             them from the backup, since they say which database it is and what it decided; \
             `sendmail-queue migrate {}` makes new ones",
            self.name
        );
        Error::new(ErrorKind::NotFound, "use the database for mail", text).with_source(error)
    }
}

/// Connects to all of `databases` at once; what came of it, in their order.
pub(crate) async fn connect_all(
    databases: Vec<Database>,
    queue: &ResourceId,
) -> Vec<(Database, Result<Connected>)> {
    let mut connecting = JoinSet::new();
    for (index, database) in databases.into_iter().enumerate() {
        let queue = queue.clone();
        connecting.spawn(async move {
            let connected = database.connect(&queue).await;
            (index, database, connected)
        });
    }
    let mut all = connecting.join_all().await;
    all.sort_by_key(|(index, ..)| *index);
    all.into_iter().map(|(_, database, connected)| (database, connected)).collect()
}
