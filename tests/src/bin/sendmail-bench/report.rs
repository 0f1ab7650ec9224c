//! What was measured, for people and for programs.

use serde_json::json;

/// The figures of one part.
#[derive(Debug)]
pub(crate) struct Table {
    title: String,
    count: usize,
    /// What is counted: `messages of 1 KiB`.
    what: &'static str,
    rows: Vec<Row>,
}

/// One contestant.
#[derive(Debug)]
struct Row {
    who: &'static str,
    /// How many per second, round by round.
    rates: Vec<f64>,
    /// Why it did not take part.
    absent: Option<String>,
}

impl Table {
    pub(crate) fn new(title: impl Into<String>, count: usize, what: &'static str) -> Self {
        Self { title: title.into(), count, what, rows: Vec::new() }
    }

    /// Notes how long `who` took for all of them.
    pub(crate) fn add(&mut self, who: &'static str, seconds: f64) {
        let rate = self.count as f64 / seconds.max(1e-9);
        self.row(who).rates.push(rate);
    }

    /// Notes why `who` does not take part.
    pub(crate) fn absent(&mut self, who: &'static str, why: &str) {
        self.row(who).absent = Some(why.to_owned());
    }

    fn row(&mut self, who: &'static str) -> &mut Row {
        let index = self.rows.iter().position(|row| row.who == who).unwrap_or_else(|| {
            self.rows.push(Row { who, rates: Vec::new(), absent: None });
            self.rows.len() - 1
        });
        &mut self.rows[index]
    }

    /// A table; the first row is what the others are compared with.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("{}: {} {}\n", self.title, self.count, self.what);
        let first = self.rows.first().and_then(Row::median);
        for row in &self.rows {
            let line = match (row.median(), &row.absent) {
                (Some(median), _) => {
                    let ratio = first.map_or(1.0, |first| median / first);
                    let (low, high) = row.range();
                    format!("{median:>8.0}/s  {ratio:>6.2} x   ({low:.0} to {high:.0})")
                }
                (None, why) => format!("not measured: {}", why.as_deref().unwrap_or("no round")),
            };
            text.push_str(&format!("  {:<44} {line}\n", row.who));
        }
        text
    }

    /// One object a line.
    pub(crate) fn json(&self) -> String {
        let row = |row: &Row| {
            json!({
                "part": self.title,
                "count": self.count,
                "what": self.what,
                "who": row.who,
                "median_per_second": row.median().map(f64::round),
                "per_second": row.rates.iter().map(|rate| rate.round()).collect::<Vec<_>>(),
                "absent": row.absent,
            })
            .to_string()
        };
        self.rows.iter().map(row).collect::<Vec<_>>().join("\n")
    }
}

impl Row {
    fn median(&self) -> Option<f64> {
        let mut sorted = self.rates.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => None,
            even if even % 2 == 0 => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
            _ => Some(sorted[middle]),
        }
    }

    fn range(&self) -> (f64, f64) {
        let low = self.rates.iter().copied().fold(f64::INFINITY, f64::min);
        (low, self.rates.iter().copied().fold(0.0, f64::max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_medians_ratios_and_who_is_absent() {
        let mut table = Table::new("drain", 100, "messages");
        for seconds in [1.0, 4.0, 2.0] {
            table.add("first", seconds);
        }
        table.add("second", 4.0);
        table.add("second", 1.0);
        table.absent("third", "it is not installed");
        assert_eq!(table.rows[0].median(), Some(50.0));
        assert_eq!(table.rows[1].median(), Some(62.5));
        let text = table.text();
        assert!(text.contains("1.25 x") && text.contains("not measured: it is not"), "{text}");
        assert_eq!(table.json().lines().count(), 3);
    }
}
