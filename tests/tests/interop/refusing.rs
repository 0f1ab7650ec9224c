//! A relay that refuses everything: after some messages it is not believed any more, and the queue is kept.

use sendmail_testkit::smtp::{At, Do, Script, ScriptedServer};

use crate::support::{Queue, mail};

const MESSAGES: usize = 20;
/// After so many refusals in a row the relay is paused.
const BELIEVED: usize = 5;

// Proves: A-550, I10, S-rcpt-all-5xx
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_says_550_to_everything_is_paused_and_the_queue_is_kept() {
    let queue = Queue::new().configured(&format!(
        "[relay]\nmax_connections = 1\n\n\
         [delivery]\nmax_in_flight = 1\nfirst_retry = \"1s\"\nmax_refusals_in_a_row = {BELIEVED}\n"
    ));
    for number in 0..MESSAGES {
        queue.send(&["b@example.net"], mail(&format!("number {number}"))).await;
    }
    let refusing = Script::new().on(At::AnyRcpt, Do::reply("550 5.7.1 go away"));
    let server = ScriptedServer::start(refusing).await.unwrap();
    queue.run_once(&server.url()).await.exits(75);
    let entries = queue.list().await;
    assert_eq!(entries.len(), MESSAGES, "nothing leaves the queue");
    let failed = entries.iter().filter(|entry| entry["state"] == "failed").count();
    assert_eq!(failed, BELIEVED - 1, "{entries:?}");
    assert_eq!(queue.events_of("relay-paused").await.len(), 1);

    let healthy = ScriptedServer::start(Script::new()).await.unwrap();
    queue.drain(&healthy.url()).await;
    assert_eq!(healthy.messages().len(), MESSAGES - failed, "the others go");
}
