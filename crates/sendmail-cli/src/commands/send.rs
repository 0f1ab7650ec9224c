//! `send`: one message from standard input, in a transaction of its own.

use std::io::Read as _;
use std::sync::Arc;

use mail_parser::{Address, MessageParser};
use sendmail_core::{AmbiguousPolicy, Envelope, MailDelivery as _, Message, Priority, QueueStore};
use sendmail_txn::{QueuedDelivery, TransactionManager};
use serde_json::json;

use crate::args::{Ambiguous, Priority as PriorityArg, Send};
use crate::exit::{Code, DATA, Failure, OK, Result, USAGE};
use crate::output::Output;
use crate::setup::{Setup, host_name};

pub(crate) async fn send(setup: &Setup, output: Output, send: Send) -> Result<Code> {
    let raw = read_message()?;
    let now = Setup::now();
    let mut recipients = send.recipients.clone();
    if send.read_recipients {
        recipients.extend(recipients_in_header(&raw));
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

/// The addresses in To, Cc and Bcc, in that order.
fn recipients_in_header(raw: &[u8]) -> Vec<String> {
    let parsed = MessageParser::default().parse_headers(raw);
    let Some(parsed) = parsed else { return Vec::new() };
    let lists = [parsed.to(), parsed.cc(), parsed.bcc()];
    let text = |address: &mail_parser::Addr<'_>| {
        // A name without an address is shown to the envelope, which says what is wrong with it.
        address.address.as_deref().or(address.name.as_deref()).map(str::to_owned)
    };
    lists
        .into_iter()
        .flatten()
        .flat_map(|list| match list {
            Address::List(list) => list.iter().filter_map(text).collect::<Vec<_>>(),
            Address::Group(groups) => {
                groups.iter().flat_map(|group| &group.addresses).filter_map(text).collect()
            }
        })
        .collect()
}

/// Who calls, at this host.
fn default_sender() -> String {
    let user = ["LOGNAME", "USER"].iter().find_map(|name| std::env::var(name).ok());
    format!("{}@{}", user.unwrap_or_else(|| "root".to_owned()), host_name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipients_are_found_in_all_three_fields() {
        let raw = b"To: \"Doe, J\" <a@x>, b@x\nCc: Friends: c@x;\nBcc: d@x\nSubject: e@x\n\nf@x\n";
        assert_eq!(recipients_in_header(raw), ["a@x", "b@x", "c@x", "d@x"]);
        assert!(recipients_in_header(b"").is_empty());
    }
}
