//! Affine maps of 3D space.

use nephron_compute::error::{Error, Result};

/// The map x' = A x + t, stored as the three rows of [A | t]. Unless documented otherwise it takes an index (i, j, k) to RAS+
/// millimetres.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Affine(pub [[f64; 4]; 3]);

impl Affine {
    /// The map x' = x.
    pub const IDENTITY: Self = Self([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]);

    /// The image A x + t of a point.
    pub fn apply(&self, x: [f64; 3]) -> [f64; 3] {
        self.0.map(|r| r[0] * x[0] + r[1] * x[1] + r[2] * x[2] + r[3])
    }

    /// The composition `self` after `first`: x' = self(first(x)).
    pub fn after(&self, first: &Self) -> Self {
        Self(self.0.map(|r| {
            let mut row: [f64; 4] = std::array::from_fn(|c| (0..3).map(|k| r[k] * first.0[k][c]).sum());
            row[3] += r[3];
            row
        }))
    }

    /// The determinant of A.
    pub fn determinant(&self) -> f64 {
        let [a, b, c] = &self.0;
        a[0] * (b[1] * c[2] - b[2] * c[1]) - a[1] * (b[0] * c[2] - b[2] * c[0]) + a[2] * (b[0] * c[1] - b[1] * c[0])
    }

    /// The inverse map.
    ///
    /// # Errors
    /// [`Error::Argument`] for an A that is singular (|det A| at most 1e-9 times the product of its column lengths) or not finite.
    pub fn inverse(&self) -> Result<Self> {
        let (det, m) = (self.determinant(), &self.0);
        let scale: f64 = self.spacing().iter().product();
        if !det.is_finite() || det.abs() <= 1e-9 * scale || scale == 0.0 {
            return Err(Error::argument("affine", "an invertible matrix", format!("determinant {det:e}")));
        }
        let cofactor = |r: usize, c: usize| {
            let (r1, r2, c1, c2) = ((r + 1) % 3, (r + 2) % 3, (c + 1) % 3, (c + 2) % 3);
            m[r1][c1] * m[r2][c2] - m[r1][c2] * m[r2][c1]
        };
        let mut out = [[0.0; 4]; 3];
        for (r, row) in out.iter_mut().enumerate() {
            for c in 0..3 {
                row[c] = cofactor(c, r) / det;
            }
            row[3] = -(0..3).map(|k| row[k] * m[k][3]).sum::<f64>();
        }
        Ok(Self(out))
    }

    /// Lengths of the columns of A: the voxel size in millimetres along (i, j, k).
    pub fn spacing(&self) -> [f64; 3] {
        std::array::from_fn(|c| self.0.iter().map(|r| r[c] * r[c]).sum::<f64>().sqrt())
    }

    /// The largest |cosine| of the angle between two columns of A: 0 for axes at right angles.
    pub fn largest_cosine(&self) -> f64 {
        let (m, length) = (&self.0, self.spacing());
        [(0, 1), (0, 2), (1, 2)]
            .iter()
            .map(|&(a, b)| (m.iter().map(|r| r[a] * r[b]).sum::<f64>() / (length[a] * length[b])).abs())
            .fold(0.0, f64::max)
    }

    /// The same map with its rows and columns reversed: from (i, j, k) order to (z, y, x) order, or back.
    pub fn reversed(&self) -> Self {
        let m = &self.0;
        Self(std::array::from_fn(|r| [m[2 - r][2], m[2 - r][1], m[2 - r][0], m[2 - r][3]]))
    }
}
