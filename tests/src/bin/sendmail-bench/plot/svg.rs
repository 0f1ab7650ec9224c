//! Bar charts as SVG, without anybody's help.

use std::fmt::Write as _;

use crate::report::number;

const LABELS: f64 = 400.0;
const BARS: f64 = 360.0;
const VALUES: f64 = 80.0;
const LINE: f64 = 24.0;
const TOP: f64 = 40.0;
const MARGIN: f64 = 12.0;

const OURS: &str = "#2a6f97";
const THEIRS: &str = "#a9b4bd";
const INK: &str = "#222";

/// A chart with a bar in each line.
pub(super) struct Chart {
    pub(super) title: String,
    pub(super) scale: Scale,
    pub(super) bars: Vec<Bar>,
}

/// How long a bar is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Scale {
    /// As long as its value is large.
    FromZero,
    /// From the middle, which is one, to the right for more and to the left for less; each side ends at
    /// so many times, and each doubling is as long as the other.
    AroundOne(f64),
}

/// One bar.
pub(super) struct Bar {
    pub(super) label: String,
    pub(super) value: f64,
    /// The lowest and the highest.
    pub(super) range: Option<(f64, f64)>,
    /// Whether it stands out.
    pub(super) ours: bool,
}

impl Chart {
    /// The picture.
    pub(super) fn svg(&self) -> String {
        let width = LABELS + BARS + VALUES + 2.0 * MARGIN;
        let height = TOP + LINE * self.bars.len() as f64 + MARGIN;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
             font-family=\"sans-serif\" font-size=\"13\" fill=\"{INK}\" role=\"img\">\n\
             <title>{title}</title>\n\
             <rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n\
             <text x=\"{MARGIN}\" y=\"24\" font-weight=\"bold\">{title}</text>\n",
            title = escaped(&self.title)
        );
        for (index, bar) in self.bars.iter().enumerate() {
            self.add(&mut svg, bar, TOP + LINE * index as f64);
        }
        if matches!(self.scale, Scale::AroundOne(_)) {
            let x = self.x(1.0);
            let bottom = height - MARGIN / 2.0;
            let _ = writeln!(
                svg,
                "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{}\" y2=\"{bottom}\" stroke=\"{INK}\"/>",
                TOP - 6.0
            );
        }
        svg.push_str("</svg>\n");
        svg
    }

    fn add(&self, svg: &mut String, bar: &Bar, y: f64) {
        let base = y + LINE * 0.6;
        let (from, to) = (self.origin(), self.x(bar.value));
        let (left, length) = (from.min(to), (to - from).abs());
        let colour = if bar.ours { OURS } else { THEIRS };
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{base:.1}\" text-anchor=\"end\">{}</text>\n\
             <rect x=\"{left:.1}\" y=\"{:.1}\" width=\"{length:.1}\" height=\"{:.1}\" fill=\"{colour}\"/>",
            MARGIN + LABELS - 8.0,
            escaped(&bar.label),
            y + 3.0,
            LINE - 8.0
        );
        if let Some((low, high)) = bar.range {
            let (low, high, middle) = (self.x(low), self.x(high), y + LINE * 0.5 - 1.0);
            let _ = writeln!(
                svg,
                "<line x1=\"{low:.1}\" x2=\"{high:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\" \
                 stroke=\"{INK}\"/>"
            );
        }
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{base:.1}\">{}</text>",
            MARGIN + LABELS + BARS + 8.0,
            number(bar.value)
        );
    }

    /// Where bars begin.
    fn origin(&self) -> f64 {
        match self.scale {
            Scale::FromZero => MARGIN + LABELS,
            Scale::AroundOne(_) => self.x(1.0),
        }
    }

    /// Where a value is.
    fn x(&self, value: f64) -> f64 {
        let share = match self.scale {
            Scale::FromZero => {
                let ends =
                    self.bars.iter().map(|bar| bar.range.map_or(bar.value, |(_, high)| high));
                value / ends.fold(f64::MIN_POSITIVE, f64::max)
            }
            Scale::AroundOne(farthest) => (value.ln() / farthest.ln() + 1.0) / 2.0,
        };
        MARGIN + LABELS + BARS * share.clamp(0.0, 1.0)
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(scale: Scale, values: &[f64]) -> Chart {
        let bar = |value: &f64| Bar {
            label: format!("<{value}>"),
            value: *value,
            range: Some((value / 2.0, value * 2.0)),
            ours: *value > 1.0,
        };
        let bars = values.iter().map(bar).collect();
        Chart { title: "a & b".to_owned(), scale, bars }
    }

    #[test]
    fn bars_are_as_long_as_their_values() {
        let chart = chart(Scale::FromZero, &[10.0, 40.0]);
        let end = MARGIN + LABELS + BARS;
        assert!((chart.x(0.0) - chart.origin()).abs() < 1e-9);
        assert!((chart.x(80.0) - end).abs() < 1e-9, "the highest ends the picture");
        assert!((chart.x(40.0) - (chart.origin() + BARS / 2.0)).abs() < 1e-9);
        assert!((chart.x(1e9) - end).abs() < 1e-9);
    }

    #[test]
    fn around_one_twice_is_as_far_as_half() {
        let chart = chart(Scale::AroundOne(16.0), &[2.0, 0.5]);
        let middle = MARGIN + LABELS + BARS / 2.0;
        assert!((chart.origin() - middle).abs() < 1e-9);
        assert!((chart.x(2.0) - middle + chart.x(0.5) - middle).abs() < 1e-9);
        assert!((chart.x(16.0) - (MARGIN + LABELS + BARS)).abs() < 1e-9);
    }

    #[test]
    fn a_picture_is_well_formed() {
        let svg = chart(Scale::FromZero, &[0.0, 3.0]).svg();
        assert!(svg.contains("a &amp; b") && svg.contains("&lt;3&gt;") && svg.contains(OURS));
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert!(!svg.contains("NaN"));
        // Each tag that is opened is closed, or closes itself.
        for tag in ["svg", "title", "text"] {
            let count = |what: String| svg.matches(&what).count();
            assert_eq!(count(format!("<{tag}")), count(format!("</{tag}>")), "{tag}");
        }
        for tag in ["<rect", "<line"] {
            assert!(
                svg.lines().filter(|line| line.starts_with(tag)).all(|line| line.ends_with("/>"))
            );
        }
    }

    #[test]
    fn nothing_at_all_can_be_drawn() {
        assert!(!chart(Scale::FromZero, &[0.0]).svg().contains("NaN"));
        assert!(chart(Scale::FromZero, &[]).svg().ends_with("</svg>\n"));
    }
}
