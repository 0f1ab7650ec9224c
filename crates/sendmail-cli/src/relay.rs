//! From a relay's URL to a mailer.

use std::path::Path;
use std::sync::Arc;

use secrecy::{ExposeSecret as _, SecretString};
use sendmail_core::{Error, ErrorKind, Mailer};
use sendmail_program::ProgramMailer;
use sendmail_smtp::{Credentials, SmtpConfig, SmtpMailer};

use crate::config::{RelaySection, first_line};
use crate::exit::{CONFIG, Failure, Result};

/// The mailer for the relay that the command line or the configuration names.
pub(crate) fn mailer(url: Option<&str>, section: &RelaySection) -> Result<Arc<dyn Mailer>> {
    let configured = section.url.as_ref().map(SecretString::expose_secret);
    // Configured credentials are the configured relay's, and are not shown to another.
    let user = section.user.as_deref().filter(|_| url.is_none());
    let Some(url) = url.or(configured) else {
        return Err(Failure::new(
            CONFIG,
            "no relay is set; use --relay smtp://HOST:PORT, SENDMAIL_RELAY or the configuration file",
        ));
    };
    match url.split(':').next() {
        Some("smtp" | "smtps") => {
            let config = smtp(url, user.filter(|_| !has_credentials(url)), section)?;
            Ok(Arc::new(SmtpMailer::new(config).map_err(misconfigured)?))
        }
        Some("program") => Ok(Arc::new(ProgramMailer::from_url(url).map_err(misconfigured)?)),
        _ => Err(Failure::new(CONFIG, SCHEMES)),
    }
}

/// What is wrong with a configured relay, as far as can be seen without looking at files or asking
/// anybody: the key, and why. The value is not repeated.
pub(crate) fn objection(section: &RelaySection) -> Option<(&'static str, String)> {
    let url = section.url.as_ref().map(SecretString::expose_secret);
    let place = SmtpConfig::new("localhost", 25).ok()?;
    let fill = SecretString::from("filled in");
    let user = section.user.as_deref();
    let user_alone = user.map(|user| Credentials::new(user, fill.clone()));
    let password_alone = section.password.clone().map(|it| Credentials::new("filled in", it));
    let hello = section.hello_name.as_deref();
    let checks: [(&str, Option<sendmail_core::Result<()>>); 4] = [
        ("user", user_alone.map(|it| place.clone().with_credentials(it).map(drop))),
        ("password", password_alone.map(|it| place.clone().with_credentials(it).map(drop))),
        ("hello_name", hello.map(|name| place.clone().with_hello_name(name).map(drop))),
        ("url", url.map(|url| check_url(url, user.filter(|_| !has_credentials(url))))),
    ];
    checks.into_iter().find_map(|(key, result)| Some((key, result?.err()?.to_string())))
}

/// Whether a URL names a relay that may be used, and as `user` if there is one.
fn check_url(url: &str, user: Option<&str>) -> sendmail_core::Result<()> {
    match url.split(':').next() {
        Some("smtp" | "smtps") => {
            let config = SmtpConfig::from_url(url)?;
            let Some(user) = user else { return Ok(()) };
            config.with_credentials(Credentials::new(user, "filled in".to_owned().into()))?.check()
        }
        Some("program") if url.starts_with("program:/") => Ok(()),
        _ => Err(Error::new(ErrorKind::InvalidInput, "configure the relay", SCHEMES)),
    }
}

const SCHEMES: &str = "a relay is written as smtp://HOST:PORT, smtps://HOST:PORT or program:/PATH";

fn misconfigured(error: Error) -> Failure {
    Failure::new(CONFIG, error.to_string())
}

fn smtp(url: &str, user: Option<&str>, section: &RelaySection) -> Result<SmtpConfig> {
    let mut config = SmtpConfig::from_url(url).map_err(misconfigured)?;
    if let Some(user) = user {
        let password = match (&section.password, &section.password_file) {
            (Some(password), _) => password.clone(),
            (None, Some(file)) => first_line(file)?,
            (None, None) => {
                return Err(Failure::new(CONFIG, "relay.user is set and relay.password is not"));
            }
        };
        let credentials = Credentials::new(user, password);
        config = config.with_credentials(credentials).map_err(misconfigured)?;
    }
    if let Some(name) = &section.hello_name {
        config = config.with_hello_name(name).map_err(misconfigured)?;
    }
    if let Some(file) = &section.ca_file {
        config = config.with_root_certificates_pem(&read(file)?).map_err(misconfigured)?;
    }
    if let Some(count) = section.max_connections {
        config = config.with_max_connections(usize::from(count.get()));
    }
    Ok(config)
}

/// Whether a URL says whom to authenticate as.
fn has_credentials(url: &str) -> bool {
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    rest.split(['/', '?']).next().is_some_and(|authority| authority.contains('@'))
}

fn read(file: &Path) -> Result<Vec<u8>> {
    std::fs::read(file)
        .map_err(|error| Failure::new(CONFIG, format!("{}: {error}", file.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configured_credentials_are_for_the_configured_relay_without_its_own() {
        let section = RelaySection {
            url: Some(SecretString::from("smtp://127.0.0.1:25")),
            user: Some("u".to_owned()),
            password: Some(SecretString::from("p")),
            ..RelaySection::default()
        };
        // They would go over clear text, which is refused: so they were meant for it.
        let refused = mailer(None, &section).err().expect("credentials over clear text");
        assert_eq!(refused.code, CONFIG);
        assert!(mailer(Some("smtp://127.0.0.1:2525"), &section).is_ok(), "another relay");
        assert!(has_credentials("smtp://u:p@h") && !has_credentials("smtp://h?x=@"));
    }

    #[test]
    fn a_relay_that_is_not_understood_is_the_configurations_fault() {
        for url in ["gopher://h", "smtp://h?tls=bogus", "smtp://", "program:relative", "h"] {
            let failure = mailer(Some(url), &RelaySection::default()).err().expect(url);
            assert_eq!(failure.code, CONFIG, "{url}");
        }
    }
}
