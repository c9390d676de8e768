//! Changes of intensity, on the values of one channel.
//!
//! Source: batchgeneratorsv2 0.3.6, with the ranges of nnU-Net v2.8.1's trainer.

use rand::Rng;
use rand_distr::{Distribution, StandardNormal};

/// What divides is at least this.
const MIN_DIVISOR: f64 = 1e-7;

/// Adds normal noise of standard deviation `sd`.
pub fn add_noise(values: &mut [f32], sd: f32, rng: &mut impl Rng) {
    for value in values {
        let noise: f32 = StandardNormal.sample(rng);
        *value += sd * noise;
    }
}

/// Multiplies.
pub fn brightness(values: &mut [f32], factor: f32) {
    values.iter_mut().for_each(|value| *value *= factor);
}

/// Multiplies the difference from the mean, and clamps to the range that the values had.
pub fn contrast(values: &mut [f32], factor: f32) {
    let (mean, [low, high]) = (moments(values)[0] as f32, range(values));
    values.iter_mut().for_each(|value| *value = ((*value - mean) * factor + mean).clamp(low, high));
}

/// Raises the values, mapped to 0 to 1, to the power `gamma`, and maps them back to their range, then to the mean and standard
/// deviation that they had. `inverted` negates them before and after.
pub fn gamma(values: &mut [f32], gamma: f32, inverted: bool) {
    let sign = if inverted { -1.0 } else { 1.0 };
    values.iter_mut().for_each(|value| *value *= sign);
    let ([mean, sd], [low, high]) = (moments(values), range(values));
    let span = high - low;
    let divisor = span.max(MIN_DIVISOR as f32);
    values.iter_mut().for_each(|value| *value = ((*value - low) / divisor).powf(gamma) * span + low);
    let [mean_here, sd_here] = moments(values);
    let scale = sd / sd_here.max(MIN_DIVISOR);
    let restored = |value: f32| sign * (((f64::from(value) - mean_here) * scale + mean) as f32);
    values.iter_mut().for_each(|value| *value = restored(*value));
}

/// A factor below 1 or from 1 on, with equal probabilities.
pub fn factor(low: f32, high: f32, rng: &mut impl Rng) -> f32 {
    if rng.random_bool(0.5) { rng.random_range(low..1.0) } else { rng.random_range(1.0..=high) }
}

/// Mean and standard deviation, the latter divided by the count less one.
fn moments(values: &[f32]) -> [f64; 2] {
    let count = values.len().max(1) as f64;
    let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / count;
    let squares: f64 = values.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum();
    [mean, (squares / (count - 1.0).max(1.0)).sqrt()]
}

fn range(values: &[f32]) -> [f32; 2] {
    values.iter().fold([f32::INFINITY, f32::NEG_INFINITY], |[low, high], v| [low.min(*v), high.max(*v)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    const VALUES: [f32; 6] = [-1.0, 0.0, 0.5, 1.0, 2.0, 3.5];

    fn close(got: &[f32], want: &[f32]) {
        assert_eq!(got.len(), want.len());
        // Values below 4, a few roundings each.
        assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() <= 16.0 * f32::EPSILON * 4.0), "{got:?} for {want:?}");
    }

    const CONTRAST: [f32; 6] = [-1.0, -0.25, 0.375, 1.0, 2.25, 3.5];
    const GAMMA: [f32; 6] = [-0.695_282_34, -0.074_811_935, 0.355_807_3, 0.832_495_1, 1.892_803_8, 3.688_988];
    const INVERTED: [f32; 6] = [-0.814_283_85, 0.005_299_747, 0.432_300_15, 0.873_850_35, 1.817_119, 3.685_715];

    /// Values of batchgeneratorsv2 for the same parameters.
    #[test]
    fn values_are_batchgenerators() {
        let mut values = VALUES;
        contrast(&mut values, 1.25);
        close(&values, &CONTRAST);
        let mut values = VALUES;
        gamma(&mut values, 1.3, false);
        close(&values, &GAMMA);
        let mut values = VALUES;
        gamma(&mut values, 0.8, true);
        close(&values, &INVERTED);
        let mut values = VALUES;
        brightness(&mut values, 0.75);
        close(&values, &VALUES.map(|v| 0.75 * v));
    }

    #[test]
    fn gamma_of_a_flat_channel_keeps_it() {
        let mut values = [2.0; 4];
        gamma(&mut values, 0.7, true);
        assert_eq!(values, [2.0; 4]);
    }

    #[test]
    fn noise_has_its_deviation_and_factors_both_sides() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let mut values = vec![0.0; 100_000];
        add_noise(&mut values, 0.1, &mut rng);
        let [mean, sd] = moments(&values);
        // Six standard errors.
        let error = 0.1 / 100_000f64.sqrt();
        assert!(mean.abs() < 6.0 * error && (sd - 0.1).abs() < 6.0 * error, "{mean} {sd}");
        let below = (0..1000).filter(|_| factor(0.75, 1.25, &mut rng) < 1.0).count() as f64;
        assert!((below - 500.0).abs() < 6.0 * 250f64.sqrt(), "{below}");
    }
}
