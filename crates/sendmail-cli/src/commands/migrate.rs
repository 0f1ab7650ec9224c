//! `migrate`: makes the tables that mail needs in a database, or prints how.

use sendmail_sqlx::migrations;
use serde_json::json;

use crate::args::{Migrate, SqlKind};
use crate::config::{DatabaseName, DatabaseSection};
use crate::databases::DatabasePool;
use crate::exit::{CONFIG, Code, Failure, OK, Result};
use crate::output::Output;
use crate::setup::Setup;

/// Prints the SQL for those who run their own migrations.
pub(crate) fn print(output: Output, kind: SqlKind) -> Result<Code> {
    let sql = match kind {
        SqlKind::Postgres => migrations::POSTGRES,
        SqlKind::Mysql => migrations::MYSQL,
        SqlKind::Sqlite => migrations::SQLITE,
    };
    output.line(|| sql.trim_end().to_owned(), || json!({ "sql": sql }))?;
    Ok(OK)
}

pub(crate) async fn migrate(setup: &Setup, output: Output, migrate: &Migrate) -> Result<Code> {
    let (name, section) = choose(setup, migrate.name.as_deref())?;
    let pool = DatabasePool::new(name, section)?;
    pool.migrate().await?;
    let resource = pool.resource().await?;
    output.line(
        || format!("database {name}: the tables are there; its resource id is {resource}"),
        || json!({ "database": name.to_string(), "resource": resource.as_str() }),
    )?;
    Ok(OK)
}

/// The database that is meant.
fn choose<'a>(
    setup: &'a Setup,
    name: Option<&str>,
) -> Result<(&'a DatabaseName, &'a DatabaseSection)> {
    let databases = &setup.config.databases;
    let names: Vec<String> = databases.keys().map(ToString::to_string).collect();
    match name {
        Some(name) => databases.get_key_value(name).ok_or_else(|| {
            let configured = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            Failure::usage(format!("no database {name:?} is configured; configured: {configured}"))
        }),
        None if databases.len() > 1 => {
            Err(Failure::usage(format!("say which database: {}", names.join(", "))))
        }
        None => databases.iter().next().ok_or_else(|| {
            let why = "no database is set; use --database URL, SENDMAIL_DATABASE or \
                       [databases.NAME] in the configuration file";
            Failure::new(CONFIG, why)
        }),
    }
}
