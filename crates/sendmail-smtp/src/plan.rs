//! The commands of a transaction: what envelope and message ask of a relay, and what it offers. Pure.

use sendmail_core::{Envelope, Message, Outcome, Recipient, Reply, ReversePath};
use url::Host;

use crate::capabilities::Capabilities;

/// The commands for one message to one relay, and the outcomes that need no relay.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// `MAIL FROM:<…> …`, without line end.
    pub(crate) mail: String,
    /// For each recipient of the envelope `RCPT TO:<…>`, or why it cannot be sent to.
    pub(crate) recipients: Vec<Result<String, Outcome>>,
}

/// Why an address cannot be written in ASCII.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoAscii {
    LocalPart,
    Domain,
}

impl Plan {
    pub(crate) fn new(envelope: &Envelope, message: &Message, offered: &Capabilities) -> Self {
        match Self::common(envelope, message, offered) {
            Ok((mail, utf8)) => {
                let one = |recipient: &Recipient| match rcpt(recipient, utf8) {
                    Ok(path) => Ok(format!("RCPT TO:<{path}>")),
                    Err(why) => Err(Outcome::Refused(no_ascii(why, "recipient"))),
                };
                Self { mail, recipients: envelope.recipients().iter().map(one).collect() }
            }
            Err(reply) => {
                let refused = || Err(Outcome::Refused(reply.clone()));
                let recipients = envelope.recipients().iter().map(|_| refused()).collect();
                Self { mail: String::new(), recipients }
            }
        }
    }

    /// The MAIL command, and whether it says SMTPUTF8; or why nobody can be sent to.
    fn common(
        envelope: &Envelope,
        message: &Message,
        offered: &Capabilities,
    ) -> Result<(String, bool), Reply> {
        let size = u64::try_from(message.as_bytes().len()).unwrap_or(u64::MAX);
        if let Some(limit) = offered.max_size.filter(|limit| size > *limit) {
            let text = format!("the message has {size} bytes, the relay takes at most {limit}");
            return Err(Reply::local(552, "5.3.4", text));
        }
        let eight_bit = message.has_8bit_body() || message.has_8bit_header();
        if eight_bit && !offered.eight_bit_mime {
            let text = "the message has 8-bit bytes and the relay does not offer 8BITMIME; encode \
                        the body as quoted-printable or base64";
            return Err(Reply::local(554, "5.6.3", text));
        }
        if message.has_8bit_header() && !offered.smtp_utf8 {
            let text = "the header has 8-bit bytes and the relay does not offer SMTPUTF8; encode \
                        it as RFC 2047 says";
            return Err(Reply::local(554, "5.6.7", text));
        }
        let utf8 = offered.smtp_utf8 && needs_utf8(envelope, message);
        let path = reverse_path(envelope.reverse_path(), utf8)
            .map_err(|why| no_ascii(why, "reverse-path"))?;
        let mut mail = format!("MAIL FROM:<{path}>");
        if offered.size {
            mail.push_str(&format!(" SIZE={size}"));
        }
        if offered.eight_bit_mime && (eight_bit || utf8) {
            mail.push_str(" BODY=8BITMIME");
        }
        if utf8 {
            mail.push_str(" SMTPUTF8");
        }
        Ok((mail, utf8))
    }

    /// What is decided without asking the relay, in the envelope's order.
    pub(crate) fn decided(&self) -> impl Iterator<Item = Option<Outcome>> + '_ {
        self.recipients.iter().map(|recipient| recipient.as_ref().err().cloned())
    }

    /// The RCPT command of recipient `index`; nothing for one that is decided.
    pub(crate) fn rcpt(&self, index: usize) -> &str {
        self.recipients.get(index).and_then(|rcpt| rcpt.as_deref().ok()).unwrap_or_default()
    }
}

fn needs_utf8(envelope: &Envelope, message: &Message) -> bool {
    let reverse_path = envelope.reverse_path().local_part().is_some_and(|local| !local.is_ascii());
    let mut recipients = envelope.recipients().iter();
    message.has_8bit_header()
        || reverse_path
        || recipients.any(|recipient| !recipient.local_part().is_ascii())
}

/// The reverse-path for MAIL: as it is if SMTPUTF8 is said, in ASCII otherwise.
pub(crate) fn reverse_path(path: &ReversePath, utf8: bool) -> Result<String, NoAscii> {
    match (path.local_part(), path.domain()) {
        (Some(local), Some(domain)) => in_ascii(path.as_str(), local, domain, utf8),
        _ => Ok(String::new()),
    }
}

/// The forward-path for RCPT: as it is if SMTPUTF8 is said, in ASCII otherwise.
pub(crate) fn rcpt(recipient: &Recipient, utf8: bool) -> Result<String, NoAscii> {
    in_ascii(recipient.as_str(), recipient.local_part(), recipient.domain(), utf8)
}

fn in_ascii(whole: &str, local: &str, domain: &str, utf8: bool) -> Result<String, NoAscii> {
    if utf8 || whole.is_ascii() {
        return Ok(whole.to_owned());
    }
    let domain = ascii_domain(domain).ok_or(NoAscii::Domain)?;
    if local.is_ascii() { Ok(format!("{local}@{domain}")) } else { Err(NoAscii::LocalPart) }
}

/// The domain as A-labels (RFC 5890).
pub(crate) fn ascii_domain(domain: &str) -> Option<String> {
    if domain.is_ascii() {
        return Some(domain.to_owned());
    }
    match Host::parse(domain) {
        Ok(Host::Domain(ascii)) if ascii.len() <= 255 => Some(ascii),
        _ => None,
    }
}

/// The words for an address that this relay cannot be given.
pub(crate) fn no_ascii(why: NoAscii, which: &str) -> Reply {
    match why {
        NoAscii::LocalPart => Reply::local(
            550,
            "5.6.7",
            format!("the {which} is not ASCII and the relay does not offer SMTPUTF8"),
        ),
        NoAscii::Domain => Reply::local(
            553,
            "5.1.3",
            format!("the domain of the {which} is not a valid international domain name"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sendmail_core::Timestamp;

    fn message(raw: &[u8]) -> Message {
        Message::from_raw(raw, Timestamp::EPOCH, "example.org").unwrap()
    }

    fn everything() -> Capabilities {
        Capabilities {
            eight_bit_mime: true,
            smtp_utf8: true,
            size: true,
            ..Capabilities::default()
        }
    }

    fn plan(from: &str, to: &[&str], raw: &[u8], offered: &Capabilities) -> Plan {
        Plan::new(&Envelope::parse(from, to).unwrap(), &message(raw), offered)
    }

    const ASCII: &[u8] = b"Message-ID: <a@b>\nDate: x\n\nx\n";

    #[test]
    fn extensions_are_used_only_if_needed() {
        let plain = plan("a@b.example", &["c@d.example"], ASCII, &everything());
        assert_eq!(plain.mail, "MAIL FROM:<a@b.example> SIZE=33");
        assert_eq!(plain.rcpt(0), "RCPT TO:<c@d.example>");
        let null = plan("", &["c@d.example"], ASCII, &Capabilities::default());
        assert_eq!(null.mail, "MAIL FROM:<>");
        let eight = plan("", &["c@d"], b"A: b\n\n\xfc\n", &everything());
        assert!(eight.mail.ends_with(" BODY=8BITMIME"), "{}", eight.mail);
        let header = plan("", &["c@d"], "A: ü\n\nx\n".as_bytes(), &everything());
        assert!(header.mail.ends_with(" BODY=8BITMIME SMTPUTF8"), "{}", header.mail);
    }

    // Proves: B-utf8-local
    #[test]
    fn a_domain_alone_goes_as_a_labels() {
        let to = ["c@münchen.example", "d@e.example"];
        for offered in [everything(), Capabilities::default()] {
            let plan = plan("a@bücher.example", &to, ASCII, &offered);
            assert!(plan.mail.starts_with("MAIL FROM:<a@xn--bcher-kva.example>"), "{}", plan.mail);
            assert!(!plan.mail.contains("SMTPUTF8"));
            assert_eq!(plan.rcpt(0), "RCPT TO:<c@xn--mnchen-3ya.example>");
        }
    }

    #[test]
    fn smtputf8_keeps_addresses_as_they_are() {
        let plan = plan("a@b", &["jörg@münchen.example"], ASCII, &everything());
        assert!(plan.mail.ends_with("SMTPUTF8"));
        assert_eq!(plan.rcpt(0), "RCPT TO:<jörg@münchen.example>");
    }

    // Proves: B-utf8-local, B-8bit
    #[test]
    fn each_extension_is_named_only_if_it_is_offered() {
        let eight = b"A: b\n\n\xfc\n";
        let mail = |from: &str, to: &str, raw: &[u8], offered: &Capabilities| {
            let plan = plan(from, &[to], raw, offered);
            assert_eq!(plan.decided().collect::<Vec<_>>(), [None]);
            plan.mail
        };
        let only_eight = Capabilities { eight_bit_mime: true, ..Capabilities::default() };
        assert_eq!(mail("", "c@d", eight, &only_eight), "MAIL FROM:<> BODY=8BITMIME");
        assert_eq!(mail("", "c@d", ASCII, &only_eight), "MAIL FROM:<>");
        // SMTPUTF8 speaks of the header's bytes too, and goes with BODY=8BITMIME where there is that.
        let only_utf8 = Capabilities { smtp_utf8: true, ..Capabilities::default() };
        assert_eq!(mail("jörg@b", "c@d", ASCII, &only_utf8), "MAIL FROM:<jörg@b> SMTPUTF8");
        let both = Capabilities { smtp_utf8: true, ..only_eight };
        assert_eq!(mail("", "jörg@d", ASCII, &both), "MAIL FROM:<> BODY=8BITMIME SMTPUTF8");
    }

    #[test]
    fn a_message_of_exactly_the_largest_size_is_sent() {
        let size = |max_size| Capabilities { max_size: Some(max_size), ..Capabilities::default() };
        assert_eq!(plan("", &["c@d"], ASCII, &size(33)).mail, "MAIL FROM:<>");
        assert_eq!(plan("", &["c@d"], ASCII, &size(32)).mail, "");
    }

    #[test]
    fn what_is_decided_has_no_command() {
        let plan = plan("a@b", &["jörg@d", "c@１.２.３.４"], ASCII, &Capabilities::default());
        assert_eq!((plan.rcpt(0), plan.rcpt(1)), ("", ""));
        let told: Vec<_> = plan.decided().flatten().map(|o| o.reply().to_string()).collect();
        assert_eq!(
            told,
            [
                "550 5.6.7 the recipient is not ASCII and the relay does not offer SMTPUTF8",
                "553 5.1.3 the domain of the recipient is not a valid international domain name"
            ]
        );
    }

    #[test]
    fn a_domain_that_grows_too_long_has_no_ascii_form() {
        let label = "a".repeat(61);
        let longest = format!("ü.{label}.{label}.{label}.{label}");
        let ascii = ascii_domain(&longest).unwrap();
        assert_eq!((ascii.len(), ascii.starts_with("xn--tda.aaa")), (255, true), "{ascii}");
        assert_eq!(ascii_domain(&format!("{longest}a")), None);
        // A full-width per cent sign would become one.
        assert_eq!(ascii_domain("ü％41.example"), None);
        assert_eq!(ascii_domain("plain.example").as_deref(), Some("plain.example"));
    }

    #[test]
    fn what_the_relay_cannot_take_is_refused_by_name() {
        let none = Capabilities::default();
        let code = |plan: &Plan, index: usize| match &plan.recipients[index] {
            Err(Outcome::Refused(reply)) => reply.status().unwrap().to_string(),
            other => format!("{other:?}"),
        };
        let mixed = plan("a@b", &["jörg@d", "c@d"], ASCII, &none);
        assert_eq!(code(&mixed, 0), "5.6.7");
        assert_eq!(mixed.rcpt(1), "RCPT TO:<c@d>");
        assert_eq!(code(&plan("jörg@b", &["c@d"], ASCII, &none), 0), "5.6.7");
        assert_eq!(code(&plan("a@b", &["c@d"], b"A: b\n\n\xfc\n", &none), 0), "5.6.3");
        let no_utf8 = Capabilities { smtp_utf8: false, ..everything() };
        assert_eq!(code(&plan("a@b", &["c@d"], "A: ü\n\nx\n".as_bytes(), &no_utf8), 0), "5.6.7");
        let small = Capabilities { max_size: Some(10), ..everything() };
        assert_eq!(code(&plan("a@b", &["c@d"], ASCII, &small), 0), "5.3.4");
        // Full-width digits would become an IPv4 address.
        assert_eq!(ascii_domain("１.２.３.４"), None);
    }
}
