//! One cell of the matrix: what is seen after a pass in which the relay fails, and after one in which it
//! is well again.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use sendmail_core::{
    AmbiguousPolicy, DeliveryOptions, DeliveryReport, Envelope, Handover, MailEventKind, Mailer,
    Message, Timestamp,
};
use sendmail_processor::{ProcessorConfig, QueueProcessor};
use sendmail_smtp::{SmtpConfig, SmtpMailer, Timeouts};
use sendmail_testkit::smtp::{At, Certificates, Do, Script, ScriptedServer};

use crate::world::{Seen, World};

/// How long a relay that says nothing is waited for. What answers at all does so long before.
const SHORT: Duration = Duration::from_secs(1);

/// To whom every message goes.
pub(crate) const THREE: [&str; 3] = ["a@y.example", "b@y.example", "c@y.example"];

/// A moment, the ways in which a relay fails at it, and what has to be seen.
pub(crate) struct Cell {
    at: At,
    answers: Vec<Do>,
    /// Rules that count beside the failure.
    beside: Vec<(At, Do)>,
    policy: AmbiguousPolicy,
    first: Expected,
    second: Expected,
}

/// What has to be seen after a pass.
#[derive(Default)]
struct Expected {
    queue: &'static str,
    events: &'static str,
    paused: Option<&'static str>,
    /// To whom the message was offered in this pass; `None` where it does not matter.
    offered: Option<&'static str>,
    /// Who got copies in all, one word for each copy.
    copies: &'static str,
}

impl Cell {
    /// A relay that answers like one of these at this moment.
    pub(crate) fn at(at: At, answers: impl IntoIterator<Item = Do>) -> Self {
        Self {
            at,
            answers: answers.into_iter().collect(),
            beside: Vec::new(),
            policy: AmbiguousPolicy::Retry,
            first: Expected::default(),
            second: Expected::default(),
        }
    }

    /// And like this at another.
    pub(crate) fn beside(mut self, at: At, answer: &str) -> Self {
        self.beside.push((at, Do::reply(answer)));
        self
    }

    /// The message asks for this in case of doubt.
    pub(crate) fn policy(mut self, policy: AmbiguousPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// After the pass in which the relay fails: the queue's files, the events, who got copies.
    pub(crate) fn leaves(
        mut self,
        queue: &'static str,
        events: &'static str,
        copies: &'static str,
    ) -> Self {
        self.first = Expected { queue, events, copies, ..Expected::default() };
        self
    }

    /// The relay's trouble is nobody else's: the queue is as it was, nobody is told anything but that the
    /// relay is paused, for a reason with these words. Afterwards everybody gets the message once.
    pub(crate) fn pauses(mut self, why: &'static str) -> Self {
        self.first =
            Expected { queue: "queued a0: a b c", paused: Some(why), ..Expected::default() };
        self.then("a b c", "", "a sent, b sent, c sent", "a b c")
    }

    /// After the next pass, with a healthy relay: to whom it was offered, the queue's files, the events,
    /// who has got copies by now.
    pub(crate) fn then(
        mut self,
        offered: &'static str,
        queue: &'static str,
        events: &'static str,
        copies: &'static str,
    ) -> Self {
        let offered = Some(offered);
        self.second = Expected { queue, events, paused: None, offered, copies };
        self
    }

    /// Tries all ways of failing, each with and without PIPELINING, all at once.
    pub(crate) async fn check(self) {
        let cell = Arc::new(self);
        let mut running = tokio::task::JoinSet::new();
        for answer in cell.answers.clone() {
            for pipelining in [true, false] {
                let (cell, answer) = (cell.clone(), answer.clone());
                running.spawn(async move { cell.check_one(&answer, pipelining).await });
            }
        }
        while let Some(done) = running.join_next().await {
            done.unwrap();
        }
    }

    async fn check_one(&self, answer: &Do, pipelining: bool) {
        let context = format!("{:?}, {}, pipelining {pipelining}", self.at, short(answer));
        let stage = Stage::set(&self.at, pipelining).await;
        if never_ends(answer) {
            stage.mailer.set_timeouts(only_this_is_short(&self.at));
        }
        stage.queue(self.policy).await;

        let mut failing = stage.healthy.clone();
        for (at, answer) in &self.beside {
            failing = failing.on(at.clone(), answer.clone());
        }
        stage.server.set_script(failing.on(self.at.clone(), answer.clone()));
        let refused = self.at == At::Dot && refuses(answer);
        let before = stage.pass(&context, &self.first, "", refused).await;

        stage.world.wait();
        stage.server.set_script(stage.healthy.clone());
        stage.mailer.set_timeouts(Timeouts::default());
        let resumed = if self.first.paused.is_some() { "resumed" } else { "" };
        let after = stage.pass(&context, &self.second, resumed, refused).await;
        stage.is_bounded(&context, refused).await;
        assert!(after >= before, "{context}");
    }
}

/// A queue, a processor and a server to fail it.
pub(crate) struct Stage {
    pub(crate) world: World,
    pub(crate) server: ScriptedServer,
    pub(crate) processor: QueueProcessor,
    mailer: Arc<Patience>,
    pub(crate) healthy: Script,
}

impl Stage {
    /// One on which a message waits, for a relay that follows `script`.
    pub(crate) async fn with(script: Script, policy: AmbiguousPolicy) -> Self {
        let stage = Self::set(&At::Quit, true).await;
        stage.server.set_script(script);
        stage.queue(policy).await;
        stage
    }

    /// One with a healthy relay that is asked for what can fail at this moment.
    async fn set(at: &At, pipelining: bool) -> Self {
        let certificates = Certificates::new();
        let mut healthy = Script::new();
        let (mut user, mut parameters) = ("", "");
        match at {
            At::Auth => {
                healthy = healthy.with("AUTH PLAIN LOGIN");
                (user, parameters) = ("u:p@", "?clear-text-auth=loopback");
            }
            At::StartTls => {
                healthy = healthy.starttls(certificates.valid());
                parameters = "?tls=required";
            }
            _ => {}
        }
        if !pipelining {
            healthy = healthy.without("PIPELINING");
        }
        let server = ScriptedServer::start(healthy.clone()).await.unwrap();
        let url = format!("smtp://{user}{}{parameters}", server.address());
        let relay = SmtpConfig::from_url(&url).unwrap();
        let relay = relay.with_root_certificates_pem(certificates.root_pem().as_bytes()).unwrap();
        let world = World::open().await;
        let mailer = Arc::new(Patience::new(relay));
        let processor = world.processor_of(mailer.clone(), ProcessorConfig::default());
        Self { world, server, processor, mailer, healthy }
    }

    pub(crate) async fn queue(&self, policy: AmbiguousPolicy) {
        let mut options = DeliveryOptions::default();
        options.ambiguous = policy;
        self.world.queue(&THREE, options, &message()).await;
    }

    /// Runs a pass, and says what is seen.
    pub(crate) async fn look(&self) -> Seen {
        self.world.pass(&self.processor).await
    }

    /// Runs a pass and judges what is seen; returns how many copies were taken so far.
    async fn pass(&self, context: &str, expected: &Expected, relay: &str, refused: bool) -> usize {
        let before = self.offered().len();
        let seen = self.look().await;
        let relay = if expected.paused.is_some() { "paused" } else { relay };
        let Seen { queue, events, relay: news, trouble } = seen;
        assert_eq!(queue, expected.queue, "queue: {context}");
        assert_eq!(events, expected.events, "events: {context}");
        assert_eq!(news, relay, "relay: {context}");
        match (expected.paused, &trouble) {
            (None, None) => {}
            (Some(why), Some(trouble)) if trouble.contains(why) => {}
            _ => panic!("{:?} is not {trouble:?}: {context}", expected.paused),
        }
        if let Some(offered) = expected.offered {
            assert_eq!(self.offered()[before..].join(" "), offered, "offered: {context}");
        }
        let copies = self.copies(refused);
        assert_eq!(copies.join(" "), expected.copies, "copies: {context}");
        copies.len()
    }

    /// To whom the message was offered so far, by RCPT.
    pub(crate) fn offered(&self) -> Vec<String> {
        let sessions = self.server.sessions();
        let lines = sessions.iter().flat_map(|session| session.lines());
        lines.filter_map(|line| line.strip_prefix("RCPT TO:<")).map(local_part).collect()
    }

    /// Who got copies: from whatever the server did not refuse, since it may have kept it.
    pub(crate) fn copies(&self, refused: bool) -> Vec<String> {
        let submitted = self.server.submitted();
        let message = message();
        let kept = submitted.iter().filter(|copy| copy.accepted || !refused);
        let mut all: Vec<String> = kept
            .flat_map(|copy| {
                assert_eq!(copy.bytes, message.as_bytes(), "each copy is the same message");
                copy.recipients.iter().map(local_part)
            })
            .collect();
        all.sort_unstable();
        all
    }

    /// No second copy that was not announced, for each recipient by itself.
    async fn is_bounded(&self, context: &str, refused: bool) {
        let (log, copies) = (self.world.log().await, self.copies(refused));
        for to in ["a", "b", "c"] {
            let announced = log.iter().filter(|event| {
                event.kind == MailEventKind::PossibleDuplicate
                    && event.recipient.as_ref().is_some_and(|who| who.local_part() == to)
            });
            let got = copies.iter().filter(|copy| *copy == to).count();
            assert!(got <= 1 + announced.count(), "{to}: {context}");
        }
    }
}

/// The mailer, with deadlines that can be changed between passes.
struct Patience {
    relay: String,
    config: SmtpConfig,
    mailer: Mutex<Arc<SmtpMailer>>,
}

impl Patience {
    fn new(config: SmtpConfig) -> Self {
        let mailer = Arc::new(SmtpMailer::new(config.clone()).unwrap());
        Self { relay: config.relay(), config, mailer: Mutex::new(mailer) }
    }

    fn set_timeouts(&self, timeouts: Timeouts) {
        let config = self.config.clone().with_timeouts(timeouts);
        *self.mailer.lock().unwrap() = Arc::new(SmtpMailer::new(config).unwrap());
    }

    fn mailer(&self) -> Arc<SmtpMailer> {
        self.mailer.lock().unwrap().clone()
    }
}

#[async_trait]
impl Mailer for Patience {
    fn relay(&self) -> &str {
        &self.relay
    }

    async fn send(
        &self,
        envelope: &Envelope,
        message: &Message,
        handover: &dyn Handover,
    ) -> sendmail_core::Result<DeliveryReport> {
        self.mailer().send(envelope, message, handover).await
    }

    fn check(&self, envelope: &Envelope) -> sendmail_core::Result<()> {
        self.mailer().check(envelope)
    }

    async fn probe(&self) -> sendmail_core::Result<()> {
        self.mailer().probe().await
    }

    async fn close(&self) {
        self.mailer().close().await;
    }
}

pub(crate) fn message() -> Message {
    let raw = b"Message-ID: <cell@x.example>\nSubject: s\n\nHello.\n.\nThe end.\n";
    Message::from_raw(raw, Timestamp::EPOCH, "x.example").unwrap()
}

pub(crate) fn local_part(address: impl AsRef<str>) -> String {
    address.as_ref().split('@').next().unwrap().to_owned()
}

/// Whether what the server says means that it keeps nothing of the message.
fn refuses(answer: &Do) -> bool {
    let (Do::Send(bytes) | Do::SendAndClose(bytes)) = answer else { return false };
    matches!(bytes.first(), Some(b'4' | b'5')) && !bytes.starts_with(b"421")
}

/// Whether only a deadline ends it.
fn never_ends(answer: &Do) -> bool {
    match answer {
        Do::Silence | Do::Drip(..) => true,
        Do::Sequence(all) => all.iter().any(never_ends),
        _ => false,
    }
}

fn short(answer: &Do) -> String {
    format!("{answer:?}").chars().take(60).collect()
}

/// Only at this moment little patience; everything else may take as long as in production.
fn only_this_is_short(at: &At) -> Timeouts {
    let mut timeouts = Timeouts::default();
    let step = match at {
        At::Greeting => &mut timeouts.greeting,
        At::Mail => &mut timeouts.mail,
        At::Rcpt(_) | At::RcptTo(_) | At::AnyRcpt => &mut timeouts.rcpt,
        At::Data => &mut timeouts.data,
        At::Dot => &mut timeouts.final_dot,
        At::Body(_) => &mut timeouts.block,
        At::Quit => &mut timeouts.quit,
        _ => &mut timeouts.command,
    };
    *step = SHORT;
    if *at == At::StartTls {
        timeouts.handshake = SHORT;
    }
    timeouts
}
