//! `cargo xtask hostile`: what a hostile relay and a very long queue cost in memory.

use crate::shell::{Result, cargo, run as run_command};

/// Measures the memory of a processor against a relay that misbehaves in every way, or on a very long
/// queue.
///
/// It fails if the processor grows by a megabyte after its warm-up, or takes 64 MiB.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// For how long the relay misbehaves
    #[arg(long, value_name = "N", default_value_t = 600)]
    seconds: u64,
    /// Measure a queue of so many messages instead, once due and once deferred
    #[arg(long, value_name = "N", conflicts_with = "seconds")]
    files: Option<u64>,
    /// Where the queue is made: `N` files with a sync each
    #[arg(long, value_name = "DIR", requires = "files")]
    folder: Option<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result {
    for (name, words) in runs(arguments) {
        let flags = ["run", "--release", "--package", "sendmail-tests", "--bin", name, "--"];
        run_command(cargo().args(flags).args(words))?;
    }
    Ok(())
}

/// The programs that are run, and what they are told.
fn runs(arguments: &Arguments) -> Vec<(&'static str, Vec<String>)> {
    let Some(files) = arguments.files else {
        let words = vec!["--seconds".to_owned(), arguments.seconds.to_string()];
        return vec![("hostile-relay", words)];
    };
    let run = |place: &str| {
        let mut words = ["--place", place, "--files"].map(str::to_owned).to_vec();
        words.push(files.to_string());
        if let Some(folder) = &arguments.folder {
            words.extend(["--folder".to_owned(), folder.clone()]);
        }
        ("many-files", words)
    };
    vec![run("queued"), run("deferred")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_queue_is_measured_in_both_places() {
        let mut arguments = Arguments { seconds: 600, files: None, folder: None };
        assert_eq!(runs(&arguments), [("hostile-relay", vec!["--seconds".into(), "600".into()])]);
        arguments.files = Some(5);
        let words = |place: &str| ["--place", place, "--files", "5"].map(str::to_owned).to_vec();
        let expected = [("many-files", words("queued")), ("many-files", words("deferred"))];
        assert_eq!(runs(&arguments), expected);
    }
}
