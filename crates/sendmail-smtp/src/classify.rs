//! From replies to outcomes. Pure: no socket, no clock.

use sendmail_core::{Outcome, Reply};

use crate::reply::WireReply;

/// What follows from a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// On with the transaction.
    Go,
    /// The transaction is over, and the connection is in order.
    Stop,
    /// The connection is of no use any more.
    Lost,
}

/// Where one recipient stands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Slot {
    /// Not tried yet, or to be tried again in a further transaction.
    Open,
    /// RCPT was accepted in the present transaction.
    Taken,
    /// The relay takes no more recipients in this transaction.
    Postponed(Reply),
    Decided(Outcome),
}

/// The account of one attempt: what is known of each recipient, in the envelope's order.
#[derive(Debug, Clone)]
pub(crate) struct Ledger {
    slots: Vec<Slot>,
    transaction: Transaction,
}

/// What the present transaction is, as far as it matters whether a relay can find its recipients too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transaction {
    NotBegun,
    /// The first of the attempt, with one recipient only.
    OfOne,
    /// With several, or after another: the relay may count those as well.
    Other,
}

impl Ledger {
    /// An account with what was decided without asking the relay.
    pub(crate) fn new(decided: impl IntoIterator<Item = Option<Outcome>>) -> Self {
        let slots = decided.into_iter().map(|slot| slot.map_or(Slot::Open, Slot::Decided));
        Self { slots: slots.collect(), transaction: Transaction::NotBegun }
    }

    /// The recipients for the next transaction. Invariant: it is not empty again and again, since
    /// nobody is postponed unless somebody was taken, and whoever was taken is decided.
    pub(crate) fn begin(&mut self) -> Vec<usize> {
        for slot in &mut self.slots {
            if matches!(slot, Slot::Postponed(_)) {
                *slot = Slot::Open;
            }
        }
        let open = self.indices(|slot| *slot == Slot::Open);
        self.transaction = match self.transaction {
            Transaction::NotBegun if open.len() == 1 => Transaction::OfOne,
            _ => Transaction::Other,
        };
        open
    }

    /// Whether RCPT was accepted for anybody in the present transaction.
    pub(crate) fn anybody_taken(&self) -> bool {
        self.slots.contains(&Slot::Taken)
    }

    /// Whether a further transaction has to follow, whatever becomes of the present one.
    pub(crate) fn anybody_postponed(&self) -> bool {
        self.slots.iter().any(|slot| matches!(slot, Slot::Postponed(_)))
    }

    /// Judges the reply to MAIL, which counts for all.
    pub(crate) fn mail(&mut self, reply: &WireReply) -> Step {
        if reply.is_class(2) {
            return Step::Go;
        }
        self.decide(|slot| *slot == Slot::Open, &refused_or_deferred(reply));
        if reply.code() == 421 || reply.is_class(3) { Step::Lost } else { Step::Stop }
    }

    /// Judges the reply to the RCPT of recipient `index`.
    ///
    /// "Too many recipients" asks for the message to be sent in parts (RFC 3463 section 3.6, X.5.3). If
    /// nobody was accepted before, there may be none now, and the recipient is deferred: also by a 552,
    /// which RFC 5321 section 4.5.3.1.10 wants to be taken for a 452. But if one recipient was all that was
    /// ever asked for, the message cannot be parted any further, and nothing will change: a 5yz with the
    /// status X.5.3 is the refusal that its code says. A relay that means its own limits and not the
    /// transaction says so with a 4yz.
    pub(crate) fn rcpt(&mut self, index: usize, reply: &WireReply) -> Step {
        if reply.code() == 421 || reply.is_class(3) {
            self.lost(&reply.to_reply());
            return Step::Lost;
        }
        let too_many = means_too_many(reply);
        let judged = match reply.code() / 100 {
            2 => Slot::Taken,
            _ if too_many && self.anybody_taken() => Slot::Postponed(reply.to_reply()),
            5 if self.transaction == Transaction::OfOne && has_status(reply) => {
                Slot::Decided(refused_or_deferred(reply))
            }
            _ if too_many => Slot::Decided(deferred(&reply.to_reply())),
            _ => Slot::Decided(refused_or_deferred(reply)),
        };
        if let Some(slot) = self.slots.get_mut(index) {
            *slot = judged;
        }
        Step::Go
    }

    /// Judges the reply to DATA, which counts for everybody who was taken.
    pub(crate) fn data(&mut self, reply: &WireReply) -> Step {
        match reply.code() / 100 {
            3 => Step::Go,
            2 => self.unexpected(reply),
            _ if reply.code() == 421 => self.unexpected(reply),
            _ => {
                self.decide(|slot| *slot == Slot::Taken, &refused_or_deferred(reply));
                Step::Stop
            }
        }
    }

    /// Judges a reply that came before the final dot was sent, whose message is not complete.
    pub(crate) fn early(&mut self, reply: &WireReply) -> Step {
        self.decide(|slot| *slot == Slot::Taken, &refused_or_deferred(reply));
        self.unexpected(reply)
    }

    /// Judges the reply to the final dot.
    pub(crate) fn dot(&mut self, reply: &WireReply) -> Step {
        let text = reply.to_reply();
        match reply.code() / 100 {
            2 => self.decide(|slot| *slot == Slot::Taken, &Outcome::Accepted(text)),
            // A 421 says that the relay goes away, not what became of the message; a 3yz says nothing.
            _ if reply.code() == 421 || reply.is_class(3) => {
                self.lost_after_dot(&text);
                return Step::Lost;
            }
            _ => self.decide(|slot| *slot == Slot::Taken, &refused_or_deferred(reply)),
        }
        Step::Stop
    }

    /// The connection is gone, and no final dot was sent: whoever has no result is deferred.
    pub(crate) fn lost(&mut self, why: &Reply) {
        self.decide(|slot| !matches!(slot, Slot::Decided(_)), &deferred(why));
    }

    /// The connection is gone, and the final dot may have reached the relay.
    pub(crate) fn lost_after_dot(&mut self, why: &Reply) {
        self.decide(|slot| *slot == Slot::Taken, &Outcome::Unknown(why.clone()));
        self.lost(why);
    }

    /// One outcome for each recipient.
    pub(crate) fn finish(self) -> Vec<Outcome> {
        let nobody_said = || Outcome::Deferred(Reply::local(451, "4.3.0", "not attempted"));
        let outcome = |slot| match slot {
            Slot::Decided(outcome) => outcome,
            Slot::Postponed(reply) => Outcome::Deferred(reply),
            Slot::Open | Slot::Taken => nobody_said(),
        };
        self.slots.into_iter().map(outcome).collect()
    }

    fn unexpected(&mut self, reply: &WireReply) -> Step {
        self.lost(&reply.to_reply());
        Step::Lost
    }

    fn indices(&self, which: impl Fn(&Slot) -> bool) -> Vec<usize> {
        self.slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| which(slot))
            .map(|(index, _)| index)
            .collect()
    }

    fn decide(&mut self, which: impl Fn(&Slot) -> bool, outcome: &Outcome) {
        for slot in self.slots.iter_mut().filter(|slot| which(slot)) {
            *slot = Slot::Decided(outcome.clone());
        }
    }
}

/// Whether a reply to MAIL speaks of the connection, not of the message: authentication or encryption
/// is asked for (RFC 4954 section 6, RFC 3207 section 4). That is the relay's trouble, and every
/// message would get it.
pub(crate) fn wants_authentication(reply: &WireReply) -> bool {
    matches!(reply.code(), 530 | 534 | 535 | 538)
}

/// An enhanced status tells what is meant (RFC 3463: X.5.3 is "too many recipients"), whatever the code:
/// OpenSMTPD says it with a 451. Without one 452 and 552 mean, in reply to RCPT, what RFC 5321 section
/// 4.5.3.1.10 says.
fn means_too_many(reply: &WireReply) -> bool {
    match reply.to_reply().status().map(|status| status.to_string()) {
        Some(status) => matches!(status.as_str(), "4.5.3" | "5.5.3"),
        None => matches!(reply.code(), 452 | 552),
    }
}

fn has_status(reply: &WireReply) -> bool {
    reply.to_reply().status().is_some()
}

fn refused_or_deferred(reply: &WireReply) -> Outcome {
    let text = reply.to_reply();
    if reply.is_class(5) { Outcome::Refused(text) } else { deferred(&text) }
}

/// Deferred, in words that read so: a 2yz or 3yz where it has no place is quoted, not repeated.
fn deferred(reply: &Reply) -> Outcome {
    if matches!(reply.code() / 100, 4 | 5) {
        return Outcome::Deferred(reply.clone());
    }
    let text = format!("the relay answered {reply} out of turn");
    Outcome::Deferred(Reply::local(451, "4.5.0", text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply::read_reply;
    use proptest::prelude::*;

    fn reply(line: &str) -> WireReply {
        read_reply(format!("{line}\r\n").as_bytes()).unwrap().unwrap()
    }

    fn words(ledger: Ledger) -> String {
        let word = |outcome: &Outcome| match outcome {
            Outcome::Accepted(_) => "accepted",
            Outcome::Deferred(_) => "deferred",
            Outcome::Refused(_) => "refused",
            Outcome::Unknown(_) => "unknown",
        };
        ledger.finish().iter().map(word).collect::<Vec<_>>().join(" ")
    }

    fn new(count: usize) -> Ledger {
        Ledger::new(vec![None; count])
    }

    #[test]
    fn each_recipient_gets_what_was_said_of_it() {
        let mut ledger = new(4);
        assert_eq!(ledger.begin(), [0, 1, 2, 3]);
        assert_eq!(ledger.mail(&reply("250")), Step::Go);
        for (index, line) in
            ["250 ok", "450 later", "571 5.7.1 no", "251 forwarded"].iter().enumerate()
        {
            assert_eq!(ledger.rcpt(index, &reply(line)), Step::Go);
        }
        assert_eq!(ledger.data(&reply("354 go")), Step::Go);
        assert_eq!(ledger.dot(&reply("250")), Step::Stop);
        assert!(ledger.begin().is_empty());
        assert_eq!(words(ledger), "accepted deferred refused accepted");
    }

    #[test]
    fn too_many_recipients_wait_for_a_further_transaction() {
        for line in ["452 too many", "552 too many", "452 4.5.3 x", "552 5.5.3 x", "451 4.5.3 x"] {
            let mut ledger = new(3);
            ledger.begin();
            ledger.rcpt(0, &reply("250"));
            ledger.rcpt(1, &reply(line));
            ledger.rcpt(2, &reply("550 no"));
            ledger.data(&reply("354"));
            ledger.dot(&reply("250"));
            assert_eq!(ledger.begin(), [1], "{line}");
            ledger.rcpt(1, &reply(line));
            assert!(ledger.begin().is_empty());
            assert_eq!(words(ledger), "accepted deferred refused", "{line}");
        }
    }

    #[test]
    fn too_many_is_final_only_for_a_recipient_who_was_alone_from_the_start() {
        let never = || Outcome::Refused(Reply::new(553, "never"));
        // Of several, to the first: with fewer it may go another time.
        let mut ledger = new(2);
        ledger.begin();
        ledger.rcpt(0, &reply("550 5.5.3 too many"));
        ledger.rcpt(1, &reply("550 5.5.3 too many"));
        assert!(ledger.begin().is_empty());
        assert_eq!(words(ledger), "deferred deferred");
        // Alone in a second transaction: the relay may count for the whole connection.
        let mut ledger = new(2);
        ledger.begin();
        ledger.rcpt(0, &reply("250"));
        ledger.rcpt(1, &reply("550 5.5.3 too many"));
        ledger.dot(&reply("250"));
        assert_eq!(ledger.begin(), [1]);
        ledger.rcpt(1, &reply("550 5.5.3 too many"));
        assert_eq!(words(ledger), "accepted deferred");
        // The relay was asked for one only, since the other was decided without it.
        let mut ledger = Ledger::new([Some(never()), None]);
        assert_eq!(ledger.begin(), [1]);
        ledger.rcpt(1, &reply("550 5.5.3 too many"));
        assert_eq!(words(ledger), "refused refused");
    }

    #[test]
    fn a_full_mailbox_is_not_too_many_recipients() {
        let mut ledger = new(3);
        ledger.begin();
        ledger.rcpt(0, &reply("250"));
        ledger.rcpt(1, &reply("452 4.2.2 over quota"));
        ledger.rcpt(2, &reply("552 5.2.2 over quota"));
        ledger.dot(&reply("250"));
        assert_eq!(words(ledger), "accepted deferred refused");
    }

    #[test]
    fn only_a_2yz_after_the_dot_is_a_success() {
        for (line, word) in [
            ("250", "accepted"),
            ("200 x", "accepted"),
            ("299 x", "accepted"),
            ("354 go on", "unknown"),
            ("421 bye", "unknown"),
            ("451 later", "deferred"),
            ("554 no", "refused"),
        ] {
            let mut ledger = new(1);
            ledger.begin();
            ledger.rcpt(0, &reply("250"));
            ledger.dot(&reply(line));
            assert_eq!(words(ledger), word, "{line}");
        }
    }

    #[test]
    fn a_loss_before_the_dot_defers_whoever_has_no_result() {
        let mut ledger = new(3);
        ledger.begin();
        ledger.rcpt(0, &reply("250"));
        ledger.rcpt(1, &reply("550"));
        assert_eq!(ledger.rcpt(2, &reply("421 bye")), Step::Lost);
        assert_eq!(words(ledger), "deferred refused deferred");
    }

    /// A ledger of four: the first is taken, the second refused, the third postponed, the fourth open.
    fn in_the_middle() -> Ledger {
        let mut ledger = new(4);
        ledger.begin();
        ledger.rcpt(0, &reply("250"));
        ledger.rcpt(1, &reply("550 no"));
        ledger.rcpt(2, &reply("452 too many"));
        ledger
    }

    #[track_caller]
    fn check(judge: impl Fn(&mut Ledger, &WireReply) -> Step, cases: &[(&str, Step, &str)]) {
        for (line, step, expected) in cases {
            let mut ledger = in_the_middle();
            assert_eq!(judge(&mut ledger, &reply(line)), *step, "{line}");
            assert_eq!(words(ledger), *expected, "{line}");
        }
    }

    #[test]
    fn the_reply_to_mail_counts_for_whoever_is_open() {
        for (line, step, expected) in [
            ("250 ok", Step::Go, "deferred refused"),
            ("299 odd", Step::Go, "deferred refused"),
            ("354 odd", Step::Lost, "deferred refused"),
            ("421 bye", Step::Lost, "deferred refused"),
            ("450 later", Step::Stop, "deferred refused"),
            ("550 no", Step::Stop, "refused refused"),
        ] {
            let decided = Outcome::Refused(Reply::new(553, "never"));
            let mut ledger = Ledger::new([None, Some(decided)]);
            assert_eq!(ledger.begin(), [0]);
            assert_eq!(ledger.mail(&reply(line)), step, "{line}");
            let still_open = ledger.begin() == [0];
            assert_eq!(still_open, step == Step::Go, "{line}");
            assert_eq!(words(ledger), expected, "{line}");
        }
    }

    #[test]
    fn the_reply_to_data_counts_for_whoever_is_taken() {
        check(
            Ledger::data,
            &[
                ("354 go", Step::Go, "deferred refused deferred deferred"),
                ("250 odd", Step::Lost, "deferred refused deferred deferred"),
                ("421 bye", Step::Lost, "deferred refused deferred deferred"),
                ("451 later", Step::Stop, "deferred refused deferred deferred"),
                ("554 no", Step::Stop, "refused refused deferred deferred"),
            ],
        );
        let mut ledger = in_the_middle();
        ledger.data(&reply("451 later"));
        assert_eq!(ledger.begin(), [2, 3], "whom it did not count for may be tried again");
    }

    #[test]
    fn a_reply_before_the_dot_loses_the_connection_and_only_a_5yz_refuses() {
        check(
            Ledger::early,
            &[
                ("250 odd", Step::Lost, "deferred refused deferred deferred"),
                ("354 odd", Step::Lost, "deferred refused deferred deferred"),
                ("421 bye", Step::Lost, "deferred refused deferred deferred"),
                ("451 later", Step::Lost, "deferred refused deferred deferred"),
                ("554 no", Step::Lost, "refused refused deferred deferred"),
            ],
        );
    }

    #[test]
    fn the_reply_to_the_dot_counts_for_whoever_is_taken() {
        check(
            Ledger::dot,
            &[
                ("250 ok", Step::Stop, "accepted refused deferred deferred"),
                ("354 odd", Step::Lost, "unknown refused deferred deferred"),
                ("421 bye", Step::Lost, "unknown refused deferred deferred"),
                ("451 later", Step::Stop, "deferred refused deferred deferred"),
                ("554 no", Step::Stop, "refused refused deferred deferred"),
            ],
        );
    }

    #[test]
    fn a_reply_to_rcpt_that_is_out_of_turn_loses_the_connection() {
        for (line, step, expected) in [
            ("354 odd", Step::Lost, "deferred"),
            ("421 bye", Step::Lost, "deferred"),
            ("452 too many", Step::Go, "deferred"),
            ("552 too many", Step::Go, "deferred"),
            ("452 4.2.2 full", Step::Go, "deferred"),
            ("451 4.5.3 too many", Step::Go, "deferred"),
            ("550 5.5.3 too many", Step::Go, "refused"),
            ("552 5.5.3 too many", Step::Go, "refused"),
            ("552 5.2.2 full", Step::Go, "refused"),
        ] {
            let mut ledger = new(1);
            ledger.begin();
            assert_eq!(ledger.rcpt(0, &reply(line)), step, "{line}");
            assert!(!ledger.anybody_taken());
            // Nobody is postponed where nobody was taken, or it would go on for ever.
            assert!(ledger.begin().is_empty(), "{line}");
            assert_eq!(words(ledger), expected, "{line}");
        }
        let mut ledger = new(2);
        ledger.begin();
        ledger.rcpt(0, &reply("250"));
        ledger.rcpt(1, &reply("552 5.2.2 full"));
        assert_eq!(words(ledger), "deferred refused", "where there is a status it decides");
    }

    #[test]
    fn what_is_told_is_what_the_relay_said_and_quoted_where_it_makes_no_sense() {
        let texts = |ledger: Ledger| {
            let text = |outcome: &Outcome| outcome.reply().to_string();
            ledger.finish().iter().map(text).collect::<Vec<_>>()
        };
        let mut ledger = in_the_middle();
        ledger.dot(&reply("451 4.3.0 later"));
        let not_attempted = "451 4.3.0 not attempted";
        assert_eq!(texts(ledger), ["451 4.3.0 later", "550 no", "452 too many", not_attempted]);
        let mut ledger = in_the_middle();
        ledger.data(&reply("250 odd"));
        let quoted = "451 4.5.0 the relay answered 250 odd out of turn";
        assert_eq!(texts(ledger), [quoted, "550 no", quoted, quoted]);
        let mut ledger = in_the_middle();
        ledger.dot(&reply("421 bye"));
        assert_eq!(texts(ledger), ["421 bye", "550 no", "421 bye", "421 bye"]);
    }

    #[test]
    fn only_some_codes_ask_for_authentication() {
        let asks = |code: &u16| wants_authentication(&reply(&format!("{code} x")));
        assert_eq!((200..600).filter(asks).collect::<Vec<_>>(), [530, 534, 535, 538]);
    }

    proptest! {
        /// Whatever the relay says: one outcome each, success only by a 2yz to RCPT and dot, and a
        /// refusal only by a 5yz.
        #[test]
        fn no_reply_makes_up_a_success_or_a_refusal(
            mail in 200u16..600,
            rcpts in proptest::collection::vec(200u16..600, 1..8),
            data in 200u16..600,
            dot in 200u16..600,
        ) {
            let line = |code: u16| reply(&format!("{code} x"));
            let mut ledger = new(rcpts.len());
            ledger.begin();
            let mut step = ledger.mail(&line(mail));
            for (index, code) in rcpts.iter().enumerate() {
                if step == Step::Go {
                    step = ledger.rcpt(index, &line(*code));
                }
            }
            if step == Step::Go {
                step = ledger.data(&line(data));
            }
            let sent = step == Step::Go && ledger.anybody_taken();
            if sent {
                ledger.dot(&line(dot));
            }
            let outcomes = ledger.finish();
            prop_assert_eq!(outcomes.len(), rcpts.len());
            for (outcome, rcpt) in outcomes.iter().zip(&rcpts) {
                let codes = [mail, *rcpt, data, dot];
                match outcome {
                    Outcome::Accepted(_) => prop_assert!(sent && rcpt / 100 == 2 && dot / 100 == 2),
                    Outcome::Refused(_) => prop_assert!(codes.iter().any(|code| code / 100 == 5)),
                    Outcome::Unknown(_) => prop_assert!(sent && (dot == 421 || dot / 100 == 3)),
                    Outcome::Deferred(reply) => prop_assert!(reply.code() >= 400),
                }
            }
        }
    }
}
