//! What each command does.

mod check;
mod demo;
mod events;
mod freeze;
mod list;
mod migrate;
mod recover;
mod run;
mod send;
mod show;
mod sink;
mod stats;

pub(crate) use list::FROZEN;

use crate::args::{Arguments, Command, Migrate};
use crate::exit::{Code, Result};
use crate::output::Output;
use crate::setup::Setup;

/// Does what the command line says.
pub(crate) async fn run(arguments: Arguments, output: &Output) -> Result<Code> {
    let Arguments { queue, relay, database, config, command, .. } = arguments;
    let output = *output;
    // Not before a command asks: the demo and the sink need no configuration, and a wrong one must not
    // keep them from working.
    let setup = || Setup::new(queue, relay, database, config.as_deref());
    match command {
        Command::Demo => demo::demo(output).await,
        Command::Sink(sink) => sink::sink(output, &sink).await,
        Command::DemoVictim(victim) => demo::victim(&setup()?, &victim).await,
        Command::Send(send) => send::send(&setup()?, output, send).await,
        Command::Run(run) => run::run(&setup()?, output, &run).await,
        Command::List(list) => list::list(&setup()?, output, &list).await,
        Command::Show(show) => show::show(&setup()?, output, &show).await,
        Command::Stats => stats::stats(&setup()?, output).await,
        Command::Events(events) => events::events(&setup()?, output, events).await,
        Command::Recover(recover) => recover::recover(&setup()?, output, &recover).await,
        Command::Freeze(freeze) => freeze::freeze(&setup()?, output, &freeze).await,
        Command::Migrate(Migrate { print: Some(kind), .. }) => migrate::print(output, kind),
        Command::Migrate(migrate) => migrate::migrate(&setup()?, output, &migrate).await,
        Command::Check => check::check(&setup()?, output).await,
    }
}
