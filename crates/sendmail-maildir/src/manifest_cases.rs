//! Cases about decisions and fences in which somebody else was quicker, has died, or the disk fails.

use sendmail_core::{Decision, QueueId, TransactionId};

use crate::manifest::{fence_name, manifest_name};
use crate::options::MaildirOptions;
use crate::power::probe as faults;
use crate::queue::Queue;

const TRANSACTION: TransactionId = TransactionId::from_bytes([1; 16]);
const IDS: [QueueId; 2] = [QueueId::from_bytes([2; 16]), QueueId::from_bytes([3; 16])];
const UNRELATED: QueueId = QueueId::from_bytes([9; 16]);
const EIO: i32 = 5;

/// Two processes at one queue; the first has proposed a transaction.
struct Pair {
    _temp: tempfile::TempDir,
    first: Queue,
    second: Queue,
}

impl Pair {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let open = || Queue::open(temp.path(), MaildirOptions::default()).unwrap();
        let (first, second) = (open(), open());
        first.propose(TRANSACTION, &IDS).unwrap();
        Self { _temp: temp, first, second }
    }

    fn exists(&self, name: &[u8]) -> bool {
        self.first.own_staged().unwrap().exists(name).unwrap()
    }

    fn manifest(&self) -> Vec<u8> {
        manifest_name(TRANSACTION, self.first.owner.id)
    }
}

#[test]
fn a_proposal_can_be_withdrawn_and_a_decision_cannot() {
    let pair = Pair::new();
    pair.first.retract(TRANSACTION).unwrap();
    assert!(!pair.exists(&pair.manifest()));
    assert!(pair.first.decide(TRANSACTION).is_err());
    // Once more is harmless.
    pair.first.retract(TRANSACTION).unwrap();

    let pair = Pair::new();
    pair.first.decide(TRANSACTION).unwrap();
    pair.first.retract(TRANSACTION).unwrap();
    assert!(pair.exists(&pair.manifest()));
    assert_eq!(pair.second.visible(&IDS).unwrap(), IDS);
}

#[test]
fn a_decision_is_visible_of_its_own_messages_only() {
    let pair = Pair::new();
    assert_eq!(pair.second.visible(&IDS).unwrap(), []);
    pair.first.decide(TRANSACTION).unwrap();
    assert_eq!(pair.second.visible(&[UNRELATED, IDS[1]]).unwrap(), [IDS[1]]);
    let (visible, synced) = faults::count(|| pair.second.visible(&[UNRELATED]).unwrap());
    assert_eq!((visible, synced(crate::disk::Op::Sync)), (Vec::new(), 0), "nobody asked about it");
}

#[test]
fn some_of_a_decision_can_be_forgotten_and_a_proposal_cannot() {
    let pair = Pair::new();
    pair.second.forget(&IDS).unwrap();
    assert!(pair.exists(&pair.manifest()), "it is not decided yet");
    pair.first.decide(TRANSACTION).unwrap();
    pair.second.forget(&[UNRELATED]).unwrap();
    assert_eq!(pair.second.visible(&IDS).unwrap(), IDS);
    pair.second.forget(&IDS[..1]).unwrap();
    assert_eq!(pair.second.visible(&IDS).unwrap(), IDS[1..]);
    pair.second.forget(&IDS[1..]).unwrap();
    assert!(!pair.exists(&pair.manifest()));
}

#[test]
fn what_a_dead_process_proposed_is_judged_by_what_it_did_last() {
    let judge = |act: &dyn Fn(&Pair)| {
        let pair = Pair::new();
        let [found] = &pair.second.manifests().unwrap()[..] else { panic!("one was proposed") };
        let alive = pair.second.judge(found).unwrap();
        assert_eq!(alive, Decision::Unfinished, "its owner lives");
        act(&pair);
        pair.first.owner.release();
        pair.second.judge(found).unwrap()
    };
    assert_eq!(judge(&|_| ()), Decision::Aborted);
    // After it was read, and before it died: it is read anew when it is asked for the next time.
    assert_eq!(judge(&|pair| pair.first.decide(TRANSACTION).unwrap()), Decision::Unfinished);
    assert_eq!(judge(&|pair| pair.first.retract(TRANSACTION).unwrap()), Decision::Unfinished);
}

#[test]
fn a_decision_that_was_forgotten_since_it_was_read_was_one() {
    let pair = Pair::new();
    pair.first.decide(TRANSACTION).unwrap();
    let [found] = &pair.second.manifests().unwrap()[..] else { panic!("one was decided") };
    pair.first.forget(&IDS).unwrap();
    assert_eq!(pair.second.judge(found).unwrap(), Decision::Committed);
}

#[test]
fn a_fence_is_final_and_may_be_left_twice() {
    let pair = Pair::new();
    for _ in 0..2 {
        assert_eq!(pair.second.fence(UNRELATED).unwrap(), Decision::Aborted);
        assert!(pair.exists(&fence_name(UNRELATED)));
    }
    let late = TransactionId::from_bytes([8; 16]);
    assert!(pair.first.propose(late, &[IDS[0], UNRELATED]).is_err());
    assert!(!pair.exists(&manifest_name(late, pair.first.owner.id)));
    // A live owner's proposal is not fenced.
    assert_eq!(pair.second.fence(IDS[0]).unwrap(), Decision::Unfinished);
    assert!(!pair.exists(&fence_name(IDS[0])));
    pair.first.decide(TRANSACTION).unwrap();
    assert_eq!(pair.second.fence(IDS[0]).unwrap(), Decision::Committed);
}

/// Lets each operation of `ask` fail in turn: the answer is an error then, and never a wrong one.
#[track_caller]
fn fails_at_every_step<T: std::fmt::Debug>(ask: impl Fn() -> Result<T, String>) {
    for count in 0.. {
        faults::fail_after(count, EIO);
        let answer = ask();
        let Some(op) = faults::stop() else { break };
        assert!(answer.is_err(), "operation {count}, {op:?}, failed, and it said {answer:?}");
    }
}

#[test]
fn no_answer_is_given_where_the_disk_gives_none() {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let pair = Pair::new();
    fails_at_every_step(|| pair.second.manifests().map_err(|error| text(&error)));
    pair.first.owner.release();
    let [undecided] = &pair.second.manifests().unwrap()[..] else { panic!("one was proposed") };
    fails_at_every_step(|| pair.second.judge(undecided).map_err(|error| text(&error)));
    pair.first.decide(TRANSACTION).unwrap();
    let [decided] = &pair.second.manifests().unwrap()[..] else { panic!("one was decided") };
    fails_at_every_step(|| pair.second.judge(decided).map_err(|error| text(&error)));
    fails_at_every_step(|| pair.second.fence(UNRELATED).map_err(|error| text(&error)));
}
