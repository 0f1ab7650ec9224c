//! `cargo xtask disk`: disks that fail and forget, as `docs/disk.md` describes them.

use crate::shell::{Result, cargo, run};

/// Searches the disks that power cuts may leave, and lets operations on files fail, and prints the tables.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Everything instead of what every run can afford: up to 4,096 disks of each cut, every fault at every
    /// operation, every pair of operations. It takes hours
    #[arg(long)]
    long: bool,
    /// Only every N-th history, from the K-th on: the long run in parts that add up
    #[arg(long, value_name = "K/N")]
    part: Option<String>,
}

pub(crate) fn run_searches(arguments: &Arguments) -> Result {
    let mut command = cargo();
    command.args(["test", "--release", "--package", "sendmail-maildir", "--lib", "--"]);
    command.args(["power::", "faults::", "--nocapture", "--test-threads", "2"]);
    if arguments.long {
        command.env("SENDMAIL_DISK_LONG", "1");
    }
    if let Some(part) = &arguments.part {
        command.env("SENDMAIL_DISK_PART", part);
    }
    run(&mut command)
}
