//! The post office: the processor, and an SMTP server on loopback that keeps what it gets.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use sendmail_core::QueueStore;
use sendmail_processor::QueueProcessor;
use sendmail_smtp::{SmtpConfig, SmtpMailer};
use tokio::task::JoinHandle;

use crate::exit::{Failure, Result, SOFTWARE};
use crate::setup::Setup;
use crate::smtp_sink::{Captured, OnMessage, SmtpSink};

/// A queue's processor with its server, which ends when this is dropped.
pub(super) struct Post {
    url: String,
    processor: QueueProcessor,
    captured: Arc<Mutex<Vec<Captured>>>,
    serving: JoinHandle<std::io::Result<()>>,
}

impl Post {
    pub(super) async fn open(queue: Arc<dyn QueueStore>) -> Result<Self> {
        let captured = Arc::new(Mutex::new(Vec::new()));
        let keep = captured.clone();
        let on_message: OnMessage = Arc::new(move |message| {
            let mut kept = keep.lock().map_err(|_| std::io::Error::other("the demo panicked"))?;
            kept.push(message);
            Ok(())
        });
        let system = |error| Failure::system("listen on loopback", &error);
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let sink = SmtpSink::bind(address, on_message).await.map_err(system)?;
        let url = format!("smtp://{}", sink.address().map_err(system)?);
        let serving = tokio::spawn(sink.serve());
        let mailer = SmtpMailer::new(SmtpConfig::from_url(&url)?)?;
        let processor = QueueProcessor::builder(queue, Arc::new(mailer), Setup::clock()).build()?;
        Ok(Self { url, processor, captured, serving })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Delivers what is due.
    pub(super) async fn deliver(&self) -> Result<()> {
        let summary = self.processor.run_once().await?;
        if summary.is_complete() {
            return Ok(());
        }
        Err(Failure::new(SOFTWARE, format!("not all could be delivered: {summary}")))
    }

    /// What arrived, in that order: to whom, and about what.
    pub(super) fn arrived(&self) -> Result<Vec<(String, String)>> {
        let captured =
            self.captured.lock().map_err(|_| Failure::new(SOFTWARE, "the demo panicked"))?;
        Ok(captured.iter().map(|message| (message.to.join(","), subject(message))).collect())
    }
}

impl Drop for Post {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn subject(message: &Captured) -> String {
    let text = String::from_utf8_lossy(&message.bytes);
    let line = text.lines().find_map(|line| line.strip_prefix("Subject: "));
    line.unwrap_or_default().to_owned()
}
