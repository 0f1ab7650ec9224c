//! From a relay's URL to a mailer.

use std::path::Path;
use std::sync::Arc;

use secrecy::{ExposeSecret as _, SecretString};
use sendmail_core::Mailer;
use sendmail_smtp::{Credentials, SmtpConfig, SmtpMailer};

use crate::config::RelaySection;
use crate::exit::{CONFIG, Failure, Result};

/// The mailer for the relay that the command line or the configuration names.
pub(crate) fn mailer(url: Option<&str>, section: &RelaySection) -> Result<Arc<dyn Mailer>> {
    let configured = section.url.as_ref().map(SecretString::expose_secret);
    let Some(url) = url.or(configured) else {
        return Err(Failure::new(
            CONFIG,
            "no relay is set; use --relay smtp://HOST:PORT, SENDMAIL_RELAY or the configuration file",
        ));
    };
    match url.split(':').next() {
        Some("smtp" | "smtps") => Ok(Arc::new(SmtpMailer::new(smtp(url, section)?)?)),
        _ => {
            Err(Failure::new(CONFIG, "a relay is written as smtp://HOST:PORT or smtps://HOST:PORT"))
        }
    }
}

fn smtp(url: &str, section: &RelaySection) -> Result<SmtpConfig> {
    let mut config = SmtpConfig::from_url(url)?;
    if let Some(user) = &section.user {
        let password = match (&section.password, &section.password_file) {
            (Some(password), _) => password.clone(),
            (None, Some(file)) => first_line(file)?,
            (None, None) => {
                return Err(Failure::new(CONFIG, "relay.user is set and relay.password is not"));
            }
        };
        config = config.with_credentials(Credentials::new(user, password))?;
    }
    if let Some(name) = &section.hello_name {
        config = config.with_hello_name(name)?;
    }
    if let Some(file) = &section.ca_file {
        config = config.with_root_certificates_pem(&read(file)?)?;
    }
    if let Some(count) = section.max_connections {
        config = config.with_max_connections(usize::from(count));
    }
    Ok(config)
}

fn first_line(file: &Path) -> Result<SecretString> {
    let content = String::from_utf8(read(file)?)
        .map_err(|_| Failure::new(CONFIG, format!("{}: not UTF-8", file.display())))?;
    let line = content.lines().next().unwrap_or_default();
    Ok(SecretString::from(line.to_owned()))
}

fn read(file: &Path) -> Result<Vec<u8>> {
    std::fs::read(file)
        .map_err(|error| Failure::new(CONFIG, format!("{}: {error}", file.display())))
}
