//! The loss from the sums over the masks.

use super::Matrix;

/// The sums of one channel.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ChannelSums {
    /// I = sum p g.
    pub intersection: f64,
    /// P = sum p.
    pub p: f64,
    /// G = sum g.
    pub g: f64,
    /// The sum of d p / d position_r [x, y, z, 1], with positions in the moving grid and x, y, z in the fixed grid.
    pub all: Matrix,
    /// The same sum over the fixed mask: g d p / d position_r [x, y, z, 1].
    pub within: Matrix,
}

impl ChannelSums {
    pub(super) fn add(&mut self, other: &Self) {
        self.intersection += other.intersection;
        self.p += other.p;
        self.g += other.g;
        for (own, other) in [(&mut self.all, &other.all), (&mut self.within, &other.within)] {
            for (own, other) in own.as_flattened_mut().iter_mut().zip(other.as_flattened()) {
                *own += other;
            }
        }
    }
}

/// The sums of every channel.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AffineDiceSums(pub Vec<ChannelSums>);

/// The loss at a map.
#[derive(Debug, Clone, PartialEq)]
pub struct AffineDiceValue {
    /// Minus the weighted sum of `dice`.
    pub loss: f64,
    /// The gradient d loss / d index map.
    pub by_matrix: Matrix,
    /// The Dice (2 I + s) / (P + G + s) of each channel.
    pub dice: Vec<f64>,
}

impl AffineDiceSums {
    /// loss = - sum over the channels of `weights` times Dice, with the smoothing term s = `smooth`.
    pub fn value(&self, smooth: f64, weights: &[f64]) -> AffineDiceValue {
        let mut value = AffineDiceValue { loss: 0.0, by_matrix: [[0.0; 4]; 3], dice: vec![1.0; self.0.len()] };
        for ((sums, weight), dice) in self.0.iter().zip(weights).zip(&mut value.dice) {
            let below = sums.p + sums.g + smooth;
            if below > 0.0 {
                *dice = (2.0 * sums.intersection + smooth) / below;
                for (r, row) in value.by_matrix.iter_mut().enumerate() {
                    for (k, out) in row.iter_mut().enumerate() {
                        *out += weight * (*dice * sums.all[r][k] - 2.0 * sums.within[r][k]) / below;
                    }
                }
            }
            value.loss -= weight * *dice;
        }
        value
    }
}
