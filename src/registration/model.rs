//! What is looked for: which maps, by which parameters.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::affine::{frame, index_map, parameters};
use crate::error::{Error, Result};
use crate::ops::affine_dice::{Frame, Matrix};
use crate::volume::{Affine, Grid};

/// A family of maps of space.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Transformation {
    /// Any 3 x 4 matrix: 12 parameters, normalised coordinates to normalised coordinates.
    #[default]
    Affine,
    /// A shift, a rotation and one scale: 7 parameters.
    Similarity,
    /// A shift and a rotation: 6 parameters.
    Rigid,
    /// A shift: 3 parameters.
    Translation,
}

impl Transformation {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Affine, Self::Similarity, Self::Rigid, Self::Translation];

    /// How many parameters it has.
    pub fn parameters(self) -> usize {
        match self {
            Self::Affine => 12,
            Self::Similarity => 7,
            Self::Rigid => 6,
            Self::Translation => 3,
        }
    }
}

impl fmt::Display for Transformation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Affine => "affine",
            Self::Similarity => "similarity",
            Self::Rigid => "rigid",
            Self::Translation => "translation",
        })
    }
}

impl FromStr for Transformation {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|t| t.to_string() == text).ok_or_else(|| {
            Error::Usage(format!("transformation: expected affine, similarity, rigid or translation, found '{text}'"))
        })
    }
}

/// Parameters, the index maps they mean, and derivatives by them.
#[derive(Debug, Clone)]
pub(super) enum Model {
    /// theta, see [`Frame`].
    Affine { frame: Frame, start: Matrix },
    /// Motions in the patient's space on top of a start.
    Motion(Motion),
}

/// world(p) = s R (start(p) - pivot) + pivot + reach t, with R = Rz Ry Rx. Parameters: t, the angles about x, y and z in
/// radians, ln s; a family with fewer has the first of them. A unit of each moves the organs about as far.
#[derive(Debug, Clone)]
pub(super) struct Motion {
    count: usize,
    start: Affine,
    pivot: [f64; 3],
    /// Millimetres.
    reach: f64,
    fixed: Affine,
    /// Millimetres to index of the moving grid.
    to_moving: Affine,
}

impl Model {
    /// From `start`, a map of the patient's space; motions turn about where it takes `centre`.
    pub(super) fn new(
        kind: Transformation,
        [fixed, moving]: [&Grid; 2],
        start: &Affine,
        centre: [f64; 3],
        align_corners: bool,
    ) -> Result<Self> {
        if kind == Transformation::Affine {
            let frame = frame(fixed, moving, align_corners);
            let start = parameters(&frame, &index_map(fixed, moving, start)?)?;
            return Ok(Self::Affine { frame, start });
        }
        let (spacing, [d, h, w]) = (fixed.affine.spacing(), fixed.shape);
        // As normalised coordinates: a unit is half the grid.
        let reach = [w, h, d].iter().zip(spacing).map(|(n, s)| *n as f64 * s / 2.0).fold(1.0, f64::max);
        Ok(Self::Motion(Motion {
            count: kind.parameters(),
            start: *start,
            pivot: start.apply(centre),
            reach,
            fixed: fixed.affine,
            to_moving: moving.affine.inverse()?,
        }))
    }

    pub(super) fn start(&self) -> Vec<f64> {
        match self {
            Self::Affine { start, .. } => start.as_flattened().to_vec(),
            Self::Motion(motion) => vec![0.0; motion.count],
        }
    }

    /// The index map.
    pub(super) fn matrix(&self, parameters: &[f64]) -> Matrix {
        match self {
            Self::Affine { frame, .. } => frame.matrix(&rows(parameters)),
            Self::Motion(motion) => {
                motion.to_moving.after(&motion.world(parameters).after(&motion.start).after(&motion.fixed)).0
            }
        }
    }

    /// d / d parameters from d / d matrix.
    pub(super) fn gradient(&self, parameters: &[f64], by_matrix: &Matrix) -> Vec<f64> {
        match self {
            Self::Affine { frame, .. } => frame.gradient(by_matrix).as_flattened().to_vec(),
            Self::Motion(motion) => motion.gradient(parameters, by_matrix),
        }
    }
}

/// Twelve numbers as a matrix.
pub(super) fn rows(values: &[f64]) -> Matrix {
    std::array::from_fn(|r| std::array::from_fn(|c| values[4 * r + c]))
}

type Linear = [[f64; 3]; 3];

fn product(a: &Linear, b: &Linear) -> Linear {
    std::array::from_fn(|r| std::array::from_fn(|c| (0..3).map(|k| a[r][k] * b[k][c]).sum()))
}

/// A turn about axis `k`, and its derivative by the angle.
fn turn(k: usize, angle: f64) -> [Linear; 2] {
    let (sin, cos) = angle.sin_cos();
    let (i, j) = ((k + 1) % 3, (k + 2) % 3);
    let (mut turn, mut slope) = ([[0.0; 3]; 3], [[0.0; 3]; 3]);
    turn[k][k] = 1.0;
    (turn[i][i], turn[i][j], turn[j][i], turn[j][j]) = (cos, -sin, sin, cos);
    (slope[i][i], slope[i][j], slope[j][i], slope[j][j]) = (-sin, -cos, cos, -sin);
    [turn, slope]
}

impl Motion {
    fn at(&self, parameters: &[f64], i: usize) -> f64 {
        if i < self.count { parameters[i] } else { 0.0 }
    }

    /// s R and, where `by` names one of the parameters, its derivative instead.
    fn linear(&self, parameters: &[f64], by: Option<usize>) -> Linear {
        let scale = self.at(parameters, 6).exp();
        let part = |k: usize| turn(k, self.at(parameters, 3 + k))[usize::from(by == Some(3 + k))];
        product(&product(&part(2), &part(1)), &part(0)).map(|row| row.map(|v| v * scale))
    }

    /// The motion itself, without the start.
    fn world(&self, parameters: &[f64]) -> Affine {
        let linear = self.linear(parameters, None);
        Affine(std::array::from_fn(|r| {
            let [a, b, c] = linear[r];
            let turned: f64 = (0..3).map(|k| linear[r][k] * self.pivot[k]).sum();
            [a, b, c, self.pivot[r] - turned + self.reach * self.at(parameters, r)]
        }))
    }

    fn gradient(&self, parameters: &[f64], by_matrix: &Matrix) -> Vec<f64> {
        // A derivative has no constant part of its own: the last row of its 4 x 4 matrix is 0.
        let before = self.start.after(&self.fixed);
        let by = |slope: Linear, shift: [f64; 3]| -> f64 {
            let moved: Matrix = std::array::from_fn(|r| {
                std::array::from_fn(|c| {
                    let constant = if c == 3 { shift[r] } else { 0.0 };
                    (0..3).map(|k| slope[r][k] * before.0[k][c]).sum::<f64>() + constant
                })
            });
            let mut sum = 0.0;
            for r in 0..3 {
                for c in 0..4 {
                    let entry: f64 = (0..3).map(|k| self.to_moving.0[r][k] * moved[k][c]).sum();
                    sum += by_matrix[r][c] * entry;
                }
            }
            sum
        };
        (0..self.count)
            .map(|i| {
                if i < 3 {
                    return by([[0.0; 3]; 3], std::array::from_fn(|r| if r == i { self.reach } else { 0.0 }));
                }
                // d s R / d ln s is s R.
                let slope = self.linear(parameters, if i < 6 { Some(i) } else { None });
                by(slope, std::array::from_fn(|r| -(0..3).map(|k| slope[r][k] * self.pivot[k]).sum::<f64>()))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The derivative of the index map along every parameter against central differences.
    #[test]
    fn gradients_are_central_differences() {
        let plan = |shape, spacing: [f64; 3]| {
            let mut affine = Affine([[0.1, -0.2, 0.05, 7.0], [0.3, 0.1, 0.0, -9.0], [0.0, 0.2, 0.1, 3.0]]);
            (0..3).for_each(|k| affine.0[k][k] += spacing[k]);
            Grid { shape, affine }
        };
        let (fixed, moving) = (plan([20, 30, 40], [1.5, 2.0, -3.0]), plan([25, 20, 30], [-2.0, 1.0, 2.5]));
        let start = Affine([[1.0, 0.1, 0.0, 4.0], [-0.1, 0.9, 0.2, 5.0], [0.0, 0.0, 1.1, -6.0]]);
        let weights = Affine([[0.3, -0.7, 0.2, 0.9], [0.5, 0.4, -0.6, -0.1], [-0.2, 0.8, 0.6, 0.35]]).0;
        for kind in Transformation::ALL {
            let model = Model::new(kind, [&fixed, &moving], &start, [1.0, 2.0, 3.0], true).expect("a model");
            let mut at = model.start();
            assert_eq!(at.len(), kind.parameters());
            if kind != Transformation::Affine {
                // The start is the start.
                let want = index_map(&fixed, &moving, &start).expect("a map");
                let got = model.matrix(&at);
                let apart = got.as_flattened().iter().zip(want.as_flattened()).map(|(a, b)| (a - b).abs());
                assert!(apart.fold(0.0, f64::max) < 1e-9, "{kind}");
            }
            at.iter_mut().enumerate().for_each(|(i, v)| *v += 0.1 * (i as f64 - 2.0));
            let value = |at: &[f64]| -> f64 {
                let matrix = model.matrix(at);
                matrix.as_flattened().iter().zip(weights.as_flattened()).map(|(m, w)| m * w).sum()
            };
            let gradient = model.gradient(&at, &weights);
            for i in 0..at.len() {
                let along = |step: f64| {
                    let mut at = at.clone();
                    at[i] += step;
                    value(&at)
                };
                let want = (along(1e-5) - along(-1e-5)) / 2e-5;
                assert!((gradient[i] - want).abs() <= 1e-6 * want.abs().max(1.0), "{kind} {i}: {} {want}", gradient[i]);
            }
        }
    }
}
