//! The configuration file.
//!
//! Everything in it may be left out. What is wrong is refused with file, line and key, and values are
//! never printed: one of them may be a password.

mod databases;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::num::{NonZeroU16, NonZeroU32};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use sendmail_processor::ProcessorConfig;
use serde::{Deserialize, Deserializer};

pub(crate) use self::databases::{DatabaseKind, DatabaseName, DatabaseSection, DatabaseUrl};
use crate::exit::{CONFIG, Failure, Result};
use crate::units::{parse_duration, parse_size};

/// The largest configuration file that is read, in bytes.
const MAX_LEN: u64 = 1 << 20;

/// What the file says.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    pub(crate) queue: QueueSection,
    pub(crate) relay: RelaySection,
    pub(crate) delivery: DeliverySection,
    /// `[databases.NAME]`, any number.
    pub(crate) databases: BTreeMap<DatabaseName, DatabaseSection>,
}

/// `[queue]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct QueueSection {
    /// The directory.
    pub(crate) path: Option<PathBuf>,
    /// The largest message that is taken.
    pub(crate) max_message_size: Option<Size>,
    /// The most messages that may wait.
    pub(crate) max_messages: Option<u64>,
    /// Free space that is left to the processor.
    pub(crate) reserved_space: Option<Size>,
    /// Free inodes that are left to the processor.
    pub(crate) reserved_inodes: Option<u64>,
    /// How long events are kept.
    pub(crate) history: Option<Period>,
    /// How long messages are kept that were rolled back.
    pub(crate) keep_discarded: Option<Period>,
    /// The domain of Message-IDs that are minted.
    pub(crate) domain: Option<String>,
}

/// `[relay]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RelaySection {
    /// The relay's URL.
    pub(crate) url: Option<SecretString>,
    /// The user to authenticate as, if the URL does not say so.
    pub(crate) user: Option<String>,
    /// The password.
    pub(crate) password: Option<SecretString>,
    /// A file whose first line is the password.
    pub(crate) password_file: Option<PathBuf>,
    /// The name for EHLO.
    pub(crate) hello_name: Option<String>,
    /// Further root certificates, in PEM.
    pub(crate) ca_file: Option<PathBuf>,
    /// How many connections are open at once.
    pub(crate) max_connections: Option<NonZeroU16>,
}

/// `[delivery]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct DeliverySection {
    /// The most messages in flight.
    pub(crate) max_in_flight: Option<NonZeroU16>,
    /// The first wait between two attempts.
    pub(crate) first_retry: Option<Period>,
    /// The longest wait between two attempts.
    pub(crate) max_retry: Option<Period>,
    /// How long a message is tried.
    pub(crate) lifetime: Option<Period>,
    /// How often the queue is looked at when nothing wakes the processor.
    pub(crate) poll_interval: Option<Period>,
    /// After how many refused messages in a row the relay is paused.
    pub(crate) max_refusals_in_a_row: Option<NonZeroU32>,
}

/// A duration as people write it, which is more than nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Period(pub(crate) Duration);

/// A number of bytes as people write it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size(pub(crate) u64);

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let period = parse_duration(&text).map_err(serde::de::Error::custom)?;
        if period.is_zero() {
            return Err(serde::de::Error::custom("it must be more than nothing"));
        }
        Ok(Self(period))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_size(&text).map(Self).map_err(serde::de::Error::custom)
    }
}

impl Config {
    /// Reads a file. What `objection` says of the relay is refused as well: a key, and what is wrong
    /// with it.
    pub(crate) fn read(path: &Path, objection: Objection) -> Result<Self> {
        let wrong = |why: String| Failure::new(CONFIG, format!("{}: {why}", path.display()));
        let file = File::open(path).map_err(|error| wrong(error.to_string()))?;
        let mode = file.metadata().map_err(|error| wrong(error.to_string()))?.permissions().mode();
        let text = read_text(file).map_err(wrong)?;
        let config = Self::parse(&text).map_err(wrong)?;
        if let Some((key, why)) = objection(&config.relay) {
            let line = line_of_key(&text, "relay", &[key]);
            return Err(wrong(format!("line {line}: key `{key}`: {why}")));
        }
        if let Some(key) = config.relay.secret_key().filter(|_| mode & 0o077 != 0) {
            return Err(wrong(format!(
                "line {}: key `{key}`: it holds a password and others may read the file; \
                 chmod 600 it, or use password_file",
                line_of_key(&text, "relay", &[key])
            )));
        }
        let mut databases = config.databases.iter();
        let open = databases.find(|(_, database)| database.url.get_ref().has_password());
        if let Some((name, database)) = open.filter(|_| mode & 0o077 != 0) {
            return Err(wrong(format!(
                "line {}: key `databases.{name}.url`: it holds a password and others may read the \
                 file; chmod 600 it, or use password_file",
                line_at(&text, database.url.span().start)
            )));
        }
        Ok(config)
    }

    /// Reads a text; the error names line and key, and no value.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let config: Self = toml::from_str(text).map_err(|error| describe(text, &error))?;
        let relay = &config.relay;
        if relay.password.is_some() && relay.password_file.is_some() {
            let line = line_of_key(text, "relay", &["password_file"]);
            return Err(format!("line {line}: key `password_file`: there is a `password` too"));
        }
        let secret = match (&relay.password, &relay.password_file) {
            (Some(_), _) => Some("password"),
            (None, file) => file.as_ref().map(|_| "password_file"),
        };
        if let (Some(key), None) = (secret, &relay.user) {
            let line = line_of_key(text, "relay", &[key]);
            return Err(format!("line {line}: key `{key}`: there is no `user` to go with it"));
        }
        if relay.user.is_some() && secret.is_none() {
            let line = line_of_key(text, "relay", &["user"]);
            return Err(format!("line {line}: key `user`: there is no `password` to go with it"));
        }
        if let Some((key, why)) = config.queue.objection() {
            return Err(format!("line {}: key `{key}`: {why}", line_of_key(text, "queue", &[key])));
        }
        let delivery = &config.delivery;
        let default = ProcessorConfig::default().backoff;
        let first = delivery.first_retry.map_or(default.first, |period| period.0);
        if first > delivery.max_retry.map_or(default.max, |period| period.0) {
            let line = line_of_key(text, "delivery", &["first_retry", "max_retry"]);
            return Err(format!("line {line}: key `first_retry`: it is longer than `max_retry`"));
        }
        for database in config.databases.values() {
            database.check().map_err(|(at, why)| {
                format!("line {}: key `password_file`: {why}", line_at(text, at))
            })?;
        }
        Ok(config)
    }
}

/// What is wrong with a relay that is well-formed otherwise: the key, and why.
pub(crate) type Objection = fn(&RelaySection) -> Option<(&'static str, String)>;

impl QueueSection {
    fn objection(&self) -> Option<(&'static str, &'static str)> {
        if self.path.as_ref().is_some_and(|path| path.as_os_str().is_empty()) {
            return Some(("path", "it is empty"));
        }
        if self.max_message_size.is_some_and(|size| size.0 == 0) {
            return Some(("max_message_size", "it must be more than nothing"));
        }
        let may_stand = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let is_domain =
            |name: &String| (1..=255).contains(&name.len()) && name.chars().all(may_stand);
        if self.domain.as_ref().is_some_and(|name| !is_domain(name)) {
            return Some(("domain", "a domain has 1 to 255 letters, digits, `.`, `-` and `_`"));
        }
        None
    }
}

impl RelaySection {
    /// Which key holds a secret.
    fn secret_key(&self) -> Option<&'static str> {
        let in_url = |url: &SecretString| mask_url(url.expose_secret()) != *url.expose_secret();
        if self.password.is_some() {
            return Some("password");
        }
        self.url.as_ref().is_some_and(in_url).then_some("url")
    }
}

/// The text of a file, if it is one and not too long to be a configuration.
fn read_text(file: File) -> Result<String, String> {
    let mut bytes = Vec::new();
    file.take(MAX_LEN + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MAX_LEN {
        return Err(format!("it is longer than {MAX_LEN} bytes"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let before = error.as_bytes().iter().take(error.utf8_error().valid_up_to());
        let line = before.filter(|byte| **byte == b'\n').count() + 1;
        format!("line {line}: it is not UTF-8")
    })
}

/// The first line of a file, which is a secret.
pub(crate) fn first_line(file: &Path) -> Result<SecretString> {
    let wrong = |why: String| Failure::new(CONFIG, format!("{}: {why}", file.display()));
    let content = File::open(file).map_err(|error| wrong(error.to_string()))?;
    let content = read_text(content).map_err(wrong)?;
    Ok(SecretString::from(content.lines().next().unwrap_or_default()))
}

/// A URL whose password, if it has one, is masked.
pub(crate) fn mask_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    // A password may hold an @ that should have been encoded: the last one counts.
    let Some(at) = authority.rfind('@').or_else(|| rest.rfind('@')) else {
        return url.to_owned();
    };
    let (credentials, host) = rest.split_at(at);
    match credentials.split_once(':') {
        Some((user, _)) => format!("{scheme}://{user}:***{host}"),
        None => url.to_owned(),
    }
}

/// Every key that there is.
const KEYS: [&str; 22] = [
    "path",
    "max_message_size",
    "max_messages",
    "reserved_space",
    "reserved_inodes",
    "history",
    "keep_discarded",
    "domain",
    "url",
    "user",
    "password",
    "password_file",
    "hello_name",
    "ca_file",
    "max_connections",
    "max_in_flight",
    "first_retry",
    "max_retry",
    "lifetime",
    "poll_interval",
    "max_refusals_in_a_row",
    "require_durable",
];

/// What is wrong, where: without the value, which the parser's own message would repeat.
fn describe(text: &str, error: &toml::de::Error) -> String {
    let at = error.span().map_or(0, |span| span.start);
    let line = line_at(text, at);
    let source = text.lines().nth(line - 1).unwrap_or_default();
    let key = source.split('=').next().unwrap_or_default().trim();
    let message = error.message();
    if let Some(missing) = message.strip_prefix("missing field ") {
        return format!("line {line}: key {missing}: it is missing");
    }
    let why = if message.starts_with("unknown field") || message.starts_with("duplicate key") {
        message.to_owned()
    } else if let Some((_, expected)) = message.split_once(", expected ") {
        format!("wrong value, expected {expected}")
    } else if message.starts_with("invalid") {
        "it is not valid TOML, or of the wrong type".to_owned()
    } else {
        // Our own words about durations and sizes, and the parser's about syntax.
        message.lines().next().unwrap_or_default().to_owned()
    };
    // In the middle of a text that goes over several lines, what looks like a key is a value.
    let is_key = KEYS.contains(&key) || message.starts_with("unknown field");
    if is_key { format!("line {line}: key `{key}`: {why}") } else { format!("line {line}: {why}") }
}

/// The line of a place in the text, counted from 1.
fn line_at(text: &str, at: usize) -> usize {
    text.get(..at).unwrap_or(text).matches('\n').count() + 1
}

/// The line on which one of these keys of a section stands first.
fn line_of_key(text: &str, section: &str, keys: &[&str]) -> usize {
    let mut inside = false;
    let mut found = |line: &str| {
        let line = line.trim();
        if let Some(header) = line.strip_prefix('[') {
            inside = header.split(']').next().is_some_and(|name| name.trim() == section);
            return false;
        }
        let Some((key, _)) = line.split_once('=') else { return false };
        let key = key.trim();
        // `relay.url = …` and `relay = { url = … }` at the top are the same as `url = …` below `[relay]`.
        let dotted = key.split_once('.').filter(|(name, _)| name.trim() == section);
        let key = dotted.map_or(key, |(_, key)| key.trim());
        key == section || ((inside || dotted.is_some()) && keys.contains(&key))
    };
    text.lines().position(&mut found).map_or(1, |index| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_whole_configuration_is_read() {
        let config = Config::parse(
            "[queue]\npath = \"/var/spool/q\"\nmax_message_size = \"10 MiB\"\n\
             [relay]\nurl = \"smtp://relay.example.org\"\nuser = \"u\"\npassword = \"p\"\n\
             [delivery]\nfirst_retry = \"10s\"\nlifetime = \"2d\"\n",
        )
        .unwrap();
        assert_eq!(config.queue.max_message_size.unwrap().0, 10 << 20);
        assert_eq!(config.delivery.lifetime.unwrap().0, Duration::from_secs(172_800));
        assert!(!format!("{config:?}").contains("\"p\""));
    }

    // Proves: B-config, A-secrets
    #[test]
    fn what_is_wrong_is_named_by_line_and_key_without_its_value() {
        for (text, line, key) in [
            ("[queue]\npth = \"x\"", 2, "pth"),
            ("[relay]\npassword = 12345", 2, "password"),
            ("[relay]\nurl = \"smtp://a\"\nmax_connections = -5", 3, "max_connections"),
            ("[delivery]\n\nfirst_retry = \"-5s\"", 3, "first_retry"),
            ("[delivery]\nfirst_retry = \"12345x\"", 2, "first_retry"),
            (
                "[relay]\nuser = \"u\"\npassword = \"12345\"\npassword_file = \"f\"",
                4,
                "password_file",
            ),
            ("[relay]\npassword = \"12345\"", 2, "password"),
            ("[relay]\npassword = \"12345", 2, "password"),
            ("[delivery]\nmax_in_flight = 0", 2, "max_in_flight"),
            ("[delivery]\nlifetime = \"0s\"", 2, "lifetime"),
            ("[delivery]\nfirst_retry = \"2h\"", 2, "first_retry"),
            ("[databases.a]\nurl = \"oracle://u:12345@h/d\"", 2, "url"),
            ("[databases.a]\nurl = \"postgres://u:p@h:12345x/d\"", 2, "url"),
            ("[databases.a]\nurl = \"postgres://h/d?password=12345\"", 2, "url"),
            ("[databases.a]\nurl = \"sqlite::memory:\"", 2, "url"),
            ("[databases.a]\nurl = 12345", 2, "url"),
            ("[databases.a]\nurl = \"sqlite:a\"\npasword = \"12345\"", 3, "pasword"),
            ("[databases.a]\nurl = \"sqlite:a\"\nrequire_durable = 12345", 3, "require_durable"),
            ("\n[databases.a]\nrequire_durable = true", 2, "url"),
            ("[databases.a]\nurl = \"sqlite:a\"\npassword_file = \"f\"", 3, "password_file"),
            (
                "[relay]\nurl = \"smtp://a\"\n[databases.a]\nurl = \"mysql://u:12345@h/d\"\n\
                 password_file = \"f\"",
                5,
                "password_file",
            ),
            ("[databases.a]\nurl = \"mysql://h/d\"\npassword_file = \"f\"", 3, "password_file"),
        ] {
            let error = Config::parse(text).unwrap_err();
            assert!(error.starts_with(&format!("line {line}: key `{key}`")), "{text:?}: {error}");
            assert!(!error.contains("12345"), "{error}");
        }
    }

    // Proves: B-config, A-secrets
    #[test]
    fn the_line_is_that_of_the_key_in_its_own_section() {
        let database = "[databases.a]\nurl = \"sqlite:d\"\n";
        for (text, line) in [
            (format!("{database}[relay]\nurl = \"gopher://12345\"\n"), 4),
            (format!("relay.url = \"gopher://12345\"\n{database}"), 1),
            ("\nrelay = { url = \"gopher://12345\" }\n".to_owned(), 2),
            ("# url = 1\n[relay] # url = 2\n  url=\"gopher://12345\"\n".to_owned(), 3),
        ] {
            let config = Config::parse(&text).unwrap();
            assert!(config.relay.url.is_some());
            assert_eq!(line_of_key(&text, "relay", &["url"]), line, "{text}");
        }
    }

    // Proves: B-config
    #[test]
    fn a_file_that_is_no_configuration_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("c.toml");
        let refused = |content: &[u8]| {
            std::fs::write(&path, content).unwrap();
            Config::read(&path, |_| None).unwrap_err().to_string()
        };
        let long = format!("[queue]\n{}", "# a comment\n".repeat(100_000));
        assert!(refused(long.as_bytes()).contains("longer than 1048576 bytes"));
        assert!(refused(b"[queue]\n\npath = \"\xff\"\n").ends_with("line 3: it is not UTF-8"));
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(Config::read(&path, |_| None).is_err(), "a directory");
    }

    // Proves: B-config, A-secrets
    #[test]
    fn what_looks_like_a_key_inside_a_password_is_not_printed() {
        let error = Config::parse("[relay]\npassword = \"\"\"\nhunter=2\\q\n\"\"\"\n").unwrap_err();
        assert!(error.starts_with("line 3: ") && !error.contains("hunter"), "{error}");
    }

    // Proves: B-config, A-secrets
    #[test]
    fn a_password_that_others_may_read_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("c.toml");
        for (text, refused) in [
            ("[relay]\nuser = \"u\"\npassword = \"s3cret\"\n", true),
            ("[relay]\nurl = \"smtp://u:s3cret@a\"\n", true),
            ("[relay]\nurl = \"smtp://a\"\n", false),
            ("[databases.a]\nurl = \"postgres://u:s3cret@h/d\"\n", true),
            ("[databases.a]\nurl = \"postgres://u@h/d\"\n", false),
            ("[databases.a]\nurl = \"sqlite:/d\"\n", false),
        ] {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
            match Config::read(&path, |_| None) {
                Err(failure) if refused => {
                    assert_eq!(failure.code, CONFIG);
                    assert!(!failure.to_string().contains("s3cret"), "{failure}");
                }
                Ok(_) if !refused => {}
                other => panic!("{text:?}: {other:?}"),
            }
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            Config::read(&path, |_| None).unwrap();
        }
    }

    // Proves: A-secrets
    #[test]
    fn passwords_in_urls_are_masked() {
        assert_eq!(mask_url("smtp://u:p@h:25?x=y"), "smtp://u:***@h:25?x=y");
        assert_eq!(mask_url("smtp://u:p@q@h"), "smtp://u:***@h");
        assert_eq!(mask_url("smtp://u:p/q@h"), "smtp://u:***@h");
        assert_eq!(mask_url("smtp://h:25"), "smtp://h:25");
        assert_eq!(mask_url("program:/x"), "program:/x");
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in "(\\[(queue|relay|databases\\.a)\\]\n)?([a-z_]{1,10} ?= ?.{0,20}\n){0,4}") {
            let _ = Config::parse(&text);
        }
    }
}
