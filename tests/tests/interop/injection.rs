//! Addresses, names and queue files that would smuggle a command, a header line or a recipient in:
//! refused before the wire, with field and place.

use sendmail_testkit::smtp::{Script, ScriptedServer};
use sha2::{Digest as _, Sha256};

use crate::support::{Queue, files_in, finish, mail, subjects};

// Proves: B-controls, A-injection
#[tokio::test(flavor = "multi_thread")]
async fn a_control_in_an_address_is_named_by_field_and_offset_and_nothing_is_queued() {
    let queue = Queue::new();
    for (control, name) in [
        ("\r\nRCPT TO:<evil@example.net>\r\n", "byte 0x0d"),
        ("\r", "byte 0x0d"),
        ("\n", "byte 0x0a"),
        ("\u{1}", "byte 0x01"),
        ("\t", "byte 0x09"),
        ("\u{7f}", "byte 0x7f"),
        ("\u{85}", "'\\u{85}'"),
    ] {
        for (address, offset) in
            [(format!("ab{control}c@example.net"), 2), (format!("a@b{control}c.example"), 3)]
        {
            let send = ["send", "-f", "a@example.org", "first@example.net", &address];
            let done = finish(queue.command(send), mail("s").as_bytes()).await.exits(65);
            assert!(done.stderr.contains("recipient 1: "), "{done:?}");
            assert!(done.stderr.contains(name), "{done:?}");
            assert!(done.stderr.contains(&format!("offset {offset}")), "{done:?}");
            let send = ["send", "-f", &address, "first@example.net"];
            let done = finish(queue.command(send), mail("s").as_bytes()).await.exits(65);
            assert!(done.stderr.contains("reverse-path: "), "{done:?}");
            assert!(done.stderr.contains(&format!("offset {offset}")), "{done:?}");
        }
    }
    let mut send = queue.command(["send", "b@example.net"]);
    send.env("LOGNAME", "evil\r\nRCPT TO:<evil@example.net>");
    finish(send, mail("s").as_bytes()).await.exits(65);
    assert!(queue.list().await.is_empty());
    assert!(files_in(&queue.path().join("new")).is_empty());
}

// Proves: B-recipients
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_recipient_is_named_by_its_index_and_nothing_is_queued() {
    let queue = Queue::new();
    for (bad, why) in [
        ("", "empty"),
        ("<>", "empty"),
        ("local", "an @"),
        ("a@", "an @"),
        ("@b", "an @"),
        ("a@b@c", "'@' at offset 3"),
        ("a@b,c@d", "',' at offset 3"),
        ("a@b c@d", "' ' at offset 3"),
        ("a@b;c@d", "';' at offset 3"),
        ("<a@b><c@d>", "'>' at offset 3"),
    ] {
        let send =
            ["send", "-f", "a@example.org", "--", "good@example.net", bad, "more@example.net"];
        let done = finish(queue.command(send), mail("s").as_bytes()).await.exits(65);
        assert!(done.stderr.contains("recipient 1: "), "{bad:?}: {done:?}");
        assert!(done.stderr.contains(why), "{bad:?}: {done:?}");
    }
    finish(queue.command(["send", "-f", "a@example.org"]), mail("s").as_bytes()).await.exits(64);
    let none = "Subject: nobody\n\nTo: body@example.net\n";
    finish(queue.command(["send", "-f", "a@example.org", "-t"]), none.as_bytes()).await.exits(64);
    assert!(queue.list().await.is_empty());
}

// Proves: B-lengths, A-flood
#[tokio::test(flavor = "multi_thread")]
async fn a_recipient_bomb_is_refused_with_both_numbers() {
    let queue = Queue::new();
    let to: Vec<String> = (0..10_001).map(|number| format!("r{number}@example.net")).collect();
    let raw = format!("To: {}\nSubject: bomb\n\n", to.join(",\n "));
    let send = ["send", "-f", "a@example.org", "-t"];
    let done = finish(queue.command(send), raw.as_bytes()).await.exits(65);
    assert!(done.stderr.contains("10001") && done.stderr.contains("10000"), "{done:?}");
    assert!(queue.list().await.is_empty());
}

/// A header cannot be made to say more than the application wrote, nor can it reach the envelope.
// Proves: A-injection
#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_holds_commands_is_only_a_header() {
    let queue = Queue::new();
    let raw = "Subject: s\r\n.\r\nMAIL FROM:<evil@example.org>\rRCPT TO:<evil@example.net>\n\
               DATA\r\n\r\n.\nRCPT TO:<evil@example.net>\n.\r\nQUIT\r\n";
    queue.send(&["b@example.net"], raw).await;
    let server = ScriptedServer::start(Script::new().lenient_line_ends()).await.unwrap();
    queue.run_once(&server.url()).await.exits(0);
    let arrived = server.submitted();
    assert_eq!(arrived.len(), 1, "one mail");
    assert_eq!(arrived[0].recipients, ["b@example.net"]);
    let verbs: Vec<String> = server.sessions().iter().flat_map(|session| session.verbs()).collect();
    assert_eq!(verbs.iter().filter(|verb| *verb == "MAIL").count(), 1, "{verbs:?}");
    assert_eq!(verbs.iter().filter(|verb| *verb == "RCPT").count(), 1, "{verbs:?}");
}

/// Who may write to the queue knows its format and can compute a checksum.
// Proves: A-envelope
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_file_with_a_line_end_in_an_address_and_a_right_checksum_is_damaged_and_never_sent()
{
    let queue = Queue::new();
    queue.send(&["b@example.net"], mail("forged")).await;
    let file = queue.only_file("new");
    let content = String::from_utf8(std::fs::read(&file).unwrap()).unwrap();
    let name = file.file_name().unwrap().to_str().unwrap().to_owned();
    std::fs::remove_file(&file).unwrap();
    let recipients = [
        "<b@example.net\nRCPT TO:<evil@example.net>>",
        "<b@example.net>\nRCPT TO:<evil@example.net>",
        "<b@example.net\r>",
        "<b@example.net\0>",
        "<b@example.net>,<evil@example.net>",
        "<b@example.net> NOTIFY=NEVER",
        "<>",
        "",
    ];
    for (index, recipient) in recipients.iter().enumerate() {
        let forged = forge(&content, "X-Envelope-To: <b@example.net>", recipient);
        let name = name.replace(".a0.", &format!(".a{index}."));
        std::fs::write(queue.path().join("cur").join(name), forged).unwrap();
    }
    // That a forger gets the checksum right is shown by one that only names somebody else.
    let other = forge(&content, "X-Envelope-To: <b@example.net>", "<c@example.net>");
    std::fs::write(queue.path().join("new").join(&name), other).unwrap();
    let server = ScriptedServer::start(Script::new()).await.unwrap();
    queue.run_once(&server.url()).await;
    queue.run_once(&server.url()).await;
    let arrived = server.submitted();
    assert_eq!(subjects(&arrived), ["forged"]);
    assert_eq!(arrived[0].recipients, ["c@example.net"]);
    assert_eq!(queue.events_of("damaged").await.len(), recipients.len());
    let told: String = server
        .sessions()
        .iter()
        .flat_map(|s| s.lines().join("\n").into_bytes())
        .map(char::from)
        .collect();
    assert!(!told.contains("evil"), "{told}");
}

/// The queue file with another value on one line, and the checksum that goes with it.
fn forge(content: &str, line: &str, value: &str) -> Vec<u8> {
    let key = line.split_once(": ").unwrap().0;
    let content = content.replacen(line, &format!("{key}: {value}"), 1);
    let (head, rest) = content.split_once("X-Queue-Checksum: ").unwrap();
    let message = rest.split_once("\r\n").unwrap().1;
    let sum = Sha256::new().chain_update(head).chain_update(message).finalize();
    let sum: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{head}X-Queue-Checksum: sha256={sum}\r\n{message}").into_bytes()
}
