//! Whom a message names in its header.

use mail_parser::{Address, MessageParser};

/// The addresses in To, Cc and Bcc, in that order.
pub(crate) fn recipients(raw: &[u8]) -> Vec<String> {
    let parsed = MessageParser::default().parse_headers(raw);
    let Some(parsed) = parsed else { return Vec::new() };
    let lists = [parsed.to(), parsed.cc(), parsed.bcc()];
    let text = |address: &mail_parser::Addr<'_>| {
        // A name without an address is shown to the envelope, which says what is wrong with it.
        address.address.as_deref().or(address.name.as_deref()).map(str::to_owned)
    };
    lists
        .into_iter()
        .flatten()
        .flat_map(|list| match list {
            Address::List(list) => list.iter().filter_map(text).collect::<Vec<_>>(),
            Address::Group(groups) => {
                groups.iter().flat_map(|group| &group.addresses).filter_map(text).collect()
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipients_are_found_in_all_three_fields() {
        let raw = b"To: \"Doe, J\" <a@x>, b@x\nCc: Friends: c@x;\nBcc: d@x\nSubject: e@x\n\nf@x\n";
        assert_eq!(recipients(raw), ["a@x", "b@x", "c@x", "d@x"]);
        assert!(recipients(b"").is_empty());
    }
}
