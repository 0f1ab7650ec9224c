//! A disk that is full: new mail is refused with a clear error, and the drain goes on to its end. In
//! memory, and on ext4, where a rename into another directory may need a block too.

use sendmail_testkit::smtp::{At, Do, Script, ScriptedServer};
use sendmail_tests::mounted::{Kind, Mounted};

use crate::support::{Done, Queue, finish, mail};

const COUNT: usize = 20;

/// The name of the running test: it runs on a thread of its own, which has it.
fn this_test() -> String {
    std::thread::current().name().unwrap_or("a test").to_owned()
}

/// A file system in memory. Nothing means that the test has skipped itself.
fn in_memory(options: &str) -> Option<Mounted> {
    Mounted::in_memory(&this_test(), options).unwrap()
}

/// A queue on that disk with mail in it.
async fn queue_on(disk: &Mounted) -> Queue {
    let queue = Queue::at(&disk.path().join("queue"))
        .configured("[queue]\nreserved_inodes = 50\n[delivery]\nfirst_retry = \"100ms\"\n");
    for number in 0..COUNT {
        queue.send(&["a@example.net", "b@example.net"], mail(&format!("{number}"))).await;
    }
    // The sweep makes the reserve.
    queue.run(["recover"]).await.exits(0);
    queue
}

async fn send(queue: &Queue) -> Done {
    let words = ["send", "-f", "a@example.org", "b@example.net"];
    finish(queue.command(words), mail("one too many").as_bytes()).await
}

/// Everything arrives, with a relay that defers one recipient of each at first: files are replaced and
/// moved while there is no room.
async fn drain(queue: &Queue) {
    let later = Do::reply("450 4.2.0 later");
    let script = Script::new().on(At::RcptTo("b@example.net".into()), later);
    let server = ScriptedServer::start(script).await.unwrap();
    let done = queue.run_once(&server.url()).await;
    assert_eq!(server.messages().len(), COUNT, "{done:?}");
    server.set_script(Script::new());
    queue.drain(&server.url()).await;
    let arrived = server.messages();
    let served = |to: &str| arrived.iter().filter(|message| message.recipients == [to]).count();
    assert_eq!((served("a@example.net"), served("b@example.net")), (COUNT, COUNT));
    assert!(queue.events_of("possible-duplicate").await.is_empty());
}

fn assert_refused(done: Done) {
    let done = done.exits(73);
    assert_eq!(done.stdout, "", "no Message-ID for what is not queued");
    assert!(done.stderr.contains("disk is nearly full"), "{done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn below_the_reserve_nothing_new_is_taken_and_the_drain_goes_on() {
    let Some(disk) = in_memory("size=40m") else { return };
    let queue = queue_on(&disk).await;
    disk.fill(8 << 20).unwrap();
    assert_refused(send(&queue).await);
    drain(&queue).await;
    disk.make_room().unwrap();
    send(&queue).await.exits(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_byte_left_the_drain_still_comes_to_its_end() {
    let Some(disk) = in_memory("size=40m") else { return };
    without_a_byte_left(disk).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_byte_left_on_ext4_the_drain_still_comes_to_its_end() {
    let Some(disk) = Mounted::small(&this_test(), Kind::Ext4).unwrap() else { return };
    without_a_byte_left(disk).await;
}

async fn without_a_byte_left(disk: Mounted) {
    let queue = queue_on(&disk).await;
    disk.fill(0).unwrap();
    assert_refused(send(&queue).await);
    drain(&queue).await;
    disk.make_room().unwrap();
    send(&queue).await.exits(0);
    queue.run(["recover"]).await.exits(0);
    assert!(queue.path().join(".reserve").exists(), "the reserve is made again");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_few_inodes_nothing_new_is_taken_and_the_drain_goes_on() {
    let Some(disk) = in_memory("size=64m,nr_inodes=400") else { return };
    let queue = queue_on(&disk).await;
    disk.use_up_inodes(30).unwrap();
    assert_refused(send(&queue).await);
    drain(&queue).await;
    disk.make_room().unwrap();
    send(&queue).await.exits(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_inode_left_nothing_is_lost() {
    let Some(disk) = in_memory("size=64m,nr_inodes=400") else { return };
    let queue = queue_on(&disk).await;
    disk.use_up_inodes(0).unwrap();
    let done = send(&queue).await;
    assert!(matches!(done.code, Some(73..=75)), "{done:?}");
    let server = ScriptedServer::start(Script::new()).await.unwrap();
    let done = queue.run_once(&server.url()).await;
    assert!(done.code == Some(0) || done.stderr.contains("No space left"), "{done:?}");
    disk.make_room().unwrap();
    queue.drain(&server.url()).await;
    assert_eq!(server.submitted().len(), COUNT, "each once");
    send(&queue).await.exits(0);
}
