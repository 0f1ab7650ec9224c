//! Relay URLs, and what may stand in their parts.

use secrecy::{ExposeSecret, SecretString};
use sendmail_core::Result;
use url::{Host, Url};

use crate::config::{Credentials, Mechanism, SmtpConfig, TlsMode, invalid, is_loopback};

/// What the parameters of a URL say.
#[derive(Default)]
struct Parameters {
    tls: Option<TlsMode>,
    mechanism: Option<Mechanism>,
    hello: Option<String>,
    clear_text_auth: bool,
}

pub(crate) fn parse(text: &str) -> Result<SmtpConfig> {
    // The URL standard drops tabs and line ends in silence; here they are a mistake or an attack.
    if let Some(offset) = text.find(char::is_control) {
        return Err(invalid("the relay URL has a control character").with("offset", offset));
    }
    let url = Url::parse(text).map_err(|error| {
        invalid("the relay is not a URL like smtp://host:25; a special character in user or password has to be percent-encoded")
            .with("reason", error)
    })?;
    let implicit = match url.scheme() {
        "smtp" => false,
        "smtps" => true,
        _ => return Err(invalid("the relay URL has to start with smtp:// or smtps://")),
    };
    if !matches!(url.path(), "" | "/") || url.fragment().is_some() {
        return Err(invalid("the relay URL has something after the host; parameters start with ?"));
    }
    let host = decode(url.host_str().unwrap_or_default().trim_matches(['[', ']']), "host")?;
    let host = check_host(&host)?;
    let credentials = credentials(&url)?;
    let parameters = parameters(&url)?;
    if implicit && parameters.tls.is_some() {
        return Err(invalid("smtps:// is TLS from the first byte and takes no tls parameter"));
    }
    if credentials.is_none() && parameters.mechanism.is_some() {
        return Err(invalid("the relay URL names an auth mechanism, but no user and password"));
    }
    assemble(host, url.port(), implicit, credentials, parameters)
}

fn assemble(
    host: String,
    port: Option<u16>,
    implicit: bool,
    credentials: Option<Credentials>,
    parameters: Parameters,
) -> Result<SmtpConfig> {
    let default_port = match (implicit, parameters.tls) {
        (true, _) => 465,
        (false, Some(TlsMode::Required | TlsMode::Opportunistic)) => 587,
        (false, _) => 25,
    };
    // Credentials for a relay on this host need TLS too, unless the URL says that they do not.
    let in_clear_by_default =
        is_loopback(&host) && (credentials.is_none() || parameters.clear_text_auth);
    let tls = match parameters.tls {
        _ if implicit => TlsMode::Implicit,
        Some(mode) => mode,
        None if in_clear_by_default => TlsMode::None,
        None => TlsMode::Required,
    };
    let mut config = SmtpConfig::new(&host, port.unwrap_or(default_port))?
        .with_tls(tls)
        .with_clear_text_auth_on_loopback(parameters.clear_text_auth);
    if let Some(mut credentials) = credentials {
        credentials.mechanism = parameters.mechanism;
        config = config.with_credentials(credentials)?;
    }
    if let Some(name) = parameters.hello {
        config = config.with_hello_name(&name)?;
    }
    config.check()?;
    Ok(config)
}

fn credentials(url: &Url) -> Result<Option<Credentials>> {
    match (url.username(), url.password()) {
        ("", None) => Ok(None),
        (user, Some(password)) => {
            let password = SecretString::from(decode(password, "password")?);
            Ok(Some(Credentials::new(decode(user, "user")?, password)))
        }
        (_, None) => Err(invalid("the relay URL has a user and no password")),
    }
}

fn parameters(url: &Url) -> Result<Parameters> {
    let mut found = Parameters::default();
    for (name, value) in url.query_pairs() {
        let known = match &*name {
            "tls" => {
                found.tls = match &*value {
                    "required" => Some(TlsMode::Required),
                    "opportunistic" => Some(TlsMode::Opportunistic),
                    "none" => Some(TlsMode::None),
                    _ => None,
                };
                found.tls.is_some()
            }
            "auth" => {
                found.mechanism = Mechanism::from_word(&value);
                found.mechanism.is_some()
            }
            "hello" => {
                found.hello = Some(value.into_owned());
                true
            }
            "clear-text-auth" => {
                found.clear_text_auth = value == "loopback";
                found.clear_text_auth
            }
            _ => false,
        };
        if !known {
            return Err(invalid(
                "the relay URL has an unknown parameter or value; known are \
                 tls=required|opportunistic|none, auth=plain|login|xoauth2, hello=NAME and \
                 clear-text-auth=loopback",
            ));
        }
    }
    Ok(found)
}

/// A host name in ASCII, or an IP address without brackets.
pub(crate) fn check_host(host: &str) -> Result<String> {
    let host = if host.is_ascii() {
        host.to_ascii_lowercase()
    } else {
        match Host::parse(host) {
            Ok(Host::Domain(domain)) => domain,
            _ => return Err(invalid("the relay's host is not a valid international name")),
        }
    };
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:%".contains(&byte);
    let misfit = host.bytes().position(|byte| !allowed(byte));
    if misfit.is_some() || host.is_empty() || host.len() > 255 {
        let error = invalid("the relay's host has to be a host name or an IP address");
        return Err(match misfit {
            Some(offset) => error.with("offset", offset),
            None => error.with("length", host.len()),
        });
    }
    Ok(host)
}

pub(crate) fn check_credentials(credentials: &Credentials) -> Result<()> {
    let parts = [("user", &*credentials.user), ("password", credentials.password.expose_secret())];
    for (part, text) in parts {
        let control = text.find(char::is_control);
        if control.is_some() || text.is_empty() {
            let error = invalid("credentials may not be empty and have no control characters");
            return Err(error.with("part", part).with("offset", control.unwrap_or(0)));
        }
    }
    Ok(())
}

/// Percent-decoding, strict: a `%` that starts no code is an error that names the part, never the text.
fn decode(text: &str, part: &'static str) -> Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first != b'%' {
            bytes.push(*first);
            rest = after;
            continue;
        }
        let code = after.split_first_chunk().and_then(|(&[high, low], after)| {
            let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
            Some((digit(high)? * 16 + digit(low)?, after))
        });
        let Some((byte, after)) = code else {
            return Err(invalid("a % in the relay URL has to be written %25").with("part", part));
        };
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8(bytes)
        .map_err(|_| invalid("the relay URL does not decode to UTF-8").with("part", part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ports_and_tls_follow_from_scheme_host_and_parameters() {
        for (url, relay, tls) in [
            ("smtp://relay.example", "smtp://relay.example:25", TlsMode::Required),
            ("smtp://relay.example?tls=required", "smtp://relay.example:587", TlsMode::Required),
            ("smtp://r?tls=opportunistic", "smtp://r:587", TlsMode::Opportunistic),
            ("smtp://r?tls=none", "smtp://r:25", TlsMode::None),
            ("smtp://r:2525/?tls=required", "smtp://r:2525", TlsMode::Required),
            ("smtps://Relay.Example", "smtps://relay.example:465", TlsMode::Implicit),
            ("smtp://127.0.0.1:2525", "smtp://127.0.0.1:2525", TlsMode::None),
            ("smtp://[::1]:2525", "smtp://[::1]:2525", TlsMode::None),
            ("smtp://localhost", "smtp://localhost:25", TlsMode::None),
            ("smtp://u:p@localhost", "smtp://localhost:25", TlsMode::Required),
            ("smtp://u:p@localhost?clear-text-auth=loopback", "smtp://localhost:25", TlsMode::None),
            ("smtp://münchen.example", "smtp://xn--mnchen-3ya.example:25", TlsMode::Required),
        ] {
            let config = parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!((config.relay(), config.tls), (relay.to_owned(), tls), "{url}");
        }
    }

    #[test]
    fn user_and_password_are_percent_decoded() {
        let config = parse("smtps://a%40b:p%25%3A%2F+%C3%A9@relay.example?auth=login").unwrap();
        let credentials = config.credentials.unwrap();
        assert_eq!(credentials.user, "a@b");
        assert_eq!(credentials.password.expose_secret(), "p%:/+é");
        assert_eq!(credentials.mechanism, Some(Mechanism::Login));
    }

    // Proves: B-controls, B-config, A-injection, A-secrets
    #[test]
    fn what_is_not_safe_is_refused_and_the_password_not_repeated() {
        for url in [
            "",
            "relay.example",
            "http://hunter2@relay.example",
            "smtp://",
            "smtp://u:hunter2@",
            "smtp://u:hunter2@ho st",
            "smtp://u:hunter2@host\r\n",
            "smtp://u:hunter2@ho%0d%0ast",
            "smtp://u%0a:hunter2@host",
            "smtp://u:hunter2%00@host",
            "smtp://u:hunter2%0d@host",
            "smtp://u:hunter2%@host",
            "smtp://u:hunter2%zz@host",
            "smtp://u:hunter2%ff@host",
            "smtp://u:hunter2@host:70000",
            "smtp://hunter2@host",
            "smtp://u:hunter2@host/path",
            "smtp://u:hunter2@host?tls=maybe",
            "smtp://u:hunter2@host?unknown=hunter2",
            "smtp://u:hunter2@host?tls=none",
            "smtp://u:hunter2@host?tls=none&clear-text-auth=loopback",
            "smtps://u:hunter2@host?tls=none",
            "smtp://host?auth=plain",
            "smtp://host?hello=a%20b",
        ] {
            let error = parse(url).map(|config| config.relay()).expect_err(url);
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{url}: {error:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "smtps?://.{0,40}|.{0,40}") {
            if let Ok(config) = parse(&text) {
                prop_assert!(config.relay().is_ascii());
                prop_assert!(!config.relay().contains(|c: char| c.is_control() || c == ' '));
            }
        }

        #[test]
        fn what_is_encoded_is_decoded(text in "\\PC{0,20}") {
            let encoded: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
            prop_assert_eq!(decode(&encoded, "user").unwrap(), text);
        }
    }
}
