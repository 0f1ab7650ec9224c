//! Two processors at a slow relay, one of which is killed.

use std::collections::HashMap;
use std::time::Duration;

use sendmail_tests::plan::message_id;
use sendmail_tests::queue::{Event, Processor, Queue};
use sendmail_tests::relay::{Copy, Pace, Relay, Sign};
use sendmail_tests::{fill, now_ms};
use tokio::sync::mpsc::unbounded_channel;

const MESSAGES: usize = 1000;
const CONNECTIONS: u16 = 8;
/// A message takes 10 to 20 ms, so that 1,000 take two processors about a second.
const PACE: Pace = Pace {
    command: Duration::ZERO,
    dot: (Duration::from_millis(10), Duration::from_millis(20)),
    deferred_percent: 0,
};
/// What the one that lives may take to notice: its poll interval, and a second.
const NOTICE: Duration = Duration::from_secs(2);

// Proves: I12
#[tokio::test]
async fn one_of_two_processors_is_killed_and_all_is_delivered_soon() {
    let folder = tempfile::tempdir().unwrap();
    let queue = Queue::new(folder.path().join("queue")).unwrap();
    fill::fill(&queue.path, MESSAGES, 1024, 500).await.unwrap();
    let (sender, mut signs) = unbounded_channel();
    let relay = Relay::start(PACE, 1, Some(sender)).await.unwrap();
    let start = |name: &str| {
        let (name, relay) = (name.to_owned(), relay.address);
        queue.start(&Processor { name, relay, connections: CONNECTIONS }).unwrap()
    };
    let (mut one, _two) = (start("one"), start("two"));
    // In mid-batch: both work, and the one that is killed has had some answers.
    let mut dots: HashMap<String, u32> = HashMap::new();
    while dots.get("one.test") < Some(&100) || dots.get("two.test") < Some(&10) {
        if let Sign::Dot(client) = signs.recv().await.unwrap() {
            *dots.entry(client).or_default() += 1;
        }
    }
    let killed_at = now_ms();
    one.kill().await.unwrap();
    tokio::time::timeout(Duration::from_secs(120), empty(&queue))
        .await
        .expect("it does not get empty");
    check(&relay.copies(), &queue.events().await.unwrap(), killed_at);
}

async fn empty(queue: &Queue) {
    let mut look = tokio::time::interval(Duration::from_millis(200));
    while queue.counts().await.unwrap().to_do() > 0 {
        look.tick().await;
    }
}

fn check(copies: &[Copy], events: &[Event], killed_at: i64) {
    let mut by_mail: HashMap<&str, Vec<&Copy>> = HashMap::new();
    for copy in copies {
        by_mail.entry(copy.marker.as_deref().unwrap()).or_default().push(copy);
    }
    assert_eq!(by_mail.len(), MESSAGES, "mails were lost");
    let of = |kind: &str| events.iter().filter(|event| event.kind == kind).collect::<Vec<_>>();
    let announced = of("possible-duplicate");
    assert!(announced.len() <= usize::from(CONNECTIONS), "{announced:?}");
    assert_eq!(of("sent").len(), MESSAGES);
    for (marker, copies) in &by_mail {
        let id = message_id(marker);
        let before = announced.iter().filter(|event| event.message_id == id);
        let second = copies.iter().map(|copy| copy.at_ms).max().unwrap();
        let before = before.filter(|event| event.at_ms <= second).count();
        assert!(copies.len() <= 1 + before, "{copies:?} announced {before} times");
    }
    let most = i64::try_from(NOTICE.as_millis()).unwrap();
    for event in announced {
        let waited = event.at_ms - killed_at;
        assert!(waited <= most, "it was taken over after {waited} ms: {event:?}");
    }
    let after = copies.iter().map(|copy| copy.at_ms).filter(|at| *at > killed_at);
    let mut at: Vec<i64> = after.chain([killed_at]).collect();
    at.sort_unstable();
    assert!(at.len() > 1, "everything was delivered before the kill");
    let pause = at.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    assert!(pause <= most, "nothing was delivered for {pause} ms");
}
