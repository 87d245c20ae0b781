//! Medians and confidence bounds. Pure.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

/// The `q`-quantile (0 to 1) of the samples by nearest rank; zero without samples.
pub fn quantile(samples: &[Duration], q: f64) -> Duration {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    let last = sorted.len().saturating_sub(1);
    let rank = (q.clamp(0.0, 1.0) * last as f64).round() as usize;
    sorted.get(rank).copied().unwrap_or_default()
}

/// The median; zero without samples.
pub fn median(samples: &[Duration]) -> Duration {
    quantile(samples, 0.5)
}

/// A duration in milliseconds.
pub fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// The expected range of hits in `n` draws with probability `percent`, left by fewer than one run
/// in a million: five standard deviations, plus one for the rounding of small counts. Exact at 0
/// and 100.
pub fn binomial_bounds(n: usize, percent: u32) -> (usize, usize) {
    match percent {
        0 => return (0, 0),
        100.. => return (n, n),
        _ => {}
    }
    let (draws, p) = (n as f64, f64::from(percent) / 100.0);
    let mean = draws * p;
    let spread = 5.0 * (mean * (1.0 - p)).sqrt() + 1.0;
    let low = (mean - spread).max(0.0).ceil() as usize;
    let high = ((mean + spread).floor() as usize).min(n);
    (low, high)
}

/// The median, or the mean of the two middle samples; NaN without samples.
pub fn middle(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let half = sorted.len() / 2;
    match (sorted.get(half), sorted.len() % 2) {
        (Some(middle), 1) => *middle,
        (Some(upper), _) => f64::midpoint(sorted[half - 1], *upper),
        (None, _) => f64::NAN,
    }
}

/// Resamples of [`upper_bound`].
const RESAMPLES: usize = 10_000;

/// The one-sided 95 % confidence bound of the median by the percentile bootstrap (Efron 1979).
/// Deterministic for the same samples.
pub fn upper_bound(samples: &[f64]) -> f64 {
    let mut rng = SmallRng::seed_from_u64(samples.len() as u64);
    let mut medians = Vec::with_capacity(RESAMPLES);
    let mut drawn = vec![0.0; samples.len()];
    for _ in 0..RESAMPLES {
        for slot in &mut drawn {
            *slot = samples[rng.random_range(0..samples.len())];
        }
        medians.push(middle(&drawn));
    }
    medians.sort_unstable_by(f64::total_cmp);
    medians[RESAMPLES * 95 / 100]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_upper_bound_lies_between_median_and_maximum_and_is_deterministic() {
        let samples = [0.9, 1.0, 0.95, 1.1, 0.97];
        assert_eq!(middle(&samples), 0.97);
        assert_eq!(middle(&[1.0, 2.0]), 1.5);
        assert!(middle(&[]).is_nan());
        let bound = upper_bound(&samples);
        assert!((0.97..=1.1).contains(&bound), "{bound}");
        assert_eq!(bound, upper_bound(&samples));
        assert_eq!(upper_bound(&[1.0; 5]), 1.0);
    }

    #[test]
    fn quantiles_are_by_nearest_rank() {
        let samples: Vec<_> = (1..=101).rev().map(Duration::from_millis).collect();
        assert_eq!(median(&samples), Duration::from_millis(51));
        assert_eq!(quantile(&samples, 0.99), Duration::from_millis(100));
        assert_eq!(quantile(&samples, 1.0), Duration::from_millis(101));
        assert_eq!(median(&[]), Duration::ZERO);
    }

    #[test]
    fn binomial_bounds_contain_the_mean_and_exclude_a_wrong_share() {
        let (low, high) = binomial_bounds(1000, 10);
        assert!(low <= 100 && 100 <= high);
        assert!(low > 40 && high < 160, "{low}..{high}");
        assert_eq!(binomial_bounds(1000, 0), (0, 0));
        assert_eq!(binomial_bounds(1000, 100), (1000, 1000));
    }
}
