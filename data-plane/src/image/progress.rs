//! Summarises the layer events of a pull in one line. Pure.
//!
//! ```text
//! a layer:  Waiting ──► Downloading ──► Downloaded ──► Unpacking ──► Done
//!                        ▲      │ interrupted                         ▲
//!                        └──────┘                    already on the node
//! ```
//!
//! The size of a layer is known only when its download begins, and an engine downloads a few at a
//! time. The line therefore shows a percentage once all sizes are known, and bytes before that.
//!
//! Laws, tested below: no event causes a panic; the percentage never exceeds 100; the line stays
//! short.

use std::collections::BTreeMap;

use crate::runtime::PullStep;

/// Bounds the memory that a registry can fill; engines accept at most 127 layers.
const MAX_LAYERS: usize = 1000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
enum Stage {
    #[default]
    Waiting,
    Downloading,
    Downloaded,
    Unpacking,
    Done,
}

#[derive(Debug, Clone, Copy, Default)]
struct Layer {
    stage: Stage,
    /// Bytes downloaded.
    downloaded: u64,
    size: Option<u64>,
    /// Whether the download was interrupted and the engine waits to retry.
    is_interrupted: bool,
}

/// State of a pull.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    layers: BTreeMap<String, Layer>,
}

impl Progress {
    /// Applies a progress message.
    pub fn step(&mut self, step: &PullStep) {
        let Some(id) = &step.layer else { return };
        // Statuses of Docker (`distribution/` and `pkg/progress`). Other statuses carry the image's
        // id instead of a layer's.
        let status = step.status.as_str();
        let stage = match status {
            "Pulling fs layer" | "Waiting" => Stage::Waiting,
            "Downloading" => Stage::Downloading,
            "Verifying Checksum" | "Download complete" => Stage::Downloaded,
            "Extracting" => Stage::Unpacking,
            "Pull complete" | "Already exists" => Stage::Done,
            _ if status.starts_with("Retrying in") => Stage::Waiting,
            _ => return,
        };
        if self.layers.len() >= MAX_LAYERS && !self.layers.contains_key(id) {
            return;
        }
        let layer = self.layers.entry(id.clone()).or_default();
        layer.stage = stage;
        layer.is_interrupted = status.starts_with("Retrying in");
        if stage == Stage::Downloading {
            layer.downloaded = step.current.unwrap_or(layer.downloaded);
            layer.size = step.total.filter(|size| *size > 0).or(layer.size);
        } else if stage >= Stage::Downloaded {
            layer.downloaded = layer.size.unwrap_or(layer.downloaded);
        }
    }

    /// The progress line; `None` before the first layer is known.
    pub fn line(&self) -> Option<String> {
        let count = self.layers.len();
        if count == 0 {
            return None;
        }
        let layers = || self.layers.values();
        let done = layers().filter(|layer| layer.stage == Stage::Done).count();
        let layers_done = format!("{done} of {count} layers");
        if layers().all(|layer| layer.stage >= Stage::Downloaded) {
            return Some(format!("unpacking, {layers_done}"));
        }
        let sum = |of: fn(&Layer) -> u64| layers().map(of).fold(0, u64::saturating_add);
        let downloaded = sum(|layer| layer.downloaded.min(layer.size.unwrap_or(u64::MAX)));
        let all_known =
            layers().all(|layer| layer.size.is_some() || layer.stage >= Stage::Downloaded);
        let mut line = if all_known {
            // Layers that arrived without a known size count in both sums.
            let size = sum(|layer| layer.size.unwrap_or(layer.downloaded));
            let percent = u128::from(downloaded) * 100 / u128::from(size.max(1));
            format!(
                "{percent} %, {} of {}, {layers_done}",
                bytes(downloaded),
                bytes(size)
            )
        } else {
            format!("{} so far, {layers_done}", bytes(downloaded))
        };
        if layers().any(|layer| layer.is_interrupted) {
            line.push_str("; the download was interrupted, the engine is retrying");
        }
        Some(line)
    }
}

/// A size such as `12.3 MB`, in decimal units as in registries.
fn bytes(count: u64) -> String {
    for (unit, name) in [(1_000_000_000_u64, "GB"), (1_000_000, "MB"), (1000, "kB")] {
        if count >= unit {
            let tenths = u128::from(count) * 10 / u128::from(unit);
            return format!("{}.{} {name}", tenths / 10, tenths % 10);
        }
    }
    format!("{count} B")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn step(layer: &str, status: &str, bytes: Option<(u64, u64)>) -> PullStep {
        PullStep {
            layer: Some(layer.into()),
            status: status.into(),
            current: bytes.map(|(current, _)| current),
            total: bytes.map(|(_, total)| total),
        }
    }

    #[test]
    fn a_pull_is_reported_from_its_first_layer_to_its_last() {
        let mut progress = Progress::default();
        let mut after = |layer: &str, status: &str, bytes| {
            progress.step(&step(layer, status, bytes));
            progress.line().unwrap_or_default()
        };
        assert_eq!(after("1", "Pulling from team/app", None), "");
        assert_eq!(
            after("a", "Pulling fs layer", None),
            "0 B so far, 0 of 1 layers"
        );
        assert_eq!(
            after("b", "Pulling fs layer", None),
            "0 B so far, 0 of 2 layers"
        );
        assert_eq!(
            after("c", "Already exists", None),
            "0 B so far, 1 of 3 layers"
        );
        let half = Some((5_000_000, 10_000_000));
        assert_eq!(
            after("a", "Downloading", half),
            "5.0 MB so far, 1 of 3 layers"
        );
        assert_eq!(
            after("b", "Downloading", Some((0, 10_000_000))),
            "25 %, 5.0 MB of 20.0 MB, 1 of 3 layers"
        );
        assert_eq!(
            after("a", "Download complete", None),
            "50 %, 10.0 MB of 20.0 MB, 1 of 3 layers"
        );
        assert_eq!(
            after("b", "Retrying in 5 seconds", None),
            "50 %, 10.0 MB of 20.0 MB, 1 of 3 layers; the download was interrupted, the engine is retrying"
        );
        let all = Some((10_000_000, 10_000_000));
        assert_eq!(
            after("b", "Downloading", all),
            "100 %, 20.0 MB of 20.0 MB, 1 of 3 layers"
        );
        assert_eq!(
            after("b", "Download complete", None),
            "unpacking, 1 of 3 layers"
        );
        assert_eq!(after("a", "Extracting", half), "unpacking, 1 of 3 layers");
        assert_eq!(
            after("a", "Pull complete", None),
            "unpacking, 2 of 3 layers"
        );
    }

    fn any_step() -> impl Strategy<Value = PullStep> {
        let status = prop_oneof![
            Just("Pulling fs layer".to_owned()),
            Just("Downloading".to_owned()),
            Just("Download complete".to_owned()),
            Just("Extracting".to_owned()),
            Just("Pull complete".to_owned()),
            Just("Retrying in 3 seconds".to_owned()),
            "\\PC{0,10}",
        ];
        let count = prop_oneof![
            Just(None),
            any::<u64>().prop_map(Some),
            (0u64..100).prop_map(Some)
        ];
        (prop::option::of("[a-d]"), status, count.clone(), count).prop_map(
            |(layer, status, current, total)| PullStep {
                layer,
                status,
                current,
                total,
            },
        )
    }

    proptest! {
        #[test]
        fn no_steps_panic_or_exceed_100_percent(steps in prop::collection::vec(any_step(), 0..40)) {
            let mut progress = Progress::default();
            for step in &steps {
                progress.step(step);
                let line = progress.line().unwrap_or_default();
                prop_assert!(line.len() < 150, "{line}");
                if let Some((percent, _)) = line.split_once(" %") {
                    let percent: u32 = percent.parse().unwrap();
                    prop_assert!(percent <= 100, "{line}");
                }
            }
        }
    }
}
