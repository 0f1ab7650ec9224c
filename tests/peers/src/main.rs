//! Crates that the benchmarks compare us with: lettre's pool, and apalis with lettre.
//!
//! Each prints how many seconds its work took, without its start.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is a program")]

mod apalis_queue;
mod mail;
mod pool;

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Parser;

/// What goes wrong is told to whoever measures.
type Error = Box<dyn std::error::Error + Send + Sync>;

/// What comes of a step.
type Result<T, E = Error> = std::result::Result<T, E>;

/// Runs one of the crates on a given work, and prints the seconds it took.
#[derive(Parser)]
enum Peer {
    /// Sends messages through lettre's pool of connections
    Lettre {
        #[command(flatten)]
        sending: Sending,
    },
    /// Commits rows that take a job of apalis along, whose worker sends the mail with lettre
    Apalis {
        /// `postgres://…` or `sqlite:…`
        #[arg(long)]
        database: String,
        /// How many transactions are open at once
        #[arg(long)]
        writers: usize,
        #[command(flatten)]
        sending: Sending,
    },
}

/// What is sent, and where.
#[derive(clap::Args, Clone)]
struct Sending {
    /// Where the relay listens
    #[arg(long)]
    relay: SocketAddr,
    /// How many messages
    #[arg(long)]
    messages: usize,
    /// How many bytes each has
    #[arg(long)]
    length: usize,
    /// How many connections may be open at once
    #[arg(long)]
    connections: u32,
}

#[tokio::main]
async fn main() -> ExitCode {
    let seconds = match Peer::parse() {
        Peer::Lettre { sending } => pool::run(&sending).await,
        Peer::Apalis { database, writers, sending } => {
            apalis_queue::run(&database, writers, &sending).await
        }
    };
    match seconds {
        Ok(seconds) => {
            println!("{seconds}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
