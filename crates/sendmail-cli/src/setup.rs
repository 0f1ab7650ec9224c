//! Putting the layers together, as the command line and the configuration say.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use sendmail_clock::SystemClock;
use sendmail_core::{
    Clock, Cursor, EntryState, EventLog as _, Filter, Mailer, MessageId, QueueAdmin as _, QueueId,
    Timestamp,
};
use sendmail_maildir::{MaildirOptions, MaildirStore};
use sendmail_processor::ProcessorConfig;

use crate::config::{Config, DatabaseName, DatabaseSection, DatabaseUrl, mask_url};
use crate::exit::{CONFIG, Failure, NO_INPUT, Result};

/// How many connections to a relay there may be if nobody says; as many as `SmtpConfig` has by default.
const MAX_CONNECTIONS: usize = 16;

/// What every command starts from.
#[derive(Debug)]
pub(crate) struct Setup {
    queue: Option<PathBuf>,
    relay: Option<SecretString>,
    pub(crate) config: Config,
}

impl Setup {
    pub(crate) fn new(
        queue: Option<PathBuf>,
        relay: Option<SecretString>,
        database: Option<SecretString>,
        config: Option<&Path>,
    ) -> Result<Self> {
        let read = |path| Config::read(path, crate::relay::objection);
        let mut config = config.map_or(Ok(Config::default()), read)?;
        if let Some(url) = database {
            let url = DatabaseUrl::parse(url.expose_secret())
                .map_err(|why| Failure::new(CONFIG, format!("--database: {why}")))?;
            let name = DatabaseName::default_name();
            // A configured password is the configured database's, and is not shown to another.
            let mut given = DatabaseSection::at(url);
            given.require_durable =
                config.databases.get(&name).is_some_and(|configured| configured.require_durable);
            config.databases.insert(name, given);
        }
        Ok(Self { queue, relay, config })
    }

    /// Where the queue is.
    pub(crate) fn queue_path(&self) -> Result<PathBuf> {
        self.queue.clone().or_else(|| self.config.queue.path.clone()).ok_or_else(|| {
            let why = "no queue is set; use --queue DIR, SENDMAIL_QUEUE or the configuration file";
            Failure::new(CONFIG, why)
        })
    }

    /// The relay's URL as it may be shown to people.
    pub(crate) fn relay_url(&self) -> Option<String> {
        let configured = self.config.relay.url.as_ref().map(SecretString::expose_secret);
        self.relay.as_ref().map(SecretString::expose_secret).or(configured).map(mask_url)
    }

    pub(crate) fn clock() -> Arc<dyn Clock> {
        Arc::new(SystemClock)
    }

    pub(crate) fn now() -> Timestamp {
        SystemClock.now()
    }

    /// How the queue behaves.
    pub(crate) fn queue_options(&self) -> MaildirOptions {
        let section = &self.config.queue;
        let mut options = MaildirOptions::default();
        if let Some(size) = section.max_message_size {
            options.max_message_len = usize::try_from(size.0).unwrap_or(usize::MAX);
        }
        options.max_messages = section.max_messages;
        options.reserved_space =
            section.reserved_space.map_or(options.reserved_space, |size| size.0);
        options.reserved_inodes = section.reserved_inodes.unwrap_or(options.reserved_inodes);
        options.history = section.history.map_or(options.history, |period| period.0);
        options.keep_discarded =
            section.keep_discarded.map_or(options.keep_discarded, |period| period.0);
        options
    }

    /// Opens the queue.
    pub(crate) async fn store(&self) -> Result<MaildirStore> {
        Ok(MaildirStore::open(self.queue_path()?, self.queue_options()).await?)
    }

    /// The mailer for the relay.
    pub(crate) fn mailer(&self) -> Result<Arc<dyn Mailer>> {
        let given = self.relay.as_ref().map(SecretString::expose_secret);
        crate::relay::mailer(given, &self.config.relay)
    }

    pub(crate) fn processor(&self) -> ProcessorConfig {
        let section = &self.config.delivery;
        let mut config = ProcessorConfig::default();
        if let Some(count) = section.max_in_flight {
            config.max_in_flight = usize::from(count.get());
        }
        config.concurrency = self.attempts_at_once().min(config.max_in_flight);
        if let Some(count) = section.max_refusals_in_a_row {
            config.max_refusals_in_a_row = count.get();
        }
        let set = |to: &mut Duration, from: Option<crate::config::Period>| {
            if let Some(period) = from {
                *to = period.0;
            }
        };
        set(&mut config.backoff.first, section.first_retry);
        set(&mut config.backoff.max, section.max_retry);
        set(&mut config.lifetime, section.lifetime);
        set(&mut config.poll_interval, section.poll_interval);
        config
    }

    /// How many connections to the relay there may be, or how many of its program's processes.
    pub(crate) fn max_connections(&self) -> usize {
        self.config.relay.max_connections.map_or(MAX_CONNECTIONS, |count| usize::from(count.get()))
    }

    /// Over SMTP the next message is begun on a connection while the last one's reply is waited for.
    fn attempts_at_once(&self) -> usize {
        let is_program = self.relay_url().is_some_and(|url| url.starts_with("program:"));
        self.max_connections() * if is_program { 1 } else { 2 }
    }

    /// The domain under which Message-IDs are minted: the configured one, or the host's name.
    pub(crate) fn domain(&self) -> String {
        self.config.queue.domain.clone().unwrap_or_else(host_name)
    }
}

/// The host's name as the system has it.
pub(crate) fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "localhost".to_owned() } else { name }
}

/// The messages that an ID means: a queue id, or all that have this Message-ID, also those that have
/// left the queue.
pub(crate) async fn resolve(store: &MaildirStore, text: &str) -> Result<Vec<QueueId>> {
    if let Ok(id) = text.parse() {
        return Ok(vec![id]);
    }
    let message_id: MessageId = text.parse().map_err(|error| {
        Failure::usage(format!("{text:?} is neither a queue id nor a Message-ID: {error}"))
    })?;
    let mut filter = Filter::default();
    filter.message_ids = vec![message_id.clone()];
    // Discarded ones as well.
    filter.states = EntryState::ALL.to_vec();
    let mut found = Vec::new();
    let mut visit = |entry: sendmail_core::Entry| {
        found.push(entry.id);
        std::ops::ControlFlow::Continue(())
    };
    store.list(&filter, &mut visit).await?;
    let mut cursor: Option<Cursor> = None;
    loop {
        let page = store.read(cursor.clone(), 1000).await?;
        let Some((last, _)) = page.events.last() else { break };
        cursor = Some(last.clone());
        let about = page.events.iter().map(|(_, event)| event);
        let about = about.filter(|event| event.message_id.as_ref() == Some(&message_id));
        found.extend(about.filter_map(|event| event.queue_id));
    }
    found.sort_unstable();
    found.dedup();
    if found.is_empty() {
        let why = format!("neither the queue nor its history knows {message_id}");
        return Err(Failure::new(NO_INPUT, why));
    }
    Ok(found)
}
