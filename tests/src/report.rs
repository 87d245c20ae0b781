//! The `target/bench/NAME.json` files: one row a measured number, with what it is compared to and the
//! bar it must keep.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::paths;

/// Which way a number is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// Less is better: times.
    Lower,
    /// More is better: rates.
    Higher,
}

/// One measured number.
#[derive(Clone, Debug)]
pub struct Row {
    /// What was run.
    pub case: &'static str,
    /// What was measured of it.
    pub metric: &'static str,
    /// Which way is good.
    pub better: Better,
    /// The number of cless.
    pub ours: f64,
    /// The number it is compared to, and whose it is.
    pub reference: Option<(f64, &'static str)>,
    /// The bound on the ratio to the reference or, without one, on the number itself.
    pub bar: Option<f64>,
}

impl Row {
    /// `ours / reference`.
    pub fn ratio(&self) -> Option<f64> {
        self.reference
            .filter(|(value, _)| *value > 0.0)
            .map(|(value, _)| self.ours / value)
    }

    /// Whether the bar is kept; true without one.
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

/// The rows as a table for a person.
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

/// Writes `target/bench/NAME.json` and says where that is.
pub fn write(name: &str, rows: &[Row]) -> Result<PathBuf> {
    put(name, rows.iter().map(Row::json).collect())
}

/// As [`write()`], but what the file has of other metrics stays.
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
    fn a_bar_binds_the_ratio_where_there_is_a_reference_and_else_the_number() {
        let row = Row {
            case: "cold",
            metric: "remove",
            better: Better::Lower,
            ours: 210.0,
            reference: Some((200.0, "raw")),
            bar: Some(1.05),
        };
        assert!(row.holds());
        assert!(
            !Row {
                ours: 211.0,
                ..row.clone()
            }
            .holds()
        );
        assert!(
            !Row {
                reference: None,
                ..row.clone()
            }
            .holds()
        );
        assert!(
            Row {
                better: Better::Higher,
                ours: 300.0,
                ..row
            }
            .holds()
        );
    }
}
