//! What a relay offers in its answer to EHLO.
// Its numbers come from outside.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use crate::config::Mechanism;
use crate::reply::WireReply;

/// The extensions that we use; none of them after HELO.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Capabilities {
    pub(crate) pipelining: bool,
    pub(crate) eight_bit_mime: bool,
    pub(crate) smtp_utf8: bool,
    pub(crate) starttls: bool,
    /// Whether SIZE is offered at all.
    pub(crate) size: bool,
    /// The largest message the relay says it takes; nothing if it names none, or 0 for "no limit".
    pub(crate) max_size: Option<u64>,
    pub(crate) mechanisms: Vec<Mechanism>,
}

impl Capabilities {
    /// From the answer to EHLO. The first line is the relay's name; keywords count in any case (RFC
    /// 5321 section 2.4); what is not understood is passed over.
    pub(crate) fn from_ehlo(reply: &WireReply) -> Self {
        let mut found = Self::default();
        for line in reply.lines().iter().skip(1) {
            // `AUTH=PLAIN LOGIN` was written by servers older than RFC 4954 and still is.
            let mut words = line.split([' ', '=']).filter(|word| !word.is_empty());
            let Some(keyword) = words.next() else { continue };
            match keyword.to_ascii_uppercase().as_str() {
                "PIPELINING" => found.pipelining = true,
                "8BITMIME" => found.eight_bit_mime = true,
                "SMTPUTF8" => found.smtp_utf8 = true,
                "STARTTLS" => found.starttls = true,
                "SIZE" => {
                    found.size = true;
                    found.max_size = words.next().and_then(|n| n.parse().ok()).filter(|n| *n > 0);
                }
                "AUTH" => found.mechanisms.extend(words.filter_map(Mechanism::from_word)),
                _ => {}
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply::read_reply;

    fn capabilities(reply: &str) -> Capabilities {
        Capabilities::from_ehlo(&read_reply(reply.as_bytes()).unwrap().unwrap())
    }

    #[test]
    fn keywords_count_in_any_case_and_the_name_is_not_one() {
        let found = capabilities(
            "250-pipelining.example\r\n250-Pipelining\r\n250-8bitMIME\r\n250-size 1000\r\n\
             250-StartTLS\r\n250-smtpUTF8\r\n250-Auth Plain login XOAUTH2 CRAM-MD5\r\n250 \r\n",
        );
        let mechanisms = vec![Mechanism::Plain, Mechanism::Login, Mechanism::Xoauth2];
        let all = Capabilities {
            pipelining: true,
            eight_bit_mime: true,
            smtp_utf8: true,
            starttls: true,
            size: true,
            max_size: Some(1000),
            mechanisms,
        };
        assert_eq!(found, all);
        assert_eq!(capabilities("250 PIPELINING\r\n"), Capabilities::default());
    }

    #[test]
    fn odd_lines_are_passed_over() {
        let found = capabilities("250-x\r\n250- \r\n250-SIZE much\r\n250-AUTH=LOGIN\r\n250 =\r\n");
        assert!(found.size && found.max_size.is_none());
        assert_eq!(found.mechanisms, [Mechanism::Login]);
        assert_eq!(capabilities("250-x\r\n250 SIZE 0\r\n").max_size, None);
    }
}
