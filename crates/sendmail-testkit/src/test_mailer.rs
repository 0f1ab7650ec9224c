//! A mailer for tests: delivers into a list, and does on demand all that a relay can do wrong.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use sendmail_core::{
    DeliveryReport, Envelope, Error, ErrorKind, Handover, Mailer, Message, Outcome, Recipient,
    Reply, ReplyClass, Result, ReversePath,
};
use tokio::sync::watch;

/// A [`Mailer`] for tests of applications, processors and deliveries. Clones share everything.
///
/// It accepts what it is given and keeps it in a list, until it is told otherwise: for the next
/// attempts one by one ([`next`](Self::next)), for a recipient ([`on`](Self::on)) or for everything
/// ([`always`](Self::always)).
///
/// ```
/// use sendmail_testkit::{Answer, TestMailer};
///
/// let mailer = TestMailer::new();
/// mailer.on("nobody@example.net", Answer::Reply(550, "5.1.1 no such user"));
/// mailer.next(Answer::RelayDown);
/// ```
#[derive(Clone)]
pub struct TestMailer {
    shared: Arc<Shared>,
}

/// What a [`TestMailer`] does with an attempt or a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// Accepts with a 250.
    Accept,
    /// Answers with a code and a text: 2yz accepts, 5yz refuses, everything else defers.
    Reply(u16, &'static str),
    /// Takes the message and loses the connection before its answer: nobody can know.
    Unknown,
    /// The relay cannot be reached; nobody is attempted.
    RelayDown,
    /// Hangs before anything is handed over, until [`TestMailer::release`]; then accepts.
    Hang,
    /// Hands over and hangs, until [`TestMailer::release`]; then accepts.
    HangAfterHandover,
    /// Panics before anything is handed over.
    Panic,
    /// Hands over, takes the message, and panics.
    PanicAfterHandover,
}

/// One message that left, for those of its recipients who got it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// On whose behalf.
    pub reverse_path: ReversePath,
    /// Who got it.
    pub recipients: Vec<Recipient>,
    /// What they got.
    pub message: Message,
    /// Whether the sender was told: not so after [`Answer::Unknown`].
    pub answered: bool,
}

struct Shared {
    state: Mutex<State>,
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    script: VecDeque<Answer>,
    per_recipient: BTreeMap<String, Answer>,
    always: Option<Answer>,
    unacceptable: Option<String>,
    deliveries: Vec<Delivery>,
    attempts: usize,
    hanging: usize,
    released: usize,
    closed: bool,
}

impl TestMailer {
    /// A mailer that accepts everything.
    #[must_use]
    pub fn new() -> Self {
        let shared = Shared { state: Mutex::default(), changes: watch::Sender::new(0) };
        Self { shared: Arc::new(shared) }
    }

    /// What to do with the next attempt for which nothing is said yet, for all its recipients about
    /// whom [`on`](Self::on) says nothing.
    pub fn next(&self, answer: Answer) {
        self.change(|state| state.script.push_back(answer));
    }

    /// What to do from now on with every attempt about which [`next`](Self::next) says nothing.
    pub fn always(&self, answer: Answer) {
        self.change(|state| state.always = Some(answer));
    }

    /// What to do from now on with this recipient. Only answers that a recipient can get have an
    /// effect here: accept, reply and unknown.
    pub fn on(&self, recipient: &str, answer: Answer) {
        self.change(|state| {
            state.per_recipient.insert(recipient.to_owned(), answer);
        });
    }

    /// Lets [`Mailer::check`] refuse every envelope to this recipient.
    pub fn cannot_send_to(&self, recipient: &str) {
        self.change(|state| state.unacceptable = Some(recipient.to_owned()));
    }

    /// Lets everything that hangs go on.
    pub fn release(&self) {
        self.change(|state| state.released = state.attempts);
    }

    /// What left so far, in the order in which it left.
    #[must_use]
    pub fn deliveries(&self) -> Vec<Delivery> {
        self.state().deliveries.clone()
    }

    /// How many attempts there were, whatever came of them.
    #[must_use]
    pub fn attempts(&self) -> usize {
        self.state().attempts
    }

    /// How many copies of anything this recipient got.
    #[must_use]
    pub fn copies_to(&self, recipient: &str) -> usize {
        let got =
            |delivery: &&Delivery| delivery.recipients.iter().any(|r| r.as_str() == recipient);
        self.state().deliveries.iter().filter(got).count()
    }

    /// Whether [`Mailer::close`] was called.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// Returns when at least `count` messages have left, with all that have.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn wait_for(&self, count: usize) -> Vec<Delivery> {
        self.until(|state| state.deliveries.len() >= count).await;
        self.deliveries()
    }

    /// Returns when there were at least `count` attempts, whatever came of them.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn until_attempts(&self, count: usize) {
        self.until(|state| state.attempts >= count).await;
    }

    /// Returns when at least `count` attempts hang at once.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn until_hanging(&self, count: usize) {
        self.until(|state| state.hanging >= count).await;
    }

    async fn until(&self, reached: impl Fn(&State) -> bool) {
        let mut changes = self.shared.changes.subscribe();
        while !reached(&self.state()) {
            // The sender is in `self`, so that this fails never.
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.shared.changes.send_modify(|count| *count += 1);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an attempt, and tells its number and what is to be done with it.
    fn begin(&self) -> (usize, Answer) {
        let mut begun = (0, Answer::Accept);
        self.change(|state| {
            state.attempts += 1;
            let answer = state.script.pop_front().or(state.always).unwrap_or(Answer::Accept);
            begun = (state.attempts, answer);
        });
        begun
    }

    async fn hang(&self, number: usize) {
        let _hanging = Hanging::new(self);
        self.until(|state| state.released >= number).await;
    }

    /// What each recipient is answered.
    fn outcomes(&self, envelope: &Envelope, answer: Answer) -> Vec<Outcome> {
        let state = self.state();
        let of = |recipient: &Recipient| {
            outcome(*state.per_recipient.get(recipient.as_str()).unwrap_or(&answer))
        };
        envelope.recipients().iter().map(of).collect()
    }

    /// Puts on the list what these outcomes say has left.
    fn deliver(&self, envelope: &Envelope, message: &Message, outcomes: &[Outcome]) {
        for answered in [true, false] {
            let got = envelope.recipients().iter().zip(outcomes).filter(|(_, outcome)| {
                matches!(
                    (outcome, answered),
                    (Outcome::Accepted(_), true) | (Outcome::Unknown(_), false)
                )
            });
            let recipients: Vec<Recipient> = got.map(|(recipient, _)| recipient.clone()).collect();
            if !recipients.is_empty() {
                let reverse_path = envelope.reverse_path().clone();
                let message = message.clone();
                self.change(|state| {
                    state.deliveries.push(Delivery { reverse_path, recipients, message, answered });
                });
            }
        }
    }
}

impl Default for TestMailer {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for TestMailer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("TestMailer")
            .field("attempts", &state.attempts)
            .field("deliveries", &state.deliveries.len())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Mailer for TestMailer {
    fn relay(&self) -> &str {
        "test"
    }

    async fn send(
        &self,
        envelope: &Envelope,
        message: &Message,
        handover: &dyn Handover,
    ) -> Result<DeliveryReport> {
        let (number, answer) = self.begin();
        match answer {
            Answer::RelayDown => return Err(down("send the message")),
            Answer::Panic => panic!("the test wants the mailer to panic"),
            Answer::Hang => self.hang(number).await,
            _ => {}
        }
        let mut outcomes = self.outcomes(envelope, answer);
        let leaves = |o: &Outcome| matches!(o, Outcome::Accepted(_) | Outcome::Unknown(_));
        if outcomes.iter().any(leaves) {
            if handover.before_handover().await.is_err() {
                for outcome in outcomes.iter_mut().filter(|outcome| leaves(outcome)) {
                    *outcome = Outcome::Deferred(Reply::local(451, "4.3.0", "given up"));
                }
            }
            self.deliver(envelope, message, &outcomes);
        }
        match answer {
            Answer::HangAfterHandover => self.hang(number).await,
            Answer::PanicAfterHandover => panic!("the test wants the mailer to panic"),
            _ => {}
        }
        // `outcomes` made one for each recipient.
        DeliveryReport::new(envelope, outcomes).ok_or_else(|| down("report the outcome"))
    }

    fn check(&self, envelope: &Envelope) -> Result<()> {
        let state = self.state();
        match &state.unacceptable {
            Some(bad) if envelope.recipients().iter().any(|r| r.as_str() == bad) => {
                let text = "the test wants this recipient to be unacceptable";
                Err(Error::new(ErrorKind::Unsupported, "send the message", text)
                    .with("recipient", bad))
            }
            _ => Ok(()),
        }
    }

    async fn probe(&self) -> Result<()> {
        let state = self.state();
        let next = state.script.front().copied().or(state.always);
        if next == Some(Answer::RelayDown) { Err(down("reach the relay")) } else { Ok(()) }
    }

    async fn close(&self) {
        self.change(|state| state.closed = true);
    }
}

/// Counts an attempt that hangs, until it goes on or is dropped.
struct Hanging<'a>(&'a TestMailer);

impl<'a> Hanging<'a> {
    fn new(mailer: &'a TestMailer) -> Self {
        mailer.change(|state| state.hanging += 1);
        Self(mailer)
    }
}

impl Drop for Hanging<'_> {
    fn drop(&mut self) {
        self.0.change(|state| state.hanging -= 1);
    }
}

fn outcome(answer: Answer) -> Outcome {
    match answer {
        Answer::Reply(code, text) => {
            let reply = Reply::new(code, text);
            match reply.class() {
                ReplyClass::Positive => Outcome::Accepted(reply),
                ReplyClass::Transient => Outcome::Deferred(reply),
                ReplyClass::Permanent => Outcome::Refused(reply),
            }
        }
        Answer::Unknown | Answer::PanicAfterHandover => {
            Outcome::Unknown(Reply::local(451, "4.4.2", "connection lost after the final dot"))
        }
        _ => Outcome::Accepted(Reply::new(250, "2.0.0 ok")),
    }
}

fn down(operation: &'static str) -> Error {
    Error::new(ErrorKind::Unreachable, operation, "connection refused").with("relay", "test")
}
