//! Medians, and bounds of what is left to chance. Pure.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

/// The `q`-quantile (0 to 1) of the samples by nearest rank; zero of none.
pub fn quantile(samples: &[Duration], q: f64) -> Duration {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    let last = sorted.len().saturating_sub(1);
    // In range by construction: `q` is within 0 to 1.
    let rank = (q.clamp(0.0, 1.0) * last as f64).round() as usize;
    sorted.get(rank).copied().unwrap_or_default()
}

/// The median; zero of none.
pub fn median(samples: &[Duration]) -> Duration {
    quantile(samples, 0.5)
}

/// A duration in milliseconds.
pub fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// The least and most hits that `n` draws of chance `percent` give, but for fewer than one run in a
/// million: five standard deviations, and one for the rounding of small counts. Exact at 0 and 100.
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

/// The middle one, or the mean of the two middle ones; not a number of none.
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

/// Draws of [`upper_bound`].
const RESAMPLES: usize = 10_000;

/// A value that the true median is below with 95 % confidence: the percentile bootstrap (Efron 1979),
/// one-sided, over the samples. The same samples always give the same bound.
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
    fn the_bound_is_above_the_median_within_the_samples_and_always_the_same() {
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
    fn bounds_hold_the_mean_and_exclude_a_share_that_is_off() {
        let (low, high) = binomial_bounds(1000, 10);
        assert!(low <= 100 && 100 <= high);
        assert!(low > 40 && high < 160, "{low}..{high}");
        assert_eq!(binomial_bounds(1000, 0), (0, 0));
        assert_eq!(binomial_bounds(1000, 100), (1000, 1000));
    }
}
