//! What every real relay is asked to do, and what has to be seen: the files of the queue, the events, and
//! what is in the relay's own mailboxes.
//!
//! Each relay has the mailboxes `a` to `f` and `jörg` at `y.example`, wants `later@` to come later, knows
//! nobody else, takes at most four recipients at once and messages of at most 20 kB.

use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustix::process::Signal;
use sendmail_core::{DeliveryOptions, Message, Timestamp};
use sendmail_processor::{ProcessorConfig, QueueProcessor};
use sendmail_smtp::{SmtpConfig, Timeouts};
use sendmail_tests::programs::{find, skip};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::cage::Process;
use crate::tap::{Line, Tap, When};
use crate::world::World;

/// How long anything may take that a test waits for; more means that it hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Who has a mailbox.
pub(crate) const BOXES: [&str; 7] = ["a", "b", "c", "d", "e", "f", "jörg"];

/// What a relay does with a non-ASCII local part.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Utf8 {
    Offered,
    NotOffered,
}

/// A relay that runs, and what differs between relays.
pub(crate) struct Relay {
    pub(crate) port: u16,
    /// Where its mailboxes are: Maildirs.
    pub(crate) mail: PathBuf,
    /// Folders in which files are while it has something left to do.
    pub(crate) spool: Vec<PathBuf>,
    /// Which files there are messages, and not left-overs of those it never took.
    pub(crate) is_message: fn(&Metadata) -> bool,
    pub(crate) log: PathBuf,
    pub(crate) utf8: Utf8,
    /// Whether it delivers a message whose sender hung up before it was told that it was taken.
    pub(crate) keeps_what_it_could_not_answer: bool,
    process: Arc<Mutex<Option<Process>>>,
    start: Box<dyn Fn() -> Process>,
}

impl Relay {
    /// Starts one; `log` is what it says when it does not.
    pub(crate) async fn start(
        port: u16,
        folder: PathBuf,
        start: impl Fn() -> Process + 'static,
    ) -> Self {
        let relay = Self {
            port,
            mail: folder.join("mail"),
            spool: Vec::new(),
            is_message: |_| true,
            log: folder.join("log"),
            utf8: Utf8::Offered,
            keeps_what_it_could_not_answer: true,
            process: Arc::default(),
            start: Box::new(start),
        };
        relay.run().await;
        relay
    }

    /// Starts it again, where it was.
    async fn run(&self) {
        *self.process.lock().unwrap() = Some((self.start)());
        self.until("the relay to greet", || async { self.greets().await.then_some(()) }).await;
    }

    async fn greets(&self) -> bool {
        let ended = self.process.lock().unwrap().as_mut().is_none_or(Process::has_ended);
        assert!(!ended, "the relay does not start: {}", self.said());
        let mut greeting = [0; 3];
        let read = async {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.ok()?;
            stream.read_exact(&mut greeting).await.ok()
        };
        read.await.is_some() && greeting == *b"220"
    }

    async fn until<T, F: Future<Output = Option<T>>>(&self, what: &str, look: impl Fn() -> F) -> T {
        let watch = async {
            loop {
                if let Some(found) = look().await {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        match tokio::time::timeout(PATIENCE, watch).await {
            Ok(found) => found,
            Err(_) => panic!("waited in vain for {what}: {}", self.said()),
        }
    }

    fn said(&self) -> String {
        let files = fs::read_dir(&self.log).into_iter().flatten().flatten();
        files.filter_map(|file| fs::read_to_string(file.path()).ok()).collect()
    }

    fn config(&self) -> SmtpConfig {
        SmtpConfig::new("127.0.0.1", self.port).unwrap()
    }

    /// Who has got copies, one word for each, when the relay has done all it has to do.
    async fn copies(&self) -> String {
        let empty = |folder: &PathBuf| self.is_empty(folder);
        let idle = || async { self.spool.iter().all(empty).then_some(()) };
        self.until("the relay to deliver", idle).await;
        let mut found = Vec::new();
        for who in BOXES {
            let new = fs::read_dir(self.mail.join(who).join("new"));
            found.extend(new.into_iter().flatten().map(|_| who));
        }
        found.join(" ")
    }

    /// Whether no message is in a folder or below it.
    fn is_empty(&self, folder: &Path) -> bool {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).all(|path| match path.symlink_metadata() {
            Ok(data) if data.is_dir() => self.is_empty(&path),
            Ok(data) => !(self.is_message)(&data),
            // It has just left.
            Err(_) => true,
        })
    }

    /// The only message in a mailbox.
    fn only_copy(&self, who: &str) -> Vec<u8> {
        let mut files = fs::read_dir(self.mail.join(who).join("new")).unwrap();
        let file = files.next().unwrap().unwrap();
        assert!(files.next().is_none(), "one copy");
        fs::read(file.path()).unwrap()
    }

    fn signal(&self, signal: Signal) {
        if let Some(process) = &*self.process.lock().unwrap() {
            process.signal(signal);
        }
    }
}

/// A port that is free just now.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A queue whose mail goes to a relay.
struct Scene {
    world: World,
    processor: QueueProcessor,
}

impl Scene {
    async fn to(config: SmtpConfig, to: &[&str], message: &Message) -> Self {
        let world = World::open().await;
        let to: Vec<String> = to.iter().map(|who| format!("{who}@y.example")).collect();
        let to: Vec<&str> = to.iter().map(String::as_str).collect();
        world.queue(&to, DeliveryOptions::default(), message).await;
        let processor = world.processor(config, ProcessorConfig::default());
        Self { world, processor }
    }

    /// Runs a pass and judges: files, events, news of the relay.
    async fn pass(&self, queue: &str, events: &str, relay: &str) {
        let seen = self.world.pass(&self.processor).await;
        let found = (seen.queue.as_str(), seen.events.as_str(), seen.relay.as_str());
        assert_eq!(found, (queue, events, relay), "{:?}", seen.trouble);
        self.world.wait();
    }
}

fn message(body: &str) -> Message {
    let raw = format!("Message-ID: <real@x.example>\nFrom: <f@x.example>\nSubject: s\n\n{body}\n");
    Message::from_raw(raw.as_bytes(), Timestamp::EPOCH, "x.example").unwrap()
}

pub(crate) async fn all_accepted(relay: Relay) {
    let scene =
        Scene::to(relay.config(), &["a", "b", "c"], &message("Hello.\n.\n..\nThe end.")).await;
    scene.pass("", "a sent, b sent, c sent", "").await;
    scene.pass("", "", "").await;
    assert_eq!(relay.copies().await, "a b c");
    let copy = String::from_utf8(relay.only_copy("a")).unwrap().replace("\r\n", "\n");
    assert!(copy.ends_with("\nHello.\n.\n..\nThe end.\n"), "{copy}");
}

pub(crate) async fn one_refused(relay: Relay) {
    let scene = Scene::to(relay.config(), &["a", "nobody", "c"], &message("Hello.")).await;
    scene.pass("failed a1: nobody", "a sent, nobody failed, c sent", "").await;
    scene.pass("failed a1: nobody", "", "").await;
    assert_eq!(relay.copies().await, "a c");
}

pub(crate) async fn one_deferred(relay: Relay) {
    let scene = Scene::to(relay.config(), &["a", "later", "c"], &message("Hello.")).await;
    scene.pass("deferred a1: later", "a sent, later deferred, c sent", "").await;
    scene.pass("deferred a2: later", "later deferred", "").await;
    assert_eq!(relay.copies().await, "a c");
}

pub(crate) async fn all_refused(relay: Relay) {
    let scene = Scene::to(relay.config(), &["nobody", "noone"], &message("Hello.")).await;
    scene.pass("failed a1: nobody noone", "nobody failed, noone failed", "").await;
    scene.pass("failed a1: nobody noone", "", "").await;
    assert_eq!(relay.copies().await, "");
}

pub(crate) async fn too_many_recipients(relay: Relay) {
    let six = ["a", "b", "c", "d", "e", "f"];
    let scene = Scene::to(relay.config(), &six, &message("Hello.")).await;
    scene.pass("", "a sent, b sent, c sent, d sent, e sent, f sent", "").await;
    assert_eq!(relay.copies().await, "a b c d e f");
}

pub(crate) async fn too_large(relay: Relay) {
    let large = message(&"a line of the body\n".repeat(3000));
    let scene = Scene::to(relay.config(), &["a", "b"], &large).await;
    scene.pass("failed a1: a b", "a failed, b failed", "").await;
    scene.pass("failed a1: a b", "", "").await;
    assert_eq!(relay.copies().await, "");
}

pub(crate) async fn eight_bit(relay: Relay) {
    let scene = Scene::to(relay.config(), &["a", "jörg"], &message("Grüße.")).await;
    if relay.utf8 == Utf8::Offered {
        scene.pass("", "a sent, jörg sent", "").await;
        assert_eq!(relay.copies().await, "a jörg");
    } else {
        scene.pass("failed a1: jörg", "a sent, jörg failed", "").await;
        assert_eq!(relay.copies().await, "a");
    }
    let copy = String::from_utf8(relay.only_copy("a")).unwrap();
    assert!(copy.contains("\nGrüße."), "{copy}");
}

/// It cannot answer: the greeting does not come, and nobody loses an attempt.
pub(crate) async fn stopped(relay: Relay) {
    let mut timeouts = Timeouts::default();
    timeouts.greeting = Duration::from_secs(1);
    let config = relay.config().with_timeouts(timeouts);
    let scene = Scene::to(config, &["a", "b"], &message("Hello.")).await;
    relay.signal(Signal::STOP);
    scene.pass("queued a0: a b", "", "paused").await;
    relay.signal(Signal::CONT);
    relay.until("the relay to go on", || async { relay.greets().await.then_some(()) }).await;
    let patient = scene.world.processor(relay.config(), ProcessorConfig::default());
    let scene = Scene { processor: patient, ..scene };
    scene.pass("", "a sent, b sent", "").await;
    assert_eq!(relay.copies().await, "a b");
}

/// It is killed between its 354 and the message: nothing was taken, and all is sent later.
pub(crate) async fn killed_in_data(relay: Relay) {
    let process = relay.process.clone();
    let kill = move || drop(process.lock().unwrap().take());
    let tap = Tap::on(relay.port, When::GoAhead, Line::Cut, kill).await;
    let scene = Scene::to(tapped(&tap), &["a", "b"], &message("Hello.")).await;
    scene.pass("deferred a1: a b", "a deferred, b deferred", "").await;
    relay.run().await;
    let direct = scene.world.processor(relay.config(), ProcessorConfig::default());
    let scene = Scene { processor: direct, ..scene };
    scene.pass("", "a sent, b sent", "").await;
    assert_eq!(relay.copies().await, "a b");
}

/// It took the message, and its answer is lost: in doubt, announced, and sent again.
pub(crate) async fn answer_lost(relay: Relay) {
    let tap = Tap::on(relay.port, When::Answered, Line::Cut, || {}).await;
    let scene = Scene::to(tapped(&tap), &["a", "nobody", "c"], &message("Hello.")).await;
    scene
        .pass(
            "deferred a1: a c; failed a1: nobody",
            "a possible-duplicate, nobody failed, c possible-duplicate",
            "",
        )
        .await;
    assert_eq!(relay.copies().await, "a c", "it has the message");
    let direct = scene.world.processor(relay.config(), ProcessorConfig::default());
    let scene = Scene { processor: direct, ..scene };
    scene.pass("failed a1: nobody", "a sent, c sent", "").await;
    assert_eq!(relay.copies().await, "a a c c", "a second copy each, as announced");
}

/// It took the message, and was killed with its answer on the way: it delivers when it runs again, and gets
/// the message once more, as announced. How often it delivers what it had begun to deliver is its affair.
pub(crate) async fn killed_after_the_dot(relay: Relay) {
    let process = relay.process.clone();
    let kill = move || drop(process.lock().unwrap().take());
    let tap = Tap::on(relay.port, When::Answered, Line::Cut, kill).await;
    let scene = Scene::to(tapped(&tap), &["a", "b"], &message("Hello.")).await;
    scene.pass("deferred a1: a b", "a possible-duplicate, b possible-duplicate", "").await;
    relay.run().await;
    let direct = scene.world.processor(relay.config(), ProcessorConfig::default());
    let scene = Scene { processor: direct, ..scene };
    scene.pass("", "a sent, b sent", "").await;
    let copies = relay.copies().await;
    for who in ["a", "b"] {
        assert!(copies.split(' ').filter(|copy| *copy == who).count() >= 2, "{copies}");
    }
}

/// It is stopped after its 354: it gets the message and the dot, and does not answer in time. What it does
/// when it goes on is its own affair; a second copy was announced in any case.
pub(crate) async fn stopped_after_the_dot(relay: Relay) {
    let process = relay.process.clone();
    let stop = move || {
        if let Some(process) = &*process.lock().unwrap() {
            process.signal(Signal::STOP);
        }
    };
    let tap = Tap::on(relay.port, When::GoAhead, Line::Kept, stop).await;
    let mut timeouts = Timeouts::default();
    timeouts.final_dot = Duration::from_secs(1);
    let config = tapped(&tap).with_timeouts(timeouts);
    let scene = Scene::to(config, &["a", "b"], &message("Hello.")).await;
    scene.pass("deferred a1: a b", "a possible-duplicate, b possible-duplicate", "").await;
    relay.signal(Signal::CONT);
    relay.until("the relay to go on", || async { relay.greets().await.then_some(()) }).await;
    let direct = scene.world.processor(relay.config(), ProcessorConfig::default());
    let scene = Scene { processor: direct, ..scene };
    scene.pass("", "a sent, b sent", "").await;
    let copies = if relay.keeps_what_it_could_not_answer { "a a b b" } else { "a b" };
    relay.until("the last copy", || async { (relay.copies().await == copies).then_some(()) }).await;
}

fn tapped(tap: &Tap) -> SmtpConfig {
    SmtpConfig::new("127.0.0.1", tap.port).unwrap()
}

/// A certificate for loopback, as files that a server can read.
pub(crate) struct Certificate {
    pub(crate) certificate: String,
    pub(crate) key: String,
    root: String,
}

impl Certificate {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap().pem();
        Self { certificate, key: key.serialize_pem(), root }
    }
}

impl Certificate {
    /// One with an RSA key, which vouches for itself. Nothing if there is no `openssl` to make it with.
    pub(crate) fn rsa() -> Option<Self> {
        let Some(openssl) = find("openssl") else {
            let test = std::thread::current();
            skip(test.name().unwrap_or("a test"), "openssl is not installed");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let words = "req -x509 -newkey rsa:2048 -nodes -keyout key -out certificate -subj /CN=relay \
                     -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE";
        let mut command = Command::new(openssl);
        command.args(words.split_whitespace()).current_dir(folder.path());
        let made = command.output().unwrap();
        assert!(made.status.success(), "{made:?}");
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        let certificate = read("certificate");
        Some(Self { root: certificate.clone(), certificate, key: read("key") })
    }
}

fn encrypted_to(relay: &Relay, certificate: &Certificate, user: &str) -> SmtpConfig {
    let url = format!("smtp://{user}127.0.0.1:{}?tls=required", relay.port);
    let config = SmtpConfig::from_url(&url).unwrap();
    config.with_root_certificates_pem(certificate.root.as_bytes()).unwrap()
}

/// STARTTLS, and AUTH where the relay can: a good password goes through, a bad one costs nobody anything.
pub(crate) async fn encrypted(relay: Relay, certificate: &Certificate, authenticates: bool) {
    let to = |user: &str| encrypted_to(&relay, certificate, user);
    if !authenticates {
        let scene = Scene::to(to(""), &["a", "b"], &message("Hello.")).await;
        scene.pass("", "a sent, b sent", "").await;
        assert_eq!(relay.copies().await, "a b");
        return;
    }
    let scene = Scene::to(to("shop:wrong@"), &["a", "b"], &message("Hello.")).await;
    scene.pass("queued a0: a b", "", "paused").await;
    assert_eq!(relay.copies().await, "");
    let right = scene.world.processor(to("shop:s3cret@"), ProcessorConfig::default());
    let scene = Scene { processor: right, ..scene };
    scene.pass("", "a sent, b sent", "").await;
    assert_eq!(relay.copies().await, "a b");
}

/// STARTTLS is offered and fails: nothing is sent without it.
pub(crate) async fn cannot_encrypt(relay: Relay, certificate: &Certificate) {
    let config = encrypted_to(&relay, certificate, "shop:s3cret@");
    let scene = Scene::to(config, &["a", "b"], &message("Hello.")).await;
    scene.pass("queued a0: a b", "", "paused").await;
    scene.pass("queued a0: a b", "", "").await;
    assert_eq!(relay.copies().await, "");
}

/// Connections beyond its limit are greeted with a 421: the relay's trouble.
pub(crate) async fn too_many_connections(relay: Relay, limit: usize) {
    let mut held = Vec::new();
    while held.len() < limit {
        let mut stream = TcpStream::connect(("127.0.0.1", relay.port)).await.unwrap();
        let mut greeting = [0; 3];
        // One that was closed just before may still be counted.
        match stream.read_exact(&mut greeting).await {
            Ok(_) if greeting == *b"220" => held.push(stream),
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    let scene = Scene::to(relay.config(), &["a", "b"], &message("Hello.")).await;
    scene.pass("queued a0: a b", "", "paused").await;
    drop(held);
    relay.until("a free place", || async { relay.greets().await.then_some(()) }).await;
    relay
        .until("the message to go", || async {
            scene.world.wait();
            scene.world.pass(&scene.processor).await.queue.is_empty().then_some(())
        })
        .await;
    assert_eq!(relay.copies().await, "a b");
}

/// A test of each case for a relay that `$start` starts.
macro_rules! cases {
    ($start:expr) => {
        crate::real::cases! { $start;
            // Proves: I14
            all_accepted;
            // Proves: S-rcpt-one-5xx, I9, I10
            one_refused;
            // Proves: S-rcpt-one-4xx, I9
            one_deferred;
            // Proves: S-rcpt-all-5xx, I10
            all_refused;
            // Proves: S-too-many, I9
            too_many_recipients;
            // Proves: S-mail-5xx, I10
            too_large;
            // Proves: I14
            eight_bit;
            // Proves: S-connect-silence, I11
            stopped;
            // Proves: S-data-421
            killed_in_data;
            // Proves: S-dot-421, I8, I9
            answer_lost;
            // Proves: S-dot-421, I8
            killed_after_the_dot;
            // Proves: S-dot-silence, I8
            stopped_after_the_dot;
        }
    };
    ($start:expr; $($(#[$comment:meta])* $case:ident;)*) => {
        $(
            $(#[$comment])*
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let Some(relay) = $start.await else { return };
                crate::real::$case(relay).await;
            }
        )*
    };
}
pub(crate) use cases;
