//! The shop in a process of its own, which is killed.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use clap::ValueEnum as _;

use super::ORDERS;
use super::shop::{Order, Shop};
use crate::args::{DemoVictim, Until};
use crate::exit::{Code, Failure, Result, SOFTWARE};
use crate::output::Output;
use crate::setup::Setup;

/// The process that is killed: takes its order as far as it is told, says so, and waits.
pub(crate) async fn victim(setup: &Setup, victim: &DemoVictim) -> Result<Code> {
    let order = ORDERS.into_iter().find(|order| order.number == victim.order);
    let order = order.ok_or_else(|| Failure::usage("the demo has no such order"))?;
    let shop = Shop::open(&victim.shop, Arc::new(setup.store().await?)).await?;
    let transaction = shop.begin(order).await?;
    // Held until the end: dropped, it would roll back.
    let _open = match victim.until {
        Until::BeforeCommit => Some(transaction),
        Until::AfterCommit => {
            shop.commit(transaction).await?;
            None
        }
    };
    Output::new(false).text("ready")?;
    std::future::pending().await
}

/// Starts the process, waits until it is as far as it should be, and kills it.
pub(super) async fn run_and_kill(
    until: Until,
    order: Order,
    queue: &Path,
    database: &Path,
) -> Result<()> {
    let system = |error: &std::io::Error| Failure::system("run the process that is killed", error);
    let program = std::env::current_exe().map_err(|error| system(&error))?;
    let word = until.to_possible_value();
    let word = word.as_ref().map_or("", |value| value.get_name());
    let mut command = Command::new(program);
    command.arg("--queue").arg(queue).args(["demo-victim", word, &order.number.to_string()]);
    // What the environment says is for other commands.
    command.arg(database).env_remove("SENDMAIL_CONFIG").env_remove("SENDMAIL_DATABASE");
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(|error| system(&error))?;
    match tokio::task::spawn_blocking(move || wait_and_kill(&mut child)).await {
        Ok(Ok(true)) => Ok(()),
        Ok(Ok(false)) => Err(Failure::new(SOFTWARE, "the process ended before it could be killed")),
        Ok(Err(error)) => Err(system(&error)),
        Err(error) => Err(Failure::new(SOFTWARE, error.to_string())),
    }
}

fn wait_and_kill(child: &mut Child) -> std::io::Result<bool> {
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line)?;
    }
    // SIGKILL: the process gets no chance to do anything about it.
    child.kill()?;
    child.wait()?;
    Ok(line.trim() == "ready")
}
