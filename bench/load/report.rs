//! From rows of one measurement each to a table with ratios and targets, JSON, and what gnuplot draws.

use std::{fmt::Write as _, fs, path::Path};

use crate::client::median;

/// What the project promises, by measure and reference: the least ratio, except where a figure of Snowbank itself
/// is bounded.
const TARGETS: [(&str, &str, Target); 19] = [
    ("narinfo hits/s, 64 connections", "nginx", Target::Ratio(1.2)),
    ("narinfo misses/s, 64 connections", "nginx", Target::Ratio(1.2)),
    ("small baked, 16 connections", "nginx .nar.zst", Target::Ratio(0.75)),
    ("large baked, 16 connections", "nginx .nar.zst", Target::Ratio(0.75)),
    ("small unbaked, 1 connections", "nix-store --dump", Target::Ratio(1.5)),
    ("small unbaked, 16 connections", "nix-store --dump", Target::Ratio(1.6)),
    ("range of 1 GiB unbaked, end against start", "its start", Target::Ratio(0.8)),
    ("range of 1 GiB baked, end against start", "its start", Target::Ratio(0.8)),
    ("memory more than idle, 64 baked", "nginx", Target::Most(64.0)),
    ("CPU of baked NARs", "nginx", Target::Most(0.45)),
    ("narinfo hits/s over HTTP/2", "nginx over TLS", Target::Ratio(0.8)),
    ("narinfo misses/s over HTTP/2", "nginx over TLS", Target::Ratio(0.8)),
    ("small NARs over HTTP/2", "nginx over TLS", Target::Ratio(0.8)),
    ("large NARs over HTTP/2", "nginx over TLS", Target::Ratio(0.8)),
    ("narinfo hits/s, counted", "not counted", Target::Ratio(0.95)),
    ("narinfo misses/s, counted", "not counted", Target::Ratio(0.95)),
    ("narinfo hits/s, a line of JSON each", "not counted", Target::Ratio(0.95)),
    ("narinfo misses/s, a line of JSON each", "not counted", Target::Ratio(0.95)),
    ("a scrape of 100 caches", "nix-cache-info", Target::Most(5.0)),
];

#[derive(Clone, Copy)]
enum Target {
    Ratio(f64),
    Most(f64),
}

/// One line of the table: the same thing measured on both sides, once a round.
struct Measure {
    name: String,
    reference: String,
    unit: String,
    more_is_better: bool,
    reference_values: Vec<f64>,
    values: Vec<f64>,
}

impl Measure {
    /// Over 1 is in our favour, always. Each round is compared with itself, so that drift of the machine cancels.
    fn ratio(&self) -> f64 {
        let pairs = self.values.iter().zip(&self.reference_values);
        median(
            pairs
                .map(
                    |(ours, theirs)| {
                        if self.more_is_better { ours / theirs } else { theirs / ours }
                    },
                )
                .collect(),
        )
    }

    fn target(&self) -> Option<Target> {
        let found = TARGETS
            .iter()
            .find(|(name, reference, _)| *name == self.name && *reference == self.reference);
        found.map(|(_, _, target)| *target)
    }

    fn target_text(&self) -> String {
        match self.target() {
            Some(Target::Ratio(least)) => {
                format!("≥ {least:.2} ×  {}", if self.ratio() >= least { "met" } else { "MISSED" })
            }
            Some(Target::Most(most)) => {
                let met = median(self.values.clone()) <= most;
                format!("≤ {most} {}  {}", self.unit, if met { "met" } else { "MISSED" })
            }
            None => String::new(),
        }
    }
}

/// Rows: measure, reference, unit, `more` or `less` is better, the reference's value, ours; by tabs, once a round.
fn parse(rows: &str) -> Vec<Measure> {
    let mut measures: Vec<Measure> = Vec::new();
    for row in rows.lines().filter(|row| !row.is_empty()) {
        let fields: Vec<&str> = row.split('\t').collect();
        let [name, reference, unit, better, theirs, ours] = fields[..] else {
            panic!("not a row: {row:?}");
        };
        let known = measures
            .iter()
            .position(|measure| measure.name == name && measure.reference == reference);
        let index = known.unwrap_or_else(|| {
            measures.push(Measure {
                name: name.to_owned(),
                reference: reference.to_owned(),
                unit: unit.to_owned(),
                more_is_better: better == "more",
                reference_values: Vec::new(),
                values: Vec::new(),
            });
            measures.len() - 1
        });
        measures[index]
            .reference_values
            .push(theirs.parse().unwrap_or_else(|_| panic!("no number in {row:?}")));
        measures[index]
            .values
            .push(ours.parse().unwrap_or_else(|_| panic!("no number in {row:?}")));
    }
    measures
}

/// Print the table, and write `results.json` and `ratios.dat` into `directory`.
pub(crate) fn write(rows: &str, directory: &Path) {
    let measures = parse(rows);
    println!(
        "{:<44} {:<17} {:>12} {:>12} {:<8} {:>7}   target",
        "measure", "against", "reference", "snowbank", "", "ratio"
    );
    let mut plot = String::new();
    for measure in &measures {
        let (theirs, ours) =
            (median(measure.reference_values.clone()), median(measure.values.clone()));
        println!(
            "{:<44} {:<17} {theirs:>12.3} {ours:>12.3} {:<8} {:>7.2}   {}",
            measure.name,
            measure.reference,
            measure.unit,
            measure.ratio(),
            measure.target_text()
        );
        let target = match measure.target() {
            Some(Target::Ratio(least)) => least.to_string(),
            Some(Target::Most(_)) | None => "NaN".to_owned(),
        };
        // Bounds on our own figure are no ratios, so they are in the table only.
        if !matches!(measure.target(), Some(Target::Most(_))) {
            writeln!(
                plot,
                "\"{} / {}\" {:.4} {target}",
                measure.name,
                measure.reference,
                measure.ratio()
            )
            .unwrap();
        }
    }
    let json: Vec<serde_json::Value> = measures
        .iter()
        .map(|measure| {
            serde_json::json!({
                "measure": measure.name,
                "against": measure.reference,
                "unit": measure.unit,
                "more_is_better": measure.more_is_better,
                "reference": measure.reference_values,
                "snowbank": measure.values,
                "ratio": measure.ratio(),
                "target": measure.target_text(),
            })
        })
        .collect();
    fs::write(directory.join("results.json"), serde_json::to_vec_pretty(&json).unwrap()).unwrap();
    fs::write(directory.join("ratios.dat"), plot).unwrap();
}
