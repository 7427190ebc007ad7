//! What came and went over the last hours, drawn: bars of five minutes each, and the same as a table by the hour.

use std::fmt::Write as _;

use maud::{Markup, PreEscaped, html};

use super::show;
use crate::metrics::history::{Interval, Traffic};

/// Seconds that a bar stands for.
const BAR: i64 = 300;
/// Bars in a chart.
const BARS: usize = 144;
/// Bars in an hour.
const HOUR: usize = 12;
/// The highest bar, in units of the drawing.
const HEIGHT: f64 = 70.0;
/// From one bar to the next.
const STEP: usize = 2;

/// A chart and what its highest bar is.
struct Chart {
    title: &'static str,
    /// What the bars count, each.
    each: &'static str,
    /// The value of each bar; none where there is nothing to say.
    values: Vec<Option<f64>>,
    /// What stands at the top of the drawing.
    top: f64,
    /// How a value is written.
    show: fn(f64) -> String,
}

/// The charts of all that is known until `now`, in seconds since 1970.
pub(super) fn charts(now: i64, intervals: &[Interval]) -> Markup {
    let bars = bars(now, intervals);
    let of = |value: fn(&Traffic) -> u64| -> Vec<Option<f64>> {
        bars.iter().map(|bar| Some(float(value(bar)))).collect()
    };
    let five_minutes = "in five minutes";
    let charts = [
        Chart::new("Sent", five_minutes, of(|bar| bar.sent_bytes), |sent| show::bytes(whole(sent))),
        Chart::new("Requests", five_minutes, of(|bar| bar.requests), |all| show::count(whole(all))),
        Chart {
            title: "Hit rate",
            each: "of narinfo requests",
            values: bars.iter().map(hit_rate).collect(),
            top: 100.0,
            show: |rate| format!("{rate:.0} %"),
        },
        Chart::new("Pushed", five_minutes, of(|bar| bar.pushed_bytes), |nars| {
            show::bytes(whole(nars))
        }),
    ];
    html! {
        div class="charts" { @for chart in &charts { (chart.draw()) } }
        details {
            summary { "The same by the hour, as a table" }
            (table(&bars))
        }
    }
}

/// What came in each of the last [`BARS`] times five minutes.
fn bars(now: i64, intervals: &[Interval]) -> Vec<Traffic> {
    let mut bars = vec![Traffic::default(); BARS];
    for interval in intervals {
        // What a clock that was set back makes the future counts as now.
        let back = usize::try_from(now.saturating_sub(interval.ended).max(0) / BAR);
        if let Some(index) = back.ok().and_then(|back| (BARS - 1).checked_sub(back)) {
            bars[index] += interval.traffic;
        }
    }
    bars
}

/// In percent; none where nobody asked.
fn hit_rate(traffic: &Traffic) -> Option<f64> {
    let asked = traffic.hits + traffic.misses;
    (asked > 0).then(|| 100.0 * float(traffic.hits) / float(asked))
}

impl Chart {
    fn new(
        title: &'static str,
        each: &'static str,
        values: Vec<Option<f64>>,
        show: fn(f64) -> String,
    ) -> Self {
        let top = values.iter().flatten().copied().fold(0.0, f64::max);
        Self { title, each, values, top, show }
    }

    fn draw(&self) -> Markup {
        let Self { title, each, values, top, show } = self;
        let last = values.last().copied().flatten();
        let last = last.map_or_else(|| "none".into(), show);
        let label = format!(
            "{title} {each}, over twelve hours: at most {}, {last} lately; the table below has the figures",
            show(*top)
        );
        html! {
            figure {
                figcaption { (title) " " span class="quiet" { (each) } }
                svg viewBox="0 0 300 108" role="img" aria-label=(label) {
                    path class="axis" d="M4 89.5H296" {}
                    path class="bars" d=(PreEscaped(self.path())) {}
                    text x="4" y="12" { (show(*top)) }
                    text x="4" y="104" { "12 hours ago" }
                    text x="296" y="104" text-anchor="end" { "now: " (last) }
                }
            }
        }
    }

    /// A line upwards for each bar that is more than nothing.
    fn path(&self) -> String {
        let mut path = String::new();
        for (index, value) in self.values.iter().enumerate() {
            let height = value.filter(|_| self.top > 0.0).map_or(0.0, |value| value / self.top);
            if height > 0.0 {
                // One that is all but nothing is seen all the same. Writing into a String cannot fail.
                let up = (height * HEIGHT).max(1.0);
                let _ = write!(path, "M{} 89v-{up:.1}", 5 + index * STEP);
            }
        }
        path
    }
}

fn table(bars: &[Traffic]) -> Markup {
    let hours = bars.chunks(HOUR).rev().map(|hour| {
        let mut sum = Traffic::default();
        hour.iter().for_each(|bar| sum += *bar);
        sum
    });
    html! {
        div class="scroll" {
            table {
                thead {
                    tr {
                        th scope="col" { "Hours ago" }
                        @for name in ["Requests", "Sent", "Hit rate", "Pushed paths", "Pushed"] {
                            th scope="col" class="number" { (name) }
                        }
                    }
                }
                tbody {
                    @for (ago, hour) in hours.enumerate() {
                        tr {
                            th scope="row" { (ago) " to " (ago + 1) }
                            td class="number" { (show::count(hour.requests)) }
                            td class="number" { (show::bytes(hour.sent_bytes)) }
                            td class="number" {
                                @match hit_rate(&hour) {
                                    Some(rate) => (format!("{rate:.1} %")),
                                    None => "–",
                                }
                            }
                            td class="number" { (show::count(hour.pushed_paths)) }
                            td class="number" { (show::bytes(hour.pushed_bytes)) }
                        }
                    }
                }
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "drawn in some hundred steps")]
const fn float(value: u64) -> f64 {
    value as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it was a u64 before it was drawn"
)]
const fn whole(value: f64) -> u64 {
    value as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(ended: i64, hits: u64, misses: u64) -> Interval {
        let traffic = Traffic { requests: hits + misses, hits, misses, ..Traffic::default() };
        Interval { ended, traffic }
    }

    #[test]
    fn each_interval_counts_in_the_five_minutes_in_which_it_ended() {
        let now = 1_000_000;
        let bars = bars(
            now,
            &[
                interval(now - 12 * 3600 - 1, 64, 0),
                interval(now - 12 * 3600 + 1, 1, 0),
                interval(now - 299, 2, 0),
                interval(now, 4, 0),
                interval(now + 500, 8, 0),
            ],
        );
        assert_eq!(bars.len(), BARS);
        assert_eq!(bars[0].hits, 1);
        assert_eq!(bars[BARS - 1].hits, 14);
        assert_eq!(bars.iter().map(|bar| bar.hits).sum::<u64>(), 15, "what is older is left out");
    }

    #[test]
    fn the_highest_bar_is_as_high_as_the_drawing_and_nothing_has_none() {
        let chart =
            Chart::new("", "", vec![None, Some(0.0), Some(5.0), Some(10.0)], |_| String::new());
        assert_eq!(chart.path(), "M9 89v-35.0M11 89v-70.0");
        let empty = Chart::new("", "", vec![None, Some(0.0)], |_| String::new());
        assert_eq!(empty.path(), "");
    }

    #[test]
    fn a_hit_rate_is_that_of_what_was_asked_for() {
        assert_eq!(hit_rate(&interval(0, 3, 1).traffic), Some(75.0));
        assert_eq!(hit_rate(&Traffic::default()), None);
    }

    #[test]
    fn the_charts_of_the_busiest_day_are_small() {
        let busy: Vec<_> =
            (0..720).map(|minute| interval(minute * 60, u64::MAX >> 20, 1)).collect();
        let drawn = charts(720 * 60, &busy).into_string();
        assert!(drawn.len() < 20_000, "{} bytes", drawn.len());
    }
}
