//! Postfix's `smtp-sink`, which fails as its options say: one row for each option and each of its commands.
//!
//! The message goes to `a` and `b`, and then, with what is left of it, to a sink without options. Copies
//! are those that the sink itself wrote down.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use sendmail_core::{DeliveryOptions, Message, Timestamp};
use sendmail_processor::{ProcessorConfig, QueueProcessor};
use sendmail_smtp::{SmtpConfig, Timeouts};
use sendmail_tests::programs::{find, skip};
use tokio::net::TcpStream;

use crate::cage::Process;
use crate::real::free_port;
use crate::world::World;

/// A sink, and the queue whose mail goes to it.
struct Sink {
    folder: tempfile::TempDir,
    program: PathBuf,
    port: u16,
    process: Option<Process>,
    world: World,
}

impl Sink {
    /// One that does not run yet. Nothing means that the test has skipped itself.
    async fn new(body: &str) -> Option<Self> {
        let Some(program) = find("smtp-sink") else {
            let test = std::thread::current();
            skip(test.name().unwrap_or("a test"), "smtp-sink is not installed");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        // It gives up root, and writes as somebody else.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
        let world = World::open().await;
        let raw = format!("Message-ID: <sink@x.example>\nSubject: s\n\n{body}\n");
        let message = Message::from_raw(raw.as_bytes(), Timestamp::EPOCH, "x.example").unwrap();
        world.queue(&["a@y.example", "b@y.example"], DeliveryOptions::default(), &message).await;
        Some(Self { folder, program, port: free_port(), process: None, world })
    }

    /// Starts it with these options, in place of the one that runs.
    async fn run(&mut self, options: &[&str]) {
        self.process = None;
        let mut command = Command::new(&self.program);
        if rustix::process::geteuid().is_root() {
            command.args(["-u", "nobody"]);
        }
        command.args(["-d", "copy."]).args(options).current_dir(self.folder.path());
        command.arg(format!("127.0.0.1:{}", self.port)).arg("64");
        let mut process = Process::start(command, &self.folder.path().join("log"));
        let listening = async {
            while TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
                assert!(!process.has_ended(), "smtp-sink does not start: {options:?}");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), listening).await.expect("it listens");
        self.process = Some(process);
    }

    fn processor(&self, timeouts: Timeouts) -> QueueProcessor {
        let relay = SmtpConfig::new("127.0.0.1", self.port).unwrap().with_timeouts(timeouts);
        self.world.processor(relay, ProcessorConfig::default())
    }

    /// Who is in the sink's files, one word for each copy: messages whose text is there as a whole.
    fn copies(&self) -> String {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.folder.path()).unwrap() {
            let text = fs::read(entry.unwrap().path()).unwrap();
            let text = String::from_utf8_lossy(&text);
            if text.contains("The end.") {
                let to = text.lines().filter_map(|line| line.strip_prefix("X-Rcpt-Args: <"));
                found.extend(to.map(|to| to.split('@').next().unwrap().to_owned()));
            }
        }
        found.sort_unstable();
        found.join(" ")
    }
}

/// What has to be seen: the queue's files, the events, and the copies after a pass with these options;
/// events and copies after one without.
struct Row {
    options: &'static [&'static str],
    body: &'static str,
    timeouts: Timeouts,
    first: (&'static str, &'static str, &'static str, &'static str),
    second: (&'static str, &'static str, &'static str),
}

fn with(options: &'static [&'static str]) -> Row {
    Row {
        options,
        body: "The end.",
        timeouts: Timeouts::default(),
        first: ("", "", "", ""),
        second: ("", "", ""),
    }
}

impl Row {
    fn sent(mut self) -> Self {
        self.first = ("", "a sent, b sent", "", "a b");
        self.second = ("", "", "a b");
        self
    }

    fn paused(mut self) -> Self {
        self.first = ("queued a0: a b", "", "paused", "");
        self.second = ("", "a sent, b sent", "a b");
        self
    }

    fn deferred(mut self) -> Self {
        self.first = ("deferred a1: a b", "a deferred, b deferred", "", "");
        self.second = ("", "a sent, b sent", "a b");
        self
    }

    fn failed(mut self) -> Self {
        self.first = ("failed a1: a b", "a failed, b failed", "", "");
        self.second = ("failed a1: a b", "", "");
        self
    }

    /// In doubt; the sink has written the message down.
    fn in_doubt(mut self) -> Self {
        let events = "a possible-duplicate, b possible-duplicate";
        self.first = ("deferred a1: a b", events, "", "a b");
        self.second = ("", "a sent, b sent", "a a b b");
        self
    }

    /// It wrote the message down although it refused it then.
    fn written(mut self, first: &'static str, second: &'static str) -> Self {
        (self.first.3, self.second.2) = (first, second);
        self
    }

    fn timeouts(mut self, set: impl FnOnce(&mut Timeouts)) -> Self {
        set(&mut self.timeouts);
        self
    }

    async fn check(self) {
        let Some(mut sink) = Sink::new(self.body).await else { return };
        sink.run(self.options).await;
        let seen = sink.world.pass(&sink.processor(self.timeouts)).await;
        let found = (seen.queue.as_str(), &*seen.events, &*seen.relay, &*sink.copies());
        assert_eq!(found, self.first, "{:?}, {:?}", self.options, seen.trouble);
        sink.run(&[]).await;
        sink.world.wait();
        let seen = sink.world.pass(&sink.processor(Timeouts::default())).await;
        let found = (seen.queue.as_str(), &*seen.events, &*sink.copies());
        assert_eq!(found, self.second, "{:?}", self.options);
    }
}

macro_rules! rows {
    ($($(#[$comment:meta])* $name:ident: $($row:expr),+;)*) => {
        $(
            $(#[$comment])*
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                $($row.check().await;)+
            }
        )*
    };
}

const SECOND: Duration = Duration::from_secs(1);

rows! {
    without_options: with(&[]).sent();

    // -f: a hard refusal; -B: its words.
    // Proves: S-connect-5xx, I11
    hard_connect: with(&["-f", "CONNECT"]).paused();
    // A relay that refuses EHLO is asked by HELO.
    // Proves: S-connect-5xx
    hard_ehlo: with(&["-f", "EHLO"]).sent(), with(&["-f", "EHLO,HELO"]).paused();
    // Proves: S-mail-5xx, I10
    hard_mail: with(&["-f", "MAIL"]).failed(), with(&["-f", "MAIL", "-B", "599 no"]).failed();
    // Proves: S-rcpt-all-5xx, I10
    hard_rcpt: with(&["-f", "RCPT"]).failed();
    // Proves: S-data-5xx, I10
    hard_data: with(&["-f", "DATA"]).failed();
    // Proves: S-dot-5xx, I10
    hard_dot: with(&["-f", "."]).failed().written("a b", "a b");
    // Proves: S-quit-5xx
    hard_quit: with(&["-f", "QUIT"]).sent();

    // -r: a soft refusal; -b: its words.
    // Proves: S-connect-4xx, I11
    soft_connect: with(&["-r", "CONNECT"]).paused();
    // Proves: S-connect-4xx, I11
    soft_ehlo: with(&["-r", "EHLO"]).paused();
    // Proves: S-mail-4xx
    soft_mail: with(&["-r", "MAIL"]).deferred(), with(&["-r", "MAIL", "-b", "499 no"]).deferred();
    // Proves: S-rcpt-all-4xx
    soft_rcpt: with(&["-r", "RCPT"]).deferred(), with(&["-r", "RCPT", "-b", "452 4.5.3 too many"]).deferred();
    // Proves: S-data-4xx
    soft_data: with(&["-r", "DATA"]).deferred();
    // Proves: S-dot-4xx
    soft_dot: with(&["-r", "."]).deferred().written("a b", "a a b b");
    // Proves: S-quit-4xx
    soft_quit: with(&["-r", "QUIT"]).sent();

    // -q: hangs up; -Q: says 421 before.
    // Proves: S-connect-421, I11
    gone_at_connect: with(&["-q", "CONNECT"]).paused(), with(&["-Q", "CONNECT"]).paused();
    // Proves: S-connect-421, I11
    gone_at_ehlo: with(&["-q", "EHLO"]).paused(), with(&["-Q", "EHLO"]).paused();
    // Proves: S-mail-421
    gone_at_mail: with(&["-q", "MAIL"]).deferred(), with(&["-Q", "MAIL"]).deferred();
    // Proves: S-rcpt-all-421
    gone_at_rcpt: with(&["-q", "RCPT"]).deferred(), with(&["-Q", "RCPT"]).deferred();
    // Proves: S-data-421
    gone_at_data: with(&["-q", "DATA"]).deferred(), with(&["-Q", "DATA"]).deferred();
    // Proves: S-dot-421, I8
    gone_at_dot: with(&["-q", "."]).in_doubt(), with(&["-Q", "."]).in_doubt();
    // Proves: S-quit-421
    gone_at_quit: with(&["-q", "QUIT"]).sent(), with(&["-Q", "QUIT"]).sent();

    // -W, -w, -H: it takes its time; within the deadline that is nothing. What comes behind a command whose
    // answer is delayed by -W it answers before, which no client can make sense of: hence -p.
    slow: with(&["-p", "-W", "MAIL:1"]).sent(), with(&["-w", "1"]).sent(), with(&["-H", "1"]).sent();
    // Proves: S-mail-silence
    too_slow_at_mail: with(&["-p", "-W", "MAIL:30"]).timeouts(|times| times.mail = SECOND).deferred();
    // Proves: S-rcpt-all-silence
    too_slow_at_rcpt: with(&["-p", "-W", "RCPT:30"]).timeouts(|times| times.rcpt = SECOND).deferred();
    // Proves: S-data-silence
    too_slow_at_data: with(&["-p", "-W", "DATA:30"]).timeouts(|times| times.data = SECOND).deferred();
    // Proves: S-dot-silence, I8
    too_slow_at_dot: with(&["-p", "-W", ".:30"]).timeouts(|times| times.final_dot = SECOND).in_doubt();
    // Proves: S-quit-silence
    too_slow_at_quit: with(&["-p", "-W", "QUIT:30"]).timeouts(|times| times.quit = SECOND).sent();

    // -8, -a, -C, -e, -E, -F, -N, -p, -P: what it does not offer is not missed,
    without_extensions: with(&["-8", "-a", "-C", "-E", "-F", "-N", "-p"]).sent(),
        with(&["-e"]).sent(), with(&["-P"]).sent();
    // except by a message that needs it: never 8-bit bytes to who did not ask for them.
    eight_bit: Row { body: "Grüße. The end.", ..with(&["-N"]) }.sent(),
        Row { body: "Grüße. The end.", ..with(&["-8"]) }.failed();
}

/// -A: it says 550 after its 354 and reads nothing. Whether that comes before the dot or after is a matter
/// of chance, and its hanging up may take the reply with it; but nobody is told "sent", and who is in doubt
/// is told so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_while_the_message_is_sent() {
    for delay in ["0", "1"] {
        let Some(mut sink) = Sink::new(&"The end.\n".repeat(100_000)).await else { return };
        sink.run(&["-A", delay]).await;
        let seen = sink.world.pass(&sink.processor(Timeouts::default())).await;
        let allowed = [
            ("failed a1: a b", "a failed, b failed"),
            ("deferred a1: a b", "a deferred, b deferred"),
            ("deferred a1: a b", "a possible-duplicate, b possible-duplicate"),
        ];
        assert!(allowed.contains(&(&*seen.queue, &*seen.events)), "{seen:?}");
    }
}
