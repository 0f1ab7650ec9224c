//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use secrecy::SecretString;
use sendmail_core::{Cursor, EntryState};

/// A transactional mail queue: takes mail, keeps it safe, delivers it, and tells what became of it.
#[derive(Debug, Parser)]
#[command(name = "sendmail-queue", version, max_term_width = 100, after_help = EXIT_CODES)]
pub(crate) struct Arguments {
    /// The queue's directory; it is made if it is missing
    #[arg(long, global = true, value_name = "DIR", env = "SENDMAIL_QUEUE")]
    pub(crate) queue: Option<PathBuf>,
    /// Where mail is delivered to: smtp://HOST:PORT, smtps://HOST, or program:/usr/sbin/sendmail
    ///
    /// Special characters in user and password are percent-encoded. TLS is required by default
    /// unless the relay is on this host: ?tls=required|opportunistic|none
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "SENDMAIL_RELAY",
        hide_env_values = true,
        value_parser = parse_secret
    )]
    pub(crate) relay: Option<SecretString>,
    /// A database whose transactions take mail along: postgres://USER@HOST/NAME, mysql://…, sqlite:/PATH
    ///
    /// It is called `default`. More than one, and passwords in files, are for the configuration file:
    /// [databases.NAME]
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "SENDMAIL_DATABASE",
        hide_env_values = true,
        value_parser = parse_secret
    )]
    pub(crate) database: Option<SecretString>,
    /// A configuration file in TOML; what the command line says counts more
    #[arg(long, global = true, value_name = "FILE", env = "SENDMAIL_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Print JSON, one object a line
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// How much is told on standard error about what goes on inside
    #[arg(long, global = true, value_enum, default_value = "warn", env = "SENDMAIL_LOG")]
    pub(crate) log: LogLevel,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum LogLevel {
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

const EXIT_CODES: &str = "\
`sendmail-queue check` prints the values that count: defaults, configuration file, environment, command line.
Exit codes: 0 done, 64 wrong usage, 65 wrong data, 66 not found, 69 unavailable, 70 internal error,
71 system error, 73 no room, 74 input/output error, 75 try again later, 77 not allowed,
78 wrong configuration.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the whole promise on embedded parts: nothing to set up
    Demo,
    /// Read a message from standard input, queue it durably, and print its Message-ID
    Send(Send),
    /// Deliver what is queued, until told to stop
    Run(Run),
    /// List the messages in the queue
    List(List),
    /// Show one message with what happened to it, also after it was delivered
    Show(Show),
    /// Count the messages and say how old they are
    Stats,
    /// Tell what became of which mail
    Events(Events),
    /// Decide messages whose transaction was cut short, and say what was found of each
    ///
    /// Exits with 0 if all are decided, 75 if some are still in doubt or a database could not be asked,
    /// and 66 if a committed message is missing
    Recover(Recover),
    /// Stop claims and decisions, before a backup of the queue or of a database is restored
    Freeze(Freeze),
    /// Make the tables that mail needs in a configured database, or print their SQL
    Migrate(Migrate),
    /// Check configuration, queue, databases and relay, and say what was found
    Check,
    /// A development SMTP server that captures everything and delivers nothing
    Sink(Sink),
    /// A shop that gets no further than the demo wants, to be killed
    #[command(hide = true)]
    DemoVictim(DemoVictim),
}

#[derive(Debug, Args)]
pub(crate) struct Send {
    /// The reverse-path, to which trouble is reported; "" or "<>" for none; by default you at this host
    #[arg(short = 'f', long = "from", value_name = "FROM")]
    pub(crate) from: Option<String>,
    /// Take recipients from To, Cc and Bcc too
    #[arg(short = 't', long = "read-recipients")]
    pub(crate) read_recipients: bool,
    /// What to do when it cannot be known whether the relay took the message
    #[arg(long, value_enum, default_value = "retry")]
    pub(crate) ambiguous: Ambiguous,
    /// How urgent it is beside other mail
    #[arg(long, value_enum, default_value = "normal")]
    pub(crate) priority: Priority,
    /// Do not send it before this time has passed: 10m, 2h
    #[arg(long, value_name = "DURATION", value_parser = crate::units::parse_duration)]
    pub(crate) delay: Option<std::time::Duration>,
    /// Give it up after this time: 4h, 2d
    #[arg(long, value_name = "DURATION", value_parser = crate::units::parse_duration)]
    pub(crate) expire_after: Option<std::time::Duration>,
    /// The recipients
    #[arg(value_name = "RCPT")]
    pub(crate) recipients: Vec<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Ambiguous {
    /// Send it again: two are better than none
    Retry,
    /// Hold it until somebody decides
    Hold,
    /// Give it up: none is better than two
    Drop,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Priority {
    Low,
    Normal,
    High,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Try all that is due once and exit: 0 if each was delivered or failed for good, 75 if something
    /// was left for later
    #[arg(long)]
    pub(crate) once: bool,
    /// Print no line for each event
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only messages in this state; may be given more than once
    #[arg(long, value_name = "STATE", value_parser = parse_state)]
    pub(crate) state: Vec<EntryState>,
    /// Only messages from this sender
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) from: Option<String>,
    /// Only messages to this recipient, or to somebody in this domain
    #[arg(long, value_name = "ADDRESS|DOMAIN")]
    pub(crate) to: Option<String>,
    /// At most this many
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// A queue id or a Message-ID
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// Print only the message, as it is sent
    #[arg(long)]
    pub(crate) raw: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Go on and print what happens from now on
    #[arg(long)]
    pub(crate) follow: bool,
    /// Only events behind this cursor
    #[arg(long, value_name = "CURSOR", value_parser = parse_cursor)]
    pub(crate) after: Option<Cursor>,
    /// At most this many
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
}

#[derive(Debug, Args)]
pub(crate) struct Recover {
    /// Decide yourself, because whoever decided is gone for good
    #[arg(long, value_enum, value_name = "DECISION", requires = "ids")]
    pub(crate) decide: Option<Decide>,
    /// The messages to decide: queue ids or Message-IDs; all of a transaction, or half of it is sent
    #[arg(value_name = "ID", requires = "decide")]
    pub(crate) ids: Vec<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Decide {
    /// The messages are sent; those that were discarded already are put back into the queue
    Committed,
    /// The messages are thrown away, and kept for some days
    Aborted,
}

#[derive(Debug, Args)]
pub(crate) struct Freeze {
    /// Go on again
    #[arg(long, conflicts_with = "wait")]
    pub(crate) off: bool,
    /// Wait until no worker has a message any more and it is safe to restore
    #[arg(long)]
    pub(crate) wait: bool,
    /// Wait no longer than this, and exit with 75; 15m if nothing is said
    #[arg(long, value_name = "DURATION", value_parser = crate::units::parse_duration, requires = "wait")]
    pub(crate) timeout: Option<std::time::Duration>,
}

#[derive(Debug, Args)]
pub(crate) struct Migrate {
    /// The database; may be left out where there is only one
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Print the SQL for such a database, and do nothing
    #[arg(long, value_enum, value_name = "KIND", conflicts_with = "name")]
    pub(crate) print: Option<SqlKind>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum SqlKind {
    Postgres,
    /// MySQL and MariaDB
    Mysql,
    Sqlite,
}

#[derive(Debug, Args)]
pub(crate) struct Sink {
    /// Where to listen; port 0 takes a free one, which is printed
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:2525")]
    pub(crate) listen: SocketAddr,
    /// Keep the captured mail in this Maildir
    #[arg(long, value_name = "DIR")]
    pub(crate) maildir: Option<PathBuf>,
    /// Exit after this many messages
    #[arg(long, value_name = "N")]
    pub(crate) messages: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct DemoVictim {
    /// How far the transaction gets
    #[arg(value_enum)]
    pub(crate) until: Until,
    /// The order's number
    pub(crate) order: i64,
    /// The shop's database
    pub(crate) shop: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Until {
    BeforeCommit,
    AfterCommit,
}

fn parse_secret(text: &str) -> Result<SecretString, String> {
    Ok(SecretString::from(text.to_owned()))
}

fn parse_state(word: &str) -> Result<EntryState, String> {
    EntryState::from_word(word).ok_or_else(|| {
        let words: Vec<&str> = EntryState::ALL.iter().map(|state| state.as_str()).collect();
        format!("a state is one of {}", words.join(", "))
    })
}

fn parse_cursor(text: &str) -> Result<Cursor, String> {
    Ok(Cursor::new(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    /// What a panic or a log of ours might print: everything that the credentials pass through.
    // Proves: A-secrets, I16
    #[test]
    fn no_type_that_holds_a_secret_shows_it() {
        const SECRET: &str = "hUnTeR2";
        let relay = format!("smtp://u:{SECRET}@relay.example.org");
        let database = format!("postgres://u:{SECRET}@h/d");
        let words = ["sendmail-queue", "--relay", &relay, "--database", &database, "list"];
        let arguments = Arguments::parse_from(words);
        let text = format!(
            "[relay]\nurl = \"{relay}\"\nuser = \"u\"\npassword = \"{SECRET}\"\n\
             [databases.d]\nurl = \"{database}\"\n"
        );
        let config = crate::config::Config::parse(&text).unwrap();
        let section = config.databases.values().next().unwrap();
        let told = format!("{arguments:?} {arguments:#?} {config:?} {config:#?} {section:?}");
        assert!(told.contains("REDACTED") && !told.contains(SECRET), "{told}");
        let Arguments { queue, relay, database, .. } = arguments;
        let setup = crate::setup::Setup::new(queue, relay, database, None).unwrap();
        let told = format!("{setup:?} {setup:#?} {:?}", setup.relay_url());
        assert!(told.contains("REDACTED") && !told.contains(SECRET), "{told}");
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }
}
