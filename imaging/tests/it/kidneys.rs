//! A patient with two kidneys and a tumour who moved between two scans: masks on any grid. Shared with the tests of the command.

use nephron_imaging::volume::{Affine, Grid, Volume, Voxels};

/// A patient's kidneys: two ellipsoids, the left one with a tumour; points in RAS millimetres.
pub fn kidneys([x, y, z]: [f64; 3]) -> u8 {
    let inside = |centre: [f64; 3], radii: [f64; 3]| {
        ((x - centre[0]) / radii[0]).powi(2)
            + ((y - centre[1]) / radii[1]).powi(2)
            + ((z - centre[2]) / radii[2]).powi(2)
            <= 1.0
    };
    if inside([-62.0, 12.0, 31.0], [17.0, 15.0, 19.0]) {
        return 2;
    }
    u8::from(inside([-55.0, 0.0, 5.0], [25.0, 22.0, 48.0]) || inside([58.0, -6.0, -9.0], [24.0, 25.0, 45.0]))
}

/// The labels of a patient who has moved, at every voxel of a grid: a point p of the scan shows the point `back` p of the patient.
pub fn scan(grid: &Grid, back: &Affine, labels: impl Fn([f64; 3]) -> u8) -> Volume {
    let [d, h, w] = grid.shape;
    let map = back.after(&grid.affine);
    let voxels = (0..d * h * w).map(|i| labels(map.apply([(i % w) as f64, (i / w % h) as f64, (i / w / h) as f64])));
    Volume::new(grid.shape, Voxels::U8(voxels.collect::<Vec<_>>().into()), grid.affine).expect("a volume")
}

/// A grid around the origin with a spacing (i, j, k) in mm; a negative spacing runs towards left, back or feet.
pub fn grid(shape: [usize; 3], spacing: [f64; 3]) -> Grid {
    let [d, h, w] = shape;
    let mut affine = Affine::IDENTITY;
    for (k, size) in [w, h, d].into_iter().enumerate() {
        affine.0[k][k] = spacing[k];
        affine.0[k][3] = -spacing[k] * (size as f64 - 1.0) / 2.0;
    }
    Grid { shape, affine }
}

/// The map that rotates about z and then x by `degrees`, scales and translates.
pub fn motion(degrees: f64, scale: f64, shift: [f64; 3]) -> Affine {
    let (s, c) = degrees.to_radians().sin_cos();
    let turn = Affine([[c, -s, 0.0, 0.0], [s, c, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]);
    let tilt = Affine([[1.0, 0.0, 0.0, 0.0], [0.0, c, -s, 0.0], [0.0, s, c, 0.0]]);
    let mut map = turn.after(&tilt);
    for (row, shift) in map.0.iter_mut().zip(shift) {
        row[..3].iter_mut().for_each(|v| *v *= scale);
        row[3] = shift;
    }
    map
}
