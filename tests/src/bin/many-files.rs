//! Fills a queue with very many messages, and measures what each program that works on it takes in memory.

#![expect(clippy::print_stdout, reason = "this program talks to the person who started it")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use sendmail_tests::many_files::{self, Place};
use sendmail_tests::queue::Queue;
use sendmail_tests::{Result, programs};

/// Fills a queue with very many messages, and measures what each program that works on it takes in memory.
#[derive(Parser)]
#[command(name = "many-files")]
struct Arguments {
    /// How many messages
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    files: usize,
    /// How many of them are delivered while the processor is watched
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    deliveries: usize,
    /// Where they wait
    #[arg(long, value_enum, default_value_t = Place::Queued)]
    place: Place,
    /// In a new folder in this one; otherwise in that for temporary files
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// How many KiB a program may take
    #[arg(long, value_name = "N", default_value_t = 64 * 1024)]
    most: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    match act(&Arguments::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("many-files: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn act(arguments: &Arguments) -> Result<bool> {
    programs::sendmail_queue()?;
    let parent = arguments.folder.clone().unwrap_or_else(std::env::temp_dir);
    let folder = tempfile::tempdir_in(parent)?;
    let queue = Queue::new(folder.path().join("queue"))?;
    let begin = Instant::now();
    many_files::fill(&queue.path, arguments.files, arguments.place).await?;
    println!("filled in {} s", begin.elapsed().as_secs());
    let outcome = measure(&queue, arguments).await?;
    println!("{outcome}");
    println!("in {} s in all, on {}", begin.elapsed().as_secs(), folder_name(&queue.path));
    Ok(outcome.peak_kib() < arguments.most)
}

async fn measure(queue: &Queue, arguments: &Arguments) -> Result<many_files::Outcome> {
    many_files::measure(queue, arguments.files, arguments.deliveries.min(arguments.files)).await
}

fn folder_name(path: &Path) -> String {
    path.parent().unwrap_or(path).display().to_string()
}
