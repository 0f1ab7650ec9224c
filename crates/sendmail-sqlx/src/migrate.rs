//! Making the tables, and looking at them.

use sendmail_core::{Error, ErrorKind, ResourceId, Result};
use sqlx::Pool;

use crate::engine::{COMPLETE, Engine, IDENTITY};
use crate::error::explained;

/// Makes the tables in the database of `pool`, if they are not there: what is in
/// [`migrations`](crate::migrations), with a lock around it, so that any number of processes may call it
/// at once, at every start. Where they are all there it only looks: it then needs no right to create
/// tables, and waits for no transaction.
///
/// # Errors
///
/// The role may not create tables, or the database could not be reached. What was made before stays;
/// repeat it.
///
/// # Cancel safety
///
/// Cancel safe: repeat it.
pub async fn migrate<DB: Engine>(pool: &Pool<DB>) -> Result<()> {
    if let Ok(Some(_)) = DB::identity(pool, COMPLETE).await {
        return Ok(());
    }
    let made = DB::migrate(pool).await;
    made.map_err(|error| explained(DB::DIALECT, "make the tables", error))
}

/// The identity of the database of `pool`: the name under which its transactions decide about mail.
///
/// # Errors
///
/// [`ErrorKind::NotFound`]: the tables are missing. Others: it could not be asked.
///
/// # Cancel safety
///
/// Cancel safe: it only looks.
pub async fn resource<DB: Engine>(pool: &Pool<DB>) -> Result<ResourceId> {
    const OPERATION: &str = "read the database's identity";
    let found = DB::identity(pool, IDENTITY).await;
    let found = found.map_err(|error| explained(DB::DIALECT, OPERATION, error))?;
    let text = found.ok_or_else(|| {
        let message = "the table sendmail_database is empty; if this database is new, run the migration \
                       again; if it is not, put its row back, or mail attached before is not found";
        Error::new(ErrorKind::NotFound, OPERATION, message)
    })?;
    text.parse().map_err(|error| {
        let message = "the identity in sendmail_database is malformed";
        Error::new(ErrorKind::Damaged, OPERATION, message).with_source(error)
    })
}

/// As [`resource`], and refuses a database that cannot decide about mail.
pub(crate) async fn inspect<DB: Engine>(pool: &Pool<DB>) -> Result<ResourceId> {
    const OPERATION: &str = "use the database for mail";
    let resource = resource(pool).await?;
    let flaw = DB::flaw(pool).await;
    match flaw.map_err(|error| explained(DB::DIALECT, OPERATION, error))? {
        None => Ok(resource),
        Some(flaw) => {
            let error = Error::new(ErrorKind::Unsupported, OPERATION, flaw);
            Err(error.with("resource", resource))
        }
    }
}
