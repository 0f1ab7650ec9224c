//! The ledger of long runs: all lines of a state file added up.

use std::collections::BTreeMap;
use std::fmt;

use super::record::{Fight, Line, Race};

/// What all rounds come to.
#[derive(Debug, Default)]
pub struct Sum {
    seeds: Vec<u64>,
    dates: Vec<String>,
    planned: u64,
    broken_off: u64,
    fights: u64,
    races: Vec<Race>,
    total: Fight,
    /// What is needed to look into each round in which a promise was broken.
    failures: Vec<String>,
}

impl Sum {
    /// Adds up.
    #[must_use]
    pub fn of(lines: &[Line]) -> Self {
        let mut sum = Self::default();
        for line in lines {
            match line {
                Line::Run(run) => {
                    sum.seeds.push(run.seed);
                    sum.planned += run.rounds + run.races;
                }
                Line::Begun { .. } => {}
                Line::Fight(fight) => {
                    sum.add(fight);
                    sum.fail(
                        line,
                        fight.round,
                        &fight.trouble,
                        &fight.command,
                        fight.kept.as_deref(),
                    );
                }
                Line::Race(race) => {
                    sum.dates.push(race.date.clone());
                    sum.races.push(race.clone());
                    let command = "cargo xtask crash-test --long --races 1 --rounds 0";
                    sum.fail(line, race.round, &race.trouble, command, race.kept.as_deref());
                }
            }
        }
        // A round that begins behind one without a result; the last one may still run.
        let begun = |line: &Line| matches!(line, Line::Begun { .. });
        let pairs = lines.windows(2).filter(|pair| pair.iter().all(begun));
        sum.broken_off = pairs.count() as u64;
        sum.dates.sort();
        sum
    }

    /// Whether every promise was kept in every round.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.failures.is_empty()
    }

    fn add(&mut self, fight: &Fight) {
        self.fights += 1;
        self.dates.push(fight.date.clone());
        let total = &mut self.total;
        total.seconds += fight.seconds;
        for (to, from) in [
            (&mut total.producers, fight.producers),
            (&mut total.processors, fight.processors),
            (&mut total.servers, fight.servers),
            (&mut total.stops, fight.stops),
            (&mut total.mails, fight.mails),
            (&mut total.committed, fight.committed),
            (&mut total.rolled_back, fight.rolled_back),
            (&mut total.in_doubt, fight.in_doubt),
            (&mut total.copies, fight.copies),
            (&mut total.second_copies, fight.second_copies),
            (&mut total.events, fight.events),
            (&mut total.lost, fight.lost),
            (&mut total.phantom, fight.phantom),
            (&mut total.half, fight.half),
        ] {
            *to += from;
        }
        for (mistake, count) in &fight.mistakes {
            *total.mistakes.entry(mistake.clone()).or_default() += count;
        }
    }

    fn fail(&mut self, line: &Line, round: u64, why: &[String], command: &str, kept: Option<&str>) {
        if line.is_clean() {
            return;
        }
        let mut text = format!("round {}: {line}\n", round + 1);
        for reason in why {
            text += &format!("    {reason}\n");
        }
        let kept = kept.unwrap_or("nowhere");
        text += &format!("    repeat it: {command}\n    its queue is kept in {kept}");
        self.failures.push(text);
    }

    /// Promises that were broken and are none of the three that are always named.
    fn others(&self) -> BTreeMap<&str, u64> {
        let named = ["lost", "sent after rollback", "half transactions"];
        let all = self.total.mistakes.iter().map(|(name, count)| (name.as_str(), *count));
        all.filter(|(name, _)| !named.contains(name)).collect()
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let done = self.fights + self.races.len() as u64;
        let seeds: Vec<String> = self.seeds.iter().map(u64::to_string).collect();
        let (first, last) = (self.dates.first(), self.dates.last());
        let date =
            |date: Option<&String>| date.map_or("-", |date| &date[..date.len().min(16)]).to_owned();
        writeln!(f, "long runs, seeds {}", seeds.join(", "))?;
        writeln!(f, "  {} to {} UTC", date(first), date(last))?;
        let (planned, broken_off) = (self.planned, self.broken_off);
        let rounds = format!("{done} of {planned} rounds, {broken_off} broken off and begun anew");
        writeln!(f, "  {rounds}, {:.0} min", self.minutes())?;
        let total = &self.total;
        let kills = format!(
            "{} producers, {} processors, {} database servers",
            total.producers, total.processors, total.servers
        );
        writeln!(f, "  {:<28} {:>7}  {kills}", "kills", total.kills())?;
        for (what, count) in [
            ("stopped for a while", total.stops),
            ("mails", total.mails),
            ("transactions committed", total.committed),
            ("rolled back", total.rolled_back),
            ("killed in the commit", total.in_doubt),
            ("copies received", total.copies),
            ("second copies", total.second_copies),
            ("possible-duplicate events", total.events),
            ("lost", total.lost),
            ("sent after rollback", total.phantom),
            ("half transactions", total.half),
        ] {
            writeln!(f, "  {what:<28} {count:>7}")?;
        }
        for (mistake, count) in self.others() {
            writeln!(f, "  {mistake:<28} {count:>7}")?;
        }
        let messages: usize = self.races.iter().map(|race| race.messages).sum();
        let doubles: usize = self.races.iter().map(|race| race.doubles).sum();
        let races = format!("for {messages} messages, {doubles} claimed twice");
        writeln!(f, "  {:<28} {:>7}  {races}", "takeover races", self.races.len())?;
        for failure in &self.failures {
            writeln!(f, "{failure}")?;
        }
        if self.is_clean() { write!(f, "every promise was kept") } else { write!(f, "FAILED") }
    }
}

impl Sum {
    fn minutes(&self) -> f64 {
        let races: f64 = self.races.iter().map(|race| race.seconds).sum();
        (self.total.seconds + races) / 60.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fight(round: u64) -> Fight {
        Fight {
            seed: 7,
            round,
            date: format!("2026-11-2{round}T10:00:00.000Z"),
            command: format!("repeat {round}"),
            producers: 3,
            processors: 5,
            mails: 100,
            second_copies: 1,
            events: 2,
            ..Fight::default()
        }
    }

    #[test]
    fn rounds_are_added_up() {
        let date = "2026-11-23T09:00:00.000Z".to_owned();
        let race = Race { messages: 10, claimed: 10, date, ..Race::default() };
        let sum = Sum::of(&[Line::Fight(fight(1)), Line::Fight(fight(2)), Line::Race(race)]);
        assert!(sum.is_clean());
        assert_eq!((sum.total.kills(), sum.total.mails, sum.total.events), (16, 200, 4));
        let text = sum.to_string();
        assert!(text.contains("2026-11-21T10:00 to 2026-11-23T09:00 UTC"), "{text}");
        assert!(text.ends_with("every promise was kept"), "{text}");
    }

    #[test]
    fn a_round_that_was_broken_off_is_told_and_one_that_runs_is_not() {
        let begun = |round| Line::Begun { seed: 7, round, folder: String::new() };
        let lines = [begun(0), begun(0), Line::Fight(fight(0)), begun(1)];
        assert_eq!(Sum::of(&lines).broken_off, 1);
        assert_eq!(Sum::of(&lines[1..]).broken_off, 0);
    }

    #[test]
    fn one_broken_promise_in_any_round_is_told_with_its_command() {
        let mut bad = fight(2);
        bad.lost = 1;
        bad.mistakes.insert("lost".to_owned(), 1);
        bad.trouble.push("lost: a to b".to_owned());
        bad.kept = Some("/tmp/kept".to_owned());
        let sum = Sum::of(&[Line::Fight(fight(1)), Line::Fight(bad), Line::Fight(fight(3))]);
        assert!(!sum.is_clean());
        let text = sum.to_string();
        for part in ["repeat 2", "/tmp/kept", "lost: a to b", "FAILED"] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
        assert!(!text.contains("repeat 1"), "{text}");
    }

    #[test]
    fn a_double_claim_a_missing_one_and_a_racer_in_trouble_are_broken_promises() {
        let good = Race { messages: 10, claimed: 10, ..Race::default() };
        for bad in [
            Race { doubles: 1, ..good.clone() },
            Race { claimed: 9, ..good.clone() },
            Race { trouble: vec!["lost its claim".to_owned()], ..good },
        ] {
            assert!(!Sum::of(&[Line::Race(bad.clone())]).is_clean(), "{bad:?}");
        }
    }
}
