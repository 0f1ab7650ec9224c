//! Mail that tries to be two: exactly one arrives, through whatever relay.

use sendmail_testkit::smtp::{Script, ScriptedServer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::postfix::Postfix;
use crate::support::{Queue, Sink, finish, until};

/// What one server or another takes for the end of a message.
const ENDS: [&str; 20] = [
    "\r\n.\r\r\n",
    "\n\r.\n\r",
    "\r\n\n.\n",
    "\n.\n.\r\n",
    "\r\n..\n.\r\n",
    "\0\r\n.\r\n",
    "\n.\n",
    "\n.\r\n",
    "\r\n.\n",
    "\r.\r",
    "\r.\r\n",
    "\r\n.\r",
    "\r.\n",
    "\n.\r",
    "\r\r.\r\r",
    "\r\r\n.\r\r\n",
    "\n\n.\n\n",
    "\r\n\0.\r\n",
    "\r\n.\0\r\n",
    "\r\n.\r\n",
];

/// Where in the body the end stands: at its start, and across the borders of usual buffers.
const OFFSETS: [usize; 5] = [0, 4095, 8191, 16_383, 65_400];

/// What an attacker wants to be taken for commands.
const SMUGGLED: &str = "MAIL FROM:<ceo@example.org>\r\nRCPT TO:<victim@example.net>\r\nDATA\r\n\
                        Subject: smuggled\r\n\r\nPay at once.\r\n.\r\n";

/// A body in which `end` stands at `offset`, with commands behind it.
fn body(end: &str, offset: usize) -> String {
    let line = format!("{}\r\n", "x".repeat(78));
    let filler: String = line.chars().cycle().take(offset).collect();
    format!("{filler}{end}{SMUGGLED}the end\r\n")
}

/// Queues every attack, as `send` takes it and as zope.sendmail would have left it; returns how many
/// were taken. What cannot be sent as it is may be refused, and then with a reason.
async fn queue_attacks(queue: &Queue) -> usize {
    let mut taken = 0;
    for (number, end) in ENDS.iter().enumerate() {
        for offset in OFFSETS {
            let subject = format!("Subject: attack {number}\r\n\r\n");
            let raw = subject.clone() + &body(end, offset);
            let send = ["send", "-f", "a@example.org", "b@example.net"];
            let done = finish(queue.command(send), raw.as_bytes()).await;
            match done.code {
                Some(0) => taken += 1,
                Some(65) => assert!(end.contains('\0') && done.stderr.contains("NUL"), "{done:?}"),
                _ => panic!("{end:?} at {offset}: {done:?}"),
            }
            if !end.contains('\0') {
                let envelope = "X-Zope-From: a@example.org\nX-Zope-To: b@example.net\n";
                let name = format!("new/1700000000.{number}.zope.{offset}");
                std::fs::write(queue.path().join(name), envelope.to_owned() + &raw).unwrap();
                taken += 1;
            }
        }
    }
    let whole = ENDS.iter().filter(|end| !end.contains('\0')).count();
    assert!(taken >= 2 * whole * OFFSETS.len());
    taken
}

// Proves: A-smuggling, I14
#[tokio::test(flavor = "multi_thread")]
async fn through_a_lenient_relay_each_is_one_mail() {
    let queue = Queue::new();
    let taken = queue_attacks(&queue).await;
    let server = ScriptedServer::start(Script::new().lenient_line_ends()).await.unwrap();
    queue.run_once(&server.url()).await.exits(0);
    let arrived = server.submitted();
    assert_eq!(arrived.len(), taken);
    for mail in arrived {
        let text = String::from_utf8(mail.bytes).unwrap();
        assert_eq!(mail.recipients, ["b@example.net"], "{text}");
        assert!(text.starts_with("Subject: attack ") && text.contains("Pay at once."), "{text}");
        assert!(text.ends_with("the end\r\n") || text.ends_with("the end\n"), "{text}");
    }
    assert!(queue.list().await.is_empty());
}

/// The relay of the test above would be fooled: without this it would show nothing.
#[tokio::test(flavor = "multi_thread")]
async fn the_lenient_relay_takes_two_mails_from_a_careless_client() {
    let server = ScriptedServer::start(Script::new().lenient_line_ends()).await.unwrap();
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let before = "EHLO x\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n";
    let all = format!("{before}Subject: attack\r\n\r\n{}.\r\nQUIT\r\n", body(ENDS[0], 0));
    stream.write_all(all.as_bytes()).await.unwrap();
    stream.read_to_end(&mut Vec::new()).await.unwrap();
    let arrived = server.messages();
    assert_eq!(arrived.len(), 2);
    assert_eq!(arrived[1].recipients, ["victim@example.net"]);
}

// Proves: A-smuggling, I14
#[tokio::test(flavor = "multi_thread")]
async fn through_a_stock_postfix_each_is_one_mail() {
    let queue = Queue::new();
    let sink = Sink::start(&queue.beside().join("arrived")).await;
    let Some(postfix) = Postfix::start(sink.port()) else { return };
    let taken = queue_attacks(&queue).await;
    queue.run_once(&postfix.url()).await.exits(0);
    until("Postfix to hand everything on", || async { postfix.is_idle().then_some(()) }).await;
    let arrived = sink.messages();
    assert_eq!(arrived.len(), taken, "{}", postfix.log());
    for mail in arrived {
        assert_eq!(mail["to"], serde_json::json!(["b@example.net"]));
        assert!(mail["subject"].as_str().unwrap().starts_with("attack "), "{mail}");
    }
}
