//! AUTH (RFC 4954): PLAIN, LOGIN and XOAUTH2.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use secrecy::ExposeSecret;
use sendmail_core::{Error, ErrorKind, Result};

use crate::config::{Credentials, Mechanism};
use crate::connection::Connection;
use crate::reply::WireReply;
use crate::trouble::refusal;

pub(crate) const OPERATION: &str = "authenticate to the relay";

/// Shows the credentials to the relay. Whether they may go over this connection was asked before.
pub(crate) async fn authenticate(
    connection: &mut Connection,
    credentials: &Credentials,
) -> Result<()> {
    let offered = &connection.capabilities.mechanisms;
    let wanted = credentials
        .mechanism
        .map_or(vec![Mechanism::Plain, Mechanism::Login], |mechanism| vec![mechanism]);
    let Some(mechanism) = wanted.into_iter().find(|wanted| offered.contains(wanted)) else {
        let text = "the relay does not offer the AUTH mechanism";
        return Err(Error::new(ErrorKind::Auth, OPERATION, text)
            .with("offered", offered.iter().map(|m| m.as_str()).collect::<Vec<_>>().join(" ")));
    };
    let password = credentials.password.expose_secret();
    let lines = auth_lines(mechanism, &credentials.user, password);
    let limit = connection.timeouts.command;
    let mut lines = lines.into_iter();
    let mut reply = None;
    while reply.as_ref().is_none_or(|reply: &WireReply| reply.code() == 334) {
        // A relay that asks for more than the mechanism has to say (XOAUTH2 does, after a refusal)
        // gets the empty answer once, then is given up.
        let Some(line) = lines.next() else { break };
        let answer = connection.ask(Some(format!("{line}\r\n")), limit).await;
        reply = Some(answer.map_err(|broken| broken.into_error(OPERATION))?);
    }
    match reply {
        Some(reply) if reply.is_class(2) => Ok(()),
        Some(reply) if reply.code() == 421 => {
            Err(refusal(ErrorKind::Unreachable, OPERATION, &reply))
        }
        Some(reply) if reply.is_class(3) => {
            let text = "the relay asks for more than the AUTH mechanism has to say";
            Err(Error::new(ErrorKind::Auth, OPERATION, text))
        }
        Some(reply) => Err(auth_refusal(&reply)),
        None => Err(Error::new(ErrorKind::Auth, OPERATION, "nothing was said")),
    }
}

/// A refusal of our credentials. Its text is left out: relays exist that repeat what they were sent.
fn auth_refusal(reply: &WireReply) -> Error {
    let told = reply.to_reply();
    let status = told.status().map_or(String::new(), |status| format!(" {status}"));
    let text = format!("the relay answered {}{status} to our credentials", reply.code());
    let error = Error::new(ErrorKind::Auth, OPERATION, text);
    if reply.is_class(4) { error.temporary() } else { error.permanent() }
}

/// The lines that a mechanism has to say, each after a 334 to the one before.
fn auth_lines(mechanism: Mechanism, user: &str, password: &str) -> Vec<String> {
    let name = mechanism.as_str();
    match mechanism {
        Mechanism::Plain => {
            vec![format!("AUTH {name} {}", BASE64.encode(format!("\0{user}\0{password}")))]
        }
        Mechanism::Login => {
            vec![format!("AUTH {name}"), BASE64.encode(user), BASE64.encode(password)]
        }
        Mechanism::Xoauth2 => {
            let token = format!("user={user}\x01auth=Bearer {password}\x01\x01");
            vec![format!("AUTH {name} {}", BASE64.encode(token)), String::new()]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auth_lines_are_those_of_the_mechanisms() {
        assert_eq!(auth_lines(Mechanism::Plain, "u", "p"), ["AUTH PLAIN AHUAcA=="]);
        assert_eq!(auth_lines(Mechanism::Login, "u", "p"), ["AUTH LOGIN", "dQ==", "cA=="]);
        assert_eq!(auth_lines(Mechanism::Xoauth2, "u", "p").len(), 2);
    }
}
