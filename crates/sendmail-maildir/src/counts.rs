//! What recovery costs, counted in operations on files: it looks often, and publishes what other processes
//! have staged.

use std::path::Path;

use sendmail_core::{Discard, Envelope, ErrorKind, Message, NewMessage, QueueId, Timestamp};

use crate::disk::{Op, faults};
use crate::name::MessageName;
use crate::options::MaildirOptions;
use crate::queue::Queue;

const MANY: usize = 50;
const AT: Timestamp = Timestamp::from_millis(1_795_504_135_000);

pub(crate) fn open(path: &Path) -> Queue {
    Queue::open(path, MaildirOptions::default()).unwrap()
}

fn mail(resource: &str) -> NewMessage {
    let id = QueueId::mint(AT);
    let raw = format!("Message-ID: <{id}@test>\nDate: d\n\nbody\n");
    NewMessage {
        id,
        envelope: Envelope::parse("from@x", ["to@x"]).unwrap(),
        message: Message::from_raw(raw.as_bytes(), AT, "test").unwrap(),
        resource: resource.parse().unwrap(),
    }
}

/// Writes messages whose transaction a database decides.
pub(crate) fn write(queue: &Queue, count: usize) -> Vec<QueueId> {
    let write = |_| {
        let new = mail("database");
        queue.write(&new).unwrap();
        new.id
    };
    (0..count).map(write).collect()
}

fn stage(queue: &Queue, count: usize) -> Vec<QueueId> {
    let ids = write(queue, count);
    queue.stage(&ids).unwrap();
    ids
}

#[test]
fn a_look_at_what_is_undecided_opens_no_staged_file() {
    let temp = tempfile::tempdir().unwrap();
    let (producer, queue) = (open(temp.path()), open(temp.path()));
    let mut ids = stage(&producer, MANY);
    let (list, count) = faults::count(|| queue.undecided().unwrap());
    assert_eq!(count(Op::Read), 1, "the one owner's lock");
    assert_eq!((count(Op::Look), count(Op::Sync)), (3, 0), "`tmp/`, `.staged/` and one in it");
    let mut listed: Vec<QueueId> = list.iter().map(|message| message.id).collect();
    listed.sort();
    ids.sort();
    assert_eq!(listed, ids);
    for message in &list {
        assert_eq!((message.resource.as_str(), message.since), ("database", AT));
        assert!(message.staged && message.owner_alive);
    }
}

#[test]
fn the_head_of_a_file_that_is_only_written_is_read_once() {
    let temp = tempfile::tempdir().unwrap();
    let (producer, queue) = (open(temp.path()), open(temp.path()));
    let ids = write(&producer, 5);
    let reads = |queue: &Queue| {
        let (list, count) = faults::count(|| queue.undecided().unwrap());
        assert!(list.iter().all(|message| message.resource.as_str() == "database"));
        (list.len(), count(Op::Read))
    };
    assert_eq!(reads(&queue), (5, 5 + 1));
    assert_eq!(reads(&queue), (5, 1), "the owner's lock alone");
    assert_eq!(reads(&producer), (5, 0), "it wrote them itself");
    producer.stage(&ids).unwrap();
    assert_eq!(reads(&queue), (5, 1));
    assert!(queue.resources.lock().unwrap().is_empty(), "what is not needed is not kept");
}

#[test]
fn many_that_another_process_staged_are_published_with_two_syncs() {
    let temp = tempfile::tempdir().unwrap();
    let (producer, queue) = (open(temp.path()), open(temp.path()));
    let ids = stage(&producer, MANY);
    let ((), count) = faults::count(|| queue.publish(&ids).unwrap());
    assert_eq!(count(Op::Sync), 2, "`new/` and `.staged/database/`, once each");
    assert_eq!((count(Op::Rename), count(Op::Read)), (MANY, MANY), "one head tells where to");
    let looks = 2 + MANY;
    assert_eq!(count(Op::Look), looks, "`.staged/`, a directory in it, and the names of each");
    // Another finisher, who comes late: the first may not have synced what it did.
    let late = open(temp.path());
    let ((), count) = faults::count(|| late.publish(&ids).unwrap());
    assert_eq!((count(Op::Sync), count(Op::Rename)), (2, 0));
}

#[test]
fn many_that_are_published_delivered_and_gone_are_synced_at_once() {
    let temp = tempfile::tempdir().unwrap();
    let (producer, queue) = (open(temp.path()), open(temp.path()));
    let ids = stage(&producer, MANY);
    queue.publish(&ids).unwrap();
    let new = queue.layout.new.path();
    ids.iter().for_each(|id| {
        let name = String::from_utf8(MessageName::new(*id).encode()).unwrap();
        std::fs::remove_file(new.join(name)).unwrap();
    });
    let ((), count) = faults::count(|| queue.publish(&ids).unwrap());
    assert_eq!((count(Op::Sync), count(Op::Read)), (1, 0), "the file system as a whole, once");
}

#[test]
fn one_that_cannot_be_synced_is_in_doubt() {
    let temp = tempfile::tempdir().unwrap();
    let (producer, queue) = (open(temp.path()), open(temp.path()));
    let ids = stage(&producer, 3);
    queue.publish(&ids).unwrap();
    for failing in 0.. {
        let late = open(temp.path());
        faults::fail_after(failing, 5);
        let published = late.publish(&ids);
        match faults::stop() {
            Some(Op::Sync) => {
                assert_eq!(published.unwrap_err().kind(), ErrorKind::Uncertain, "{failing}");
            }
            Some(_) => assert!(published.is_err(), "operation {failing}"),
            None => {
                published.unwrap();
                break;
            }
        }
    }
}

/// A file that does not prove itself whole is in doubt like every other, and is never sent or lost.
#[test]
fn a_staged_file_that_is_damaged_is_kept() {
    let temp = tempfile::tempdir().unwrap();
    let (producer, queue) = (open(temp.path()), open(temp.path()));
    let ids = stage(&producer, 2);
    let name = MessageName::new(ids[0]).owned(producer.owner.id).encode();
    let staged = temp.path().join(".staged/database");
    std::fs::write(staged.join(String::from_utf8(name).unwrap()), "rubbish").unwrap();
    assert_eq!(queue.undecided().unwrap().len(), 2);
    let error = queue.publish(&ids).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert_eq!(queue.undecided().unwrap().len(), 1, "the other one is published");
    assert_eq!(queue.known(&ids).unwrap(), ids[1..]);
    let events = queue.discard(&ids[..1], Discard::Fenced).unwrap();
    assert_eq!(events.len(), 1);
    assert_eq!(std::fs::read_dir(temp.path().join(".discarded")).unwrap().count(), 1);
}
