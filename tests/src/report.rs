//! The `target/bench/NAME.json` files: one row per measured number, with its reference and the bar
//! that it must meet.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::paths;

/// The direction in which a number improves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// Less is better, such as times.
    Lower,
    /// More is better, such as rates.
    Higher,
}

/// One measured number.
#[derive(Clone, Debug)]
pub struct Row {
    /// The scenario.
    pub case: &'static str,
    /// The measured quantity.
    pub metric: &'static str,
    /// The direction in which it improves.
    pub better: Better,
    /// The value of cless.
    pub ours: f64,
    /// Value and name of the reference; `None` without one.
    pub reference: Option<(f64, &'static str)>,
    /// Bound on the ratio to the reference or, without one, on the value itself; `None` if
    /// unbounded.
    pub bar: Option<f64>,
}

impl Row {
    /// `ours / reference`; `None` without a positive reference.
    pub fn ratio(&self) -> Option<f64> {
        self.reference
            .filter(|(value, _)| *value > 0.0)
            .map(|(value, _)| self.ours / value)
    }

    /// Whether the value meets its bar; true without one.
    pub fn holds(&self) -> bool {
        let value = self.ratio().unwrap_or(self.ours);
        match (self.bar, self.better) {
            (None, _) => true,
            (Some(bar), Better::Lower) => value <= bar,
            (Some(bar), Better::Higher) => value >= bar,
        }
    }

    fn json(&self) -> Value {
        json!({
            "case": self.case,
            "metric": self.metric,
            "better": match self.better { Better::Lower => "lower", Better::Higher => "higher" },
            "ours": self.ours,
            "reference": self.reference.map(|(value, _)| value),
            "reference_name": self.reference.map(|(_, name)| name),
            "ratio": self.ratio(),
            "bar": self.bar,
            "holds": self.holds(),
        })
    }
}

/// Prints a line to standard output. A closed output is ignored, so that clean-up still runs.
pub fn print_line(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Formats the rows as a table.
pub fn table(rows: &[Row]) -> String {
    let mut out = format!(
        "{:<16} {:<30} {:>10} {:>10} {:>7} {:>6}  {}\n",
        "case", "metric", "ours", "reference", "ratio", "bar", "holds"
    );
    let number = |n: Option<f64>| n.map_or_else(|| "-".to_owned(), |n| format!("{n:.3}"));
    for row in rows {
        let holds = match (row.bar, row.holds()) {
            (None, _) => "-",
            (Some(_), true) => "yes",
            (Some(_), false) => "NO",
        };
        out.push_str(&format!(
            "{:<16} {:<30} {:>10.3} {:>10} {:>7} {:>6}  {holds}\n",
            row.case,
            row.metric,
            row.ours,
            number(row.reference.map(|(value, _)| value)),
            number(row.ratio()),
            row.bar
                .map_or_else(|| "-".to_owned(), |bar| format!("{bar}")),
        ));
    }
    out
}

/// Writes `target/bench/NAME.json` and returns its path.
pub fn write(name: &str, rows: &[Row]) -> Result<PathBuf> {
    put(name, rows.iter().map(Row::json).collect())
}

/// Like [`write()`], but keeps the rows of other metrics in an existing file.
pub fn update(name: &str, rows: &[Row]) -> Result<PathBuf> {
    let path = paths::target_dir()?
        .join("bench")
        .join(format!("{name}.json"));
    let before: Value = std::fs::read(path)
        .ok()
        .and_then(|content| serde_json::from_slice(&content).ok())
        .unwrap_or_default();
    let measured = |row: &Value| rows.iter().any(|new| row["metric"] == new.metric);
    let kept = before["rows"].as_array().into_iter().flatten();
    let kept = kept.filter(|row| !measured(row)).cloned();
    put(name, kept.chain(rows.iter().map(Row::json)).collect())
}

fn put(name: &str, rows: Vec<Value>) -> Result<PathBuf> {
    let dir = paths::target_dir()?.join("bench");
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let path = dir.join(format!("{name}.json"));
    let document = json!({ "rows": rows });
    std::fs::write(&path, format!("{document:#}\n"))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_bounds_the_ratio_or_without_a_reference_the_value() {
        let row = Row {
            case: "cold",
            metric: "remove",
            better: Better::Lower,
            ours: 210.0,
            reference: Some((200.0, "raw")),
            bar: Some(1.05),
        };
        let worse = Row {
            ours: 211.0,
            ..row.clone()
        };
        let without_reference = Row {
            reference: None,
            ..row.clone()
        };
        let rate = Row {
            better: Better::Higher,
            ours: 300.0,
            ..row.clone()
        };
        assert!(row.holds());
        assert!(!worse.holds());
        assert!(!without_reference.holds());
        assert!(rate.holds());
    }
}
