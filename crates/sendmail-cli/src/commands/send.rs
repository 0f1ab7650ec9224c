//! `send`: one message from standard input, in a transaction of its own.

use std::io::Read as _;
use std::sync::Arc;

use sendmail_core::{AmbiguousPolicy, Envelope, MailDelivery as _, Message, Priority, QueueStore};
use sendmail_txn::{QueuedDelivery, TransactionManager};
use serde_json::json;

use crate::args::{Ambiguous, Priority as PriorityArg, Send};
use crate::exit::{Code, DATA, Failure, OK, Result, USAGE};
use crate::header;
use crate::output::Output;
use crate::setup::{Setup, host_name};

pub(crate) async fn send(setup: &Setup, output: Output, send: Send) -> Result<Code> {
    let raw = read_message()?;
    let now = Setup::now();
    let mut recipients = send.recipients.clone();
    if send.read_recipients {
        recipients.extend(header::recipients(&raw));
    }
    if recipients.is_empty() {
        let hint = if send.read_recipients {
            "there is none in To, Cc or Bcc"
        } else {
            "name one, or use -t"
        };
        return Err(Failure::new(USAGE, format!("the message has no recipient: {hint}")));
    }
    let from = send.from.clone().unwrap_or_else(default_sender);
    let envelope = Envelope::parse(&from, &recipients)
        .map_err(|error| Failure::new(DATA, error.to_string()))?;
    let mut options = envelope.options().clone();
    options.ambiguous = match send.ambiguous {
        Ambiguous::Retry => AmbiguousPolicy::Retry,
        Ambiguous::Hold => AmbiguousPolicy::Hold,
        Ambiguous::Drop => AmbiguousPolicy::Drop,
    };
    options.priority = match send.priority {
        PriorityArg::Low => Priority::Low,
        PriorityArg::Normal => Priority::Normal,
        PriorityArg::High => Priority::High,
    };
    options.not_before = send.delay.map(|delay| now.saturating_add(delay));
    options.expires = send.expire_after.map(|after| now.saturating_add(after));
    let envelope = envelope.with_options(options);
    let message = Message::from_raw(&raw, now, &setup.domain())
        .map_err(|error| Failure::new(DATA, error.to_string()))?;

    let store: Arc<dyn QueueStore> = Arc::new(setup.store().await?);
    let delivery = QueuedDelivery::new(store, Setup::clock());
    let manager = TransactionManager::new(Setup::clock());
    let mut transaction = manager.begin();
    let id = delivery.send(&mut transaction, envelope, message).await?;
    // What is left to recovery is safe: the message is committed.
    manager.commit(transaction).await.into_result()?;
    output.line(|| id.to_string(), || json!({ "message_id": id.as_str() }))?;
    Ok(OK)
}

fn read_message() -> Result<Vec<u8>> {
    let mut raw = Vec::new();
    std::io::stdin()
        .lock()
        .take(Message::MAX_LEN as u64 + 1)
        .read_to_end(&mut raw)
        .map_err(|error| Failure::system("read the message from standard input", &error))?;
    Ok(raw)
}

/// Who calls, at this host.
fn default_sender() -> String {
    let user = ["LOGNAME", "USER"].iter().find_map(|name| std::env::var(name).ok());
    format!("{}@{}", user.unwrap_or_else(|| "root".to_owned()), host_name())
}
