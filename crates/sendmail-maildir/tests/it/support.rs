//! What the tests of this crate say in one line.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sendmail_core::{
    Attempted, Claim, Envelope, Loaded, Message, NewMessage, Outcome, QueueId, QueueStore,
    RecipientResult, Reply, Settlement, Timestamp, Verdict,
};
use sendmail_maildir::{MaildirOptions, MaildirStore};
use sendmail_testkit::ManualClock;

/// A queue in a temporary directory, with a clock that stands still.
pub(crate) struct Queue {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) clock: ManualClock,
}

impl Queue {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), clock: ManualClock::default() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn options(&self) -> MaildirOptions {
        MaildirOptions::default().with_clock(Arc::new(self.clock.clone()))
    }

    pub(crate) async fn open(&self) -> MaildirStore {
        MaildirStore::open(self.path(), self.options()).await.unwrap()
    }

    /// Puts a file of another program into the queue.
    pub(crate) fn put(&self, name: &str, content: &str) {
        std::fs::write(self.path().join(name), content).unwrap();
    }
}

pub(crate) fn mail(to: &[&str]) -> NewMessage {
    let id = QueueId::mint(Timestamp::from_millis(1_800_000_000_000));
    let raw = format!("Message-ID: <{id}@test>\nDate: d\nSubject: s\n\nbody\n");
    NewMessage {
        id,
        envelope: Envelope::parse("from@example.org", to).unwrap(),
        message: Message::from_raw(raw.as_bytes(), Timestamp::EPOCH, "test").unwrap(),
        resource: "placeholder".parse().unwrap(),
    }
}

/// Writes and publishes a message to these recipients.
pub(crate) async fn queue(store: &MaildirStore, to: &[&str]) -> QueueId {
    let mut new = mail(to);
    new.resource = QueueStore::resource_id(store).clone();
    store.write(&new).await.unwrap();
    store.publish(&[new.id]).await.unwrap();
    new.id
}

/// Claims everything that is due.
pub(crate) async fn claim_all(store: &MaildirStore) -> Vec<Claim> {
    let mut all = Vec::new();
    loop {
        let claimed = store.claim(16).await.unwrap();
        if claimed.claims.is_empty() {
            return all;
        }
        all.extend(claimed.claims);
    }
}

/// An attempt with these verdicts, one for each recipient.
pub(crate) fn attempt(loaded: &Loaded, verdicts: &[Verdict], after: Duration) -> Settlement {
    let reply = |verdict: &Verdict| match verdict {
        Verdict::Done => Outcome::Accepted(Reply::new(250, "ok")),
        Verdict::Fail => Outcome::Refused(Reply::new(550, "no")),
        _ => Outcome::Deferred(Reply::new(450, "later")),
    };
    let results = loaded.envelope.recipients().iter().zip(verdicts).map(|(recipient, verdict)| {
        let recipient = recipient.clone();
        RecipientResult { recipient, outcome: reply(verdict), verdict: *verdict }
    });
    Settlement::Attempted(Attempted { results: results.collect(), retry_after: after })
}

/// Settles a claim as delivered, and returns who got it and the bytes.
pub(crate) async fn deliver(store: &MaildirStore, claim: Claim) -> (Vec<String>, Vec<u8>) {
    let loaded = store.load(&claim).await.unwrap();
    let verdicts = vec![Verdict::Done; loaded.envelope.recipients().len()];
    let settlement = attempt(&loaded, &verdicts, Duration::ZERO);
    store.settle(claim, settlement).await.unwrap();
    let to = loaded.envelope.recipients().iter().map(ToString::to_string).collect();
    (to, loaded.message.as_bytes().to_vec())
}
