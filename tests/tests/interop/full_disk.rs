//! A disk that is full: new mail is refused with a clear error, and the drain goes on to its end. In
//! memory, and on ext4, where a rename into another directory may need a block too.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use sendmail_testkit::smtp::{At, Do, Script, ScriptedServer};
use tempfile::{NamedTempFile, TempDir};

use crate::support::{Done, Queue, demand, finish, mail};

const COUNT: usize = 20;

/// A file system of its own. It is unmounted when it is dropped.
struct Disk {
    directory: TempDir,
    _image: Option<NamedTempFile>,
}

impl Disk {
    /// A file system in memory. Nothing means that the test has skipped itself.
    fn in_memory(options: &str) -> Option<Self> {
        Self::mount(&["-t", "tmpfs", "-o", options, "tmpfs"], None)
    }

    /// An ext4 of this size, without blocks that only root gets. Nothing means that the test has skipped
    /// itself.
    fn ext4(size: u64) -> Option<Self> {
        let make = demand::program("mkfs.ext4")?;
        let image = NamedTempFile::new().unwrap();
        image.as_file().set_len(size).unwrap();
        let made = Command::new(make).args(["-q", "-m", "0"]).arg(image.path()).status();
        assert!(made.unwrap().success());
        let place = image.path().to_str().unwrap().to_owned();
        Self::mount(&["-o", "loop", &place], Some(image))
    }

    fn mount(words: &[&str], image: Option<NamedTempFile>) -> Option<Self> {
        if !demand::root("mount a file system") {
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new("mount");
        command.args(words).arg(directory.path());
        if command.output().is_ok_and(|output| output.status.success()) {
            return Some(Self { directory, _image: image });
        }
        demand::skip("mounting is not allowed here");
        None
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Writes until not a byte more fits, then gives `left` bytes back.
    fn fill(&self, left: u64) {
        let mut file = std::fs::File::create(self.filler()).unwrap();
        let mut size = 1 << 20;
        while size > 0 {
            match file.write(&vec![1; size]) {
                Ok(count) if count > 0 => {}
                _ => size /= 2,
            }
        }
        let length = file.metadata().unwrap().len();
        file.set_len(length - left.min(length)).unwrap();
    }

    /// Makes files until there is no inode for another, then removes `left` of them.
    fn use_up_inodes(&self, left: usize) {
        let folder = self.path().join("inodes");
        std::fs::create_dir(&folder).unwrap();
        let made: Vec<PathBuf> = (0..)
            .map(|number: u32| folder.join(number.to_string()))
            .take_while(|path| std::fs::write(path, "").is_ok())
            .collect();
        made.iter().take(left).for_each(|path| std::fs::remove_file(path).unwrap());
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let mut command = Command::new("umount");
        let done = command.arg("--lazy").arg(self.path()).status();
        assert!(done.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

/// A queue on that disk with mail in it.
async fn queue_on(disk: &Disk) -> Queue {
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
    let Some(disk) = Disk::in_memory("size=40m") else { return };
    let queue = queue_on(&disk).await;
    disk.fill(8 << 20);
    assert_refused(send(&queue).await);
    drain(&queue).await;
    std::fs::remove_file(disk.filler()).unwrap();
    send(&queue).await.exits(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_byte_left_the_drain_still_comes_to_its_end() {
    let Some(disk) = Disk::in_memory("size=40m") else { return };
    without_a_byte_left(disk).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_byte_left_on_ext4_the_drain_still_comes_to_its_end() {
    let Some(disk) = Disk::ext4(64 << 20) else { return };
    without_a_byte_left(disk).await;
}

async fn without_a_byte_left(disk: Disk) {
    let queue = queue_on(&disk).await;
    disk.fill(0);
    assert_refused(send(&queue).await);
    drain(&queue).await;
    std::fs::remove_file(disk.filler()).unwrap();
    send(&queue).await.exits(0);
    queue.run(["recover"]).await.exits(0);
    assert!(queue.path().join(".reserve").exists(), "the reserve is made again");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_few_inodes_nothing_new_is_taken_and_the_drain_goes_on() {
    let Some(disk) = Disk::in_memory("size=64m,nr_inodes=400") else { return };
    let queue = queue_on(&disk).await;
    disk.use_up_inodes(30);
    assert_refused(send(&queue).await);
    drain(&queue).await;
    std::fs::remove_dir_all(disk.path().join("inodes")).unwrap();
    send(&queue).await.exits(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_inode_left_nothing_is_lost() {
    let Some(disk) = Disk::in_memory("size=64m,nr_inodes=400") else { return };
    let queue = queue_on(&disk).await;
    disk.use_up_inodes(0);
    let done = send(&queue).await;
    assert!(matches!(done.code, Some(73..=75)), "{done:?}");
    let server = ScriptedServer::start(Script::new()).await.unwrap();
    let done = queue.run_once(&server.url()).await;
    assert!(done.code == Some(0) || done.stderr.contains("No space left"), "{done:?}");
    std::fs::remove_dir_all(disk.path().join("inodes")).unwrap();
    queue.drain(&server.url()).await;
    assert_eq!(server.submitted().len(), COUNT, "each once");
    send(&queue).await.exits(0);
}
