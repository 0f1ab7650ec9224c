//! `sink`: a development SMTP server that captures everything and delivers nothing.

use std::sync::Arc;

use mail_parser::MessageParser;
use maildir::Maildir;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::Sink;
use crate::exit::{Code, Failure, OK, Result, UNAVAILABLE};
use crate::output::Output;
use crate::smtp_sink::{Captured, OnMessage, SmtpSink};

pub(crate) async fn sink(output: Output, sink: &Sink) -> Result<Code> {
    let folder = match &sink.maildir {
        None => None,
        Some(path) => {
            let folder = Maildir::from(path.clone());
            let made = folder.create_dirs();
            made.map_err(|error| Failure::system("make the Maildir", &error))?;
            Some(folder)
        }
    };
    let on_message = keeper(output, folder);
    let server = SmtpSink::bind(sink.listen, on_message).await.map_err(|error| {
        Failure::new(UNAVAILABLE, format!("cannot listen at {}: {error}", sink.listen))
    })?;
    let address = server.address().map_err(|error| Failure::system("listen", &error))?;
    output.line(
        || format!("capturing everything at smtp://{address}; stop with Ctrl-C"),
        || json!({ "listening": address.to_string() }),
    )?;
    let listen = |kind| signal(kind).map_err(|error| Failure::system("listen for signals", &error));
    let (mut terminate, mut interrupt) =
        (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let mut accepted = server.accepted();
    let limit = sink.messages.unwrap_or(u64::MAX);
    tokio::select! {
        served = server.serve() => served.map_err(|error| Failure::system("serve", &error))?,
        _ = accepted.wait_for(|count| *count >= limit) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(OK)
}

/// Keeps and prints each message.
fn keeper(output: Output, folder: Option<Maildir>) -> OnMessage {
    Arc::new(move |message: Captured| {
        let file = match &folder {
            Some(folder) => Some(folder.store_new(&message.bytes).map_err(std::io::Error::other)?),
            None => None,
        };
        let parsed = MessageParser::default().parse_headers(&message.bytes);
        let message_id = parsed.as_ref().and_then(|parsed| parsed.message_id());
        let message_id = message_id.map(|id| format!("<{id}>"));
        let subject = parsed.as_ref().and_then(|parsed| parsed.subject());
        let printed = output.line(
            || {
                format!(
                    "from=<{}> to={} {} bytes {} {}",
                    message.from.escape_debug(),
                    message.to.join(",").escape_debug(),
                    message.bytes.len(),
                    message_id.as_deref().unwrap_or("(no Message-ID)").escape_debug(),
                    subject.unwrap_or_default().escape_debug(),
                )
            },
            || {
                json!({
                    "from": message.from,
                    "to": message.to,
                    "size": message.bytes.len(),
                    "message_id": message_id,
                    "subject": subject,
                    "file": file,
                })
            },
        );
        printed.map_err(|failure| std::io::Error::other(failure.to_string()))
    })
}
