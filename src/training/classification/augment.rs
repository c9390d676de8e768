//! What is done to the classifier's images in training: mirroring, rotations by right angles, noise and blur.

use rand::Rng;

use crate::training::augment::{add_noise, blur};

/// Changes an image of three channels of `size` x `size` values, one behind the other. It is mirrored along each axis with probability
/// 1/2 and rotated by a random number of right angles, all channels alike; with probability 0.1 normal noise is added, whose standard
/// deviation is uniform from 0 to 0.1; with probability 0.2 each channel is blurred with probability 1/2, by a Gaussian whose standard
/// deviation is uniform from 0.5 to 1 pixels along each axis. Probabilities are the paper's, ranges nnU-Net's.
pub fn augment(image: &mut [f32], size: usize, rng: &mut impl Rng) {
    let (turns, mirrored) = (rng.random_range(0..4u8), [(); 2].map(|()| rng.random_bool(0.5)));
    for channel in image.chunks_exact_mut((size * size).max(1)) {
        turn(channel, size, turns, mirrored);
    }
    if rng.random_bool(0.1) {
        let sd = rng.random_range(0.0..=0.1);
        add_noise(image, sd, rng);
    }
    if rng.random_bool(0.2) {
        for channel in image.chunks_exact_mut((size * size).max(1)) {
            if rng.random_bool(0.5) {
                let [y, x] = [(); 2].map(|()| rng.random_range(0.5..=1.0));
                blur(channel, [1, size, size], [1.0, y, x]);
            }
        }
    }
}

/// Rotates by right angles, counterclockwise on the screen, then reverses rows and columns where they are `mirrored`.
fn turn(channel: &mut [f32], size: usize, turns: u8, mirrored: [bool; 2]) {
    let (source, last) = (channel.to_vec(), size - 1);
    for (i, value) in channel.iter_mut().enumerate() {
        let [r, c] = [(i / size, mirrored[0]), (i % size, mirrored[1])].map(|(a, m)| if m { last - a } else { a });
        let (r, c) = match turns {
            0 => (r, c),
            1 => (c, last - r),
            2 => (last - r, last - c),
            _ => (last - c, r),
        };
        *value = source[r * size + c];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    /// numpy's rot90, then flips.
    #[test]
    fn images_turn_as_numpys() {
        let turned = |turns, mirrored| {
            let mut image = [0.0, 1.0, 2.0, 3.0];
            turn(&mut image, 2, turns, mirrored);
            image
        };
        assert_eq!(turned(0, [false; 2]), [0.0, 1.0, 2.0, 3.0]);
        assert_eq!(turned(1, [false; 2]), [1.0, 3.0, 0.0, 2.0]);
        assert_eq!(turned(2, [false; 2]), [3.0, 2.0, 1.0, 0.0]);
        assert_eq!(turned(3, [false; 2]), [2.0, 0.0, 3.0, 1.0]);
        assert_eq!(turned(0, [true, false]), [2.0, 3.0, 0.0, 1.0]);
        assert_eq!(turned(1, [false, true]), [3.0, 1.0, 2.0, 0.0]);
    }

    #[test]
    fn all_orientations_occur_noise_and_blur_now_and_then() {
        let image: Vec<f32> = (0..3 * 16).map(|i| ((i * 7) % 31) as f32).collect();
        let (mut orientations, mut changed) = (std::collections::BTreeSet::new(), 0);
        for seed in 0..1000 {
            let mut out = image.clone();
            augment(&mut out, 4, &mut ChaCha8Rng::seed_from_u64(seed));
            let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            let sorted = |values: &[f32]| {
                let mut bits = bits(values);
                bits.sort_unstable();
                bits
            };
            if sorted(&out) == sorted(&image) {
                // The channels turn alike.
                assert!((0..16).all(
                    |i| out[16 + i] == image[16 + image[..16].iter().position(|v| *v == out[i]).expect("a value")]
                ));
                orientations.insert(bits(&out));
            } else {
                changed += 1;
            }
        }
        assert_eq!(orientations.len(), 8);
        // 1 - 0.9 (0.8 + 0.2 / 8) of them: 257.5, within six standard deviations.
        assert!((f64::from(changed) - 257.5).abs() < 6.0 * (1000.0 * 0.2575 * 0.7425f64).sqrt(), "{changed}");
    }
}
