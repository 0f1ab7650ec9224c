//! Whether the relay is used, left alone or tried: a state machine without a clock.

use std::time::Duration;

use crate::config::Backoff;
use crate::plan::Sign;

/// What is known about the relay.
///
/// Usable until there is trouble; then paused; when the pause is over one message at a time is tried,
/// until one shows that the relay is usable again.
#[derive(Debug)]
pub(crate) struct Relay {
    state: State,
    /// Grows with every pause: signs of attempts that began before it say nothing new.
    epoch: u64,
    failures: u32,
    refusals: u32,
    wait: Duration,
    why: Option<String>,
    news: Vec<News>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Usable,
    Paused,
    Trial,
}

/// What the processor has to do and to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum News {
    /// Leave the relay alone. The text, if it is to be told, says why.
    Pause(Option<String>),
    /// It can be used again.
    Resumed,
}

impl Relay {
    pub(crate) fn new() -> Self {
        Self {
            state: State::Usable,
            epoch: 0,
            failures: 0,
            refusals: 0,
            wait: Duration::ZERO,
            why: None,
            news: Vec::new(),
        }
    }

    /// How many attempts may run at once.
    pub(crate) fn allowed(&self) -> usize {
        match self.state {
            State::Usable => usize::MAX,
            State::Paused => 0,
            State::Trial => 1,
        }
    }

    /// What an attempt that begins now has to bring back with its sign.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Why it is not used, if it is not.
    pub(crate) fn trouble(&self) -> Option<&str> {
        self.why.as_deref()
    }

    /// How long a pause lasts, if it is paused.
    pub(crate) fn pause_length(&self) -> Option<Duration> {
        (self.state == State::Paused).then_some(self.wait)
    }

    /// The pause is over.
    pub(crate) fn try_again(&mut self) {
        if self.state == State::Paused {
            self.state = State::Trial;
        }
    }

    pub(crate) fn take_news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    /// Takes notice of an attempt that began in `epoch`. Returns whether the relay's refusals are not
    /// to be believed, this one included.
    pub(crate) fn notice(&mut self, epoch: u64, sign: &Sign, rules: Rules<'_>) -> bool {
        match sign {
            Sign::None => {}
            Sign::Usable => {
                self.refusals = 0;
                self.resume(epoch);
            }
            Sign::Trouble(why) => self.pause(epoch, why, rules),
            Sign::Refusing(reply) => {
                self.refusals = self.refusals.saturating_add(1);
                if self.refusals < rules.max_refusals {
                    self.resume(epoch);
                } else {
                    let why = format!(
                        "the relay refused {} different messages in a row, the last with: {reply}",
                        self.refusals
                    );
                    self.pause(epoch, &why, rules);
                    return true;
                }
            }
        }
        false
    }

    fn resume(&mut self, epoch: u64) {
        if epoch == self.epoch && self.state != State::Usable {
            self.news.push(News::Resumed);
            self.state = State::Usable;
            self.failures = 0;
            self.why = None;
        }
    }

    fn pause(&mut self, epoch: u64, why: &str, rules: Rules<'_>) {
        if epoch != self.epoch {
            return;
        }
        let told = (self.state == State::Usable).then(|| why.to_owned());
        self.state = State::Paused;
        self.epoch += 1;
        self.failures = self.failures.saturating_add(1);
        self.why = Some(why.to_owned());
        self.wait = rules.pause.delay(self.failures, rules.luck);
        self.news.push(News::Pause(told));
    }
}

/// By what a relay is judged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules<'a> {
    pub(crate) pause: &'a Backoff,
    pub(crate) max_refusals: u32,
    /// From -1 to 1.
    pub(crate) luck: f64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sendmail_core::Reply;

    const PAUSE: Backoff = Backoff {
        first: Duration::from_secs(1),
        max: Duration::from_secs(300),
        jitter_percent: 20,
    };
    const RULES: Rules<'static> = Rules { pause: &PAUSE, max_refusals: 3, luck: 0.0 };

    fn trouble() -> Sign {
        Sign::Trouble("down".to_owned())
    }

    fn refusing() -> Sign {
        Sign::Refusing(Reply::new(550, "no"))
    }

    #[test]
    fn pauses_grow_and_are_told_once() {
        let mut relay = Relay::new();
        let (mut news, mut waits) = (Vec::new(), Vec::new());
        for _ in 0..10 {
            relay.notice(relay.epoch(), &trouble(), RULES);
            assert_eq!(relay.allowed(), 0);
            waits.push(relay.pause_length().unwrap().as_secs());
            relay.try_again();
            assert_eq!(relay.allowed(), 1);
            news.extend(relay.take_news());
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
        let told = news.iter().filter(|news| matches!(news, News::Pause(Some(_)))).count();
        assert_eq!(told, 1);
        relay.notice(relay.epoch(), &Sign::Usable, RULES);
        assert_eq!((relay.take_news(), relay.allowed()), (vec![News::Resumed], usize::MAX));
        assert_eq!(relay.trouble(), None);
    }

    #[test]
    fn many_that_fail_together_are_one_failure() {
        let mut relay = Relay::new();
        let began = relay.epoch();
        for _ in 0..16 {
            relay.notice(began, &trouble(), RULES);
        }
        assert_eq!(relay.take_news().len(), 1);
        relay.notice(began, &Sign::Usable, RULES);
        assert_eq!(relay.allowed(), 0, "what began before the pause does not end it");
    }

    #[test]
    fn refusals_in_a_row_pause_and_any_success_between_them_does_not() {
        let mut relay = Relay::new();
        for sign in [refusing(), refusing(), Sign::Usable, refusing(), refusing()] {
            assert!(!relay.notice(relay.epoch(), &sign, RULES));
        }
        assert!(relay.notice(relay.epoch(), &refusing(), RULES), "three in a row");
        assert_eq!(relay.allowed(), 0);
        relay.try_again();
        assert!(relay.notice(relay.epoch(), &refusing(), RULES), "still not believed");
        relay.try_again();
        relay.notice(relay.epoch(), &Sign::Usable, RULES);
        assert!(!relay.notice(relay.epoch(), &refusing(), RULES), "believed again");
    }

    proptest! {
        #[test]
        fn it_is_told_of_resuming_only_after_pausing(
            signs in proptest::collection::vec((0..4u8, any::<bool>(), 0..3u64), 0..60),
        ) {
            let mut relay = Relay::new();
            let mut paused = false;
            for (sign, try_again, old) in signs {
                let sign = match sign {
                    0 => trouble(),
                    1 => refusing(),
                    2 => Sign::Usable,
                    _ => Sign::None,
                };
                relay.notice(relay.epoch().saturating_sub(old), &sign, RULES);
                for news in relay.take_news() {
                    match news {
                        News::Pause(told) => {
                            prop_assert_eq!(told.is_none(), paused);
                            paused = true;
                        }
                        News::Resumed => {
                            prop_assert!(paused);
                            paused = false;
                        }
                    }
                }
                prop_assert_eq!(relay.allowed() == usize::MAX, !paused);
                prop_assert_eq!(relay.trouble().is_some(), paused);
                if try_again {
                    relay.try_again();
                }
            }
        }
    }
}
