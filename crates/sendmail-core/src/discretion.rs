//! Takes the addresses of other recipients out of what a relay answered to all.
//!
//! A relay may spell an address in another way than it was given: in another case, quoted or not, its
//! domain in Unicode or in ASCII. What is not ASCII has become `?` in a reply, by the byte or by the
//! character. All of these are found. Where it cannot be told whose an address is, it is taken out: a
//! reply that says too little is better than one that tells of a blind copy.

use std::collections::{HashMap, HashSet};

use crate::reply::Reply;
use crate::{Outcome, Recipient};

/// What stands in the place of an address.
const OTHER: &str = "[another recipient]";

/// How far before an `@` a local part is looked for: 64 characters, each of which may be quoted.
const LONGEST_LOCAL: usize = 130;

/// How many characters behind a domain may belong to the sentence around it.
const MOST_PUNCTUATION: usize = 8;

/// Takes the addresses of the others out of each recipient's reply.
pub(crate) fn keep(outcomes: &mut [(Recipient, Outcome)]) {
    let names_somebody = |(_, outcome): &(_, Outcome)| {
        let text = outcome.reply().text();
        text.contains('@') || text.len() >= Reply::MAX_TEXT
    };
    if outcomes.len() < 2 || !outcomes.iter().any(names_somebody) {
        return;
    }
    let all = Addresses::of(outcomes.iter().map(|(recipient, _)| recipient));
    // Mostly all have the same reply: it is looked through once.
    let (mut text, mut named) = (String::new(), Vec::new());
    for (recipient, outcome) in outcomes {
        let reply = outcome.reply_mut();
        if text != reply.text() {
            reply.text().clone_into(&mut text);
            named = all.named_in(&text);
        }
        if let Some(told) = all.without_others(&text, &named, &Address::of(recipient)) {
            *reply = reply.with_text(&told);
        }
    }
}

/// The spellings of one address, in lower case and in the characters of a reply.
struct Address {
    /// With its non-ASCII characters as one `?` for each byte, and as one for each character.
    spelled: [String; 2],
    /// Its local part, if its domain has a spelling in Unicode and one in ASCII.
    international: Option<[String; 2]>,
}

/// The spellings of all addresses.
struct Addresses {
    spelled: HashSet<String>,
    /// How many recipients with an international domain have this local part.
    international: HashMap<String, usize>,
}

/// What may be the address of somebody, and where it stands in a text.
struct Named {
    start: usize,
    at: usize,
    end: usize,
    /// What it means, in lower case; nothing if it was cut, so that nobody knows whose it is.
    address: Option<(String, String)>,
}

impl Address {
    fn of(recipient: &Recipient) -> Self {
        let local = unquoted(recipient.local_part());
        let is_international = is_international(&in_reply(recipient.domain())[0]);
        Self {
            spelled: in_reply(&format!("{local}@{}", recipient.domain())),
            international: is_international.then(|| in_reply(&local)),
        }
    }
}

impl Addresses {
    fn of<'a>(recipients: impl Iterator<Item = &'a Recipient>) -> Self {
        let mut all = Self { spelled: HashSet::new(), international: HashMap::new() };
        for address in recipients.map(Address::of) {
            all.spelled.extend(address.spelled);
            for local in address.international.map(HashSet::from).into_iter().flatten() {
                let count = all.international.entry(local).or_default();
                *count = count.saturating_add(1);
            }
        }
        all
    }

    /// The addresses in a text that may be somebody's. Of those around one `@` the longest comes first: what
    /// stands right before an address may be no part of it, as in `rcpt=a@b`.
    fn named_in(&self, text: &str) -> Vec<Named> {
        let part = |from: usize, to: usize| text.get(from..to).unwrap_or_default();
        let mut named = Vec::new();
        for (at, _) in text.match_indices('@') {
            let behind = at.saturating_add(1);
            let whole = domain_after(part(behind, text.len()));
            for (length, local) in locals_before(part(0, at)) {
                for domain in ends_of(whole) {
                    let lower = domain.to_ascii_lowercase();
                    if self.spelled.contains(&format!("{local}@{lower}"))
                        || (is_international(&lower) && self.international.contains_key(&local))
                    {
                        let (start, end) =
                            (at.saturating_sub(length), behind.saturating_add(domain.len()));
                        named.push(Named { start, at, end, address: Some((local.clone(), lower)) });
                    }
                }
            }
            if is_cut(text, whole) {
                let start = at.saturating_sub(word_before(part(0, at)).len());
                named.push(Named { start, at, end: text.len(), address: None });
            }
        }
        // Where a text was cut it may end in the middle of a local part.
        let word = text.rfind(' ').map_or(0, |space| space.saturating_add(1));
        let start = word.max(text.len().saturating_sub(LONGEST_LOCAL));
        if text.len() >= Reply::MAX_TEXT && !part(start, text.len()).contains('@') {
            named.push(Named { start, at: start, end: text.len(), address: None });
        }
        named
    }

    /// The text without the others' addresses; nothing if it has none of them.
    fn without_others(&self, text: &str, named: &[Named], own: &Address) -> Option<String> {
        let part = |from: usize, to: usize| text.get(from..to).unwrap_or_default();
        let mut kept = String::new();
        let (mut copied, mut judged) = (0, None);
        for Named { start, at, end, address } in named {
            if *start < copied || judged == Some(*at) {
                continue;
            }
            judged = Some(*at);
            if !address.as_ref().is_some_and(|(local, domain)| self.is_own(local, domain, own)) {
                kept.push_str(part(copied, *start));
                kept.push_str(OTHER);
                copied = *end;
            }
        }
        (copied > 0).then(|| kept + part(copied, text.len()))
    }

    /// Whether somebody's address is this recipient's and nobody else's.
    fn is_own(&self, local: &str, domain: &str, own: &Address) -> bool {
        let spelled = format!("{local}@{domain}");
        if own.spelled.contains(&spelled) || self.spelled.contains(&spelled) {
            return own.spelled.contains(&spelled);
        }
        let has_local = |locals: &[String; 2]| locals.iter().any(|own| own == local);
        own.international.as_ref().is_some_and(has_local)
            && self.international.get(local) == Some(&1)
    }
}

/// A text as it stands in a reply, in lower case: each byte or each character that is not ASCII as `?`.
fn in_reply(text: &str) -> [String; 2] {
    let shown = |c: char| if matches!(c, ' '..='~') { c.to_ascii_lowercase() } else { '?' };
    [text.bytes().map(|byte| shown(byte.into())).collect(), text.chars().map(shown).collect()]
}

/// Whether a domain, as it stands in a reply, has another spelling: an A-label or a U-label (RFC 5890).
fn is_international(domain: &str) -> bool {
    domain.contains('?') || domain.split('.').any(|label| label.starts_with("xn--"))
}

/// What a local part means, whether it is quoted or not (RFC 5321 section 4.1.2).
fn unquoted(local: &str) -> String {
    let Some(inner) = local.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return local.to_owned();
    };
    let mut characters = inner.chars();
    let mut meant = String::new();
    while let Some(character) = characters.next() {
        meant.extend(if character == '\\' { characters.next() } else { Some(character) });
    }
    meant
}

/// What may be the local part at the end of a text: its length there and what it means, the longest first.
fn locals_before(text: &str) -> Vec<(usize, String)> {
    // A quoted one begins with a quote, and may hold an @ of its own.
    let is_quoted = text.ends_with('"');
    let may_begin = |c: char| !is_quoted || c == '"';
    let mut locals: Vec<_> = text
        .char_indices()
        .rev()
        .take(LONGEST_LOCAL)
        .take_while(|(_, c)| is_quoted || *c != '@')
        .filter(|(_, c)| may_begin(*c))
        .filter_map(|(start, _)| text.get(start..))
        .map(|local| (local.len(), unquoted(local).to_ascii_lowercase()))
        .collect();
    locals.reverse();
    locals
}

/// The word at the end of a text, with what a local part may be made of.
fn word_before(text: &str) -> &str {
    let in_local = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.\"\\".contains(c);
    let word = text.trim_end_matches(in_local);
    text.get(word.len()..).unwrap_or_default()
}

/// The domain at the beginning of a text, with what may belong to the sentence.
fn domain_after(text: &str) -> &str {
    let in_domain = |c: char| c.is_ascii_alphanumeric() || "-._[]:?".contains(c);
    let end = text.find(|c| !in_domain(c)).unwrap_or(text.len());
    text.get(..end).unwrap_or_default()
}

/// What may be the domain: without punctuation that follows it. `a@b:unknown` names `a@b`, where
/// `a@[IPv6:::1]` is one address.
fn ends_of(domain: &str) -> Vec<&str> {
    let mut ends = vec![domain];
    let mut bare = domain;
    for _ in 0..MOST_PUNCTUATION {
        let Some(shorter) = bare.strip_suffix(['.', ':', '-', ']', '?']) else { break };
        ends.push(shorter);
        bare = shorter;
    }
    ends.extend(domain.split(':').next());
    ends
}

/// Whether a text was cut where it ends with this domain.
fn is_cut(text: &str, domain: &str) -> bool {
    text.len() >= Reply::MAX_TEXT && text.ends_with(domain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DeliveryReport, Envelope};
    use proptest::prelude::*;

    // Proves: I16
    #[test]
    fn a_local_part_that_was_cut_before_its_domain_is_taken_out() {
        let envelope = Envelope::parse("s@x", ["a@b.example", "hidden.person@b.example"]).unwrap();
        let filler = "no ".repeat(Reply::MAX_TEXT / 3);
        let text = format!("{}hidden.pers", &filler[..Reply::MAX_TEXT - 11]);
        let report = DeliveryReport::same(&envelope, &Outcome::Accepted(Reply::new(250, &text)));
        let mut texts = report.outcomes().iter().map(|(_, outcome)| outcome.reply().text());
        assert!(texts.all(|text| text.starts_with("no no") && !text.contains("hidden")));
    }

    // Proves: I16
    #[test]
    fn one_recipients_outcome_does_not_tell_of_another() {
        let envelope =
            Envelope::parse("s@x", ["a@b.example", "Hidden@b.example", "h@[192.0.2.1]"]).unwrap();
        let check = |text: &str, told: [&str; 3]| {
            let report = DeliveryReport::same(&envelope, &Outcome::Accepted(Reply::new(250, text)));
            let texts = report.outcomes().iter().map(|(_, outcome)| outcome.reply().text());
            assert_eq!(texts.collect::<Vec<_>>(), told, "{text}");
        };
        let other = "[another recipient]";
        check("2.0.0 queued as 1@host", ["queued as 1@host"; 3]);
        check(
            "for <a@b.example>, <hidden@B.example>.",
            [
                &format!("for <a@b.example>, <{other}>."),
                &format!("for <{other}>, <hidden@B.example>."),
                &format!("for <{other}>, <{other}>."),
            ],
        );
        check(
            "rcpt=a@b.example: ok, x@y h@[192.0.2.1]",
            [
                &format!("rcpt=a@b.example: ok, x@y {other}"),
                &format!("rcpt={other}: ok, x@y {other}"),
                &format!("rcpt={other}: ok, x@y h@[192.0.2.1]"),
            ],
        );
        check(
            "hidden@b.example.",
            [&format!("{other}."), "hidden@b.example.", &format!("{other}.")],
        );
        check(
            "hidden@b.example:unknown",
            [&format!("{other}:unknown"), "hidden@b.example:unknown", &format!("{other}:unknown")],
        );
        check("@ a@ @b @@ a@b", ["@ a@ @b @@ a@b"; 3]);
        let outcomes = ["a@b.example full", "no", "hidden@b.example"]
            .map(|text| Outcome::Deferred(Reply::new(450, &format!("4.2.2 {text}"))));
        let report = DeliveryReport::new(&envelope, outcomes.to_vec()).unwrap();
        let told: Vec<String> =
            report.outcomes().iter().map(|(_, outcome)| outcome.reply().to_string()).collect();
        assert_eq!(
            told,
            ["450 4.2.2 a@b.example full", "450 4.2.2 no", &format!("450 4.2.2 {other}")]
        );
    }

    /// What is told of each recipient, if the relay says this to all.
    #[track_caller]
    fn check(recipients: &[&str], text: &str, told: &[&str]) {
        let envelope = Envelope::parse("s@x", recipients).unwrap();
        let report = DeliveryReport::same(&envelope, &Outcome::Accepted(Reply::new(250, text)));
        let texts = report.outcomes().iter().map(|(_, outcome)| outcome.reply().text());
        assert_eq!(texts.collect::<Vec<_>>(), told, "{text}");
    }

    // Proves: I16
    #[test]
    fn an_address_is_found_however_the_relay_spells_it() {
        let hidden = |recipient: &str, text: &str| {
            let told = format!("ok {OTHER}!");
            let own = Reply::new(250, &format!("ok {text}!"));
            check(&["x@y", recipient], &format!("ok {text}!"), &[&told, own.text()]);
        };
        for text in ["jörg@b.example", "JöRG@B.Example", "j??rg@b.example", "\"j?rg\"@b.example"]
        {
            hidden("jörg@b.example", text);
        }
        for text in ["a b@c.d", "\"a b\"@c.d", "\"a\\ B\"@c.d"] {
            hidden("\"a b\"@c.d", text);
        }
        hidden("a.b@c.d", "\"a.b\"@c.d");
        hidden("\"a\\\"@b\"@c.d", "\"a\\\"@b\"@c.d");
        for text in ["u@münchen.example", "u@m??nchen.example", "U@XN--Mnchen-3ya.example"] {
            hidden("u@münchen.example", text);
            hidden("u@xn--mnchen-3ya.example", text);
        }
    }

    // Proves: I16
    #[test]
    fn what_is_ones_own_is_told_and_what_could_be_anothers_is_not() {
        let all = ["b@x", "ab@x", "u@ä.example", "u@ö.example"];
        check(&all, "ab@x", &[OTHER, "ab@x", OTHER, OTHER]);
        // Two whose spellings are the same in a reply cannot be told apart, and tell nothing of each other.
        check(&all, "u@ä.example", &[OTHER, OTHER, "u@?.example", "u@?.example"]);
        check(&all, "u@xn--4ca.example", &[OTHER; 4]);
    }

    // Proves: I16
    #[test]
    fn an_address_that_was_cut_is_taken_out() {
        let begin = "x".repeat(Reply::MAX_TEXT - 12);
        let text = format!("{begin} <hidden@exam");
        let cut = Reply::new(250, &format!("{text}ple.org> queued"));
        assert_eq!(cut.text(), &format!("{begin} <hidden@exa"));
        let told = Reply::new(250, &format!("{begin} <{OTHER}"));
        check(&["a@b", "hidden@example.org"], cut.text(), &[told.text(); 2]);
    }

    /// A local part and a domain, and how a relay may spell each.
    type Spellings = (&'static str, &'static [&'static str]);
    const LOCALS: [Spellings; 4] = [
        ("hidden", &["hidden", "Hidden", "\"hidden\""]),
        ("jörg", &["jörg", "JöRG", "j??rg", "\"jörg\""]),
        ("\"a b\"", &["\"a b\"", "a b", "\"A\\ b\""]),
        ("почта", &["почта", "??????????"]),
    ];
    const DOMAINS: [Spellings; 3] = [
        ("b.example", &["b.example", "B.EXAMPLE"]),
        (
            "münchen.example",
            &[
                "münchen.example",
                "m??nchen.example",
                "xn--mnchen-3ya.example",
                "XN--MNCHEN-3YA.example",
            ],
        ),
        ("[192.0.2.1]", &["[192.0.2.1]"]),
    ];

    proptest! {
        /// Wherever it stands and however it is spelled, another's address is not told, and one's own is.
        // Proves: I16
        #[test]
        fn nobody_is_told_of_another(
            local in 0..LOCALS.len(),
            domain in 0..DOMAINS.len(),
            spelled in any::<[prop::sample::Index; 2]>(),
            before in "([ -?A-~]{0,20}[ <(=:])?",
            after in "([ >),:;!][ -?A-~]{0,20}|[.?]( [ -?A-~]{0,20})?)?",
        ) {
            let ((local, locals), (domain, domains)) = (LOCALS[local], DOMAINS[domain]);
            let address = format!("{}@{}", spelled[0].get(locals), spelled[1].get(domains));
            let recipient = format!("{local}@{domain}");
            let envelope = Envelope::parse("s@x", [recipient.as_str(), "own@b.example"]).unwrap();
            let said = Reply::new(250, &format!("{before}{address}{after} own@b.example"));
            let report = DeliveryReport::same(&envelope, &Outcome::Accepted(said));
            let [hidden, own] = [0, 1].map(|at| report.outcomes()[at].1.reply().text().to_owned());
            let shown = Reply::new(250, &address).text().to_owned();
            prop_assert!(!own.contains(&shown), "{own}");
            prop_assert!(own.contains(OTHER) && own.ends_with(" own@b.example"), "{own}");
            prop_assert!(hidden.contains(&shown), "{hidden}");
            prop_assert!(hidden.ends_with(OTHER), "{hidden}");
        }

        #[test]
        fn any_text_is_looked_through(text in "([a-c]{0,2}[@.= <>\\[\\]:?é\"\\\\-]{0,2}){0,12}") {
            let envelope = Envelope::parse("s@x", ["a@b", "c@c", "\"a b\"@é"]).unwrap();
            let report = DeliveryReport::same(&envelope, &Outcome::Accepted(Reply::new(250, &text)));
            let told = report.outcomes()[1].1.reply().text();
            prop_assert!(!told.split([' ', '<', '>']).any(|word| word == "a@b"), "{told}");
        }
    }
}
