//! Secrets are in no output whatever: every command, at the highest log level, in both formats, whether
//! it succeeds or fails, and in no file of the queue. Not plain, and not in any encoding on the way.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sendmail_testkit::smtp::{At, Certificates, Do, Script, ScriptedServer};
use serde_json::Value;

use crate::support::{Queue, files_in, finish, mail};

const USER: &str = "us3r-0f-th3-r3lay";
const PASSWORD: &str = "hUnTeR2%/!-Pa55w0rd";

/// Every form in which a secret might be told.
fn forms(secret: &str) -> Vec<String> {
    let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    let url = |lower: bool| -> String {
        secret
            .chars()
            .map(|c| match c {
                c if c.is_ascii_alphanumeric() || "-._~".contains(c) => c.to_string(),
                c if lower => format!("%{:02x}", u32::from(c)),
                c => format!("%{:02X}", u32::from(c)),
            })
            .collect()
    };
    let bytes = format!("{:?}", secret.as_bytes());
    let mut forms = vec![secret.to_owned(), hex.to_uppercase(), hex, url(true), url(false)];
    forms.push(bytes.trim_matches(['[', ']']).to_owned());
    // Whatever stands before it shifts its base64: PLAIN, LOGIN and XOAUTH2 are among these three.
    for shift in 0..3 {
        let shifted = BASE64.encode([&b"\0\0\0"[..shift], secret.as_bytes()].concat());
        let from = if shift == 0 { 0 } else { 4 };
        let to = (shift + secret.len()) / 3 * 4;
        forms.push(shifted[from..to].to_owned());
    }
    forms
}

/// None of them is in `text`.
#[track_caller]
fn assert_silent(what: &str, text: &str, secrets: &[&str]) {
    for secret in secrets {
        for form in forms(secret) {
            assert!(!text.contains(&form), "{what} tells {form:?}:\n{text}");
        }
    }
}

/// Where the program has the credentials from.
enum From<'a> {
    Environment(&'a str),
    CommandLine(&'a str),
    File(&'a str),
}

/// Runs every command that there is, and greps all of what is printed and stored.
async fn run_all(what: &str, from: From<'_>, secrets: &[&str]) -> String {
    let mut queue = Queue::new();
    if let From::File(toml) = &from {
        queue.configure(toml);
    }
    let mut all = String::new();
    let commands = [
        "send -f a@example.org b@example.net",
        "check",
        "run --once",
        "list",
        "show ID",
        "stats",
        "events",
        "recover",
        "freeze",
        "freeze --off",
        "--help",
    ];
    for command in commands {
        for json in [false, true] {
            let mut words: Vec<String> = command.split(' ').map(str::to_owned).collect();
            if let Some(id) = words.iter_mut().find(|word| *word == "ID") {
                let first = queue.events().await.first().map(|event| event["id"].clone());
                *id = first.unwrap_or(Value::from("none")).as_str().unwrap_or("none").to_owned();
            }
            let mut process = queue.command(["--log", "trace"]);
            process.env("RUST_LOG", "trace").env("RUST_BACKTRACE", "full");
            match &from {
                From::Environment(url) => process.env("SENDMAIL_RELAY", url),
                From::CommandLine(url) => process.args(["--relay", url]),
                From::File(_) => &mut process,
            };
            if json {
                process.arg("--json");
            }
            process.args(&words);
            let done = finish(process, mail("s").as_bytes()).await;
            assert!(!done.stderr.contains("panicked"), "{done:?}");
            assert_silent(&format!("{what}: {command}"), &done.all(), secrets);
            all.push_str(&done.all());
        }
    }
    for file in files_in(queue.path()) {
        let content = String::from_utf8_lossy(&std::fs::read(&file).unwrap()).into_owned();
        assert_silent(&format!("{what}: {}", file.display()), &content, secrets);
    }
    all
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

/// What relays do to whoever authenticates: accept, refuse and repeat it all, break off, talk nonsense.
// Proves: A-secrets, I16
#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_told_by_no_command_whatever_the_relay_answers() {
    let plain = BASE64.encode(format!("\0{USER}\0{PASSWORD}"));
    let (user, password) = (BASE64.encode(USER), BASE64.encode(PASSWORD));
    let echo = format!("535-5.7.8 {USER} {PASSWORD} {plain}\n535 5.7.8 {user} {password} is wrong");
    let answers = [
        ("accepted", Do::reply("235 2.7.0 welcome"), "2 delivered"),
        ("refused", Do::reply(&echo), "***"),
        ("later", Do::reply(&echo.replace("535", "454").replace("5.7.8", "4.7.0")), "***"),
        ("closed", Do::Close, ""),
        ("nonsense", Do::Send(format!("{plain}\r\n{PASSWORD}\r\n").into_bytes()), ""),
    ];
    for (index, (what, answer, seen)) in answers.into_iter().enumerate() {
        let mechanisms = if index % 2 == 0 { "AUTH PLAIN" } else { "AUTH LOGIN" };
        let script = Script::new().with(mechanisms).on(At::Auth, answer);
        let server = ScriptedServer::start(script).await.unwrap();
        let address = server.address();
        let (user, password) = (encoded(USER), encoded(PASSWORD));
        let url = format!("smtp://{user}:{password}@{address}?clear-text-auth=loopback");
        let file = format!(
            "[relay]\nurl = 'smtp://{address}?clear-text-auth=loopback'\nuser = '{USER}'\n\
             password = '{PASSWORD}'\n"
        );
        let url_in_file = format!("[relay]\nurl = '{url}'\n");
        let from = match index % 4 {
            0 => From::Environment(&url),
            1 => From::CommandLine(&url),
            2 => From::File(&file),
            _ => From::File(&url_in_file),
        };
        // The user that the file names is shown by `check`: it is a setting, and no secret.
        let all = run_all(what, from, &[PASSWORD]).await;
        assert!(all.contains(seen) || seen == "***", "{what}: {all}");
        let auths =
            server.sessions().iter().flat_map(|s| s.verbs()).filter(|v| v == "AUTH").count();
        assert!(auths > 0, "{what}: it was never shown to the relay");
    }
}

// Proves: A-secrets, A-stripped, A-certificate
#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_told_by_no_tls_trouble() {
    let authority = Certificates::new();
    let url_of = |server: &ScriptedServer| {
        let port = server.address().port();
        format!("smtp://{}:{}@localhost:{port}?tls=required", encoded(USER), encoded(PASSWORD))
    };
    for (what, script) in [
        ("stripped", Script::new()),
        ("wrong name", Script::new().starttls(authority.wrong_name())),
        ("expired", Script::new().starttls(authority.expired())),
        ("self-signed", Script::new().starttls(Certificates::self_signed())),
        ("unknown", Script::new().starttls(Certificates::unknown_issuer())),
    ] {
        let server = ScriptedServer::start(script.with("AUTH PLAIN")).await.unwrap();
        run_all(what, From::Environment(&url_of(&server)), &[PASSWORD, USER]).await;
        let sessions = server.sessions();
        assert!(!sessions.is_empty(), "{what}: nobody came");
        assert!(!sessions.iter().flat_map(|s| s.verbs()).any(|verb| verb == "AUTH"), "{what}");
    }
}

// Proves: A-secrets
#[tokio::test(flavor = "multi_thread")]
async fn a_databases_password_is_told_by_no_command() {
    let beside = tempfile::tempdir().unwrap();
    let secret = beside.path().join("secret");
    std::fs::write(&secret, format!("{PASSWORD}\n")).unwrap();
    let password = encoded(PASSWORD);
    let mut running = tokio::task::JoinSet::new();
    let mut queues = Vec::new();
    for database in [
        format!("url = 'postgres://{USER}:{password}@127.0.0.1:1/shop'\n"),
        format!("url = 'mysql://{USER}:{password}@127.0.0.1:1/shop'\n"),
        format!(
            "url = 'postgres://{USER}@127.0.0.1:1/shop'\npassword_file = '{}'\n",
            secret.display()
        ),
    ] {
        let toml = format!("[relay]\nurl = 'smtp://127.0.0.1:1'\n[databases.shop]\n{database}");
        let mut queue = Queue::new();
        queue.configure(&toml);
        // Each waits for a while for the database; they may do so together.
        for (words, json) in [
            ("check", false),
            ("check", true),
            ("recover", false),
            ("recover", true),
            ("migrate shop", false),
            ("migrate shop", true),
            ("run --once", false),
        ] {
            let mut process = queue.command(["--log", "trace"]);
            process.args(json.then_some("--json")).args(words.split(' '));
            running.spawn(finish(process, b""));
        }
        queues.push(queue);
    }
    let mut failed = 0;
    while let Some(done) = running.join_next().await {
        let done = done.unwrap();
        failed += usize::from(done.code != Some(0));
        assert_silent("a database", &done.all(), &[PASSWORD]);
    }
    assert!(failed >= 3 * 4, "{failed} saw that the database is out of reach");
}

/// Bcc recipients are served, and nobody else hears of them: not in the message, and not in what is told
/// of another recipient, though the relay's answers name them.
// Proves: I16, B-bcc
#[tokio::test(flavor = "multi_thread")]
async fn a_bcc_recipient_is_in_no_bytes_and_in_no_event_about_another() {
    let queue = Queue::new();
    let raw = "From: a@example.org\nTo: open@example.net\nBcc: Hidden <hidden@example.net>,\n \
               refused@example.net\nResent-Bcc: later@example.net\nSubject: s\n\nbody\n";
    let send = ["send", "-f", "a@example.org", "-t", "later@example.net"];
    finish(queue.command(send), raw.as_bytes()).await.exits(0);
    let script = Script::new()
        .on(At::RcptTo("refused@example.net".into()), Do::reply("550 5.1.1 <refused@example.net>?"))
        .on(
            At::RcptTo("later@example.net".into()),
            Do::reply("450 4.2.0 <later@example.net> waits"),
        )
        .on(At::Dot, Do::reply("250 2.0.0 for <Hidden@Example.net>, <open@example.net>: queued"));
    let server = ScriptedServer::start(script).await.unwrap();
    queue.run_once(&server.url()).await.exits(75);
    let arrived = server.submitted().remove(0);
    assert_eq!(arrived.recipients, ["open@example.net", "hidden@example.net"]);
    let names = ["hidden", "refused", "later", "open"];
    let text = String::from_utf8(arrived.bytes).unwrap().to_lowercase();
    assert!(names.iter().take(3).all(|name| !text.contains(name)), "{text}");
    let mut told = 0;
    for event in queue.events().await {
        let Some(to) = event["recipient"].as_str() else { continue };
        told += 1;
        let line = event.to_string().to_lowercase();
        for name in names.iter().filter(|name| !to.starts_with(**name)) {
            assert!(!line.contains(name), "about {to}: {line}");
        }
    }
    assert_eq!(told, 4);
}
