//! A queue with some messages, of which single operations fail in a chosen way.

use std::path::Path;

use sendmail_core::{
    Attempted, Claim, DeliveryOptions, Discard, EntryState, Envelope, Error, ErrorKind, Loaded,
    MailEvent, Message, NewMessage, Outcome, QueueId, Recipient, RecipientResult, Reply,
    Settlement, Step, Timestamp, TransactionId, Unsettled, Verdict,
};

use crate::disk::{Op, faults};
use crate::journal::log;
use crate::options::MaildirOptions;
use crate::power::place;
use crate::queue::Queue;

/// What goes wrong with a disk: the errors of the system, and what a caller is told of them.
#[derive(Debug)]
pub(crate) struct Trouble {
    pub(crate) errors: &'static [i32],
    pub(crate) kind: ErrorKind,
    pub(crate) is_temporary: bool,
}

/// ENOSPC and EDQUOT; a file system that has no inodes says ENOSPC, too.
pub(crate) const FULL: Trouble =
    Trouble { errors: &[28, 122], kind: ErrorKind::Full, is_temporary: true };
/// EIO.
pub(crate) const BAD: Trouble = Trouble { errors: &[5], kind: ErrorKind::Io, is_temporary: true };
/// EACCES and EROFS.
pub(crate) const REFUSED: Trouble =
    Trouble { errors: &[13, 30], kind: ErrorKind::PermissionDenied, is_temporary: false };

pub(crate) const ALL: [&Trouble; 3] = [&FULL, &BAD, &REFUSED];

/// Everything that needs a block or an inode. What is written into a journal has its blocks already.
pub(crate) const NEEDS_ROOM: &[Op] = &[Op::Make, Op::Rename];
/// Everything that changes something.
pub(crate) const CHANGES: &[Op] =
    &[Op::Make, Op::Write, Op::Sync, Op::Rename, Op::Unlink, Op::Mode];

impl Trouble {
    /// The caller is told what it is, and whether to try again.
    pub(crate) fn is_told(&self, error: &Error) {
        assert_eq!(error.kind(), self.kind, "{error}");
        assert_eq!(error.is_temporary(), self.is_temporary, "{error}");
    }
}

/// The operation that failed in one run, and what came of it.
pub(crate) struct Failed<T> {
    pub(crate) operation: Op,
    pub(crate) result: T,
}

/// Lets each operation of `act` fail in its turn, with each error of this trouble, in a scene that is made
/// anew each time. No file may be synced after its sync has failed. Returns which operations failed.
pub(crate) fn fail_each<T>(
    trouble: &Trouble,
    prepare: impl Fn() -> Scene,
    act: impl Fn(&Scene) -> T,
    judge: impl Fn(&Scene, Failed<T>),
) -> Vec<Op> {
    let mut all = Vec::new();
    for error in trouble.errors {
        for count in 0.. {
            let scene = prepare();
            faults::fail_after(count, *error);
            let result = act(&scene);
            let again = faults::synced_again();
            let Some(operation) = faults::stop() else { break };
            assert_eq!(again, None, "synced again, error {error}, operation {count}");
            all.push(operation);
            judge(&scene, Failed { operation, result });
        }
    }
    all
}

/// A queue, and the process that a test is about.
pub(crate) struct Scene {
    folder: tempfile::TempDir,
    pub(crate) queue: Queue,
    pub(crate) ids: Vec<QueueId>,
}

pub(crate) const TRANSACTION: TransactionId = TransactionId::from_bytes([1; 16]);

impl Scene {
    /// A queue without a message.
    pub(crate) fn empty() -> Self {
        let folder = tempfile::tempdir_in(place()).unwrap();
        let queue = open(folder.path());
        Self { folder, queue, ids: Vec::new() }
    }

    /// Messages that are written, and nothing more.
    pub(crate) fn written(count: u8) -> Self {
        let mut scene = Self::empty();
        for number in 0..count {
            let new = scene.message(number);
            scene.queue.write(&new).unwrap();
            scene.ids.push(new.id);
        }
        scene
    }

    /// A transaction of two messages that is prepared.
    pub(crate) fn prepared() -> Self {
        let scene = Self::written(2);
        scene.prepare().unwrap();
        scene
    }

    /// A transaction of two messages that is decided.
    pub(crate) fn decided() -> Self {
        let scene = Self::prepared();
        scene.queue.decide(TRANSACTION).unwrap();
        scene
    }

    /// Messages that are in the queue.
    pub(crate) fn queued(count: u8) -> Self {
        let scene = Self::written(count);
        for id in &scene.ids {
            scene.queue.publish(&[*id]).unwrap();
        }
        scene
    }

    pub(crate) fn message(&self, number: u8) -> NewMessage {
        let id = QueueId::from_bytes([number + 1; 16]);
        let raw = format!("Message-ID: <{id}@test>\nDate: d\n\nbody\n");
        let options = DeliveryOptions::default();
        NewMessage {
            id,
            envelope: Envelope::parse("from@x", ["to@x"]).unwrap().with_options(options),
            message: Message::from_raw(raw.as_bytes(), Timestamp::EPOCH, "test").unwrap(),
            resource: self.queue.layout.resource.clone(),
        }
    }

    /// What a transaction manager does before it votes yes.
    pub(crate) fn prepare(&self) -> Result<(), Error> {
        self.queue.stage(&self.ids)?;
        self.queue.propose(TRANSACTION, &self.ids)
    }

    /// What it does with a transaction that is not committed.
    pub(crate) fn abort(&self) {
        self.queue.discard(&self.ids, Discard::Aborted).unwrap();
        self.queue.retract(TRANSACTION).unwrap();
    }

    /// Another process.
    pub(crate) fn other(&self) -> Queue {
        open(self.folder.path())
    }

    /// The process dies, and nothing is put in order.
    pub(crate) fn die(&self) {
        self.queue.owner.release();
    }

    /// Whether no message waits to be claimed.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.layout.new.names().unwrap().count() == 0
    }

    /// How many are neither published nor thrown away.
    pub(crate) fn undecided(&self) -> usize {
        self.queue.undecided().unwrap().len()
    }

    /// Nothing is left of it that anybody could send, also when its process is dead.
    pub(crate) fn never_sent(&self) {
        for _ in 0..2 {
            let other = self.other();
            other.sweep().unwrap();
            assert_eq!(claim(&other).len(), 0, "sent after it was aborted");
            self.die();
        }
        assert_eq!(self.other().undecided().unwrap().len(), 0);
    }

    /// Each of the messages is delivered by `queue`, once, and the log tells that.
    pub(crate) fn all_sent_by(&self, queue: &Queue) {
        let claims = claim(queue);
        let mut ids: Vec<QueueId> = claims.iter().map(|claim| claim.id).collect();
        ids.sort();
        assert_eq!(ids, self.ids);
        for claim in claims {
            hand_over(queue, &claim);
            settle(queue, claim).unwrap();
        }
        assert_eq!(claim(queue).len(), 0, "sent twice");
        self.told_once();
    }

    /// The log tells of each message that it was sent, once, and of no second copy.
    pub(crate) fn told_once(&self) {
        let events = self.log();
        use sendmail_core::MailEventKind::{PossibleDuplicate, Sent};
        for id in &self.ids {
            let of_it = || events.iter().filter(|event| event.queue_id == Some(*id));
            let count = |kind| of_it().filter(|event| event.kind == kind).count();
            assert_eq!((count(Sent), count(PossibleDuplicate)), (1, 0), "{events:?}");
        }
    }

    /// How many files are claimed by anybody, dead or alive.
    pub(crate) fn claimed(&self) -> usize {
        let dirs = self.queue.directories(EntryState::Claimed).unwrap();
        dirs.iter().map(|dir| dir.names().unwrap().count()).sum()
    }

    pub(crate) fn log(&self) -> Vec<MailEvent> {
        let page = log::read(&self.queue.layout.journal, None, 1000).unwrap();
        page.events.into_iter().map(|(_, event)| event).collect()
    }
}

fn open(path: &Path) -> Queue {
    let mut options = MaildirOptions::default();
    // A test's disk may be nearly full of other tests' files.
    (options.reserved_space, options.reserved_inodes) = (0, 0);
    Queue::open(path, options).unwrap()
}

/// Claims all that is due: only an empty answer says that there is no more.
pub(crate) fn claim(queue: &Queue) -> Vec<Claim> {
    let mut all = Vec::new();
    loop {
        let mut claims = queue.claim(100).unwrap().claims;
        if claims.is_empty() {
            return all;
        }
        all.append(&mut claims);
    }
}

/// Everything that is recorded of an attempt before its final dot.
pub(crate) fn hand_over(queue: &Queue, claim: &Claim) -> Loaded {
    let loaded = queue.load(claim).unwrap();
    queue.record(claim, Step::Begin).unwrap();
    queue.record(claim, Step::Handover).unwrap();
    loaded
}

/// The relay has taken it.
pub(crate) fn settle(queue: &Queue, claim: Claim) -> Result<Vec<MailEvent>, Unsettled> {
    let recipient: Recipient = "to@x".parse().unwrap();
    let outcome = Outcome::Accepted(Reply::new(250, "ok"));
    let results = vec![RecipientResult { recipient, outcome, verdict: Verdict::Done }];
    let retry_after = std::time::Duration::ZERO;
    queue.settle(claim, &Settlement::Attempted(Attempted { results, retry_after }))
}
