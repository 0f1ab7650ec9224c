//! `cargo xtask deny`: licences, sources and advisories of dependencies, by cargo-deny.

use crate::shell::{self, Failure, Result, cargo, succeeds};

/// Checks licences, duplicates, sources and advisories of all dependencies.
///
/// It needs cargo-deny, which is installed if it is missing. The database of advisories is fetched from
/// the network; where that cannot be done, advisories are skipped, and the output says so.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Install nothing; use what is there
    #[arg(long)]
    pub(crate) no_install: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result {
    let may_install = !arguments.no_install;
    if !succeeds(cargo().args(["deny", "--version"])) {
        if !may_install {
            return Err(Failure::new(
                "there is no cargo-deny; `cargo install cargo-deny --locked`",
            ));
        }
        shell::run(cargo().args(["install", "cargo-deny", "--locked"]))?;
    }
    shell::run(cargo().args([
        "deny",
        "--all-features",
        "check",
        "--hide-inclusion-graph",
        "bans",
        "licenses",
        "sources",
    ]))?;
    if shell::run(cargo().args(["deny", "--all-features", "fetch", "db"])).is_err() {
        println!("advisories were skipped: their database could not be fetched");
        return Ok(());
    }
    shell::run(cargo().args(["deny", "--all-features", "check", "--disable-fetch", "advisories"]))
}
