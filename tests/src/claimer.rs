//! A claimer: a process that claims messages, says which, and settles them as sent.

use std::io::{self, BufRead as _, Write as _};
use std::path::Path;
use std::time::Duration;

use sendmail_core::{
    Attempted, Claim, Loaded, Outcome, QueueStore as _, RecipientResult, Reply, Settlement, Verdict,
};
use sendmail_maildir::{MaildirOptions, MaildirStore};

use crate::Result;

/// How many messages it claims in one call.
const BATCH: usize = 64;
/// How often it looks when nothing wakes it.
const POLL: Duration = Duration::from_millis(50);

/// Claims `first` messages and says so; settles them when it reads a line; then claims and settles
/// whatever there is, until standard input ends.
///
/// # Errors
///
/// The queue cannot be opened, claimed from or settled in.
pub async fn run(queue: &Path, first: usize) -> Result<()> {
    let store = MaildirStore::open(queue, MaildirOptions::default()).await?;
    let mut held = Vec::new();
    while held.len() < first {
        let claims = claim(&store, first - held.len()).await?;
        if claims.is_empty() {
            store.wait_for_work(POLL).await;
        }
        held.extend(claims);
    }
    let (sender, mut lines) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    if first > 0 {
        lines.recv().await;
    }
    settle(&store, held).await?;
    loop {
        let claims = claim(&store, BATCH).await?;
        if claims.is_empty() {
            tokio::select! {
                line = lines.recv() => if line.is_none() { return Ok(()) },
                () = store.wait_for_work(POLL) => {}
            }
        }
        settle(&store, claims).await?;
    }
}

async fn claim(store: &MaildirStore, count: usize) -> Result<Vec<Claim>> {
    let claims = store.claim(count).await?.claims;
    let text: String = claims.iter().map(|claim| format!("{}\n", claim.id)).collect();
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()?;
    Ok(claims)
}

async fn settle(store: &MaildirStore, claims: Vec<Claim>) -> Result<()> {
    for claim in claims {
        let loaded = store.load(&claim).await?;
        let settled = store.settle(claim, Settlement::Attempted(sent(&loaded))).await;
        settled.map_err(|unsettled| unsettled.error)?;
    }
    Ok(())
}

fn sent(loaded: &Loaded) -> Attempted {
    let result = |recipient: &sendmail_core::Recipient| RecipientResult {
        recipient: recipient.clone(),
        outcome: Outcome::Accepted(Reply::new(250, "2.0.0 taken")),
        verdict: Verdict::Done,
    };
    let results = loaded.envelope.recipients().iter().map(result).collect();
    Attempted { results, retry_after: Duration::ZERO }
}
