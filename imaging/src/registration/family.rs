//! Families of transforms: their parameters, and the parameters that the search starts from.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::frames::{frame, index_map, parameters};
use crate::volume::{Affine, Grid};
use nephron_compute::error::{Error, Result};
use nephron_compute::ops::affine_dice::{Parameters, Parametrization};

/// A family of transforms of space.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transformation {
    /// Any 3 x 4 matrix: 12 parameters, which map normalised coordinates to normalised coordinates.
    #[default]
    Affine,
    /// A translation, a rotation and one scale: 7 parameters.
    Similarity,
    /// A translation and a rotation: 6 parameters.
    Rigid,
    /// A translation: 3 parameters.
    Translation,
}

impl Transformation {
    /// Every family.
    pub const ALL: [Self; 4] = [Self::Affine, Self::Similarity, Self::Rigid, Self::Translation];

    /// The number of parameters.
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
            Error::argument("transformation", "affine, similarity, rigid or translation", format!("'{text}'"))
        })
    }
}

/// The transforms of a family between two grids as a function of parameters, and the parameters of the start.
#[derive(Debug, Clone)]
pub(super) struct SearchSpace {
    pub parametrization: Parametrization,
    pub start: Vec<f64>,
}

impl SearchSpace {
    /// The search space around `start`, a map of the patient's space.
    ///
    /// A motion is world(p) = s R (start(p) - pivot) + pivot + u t, where the pivot is start(`centre`), t the translation and u
    /// its unit. With u chosen as below, a change of 1 in any parameter moves the organs by about the same distance.
    pub fn new(
        kind: Transformation,
        [fixed, moving]: [&Grid; 2],
        start: &Affine,
        centre: [f64; 3],
        align_corners: bool,
    ) -> Result<Self> {
        if kind == Transformation::Affine {
            let frame = frame(fixed, moving, align_corners);
            let start = parameters(&frame, &index_map(fixed, moving, start)?)?;
            return Ok(Self { parametrization: Parametrization::from(&frame), start: start.as_flattened().to_vec() });
        }
        let (spacing, [d, h, w]) = (fixed.affine.spacing(), fixed.shape);
        // As in normalised coordinates, where 1 is half of the grid: half of its longest edge.
        let shift_unit = [w, h, d].iter().zip(spacing).map(|(n, s)| *n as f64 * s / 2.0).fold(1.0, f64::max);
        let pivot = start.apply(centre);
        let (mut pre, mut post) = (start.after(&fixed.affine).0, moving.affine.inverse()?);
        let onto_pivot = post.apply(pivot);
        for r in 0..3 {
            pre[r][3] -= pivot[r];
            post.0[r][3] = onto_pivot[r];
        }
        let parameters = Parameters::Motion { count: kind.parameters(), shift_unit };
        let parametrization = Parametrization { pre, post: post.0, parameters };
        Ok(Self { parametrization, start: vec![0.0; kind.parameters()] })
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
            let space =
                SearchSpace::new(kind, [&fixed, &moving], &start, [1.0, 2.0, 3.0], true).expect("a search space");
            let mut at = space.start.clone();
            assert_eq!(at.len(), kind.parameters());
            if kind != Transformation::Affine {
                // The parameters of the start give the map of the start.
                let want = index_map(&fixed, &moving, &start).expect("a map");
                let got = space.parametrization.matrix(&at);
                let apart = got.as_flattened().iter().zip(want.as_flattened()).map(|(a, b)| (a - b).abs());
                assert!(apart.fold(0.0, f64::max) < 1e-9, "{kind}");
            }
            at.iter_mut().enumerate().for_each(|(i, v)| *v += 0.1 * (i as f64 - 2.0));
            let value = |at: &[f64]| -> f64 {
                let matrix = space.parametrization.matrix(at);
                matrix.as_flattened().iter().zip(weights.as_flattened()).map(|(m, w)| m * w).sum()
            };
            let gradient = space.parametrization.gradient(&at, &weights);
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
