//! Parametrisations of maps from index to index, and derivatives by the parameters.

use super::{Frame, Matrix};

/// The index map `post` [A | b] `pre`, with [A | b] computed from parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Parametrization {
    /// The affine map from the fixed grid's indices to the input of [A | b].
    pub pre: Matrix,
    /// The affine map from the output of [A | b] to the moving grid's indices.
    pub post: Matrix,
    /// How [A | b] is computed from the parameters.
    pub parameters: Parameters,
}

/// The parameters of [A | b].
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Parameters {
    /// The 12 parameters are the entries of [A | b], row by row.
    Matrix,
    /// A = s Rz Ry Rx and b = `shift_unit` t. Parameters: t, the angles about x, y and z in radians, ln s; the first
    /// `count` of them, the others are 0.
    Motion {
        /// The number of parameters: 3 for a translation, 6 with the angles, 7 with the scale.
        count: usize,
        /// The length of a translation whose parameter is 1.
        shift_unit: f64,
    },
}

impl From<&Frame> for Parametrization {
    fn from(frame: &Frame) -> Self {
        Self { pre: frame.input.matrix(), post: frame.output.matrix(), parameters: Parameters::Matrix }
    }
}

impl Parametrization {
    /// The index map for given parameters.
    ///
    /// # Panics
    /// With fewer parameters than the parametrisation has.
    pub fn matrix(&self, parameters: &[f64]) -> Matrix {
        after(&self.post, &after(&self.parameters.map(parameters), &self.pre))
    }

    /// The derivative by the parameters, from the derivative by the index map.
    ///
    /// # Panics
    /// With fewer parameters than the parametrisation has.
    pub fn gradient(&self, parameters: &[f64], by_matrix: &Matrix) -> Vec<f64> {
        // Through `pre`, then through `post`.
        let inner: Matrix = std::array::from_fn(|i| {
            std::array::from_fn(|k| {
                if k == 3 { by_matrix[i][3] } else { (0..4).map(|c| by_matrix[i][c] * self.pre[k][c]).sum() }
            })
        });
        let by_map =
            std::array::from_fn(|r| std::array::from_fn(|k| (0..3).map(|i| self.post[i][r] * inner[i][k]).sum()));
        self.parameters.gradient(parameters, &by_map)
    }
}

impl Parameters {
    /// The number of parameters.
    pub fn count(&self) -> usize {
        match self {
            Self::Matrix => 12,
            Self::Motion { count, .. } => *count,
        }
    }

    /// [A | b].
    fn map(&self, parameters: &[f64]) -> Matrix {
        match self {
            Self::Matrix => std::array::from_fn(|r| std::array::from_fn(|c| parameters[4 * r + c])),
            Self::Motion { count, shift_unit } => {
                let motion = Motion::new(&parameters[..*count]);
                std::array::from_fn(|r| {
                    let [a, b, c] = motion.linear[r];
                    [a, b, c, shift_unit * parameters[r]]
                })
            }
        }
    }

    /// The derivative by the parameters, from the derivative by [A | b].
    fn gradient(&self, parameters: &[f64], by_map: &Matrix) -> Vec<f64> {
        let &Self::Motion { count, shift_unit } = self else { return by_map.as_flattened().to_vec() };
        let Motion { linear, axes } = Motion::new(&parameters[..count]);
        // Columns of A crossed with the derivatives by them.
        let torque: [f64; 3] = std::array::from_fn(|r| {
            let (i, j) = ((r + 1) % 3, (r + 2) % 3);
            (0..3).map(|k| linear[i][k] * by_map[j][k] - linear[j][k] * by_map[i][k]).sum()
        });
        let by_parameter = |p: usize| match p {
            0..=2 => shift_unit * by_map[p][3],
            3..=5 => (0..3).map(|r| axes[p - 3][r] * torque[r]).sum(),
            _ => (0..9).map(|i| linear[i / 3][i % 3] * by_map[i / 3][i % 3]).sum(),
        };
        (0..count).map(by_parameter).collect()
    }
}

/// s R, and the axes about which the angles about x, y and z rotate it: d A / d angle is the cross product of the axis with the columns of A.
struct Motion {
    linear: [[f64; 3]; 3],
    axes: [[f64; 3]; 3],
}

impl Motion {
    fn new(parameters: &[f64]) -> Self {
        let at = |i: usize| parameters.get(i).copied().unwrap_or(0.0);
        let [(sx, cx), (sy, cy), (sz, cz)] = [3, 4, 5].map(|i| at(i).sin_cos());
        let scale = at(6).exp();
        let turn = [
            [cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx],
            [sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx],
            [-sy, cy * sx, cy * cx],
        ];
        let axes = [turn.map(|row| row[0]), [-sz, cz, 0.0], [0.0, 0.0, 1.0]];
        Self { linear: turn.map(|row| row.map(|v| v * scale)), axes }
    }
}

/// The composition x -> a(b(x)).
fn after(a: &Matrix, b: &Matrix) -> Matrix {
    std::array::from_fn(|r| {
        std::array::from_fn(|c| {
            let constant = if c == 3 { a[r][3] } else { 0.0 };
            (0..3).map(|k| a[r][k] * b[k][c]).sum::<f64>() + constant
        })
    })
}
