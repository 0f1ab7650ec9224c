//! Wrong configurations: each is refused before anything is done, with file, line and key, and without
//! the value, which may be a password.

use std::os::unix::fs::PermissionsExt;

use crate::support::{Queue, finish};

/// The value in all of them; it is never printed. (And a number like that.)
const VALUES: [&str; 2] = ["v4lue", "424242"];

/// What is wrong, on which line, and at which key.
const CASES: [(&str, usize, &str); 54] = [
    // Keys and sections that do not exist, or twice.
    ("[queue]\npth = \"v4lue\"\n", 2, "pth"),
    ("[relay]\npasswort = \"v4lue\"\n", 2, "passwort"),
    ("[delivery]\nretries = 424242\n", 2, "retries"),
    ("[queue]\npath = \"a\"\npath = \"v4lue\"\n", 3, "path"),
    ("[relay]\nuser = \"u\"\npassword = \"v4lue\"\npassword = \"v4lue\"\n", 4, "password"),
    // The wrong type.
    ("[queue]\npath = 424242\n", 2, "path"),
    ("[queue]\ndomain = [\"v4lue\"]\n", 2, "domain"),
    ("[relay]\nurl = 424242\n", 2, "url"),
    ("[relay]\nuser = true\n", 2, "user"),
    ("[relay]\nuser = \"u\"\n\npassword = 424242\n", 4, "password"),
    ("[relay]\nuser = \"u\"\npassword_file = 424242\n", 3, "password_file"),
    ("[relay]\nhello_name = 424242\n", 2, "hello_name"),
    ("[relay]\nca_file = 424242\n", 2, "ca_file"),
    ("[delivery]\nfirst_retry = 424242\n", 2, "first_retry"),
    ("[databases.shop]\nurl = \"sqlite:d\"\nrequire_durable = 424242\n", 3, "require_durable"),
    // Not TOML.
    ("[queue]\npath = \"v4lue\n", 2, "path"),
    ("[relay]\nuser = \"u\"\npassword = v4lue\n", 3, "password"),
    ("[relay]\nuser = \"u\"\npassword = \"v4lue\\q\"\n", 3, "password"),
    // Numbers, durations and sizes that are none, negative, nothing or too much.
    ("[relay]\nurl = \"smtp://r.example.org\"\nmax_connections = -5\n", 3, "max_connections"),
    ("[relay]\nmax_connections = 0\n", 2, "max_connections"),
    ("[relay]\nmax_connections = 424242\n", 2, "max_connections"),
    ("[queue]\nmax_messages = -424242\n", 2, "max_messages"),
    ("[queue]\nreserved_inodes = -1\n", 2, "reserved_inodes"),
    ("[queue]\nmax_message_size = \"v4lue\"\n", 2, "max_message_size"),
    ("[queue]\nmax_message_size = \"-1 MiB\"\n", 2, "max_message_size"),
    ("[queue]\nmax_message_size = \"0\"\n", 2, "max_message_size"),
    ("[queue]\nreserved_space = \"99999999999 GiB\"\n", 2, "reserved_space"),
    ("[queue]\nhistory = \"0d\"\n", 2, "history"),
    ("[queue]\nkeep_discarded = \"1 fortnight\"\n", 2, "keep_discarded"),
    ("[delivery]\n\nfirst_retry = \"v4lue\"\n", 3, "first_retry"),
    ("[delivery]\nlifetime = \"-1s\"\n", 2, "lifetime"),
    ("[delivery]\npoll_interval = \"0s\"\n", 2, "poll_interval"),
    ("[delivery]\nmax_retry = \"1s\"\nfirst_retry = \"1m\"\n", 2, "first_retry"),
    ("[delivery]\nmax_in_flight = 0\n", 2, "max_in_flight"),
    ("[delivery]\nmax_refusals_in_a_row = -1\n", 2, "max_refusals_in_a_row"),
    // Values that something would be injected by, or that make no sense.
    ("[queue]\npath = \"\"\n", 2, "path"),
    ("[queue]\ndomain = \"v4lue\\r\\nX: y\"\n", 2, "domain"),
    ("[queue]\ndomain = \"\"\n", 2, "domain"),
    ("[relay]\nhello_name = \"v4lue\\r\\nMAIL FROM:<a@b>\"\n", 2, "hello_name"),
    ("[relay]\nhello_name = \"\"\n", 2, "hello_name"),
    ("[relay]\nuser = \"v4lue\\r\\n\"\npassword = \"p\"\n", 2, "user"),
    ("[relay]\nuser = \"u\"\npassword = \"v4lue\\u0000\"\n", 3, "password"),
    ("[relay]\nurl = \"gopher://u:v4lue@r.example.org\"\n", 2, "url"),
    ("[relay]\nurl = \"smtp://u:v4lue@r.exa\\r\\nmple.org\"\n", 2, "url"),
    ("[relay]\nurl = \"smtp://u:v4lue@r.example.org?tls=maybe\"\n", 2, "url"),
    ("[relay]\nurl = \"program:v4lue\"\n", 2, "url"),
    // A password without a user, twice, or without TLS.
    ("[relay]\npassword = \"v4lue\"\n", 2, "password"),
    ("[relay]\nuser = \"v4lue\"\n", 2, "user"),
    ("[relay]\nuser = \"u\"\npassword = \"v4lue\"\npassword_file = \"f\"\n", 4, "password_file"),
    ("[relay]\nurl = \"smtp://u:v4lue@r.example.org?tls=none\"\n", 2, "url"),
    (
        "[relay]\nuser = \"u\"\npassword = \"v4lue\"\nurl = \"smtp://r.example.org?tls=none\"\n",
        4,
        "url",
    ),
    // Databases.
    ("[databases.shop]\nurl = \"oracle://u:v4lue@h/d\"\n", 2, "url"),
    ("[databases.shop]\nurl = \"sqlite:d\"\n\npasword = \"v4lue\"\n", 4, "pasword"),
    ("[databases.shop]\nrequire_durable = true\n", 1, "url"),
];

// Proves: B-config, A-secrets
#[tokio::test(flavor = "multi_thread")]
async fn every_wrong_configuration_is_refused_by_line_and_key_and_never_by_value() {
    let mut queue = Queue::new();
    for (toml, line, key) in CASES {
        queue.configure(toml);
        let done = queue.run(["list"]).await;
        assert_eq!(done.code, Some(78), "{toml:?}: {done:?}");
        let place = format!("config.toml: line {line}: key `{key}`: ");
        assert!(done.stderr.contains(&place), "{toml:?}: {done:?}");
        for value in VALUES {
            assert!(!done.all().contains(value), "{toml:?}: {done:?}");
        }
    }
    assert!(!queue.path().exists(), "nothing was made");
}

// Proves: B-config, A-secrets
#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_with_a_password_that_others_may_read_is_refused() {
    let mut queue = Queue::new();
    for (toml, line, key) in [
        ("[relay]\nuser = \"u\"\npassword = \"v4lue\"\n", 3, "password"),
        ("[relay]\nurl = \"smtps://u:v4lue@relay.example.org\"\n", 2, "url"),
        ("[databases.d]\nurl = \"postgres://u:v4lue@h/d\"\n", 2, "databases.d.url"),
    ] {
        for mode in [0o604, 0o640, 0o602, 0o644] {
            queue.configure(toml);
            std::fs::set_permissions(queue.config(), PermissionsExt::from_mode(mode)).unwrap();
            let done = queue.run(["list"]).await.exits(78);
            let place = format!("line {line}: key `{key}`: ");
            assert!(done.stderr.contains(&place) && done.stderr.contains("chmod 600"), "{done:?}");
            assert!(!done.all().contains("v4lue"), "{done:?}");
        }
        queue.configure(toml);
        queue.run(["list"]).await.exits(0);
    }
}

/// What the command line and the environment say is a configuration as well.
// Proves: B-config, A-auth-clear, A-secrets
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_relay_or_database_of_the_environment_is_refused_without_its_value() {
    let queue = Queue::new();
    for (variable, value, command) in [
        ("SENDMAIL_RELAY", "smtp://u:v4lue@relay.example.org?tls=none", "run --once"),
        ("SENDMAIL_RELAY", "smtp://u:v4lue@relay.example.org?hello=a%0d%0ab", "run --once"),
        ("SENDMAIL_RELAY", "smtp://u%0d%0a:v4lue@relay.example.org", "check"),
        ("SENDMAIL_RELAY", "v4lue", "run --once"),
        ("SENDMAIL_DATABASE", "oracle://u:v4lue@h/d", "list"),
        ("SENDMAIL_DATABASE", "postgres://h/d?password=v4lue", "list"),
        ("SENDMAIL_DATABASE", "postgres://u:v4lue@h:424242/d", "list"),
    ] {
        let mut process = queue.command(command.split(' '));
        process.env(variable, value);
        let done = finish(process, b"").await;
        assert_eq!(done.code, Some(78), "{value}: {done:?}");
        for value in VALUES {
            assert!(!done.all().contains(value), "{done:?}");
        }
    }
}
