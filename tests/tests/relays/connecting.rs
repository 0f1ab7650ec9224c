//! Relays with which no conversation comes about: nobody listens, nobody answers, or nobody to be trusted.

use std::time::Duration;

use sendmail_core::AmbiguousPolicy::Retry;
use sendmail_core::DeliveryOptions;
use sendmail_processor::ProcessorConfig;
use sendmail_smtp::{SmtpConfig, Timeouts};
use sendmail_testkit::smtp::{At, Certificates, Do, Script, ScriptedServer, ServerTls};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::scripted::{Stage, THREE, message};
use crate::world::World;

/// Nothing was attempted, whatever the reason; a relay that is well gets everything, once.
async fn costs_nothing(relay: SmtpConfig, why: &str) {
    let world = World::open().await;
    world.queue(&THREE, DeliveryOptions::default(), &message()).await;
    let processor = world.processor(relay, ProcessorConfig::default());
    for news in ["paused", "", ""] {
        let seen = world.pass(&processor).await;
        assert_eq!(seen.queue, "queued a0: a b c");
        assert_eq!((seen.events.as_str(), seen.relay.as_str()), ("", news), "told once");
        let trouble = seen.trouble.unwrap();
        assert!(trouble.contains(why), "{trouble}");
        world.wait();
    }
    let server = ScriptedServer::start(Script::new()).await.unwrap();
    let well = SmtpConfig::from_url(&server.url()).unwrap();
    let seen = world.pass(&world.processor(well, ProcessorConfig::default())).await;
    assert_eq!((seen.queue.as_str(), seen.events.as_str()), ("", "a sent, b sent, c sent"));
    assert_eq!(server.messages().len(), 1);
}

// Proves: S-connect-421, I11
#[tokio::test(flavor = "multi_thread")]
async fn connect_refused() {
    // A port that is bound and not listened to refuses, and is nobody else's meanwhile.
    let bound = TcpSocket::new_v4().unwrap();
    bound.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let relay = SmtpConfig::new("127.0.0.1", bound.local_addr().unwrap().port()).unwrap();
    costs_nothing(relay, "is the relay running").await;
}

/// The kernel drops attempts to connect while the queue of those that nobody took is full.
// Proves: S-connect-silence, I11
#[tokio::test(flavor = "multi_thread")]
async fn connect_silence() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener: TcpListener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    // One more than was asked for has room.
    let first = TcpStream::connect(address).await.unwrap();
    let second = TcpStream::connect(address).await.unwrap();
    let mut timeouts = Timeouts::default();
    timeouts.connect = Duration::from_millis(150);
    let relay = SmtpConfig::new("127.0.0.1", address.port()).unwrap().with_timeouts(timeouts);
    costs_nothing(relay, "took longer").await;
    drop((first, second));
}

/// A name without an address.
// Proves: I11
#[tokio::test(flavor = "multi_thread")]
async fn connect_to_a_name_that_is_none() {
    let relay = SmtpConfig::from_url("smtp://relay.invalid:25?tls=none").unwrap();
    costs_nothing(relay, "cannot connect to the relay").await;
}

/// A relay whose certificate proves nothing; nothing is said to it but EHLO and STARTTLS.
// Proves: A-certificate, I11
#[tokio::test(flavor = "multi_thread")]
async fn handshake_with_somebody_else() {
    let own = Certificates::new();
    let strangers = [
        own.expired(),
        own.wrong_name(),
        Certificates::self_signed(),
        Certificates::unknown_issuer(),
    ];
    for tls in strangers {
        untrusted(&own, tls).await;
    }
}

async fn untrusted(own: &Certificates, tls: ServerTls) {
    let server = ScriptedServer::start(Script::new().starttls(tls)).await.unwrap();
    let relay = SmtpConfig::from_url(&format!("{}?tls=required", server.url())).unwrap();
    let relay = relay.with_root_certificates_pem(own.root_pem().as_bytes()).unwrap();
    costs_nothing(relay, "invalid peer certificate").await;
    let sessions = server.sessions();
    assert!(sessions.iter().all(|session| session.verbs() == ["EHLO", "STARTTLS"]), "{sessions:?}");
}

/// A relay that has paused everything is tried with one message, not with all.
// Proves: I11, I12
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_in_trouble_is_tried_with_one_message_at_a_time() {
    let trouble = Script::new().on(At::Greeting, Do::reply("554 5.3.2 closed"));
    let stage = Stage::with(trouble, Retry).await;
    for _ in 0..9 {
        stage.queue(Retry).await;
    }
    let waiting = ["queued a0: a b c"; 10].join("; ");
    let first = stage.look().await;
    assert_eq!((first.queue, first.relay.as_str()), (waiting.clone(), "paused"));
    let connections = stage.server.connections();
    stage.world.wait();
    let second = stage.look().await;
    assert_eq!((second.queue, second.relay.as_str()), (waiting, ""), "told once");
    assert_eq!(stage.server.connections(), connections + 1, "one trial");
    stage.server.set_script(Script::new());
    stage.world.wait();
    let third = stage.look().await;
    assert_eq!((third.queue.as_str(), third.relay.as_str()), ("", "resumed"));
    assert_eq!(stage.server.messages().len(), 10, "each once");
}
