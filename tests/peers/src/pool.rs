//! lettre's pool: a task for each connection, which sends one message after the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use lettre::AsyncTransport as _;
use tokio::task::JoinSet;

use crate::{Result, Sending, mail};

/// How many seconds it takes.
pub(crate) async fn run(sending: &Sending) -> Result<f64> {
    let transport = mail::transport(sending);
    let (envelope, message) = (mail::envelope()?, Arc::new(mail::message(sending.length)));
    let left = Arc::new(AtomicUsize::new(sending.messages));
    let mut tasks = JoinSet::<Result<()>>::new();
    let begin = Instant::now();
    for _ in 0..sending.connections {
        let (transport, envelope) = (transport.clone(), envelope.clone());
        let (message, left) = (Arc::clone(&message), Arc::clone(&left));
        tasks.spawn(async move {
            let take = |left: usize| left.checked_sub(1);
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
                transport.send_raw(&envelope, message.as_bytes()).await?;
            }
            Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(begin.elapsed().as_secs_f64())
}
