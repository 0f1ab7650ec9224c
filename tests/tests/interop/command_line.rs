//! The command line as programs see it: exit codes, JSON, the configuration file, and no secrets.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;

use base64::Engine as _;
use sendmail_testkit::smtp::{At, Do, Script, ScriptedServer};
use serde_json::Value;
use tokio::process::Command;

use crate::support::{Done, Queue, Sink, binary, finish, mail};

/// Nobody listens here: it is nobody's to listen at.
const NOBODY: &str = "smtp://127.0.0.1:1";

/// Runs a line of words in the queue, with a good message on standard input.
async fn line(queue: &Queue, words: &str) -> Done {
    finish(queue.command(words.split(' ')), mail("s").as_bytes()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_say_what_kind_of_trouble_it_is() {
    let queue = Queue::new();
    let missing = "01890a5d-ac96-774b-bcce-b302099a8057";
    let cases = [
        ("no-such-command", 64),
        ("send -f a@example.org", 64),
        ("list --state nonsense", 64),
        ("list --from not-an-address", 64),
        ("show neither-id-nor-message-id", 64),
        ("send --delay soon -f a@example.org b@example.net", 64),
        ("send -f a@example.org not-an-address", 65),
        ("send -f not-an-address b@example.net", 65),
        ("send -f a@example.org b@example.net c@", 65),
        (&format!("show {missing}"), 66),
        ("show <never@seen.example>", 66),
        ("run --once", 78),
        ("--relay gopher://relay run --once", 78),
        ("--database oracle://host/shop list", 78),
        ("migrate", 78),
        ("migrate no-such-database", 64),
        ("migrate --print oracle", 64),
        ("freeze --timeout 1s", 64),
        ("freeze --off --wait", 64),
        (&format!("--relay {NOBODY} run --once"), 0),
        (&format!("--relay {NOBODY} check"), 75),
        ("sink --listen 192.0.2.1:25", 69),
        ("list", 0),
        ("stats", 0),
        ("events", 0),
        ("recover", 0),
        ("migrate --print postgres", 0),
        ("freeze", 0),
        ("freeze --off", 0),
        ("--help", 0),
        ("--version", 0),
    ];
    for (words, code) in cases {
        let done = line(&queue, words).await;
        assert_eq!(done.code, Some(code), "{words}: {done:?}");
        let told = if code == 0 { &done.stdout } else { &done.stderr };
        assert!(!told.contains("panicked"), "{words}: {done:?}");
        if code != 0 {
            assert!(!told.trim().is_empty(), "{words}: {done:?}");
            let words = ["--json"].into_iter().chain(words.split(' '));
            let done = finish(queue.command(words), mail("s").as_bytes()).await.exits(code);
            let last: Option<Value> =
                done.stderr.lines().last().and_then(|line| serde_json::from_str(line).ok());
            let last = last.unwrap_or_else(|| panic!("no JSON: {done:?}"));
            assert_eq!(last["code"], code, "{done:?}");
            assert!(last["error"].is_string());
        }
    }
    let mut command = Command::new(binary());
    command.arg("list").env_remove("SENDMAIL_QUEUE").env_remove("SENDMAIL_CONFIG");
    let done = finish(command, b"").await.exits(78);
    assert!(done.stderr.contains("--queue"), "{done:?}");
}

// Proves: B-recipients, B-lengths, B-controls
#[tokio::test(flavor = "multi_thread")]
async fn bad_messages_and_addresses_are_refused_with_a_reason() {
    let queue = Queue::new();
    for (raw, reason) in [
        ("Message-ID: nonsense\n\nbody\n", "Message-ID"),
        ("Message-ID: <no-at>\n\nbody\n", "Message-ID"),
        ("Message-ID: <two@x> <ids@x>\n\nbody\n", "Message-ID"),
    ] {
        let send = ["send", "-f", "a@example.org", "b@example.net"];
        let done = finish(queue.command(send), raw.as_bytes()).await.exits(65);
        assert!(done.stderr.contains(reason), "{raw:?}: {done:?}");
        assert_eq!(done.stdout, "");
    }
    let long = format!("{}@example.net", "x".repeat(65));
    for bad in ["", "a", "a@", "@b", "a@b@c", "a b@c", "a@b,c@d", "<a@b", long.as_str()] {
        let done = finish(queue.command(["send", "-f", "a@example.org", "--", bad]), b"\n").await;
        assert_eq!(done.code, Some(65), "{bad:?}: {done:?}");
    }
    assert!(queue.list().await.is_empty(), "nothing of it was queued");
    // The null reverse-path is an address, and so is one in angle brackets.
    for from in ["", "<>", "<a@example.org>"] {
        let words = ["send", "-f", from, "<b@example.net>"];
        finish(queue.command(words), mail("s").as_bytes()).await.exits(0);
    }
    let from: Vec<Value> = queue.list().await.iter().map(|entry| entry["from"].clone()).collect();
    assert_eq!(from.iter().filter(|from| **from == "").count(), 2, "{from:?}");
}

// Proves: B-bcc, I16
#[tokio::test(flavor = "multi_thread")]
async fn recipients_come_from_the_header_and_bcc_never_leaves() {
    let queue = Queue::new();
    let raw = "From: a@example.org\nTo: \"Doe, John\" <to@example.net>\nCc: cc@example.net\n\
               Bcc: secret@example.net,\n other@example.net\nSubject: s\n\nBcc: in the body\n";
    let words = ["send", "-f", "a@example.org", "-t", "more@example.net"];
    finish(queue.command(words), raw.as_bytes()).await.exits(0);
    let server = ScriptedServer::start(Script::new()).await.unwrap();
    let file = std::fs::read_to_string(queue.only_file("new")).unwrap();
    assert!(file.contains("X-Envelope-To: <secret@example.net>"));
    queue.run_once(&server.url()).await.exits(0);
    let arrived = server.messages().remove(0);
    let mut to = arrived.recipients.clone();
    to.sort_unstable();
    let all = ["cc", "more", "other", "secret", "to"].map(|name| format!("{name}@example.net"));
    assert_eq!(to, all);
    let text = String::from_utf8(arrived.bytes).unwrap();
    let (header, body) = text.split_once("\r\n\r\n").unwrap();
    let has_bcc = header.lines().any(|line| line.to_lowercase().starts_with("bcc"));
    assert!(!has_bcc && !header.contains("other@") && !header.contains("secret@"), "{header}");
    assert_eq!(body, "Bcc: in the body\r\n");
}

// Proves: B-config
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_configuration_is_named_by_line_and_key_and_never_by_value() {
    let mut queue = Queue::new();
    let cases = [
        ("[queue]\npth = \"v4lue\"\n", 2, "pth"),
        ("[relay]\nurl = \"smtp://r.example.org\"\nmax_connections = -5\n", 3, "max_connections"),
        ("[relay]\nuser = \"u\"\n\npassword = 424242\n", 4, "password"),
        ("[relay]\npassword = \"v4lue\"\n", 2, "password"),
        ("[delivery]\n\nfirst_retry = \"v4lue\"\n", 3, "first_retry"),
        ("[delivery]\nlifetime = \"-1s\"\n", 2, "lifetime"),
        ("[queue]\nmax_message_size = \"v4lue\"\n", 2, "max_message_size"),
        ("[queue]\npath = \"v4lue\n", 2, "path"),
        ("[queue]\npath = \"a\"\npath = \"v4lue\"\n", 3, "path"),
        ("[databases.shop]\nurl = \"oracle://u:v4lue@h/d\"\n", 2, "url"),
        ("[databases.shop]\nurl = \"sqlite:d\"\n\npasword = \"v4lue\"\n", 4, "pasword"),
        ("[databases.shop]\nurl = \"sqlite:d\"\nrequire_durable = 424242\n", 3, "require_durable"),
        ("[databases.shop]\nrequire_durable = true\n", 1, "url"),
    ];
    for (toml, number, key) in cases {
        queue.configure(toml);
        for words in ["list", "check", "send -f a@example.org b@example.net"] {
            let done = line(&queue, words).await.exits(78);
            let place = format!("config.toml: line {number}: key `{key}`");
            assert!(done.stderr.contains(&place), "{toml:?}: {done:?}");
            assert!(!done.all().contains("v4lue") && !done.all().contains("424242"), "{done:?}");
        }
    }
    queue.configure("[relay]\nurl = \"smtp://u:v4lue@relay.example.org\"\n");
    std::fs::set_permissions(queue.config(), PermissionsExt::from_mode(0o644)).unwrap();
    let done = line(&queue, "list").await.exits(78);
    assert!(done.stderr.contains("line 2") && done.stderr.contains("chmod 600"), "{done:?}");
    assert!(!done.all().contains("v4lue"));
    assert!(!queue.path().exists(), "nothing was made");
    std::fs::remove_file(queue.config()).unwrap();
    let done = line(&queue, "list").await.exits(78);
    assert!(done.stderr.contains("config.toml"), "{done:?}");
}

// Proves: A-flood, B-lengths
#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_file_is_enough() {
    let mut queue = Queue::new();
    let server = ScriptedServer::start(Script::new()).await.unwrap();
    let path = queue.path().display().to_string();
    queue.configure(&format!(
        "[queue]\npath = '{path}'\ndomain = 'ids.example.org'\n[relay]\nurl = '{}'\n\
         hello_name = 'me.example.org'\n",
        server.url()
    ));
    let run = |words: &[&str]| {
        let mut command = Command::new(binary());
        for name in ["SENDMAIL_QUEUE", "SENDMAIL_RELAY"] {
            command.env_remove(name);
        }
        command.env("SENDMAIL_CONFIG", queue.config()).args(words);
        command
    };
    let raw = mail("configured");
    let words = ["send", "-f", "a@example.org", "b@example.net"];
    let done = finish(run(&words), raw.as_bytes()).await.exits(0);
    assert!(done.stdout.trim_end().ends_with("@ids.example.org>"), "{done:?}");
    finish(run(&["run", "--once"]), b"").await.exits(0);
    assert_eq!(server.messages().len(), 1);
    assert_eq!(server.sessions()[0].lines()[0], "EHLO me.example.org");
    let checked = finish(run(&["--json", "check"]), b"").await.exits(0).json();
    assert_eq!(checked[0]["values"]["queue"]["path"], *path);
    assert!(checked.iter().all(|check| check["ok"] == true), "{checked:?}");
    let limited = "[queue]\nmax_message_size = \"1 KiB\"\nmax_messages = 2\n";
    queue.configure(limited);
    let big = format!("Subject: big\n\n{}", "0123456789\n".repeat(200));
    let send = ["send", "-f", "a@example.org", "b@example.net"];
    let done = finish(queue.command(send), big.as_bytes()).await.exits(65);
    assert!(done.stderr.contains("1024"), "both numbers: {done:?}");
    for _ in 0..2 {
        queue.send(&["b@example.net"], mail("fits")).await;
    }
    let done = finish(queue.command(send), mail("too many").as_bytes()).await.exits(73);
    assert!(done.stderr.contains("queue full"), "{done:?}");
    assert_eq!(queue.list().await.len(), 2);
}

/// Every command, in both formats, with the relay's password in every place it may come from.
// Proves: A-secrets, I16
#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_ever_printed() {
    const SECRET: &str = "s3cr3t-Pa55w0rd";
    let engine = base64::engine::general_purpose::STANDARD;
    let forbidden = [
        SECRET.to_owned(),
        engine.encode(SECRET),
        engine.encode(format!("\0user\0{SECRET}")),
        engine.encode(format!("user=user\x01auth=Bearer {SECRET}\x01\x01")),
    ];
    // A relay that says everything back that it was told, and refuses it.
    let echo = format!("535-5.7.8 AUTH PLAIN {}\n535 5.7.8 {SECRET} is wrong", forbidden[2]);
    let script = Script::new().with("AUTH PLAIN LOGIN XOAUTH2").on(At::Auth, Do::reply(&echo));
    let server = ScriptedServer::start(script).await.unwrap();
    let address = server.address();
    let in_url = format!("smtp://user:{SECRET}@{address}?clear-text-auth=loopback");
    let wrong = format!("smtp://user:{SECRET}@{address}?tls=nonsense");
    let broken = format!("smtp://user:{SECRET}@@:::{address}");
    let in_file = format!(
        "[relay]\nurl = 'smtp://{address}?clear-text-auth=loopback'\nuser = 'user'\npassword = '{SECRET}'\n"
    );
    let url_in_file = format!("[relay]\nurl = '{in_url}'\n");
    for (config, relay) in [
        (Some(&in_file), None),
        (Some(&url_in_file), None),
        (None, Some(&in_url)),
        (None, Some(&wrong)),
        (None, Some(&broken)),
    ] {
        let mut queue = Queue::new();
        if let Some(config) = config {
            queue.configure(config);
        }
        queue.send(&["b@example.net"], mail("s")).await;
        for words in ["check", "run --once", "list", "stats", "events", "show", "--help"] {
            for json in [false, true] {
                let mut words: Vec<String> = words.split(' ').map(str::to_owned).collect();
                if words[0] == "show" {
                    words.push(queue.list().await[0]["id"].as_str().unwrap().to_owned());
                }
                let mut command = queue.command(&words);
                command.env("RUST_LOG", "trace").env("RUST_BACKTRACE", "1");
                if let Some(relay) = relay {
                    command.env("SENDMAIL_RELAY", relay);
                }
                if json {
                    command.arg("--json");
                }
                let printed = finish(command, b"").await.all();
                for secret in &forbidden {
                    assert!(!printed.contains(secret), "{words:?}: {printed}");
                }
            }
        }
        for file in crate::support::files_in(queue.path()) {
            let content = String::from_utf8_lossy(&std::fs::read(&file).unwrap()).into_owned();
            for secret in &forbidden {
                assert!(!content.contains(secret), "{}", file.display());
            }
        }
    }
}

/// The names of an object's fields.
fn fields(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[track_caller]
fn assert_has(value: &Value, wanted: &[&str]) {
    let found = fields(value);
    for field in wanted {
        assert!(found.contains(field), "{field} is not in {value}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn json_is_one_object_a_line_with_the_fields_that_were_promised() {
    let queue = Queue::new();
    let script = Script::new()
        .on(At::RcptTo("later@example.net".into()), Do::reply("450 4.2.0 later"))
        .on(At::RcptTo("never@example.net".into()), Do::reply("550 5.1.1 nobody"));
    let server = ScriptedServer::start(script).await.unwrap();
    let all = ["now@example.net", "later@example.net", "never@example.net"];
    let words = ["--json", "send", "-f", "a@example.org"].into_iter().chain(all);
    let sent = finish(queue.command(words), mail("s").as_bytes()).await.exits(0).json();
    assert_has(&sent[0], &["message_id"]);

    let entry_fields = ["id", "message_id", "state", "attempts", "from", "to", "next_attempt"];
    let entry = queue.only_entry().await;
    assert_has(&entry, &entry_fields);
    assert_eq!(entry["to"].as_array().unwrap().len(), 3);
    let run = queue.run(["--json", "--relay", &server.url(), "run", "--once"]).await.exits(75);
    assert_eq!(run.json().len(), 1);
    let summary = &run.json()[0];
    let counts = ["delivered", "failed", "deferred"].map(|name| summary[name].as_u64());
    assert_eq!(counts, [Some(1); 3], "{summary}");
    assert_eq!(summary["complete"], false);
    for line in run.stderr.lines() {
        assert_has(&serde_json::from_str(line).unwrap(), &["kind"]);
    }

    for entry in queue.list().await {
        assert_has(&entry, &entry_fields);
    }
    let events = queue.events().await;
    assert!(events.len() >= 4);
    let event_fields =
        ["cursor", "time", "kind", "id", "message_id", "recipient", "attempt", "reply"];
    for event in &events {
        assert_has(event, &event_fields);
        assert!(event["time"].as_str().unwrap().ends_with('Z'), "{event}");
    }
    let id = entry["id"].as_str().unwrap();
    let shown = queue.run(["--json", "show", id]).await.exits(0).json();
    assert_has(&shown[0], &["id", "entry", "history"]);
    assert!(shown[0]["history"].as_array().unwrap().len() >= 4);
    for line in queue.run(["--json", "stats"]).await.exits(0).json() {
        assert_has(&line, &["state", "count", "oldest_seconds"]);
    }
    for line in queue.run(["--json", "recover"]).await.exits(0).json() {
        assert_has(&line, &["messages", "in_doubt"]);
    }
    let checked = queue.run(["--json", "--relay", &server.url(), "check"]).await.exits(0).json();
    let names: Vec<_> = checked.iter().map(|check| check["check"].as_str().unwrap()).collect();
    assert_eq!(names, ["configuration", "queue", "relay"]);
    let demo = queue.run(["--json", "demo"]).await.exits(0).json();
    assert_eq!(demo.last().unwrap()["as_promised"], true, "{demo:?}");
    let sink = Sink::start(&queue.beside().join("arrived")).await;
    queue.send(&["b@example.net"], mail("for the sink")).await;
    queue.run_once(&sink.url()).await;
    let arrived = sink.wait_for(1).await;
    assert_has(&arrived[0], &["from", "to", "size", "message_id", "subject", "file"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_can_be_narrowed_and_counts_agree() {
    let queue = Queue::new();
    for to in ["a@one.example", "b@one.example", "c@two.example"] {
        queue.send(&[to], mail("s")).await;
    }
    let words = ["send", "-f", "other@example.org", "--delay", "1h", "d@two.example"];
    finish(queue.command(words), b"Subject: s\n\n").await.exits(0);
    let count = async |words: &str| {
        let words = ["--json", "list"].into_iter().chain(words.split_whitespace());
        queue.run(words).await.exits(0).json().len()
    };
    assert_eq!(count("").await, 4);
    assert_eq!(count("--to one.example").await, 2);
    assert_eq!(count("--to c@two.example").await, 1);
    assert_eq!(count("--from other@example.org").await, 1);
    assert_eq!(count("--state deferred").await, 1);
    assert_eq!(count("--state queued --state deferred --to two.example").await, 2);
    assert_eq!(count("--state failed").await, 0);
    assert_eq!(count("--limit 2").await, 2);
    let stats = queue.run(["--json", "stats"]).await.exits(0).json();
    let of = |state: &str| {
        let line = stats.iter().find(|line| line["state"] == state).unwrap();
        line["count"].as_u64().unwrap()
    };
    assert_eq!((of("queued"), of("deferred"), of("failed")), (3, 1, 0));
}

/// The reader of the output goes away: what was to be done is done, and told by the exit code.
#[tokio::test(flavor = "multi_thread")]
async fn output_that_nobody_reads_changes_no_exit_code() {
    let queue = Queue::new();
    finish(queue.command(["send", "-f", "a@example.org", "b@example.net"]), mail("s").as_bytes())
        .await
        .exits(0);
    for words in ["run --once --quiet", "check"] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = queue.command(["--relay", NOBODY].into_iter().chain(words.split(' ')));
        let status = command.stdout(writer).stderr(std::process::Stdio::null()).status().await;
        assert_eq!(status.unwrap().code(), Some(75), "{words}");
    }
}

/// The demo needs nothing set up, not even a configuration that is right.
#[tokio::test(flavor = "multi_thread")]
async fn the_demo_reads_no_configuration() {
    let mut command = Command::new(binary());
    command.args(["--json", "demo"]).env("SENDMAIL_CONFIG", "/does/not/exist");
    finish(command, b"").await.exits(0);
}
