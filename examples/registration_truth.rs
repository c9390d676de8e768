//! Measures the error of registration: registers masks to copies of themselves that were moved by known maps.
//!
//! ```text
//! cargo run --release --example registration_truth -- MASK.nii.gz... [--cases 20] [--deform MM] [--csv FILE] [--write DIR]
//! ```
//!
//! Each case rotates a mask by up to 10 degrees about each axis, scales it by 0.9 to 1.1 along each and translates it by up to 30 mm (as
//! breathing moves kidneys, and another position of the patient), all uniform and from fixed seeds. `--deform` adds a deformation: a
//! sum of six waves of 80 to 160 mm with the given root mean square in millimetres. The moved mask is sampled with the spacing of the
//! mask, on a grid that contains all of it. `--write` writes the pairs, for use with other programs.

use std::path::PathBuf;

use nephron::io::nifti;
use nephron::registration::{Overlap, RegistrationOptions, register};
use nephron::volume::{Affine, Grid, LabelVolume, Volume, Voxels, WHOLE_KIDNEY};
use nephron::{Device, Error, Result};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

struct Arguments {
    masks: Vec<PathBuf>,
    cases: u64,
    deform: f64,
    csv: Option<PathBuf>,
    write: Option<PathBuf>,
}

fn arguments() -> Result<Arguments> {
    let mut found = Arguments { masks: Vec::new(), cases: 20, deform: 0.0, csv: None, write: None };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| Error::Inputs(format!("{word} needs a value")));
        let wrong = |text: &str| Error::Inputs(format!("expected a number, found '{text}'"));
        match word.as_str() {
            "--cases" => found.cases = value().and_then(|t| t.parse().map_err(|_| wrong(&t)))?,
            "--deform" => found.deform = value().and_then(|t| t.parse().map_err(|_| wrong(&t)))?,
            "--csv" => found.csv = Some(value()?.into()),
            "--write" => found.write = Some(value()?.into()),
            _ => found.masks.push(word.into()),
        }
    }
    if found.masks.is_empty() {
        return Err(Error::Inputs("expected one mask or more".into()));
    }
    Ok(found)
}

/// The map from a point of the moved patient to a point of the patient: an affine map plus waves.
struct Motion {
    back: Affine,
    /// The waves: displacement in mm, wave vector in radians per mm, and phase.
    waves: Vec<([f64; 3], [f64; 3], f64)>,
}

impl Motion {
    fn draw(rng: &mut ChaCha8Rng, centre: [f64; 3], deform: f64) -> Self {
        let turn = |axis: usize, degrees: f64| {
            let (sin, cos) = degrees.to_radians().sin_cos();
            let (i, j) = ((axis + 1) % 3, (axis + 2) % 3);
            let mut turn = Affine::IDENTITY;
            (turn.0[i][i], turn.0[i][j], turn.0[j][i], turn.0[j][j]) = (cos, -sin, sin, cos);
            turn
        };
        let [x, y, z] = std::array::from_fn(|axis| turn(axis, rng.random_range(-10.0..10.0)));
        let mut linear = z.after(&y).after(&x);
        for k in 0..3 {
            let scale = rng.random_range(0.9..1.1);
            linear.0.iter_mut().for_each(|row| row[k] *= scale);
        }
        let moved = linear.apply(centre);
        for (k, row) in linear.0.iter_mut().enumerate() {
            row[3] = centre[k] - moved[k] + rng.random_range(-30.0..30.0);
        }
        let mut waves: Vec<_> = (0..6)
            .map(|_| {
                let mut unit = || -> [f64; 3] {
                    let v: [f64; 3] = std::array::from_fn(|_| rng.random_range(-1.0..1.0f64));
                    let length = v.iter().map(|v| v * v).sum::<f64>().sqrt().max(1e-6);
                    v.map(|v| v / length)
                };
                let (size, direction) = (unit(), unit());
                let length = rng.random_range(80.0..160.0);
                (size, direction.map(|v| v * std::f64::consts::TAU / length), rng.random_range(0.0..6.3))
            })
            .collect();
        // A wave of amplitude a has a mean square of a^2 / 2.
        let amplitude = deform * (2.0 / waves.len() as f64).sqrt();
        waves.iter_mut().for_each(|(size, ..)| *size = size.map(|v| v * amplitude));
        Self { back: linear, waves }
    }

    fn apply(&self, point: [f64; 3]) -> [f64; 3] {
        let mut out = self.back.apply(point);
        for (size, vector, phase) in &self.waves {
            let wave = (vector.iter().zip(point).map(|(v, p)| v * p).sum::<f64>() + phase).sin();
            out.iter_mut().zip(size).for_each(|(out, size)| *out += size * wave);
        }
        out
    }
}

/// The positions of the labelled voxels, RAS millimetres.
fn labelled(mask: &LabelVolume) -> Vec<[f64; 3]> {
    let [_, h, w] = mask.shape();
    let points = mask.labels().iter().enumerate().filter(|(_, l)| WHOLE_KIDNEY.contains(*l));
    points.map(|(i, _)| mask.affine().apply([(i % w) as f64, (i / w % h) as f64, (i / w / h) as f64])).collect()
}

/// The mask of the moved patient, with the spacing and the axes of the original and as large as needed.
fn moved(mask: &LabelVolume, motion: &Motion) -> Result<Volume> {
    let forward = motion.back.inverse()?;
    let to_index = mask.affine().inverse()?;
    let (mut low, mut high) = ([f64::INFINITY; 3], [f64::NEG_INFINITY; 3]);
    for point in labelled(mask) {
        let at = to_index.apply(forward.apply(point));
        (0..3).for_each(|k| (low[k], high[k]) = (low[k].min(at[k]), high[k].max(at[k])));
    }
    let spacing = mask.affine().spacing();
    // Waves displace points by a few times their root mean square.
    let size: [usize; 3] = std::array::from_fn(|k| (high[k] - low[k] + 50.0 / spacing[k]) as usize + 1);
    let mut shift = Affine::IDENTITY;
    (0..3).for_each(|k| shift.0[k][3] = (low[k] - 25.0 / spacing[k]).floor());
    let grid = Grid { shape: [size[2], size[1], size[0]], affine: mask.affine().after(&shift) };
    let [d, h, w] = mask.shape();
    let inside = [w, h, d].map(|n| n as f64);
    let voxels: Vec<u8> = (0..size.iter().product())
        .map(|i: usize| {
            let index = [(i % size[0]) as f64, (i / size[0] % size[1]) as f64, (i / size[0] / size[1]) as f64];
            let at = to_index.apply(motion.apply(grid.affine.apply(index))).map(|v| (v + 0.5).floor());
            if !(0..3).all(|k| at[k] >= 0.0 && at[k] < inside[k]) {
                return 0;
            }
            mask.labels()[(at[2] as usize * h + at[1] as usize) * w + at[0] as usize]
        })
        .collect();
    Volume::new(grid.shape, Voxels::U8(voxels.into()), grid.affine)
}

/// The mean and the standard deviation.
fn spread(values: &[f64]) -> String {
    let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
    let square = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (values.len().max(2) - 1) as f64;
    format!("{mean:.4} +- {:.4}", square.sqrt())
}

fn main() -> Result<()> {
    let arguments = arguments()?;
    let device = Device::auto();
    let mut csv = String::from(
        "mask,case,kidney_before,kidney_centre_of_mass,kidney_aligned,tumour_before,tumour_centre_of_mass,tumour_aligned,\
         worst_mm,iterations,seconds\n",
    );
    // Hard Dice of kidney (0-2) and tumour (3-5), largest distance, seconds.
    let mut columns: [Vec<f64>; 8] = Default::default();
    for path in &arguments.masks {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let image = nifti::read_labels(path)?;
        let (mask, volume) = (&image.labels, image.labels.to_volume());
        let points = labelled(mask);
        let mut centre = [0.0; 3];
        for point in &points {
            (0..3).for_each(|k| centre[k] += point[k] / points.len() as f64);
        }
        for case in 0..arguments.cases {
            let mut rng = ChaCha8Rng::seed_from_u64(case);
            let motion = Motion::draw(&mut rng, centre, arguments.deform);
            let moving = moved(mask, &motion)?;
            if let Some(folder) = &arguments.write {
                std::fs::create_dir_all(folder).map_err(|e| Error::in_file(folder, e))?;
                nifti::write(folder.join(format!("{case:02}_{name}")), &image.with_volume(moving.clone()))?;
            }
            let found = register(&volume, &moving, &device, &RegistrationOptions::default())?;
            // The true map should bring the image of a point under the found map back to that point.
            let worst = points.iter().step_by(7).map(|p| {
                let back = motion.back.apply(found.transform.apply(*p));
                (0..3).map(|k| (back[k] - p[k]).powi(2)).sum::<f64>().sqrt()
            });
            let worst = worst.fold(0.0, f64::max);
            let steps: [&Overlap; 3] = [&found.identity, &found.centre_of_mass, &found.aligned];
            let kidney = steps.map(|o| o.kidney.hard);
            let tumour = steps.map(|o| o.tumour.map_or(f64::NAN, |t| t.hard));
            let row = [kidney.as_slice(), &tumour, &[worst, found.seconds]].concat();
            csv += &format!(
                "{name},{case},{},{},{},{},{},{},{worst},{},{}\n",
                kidney[0], kidney[1], kidney[2], tumour[0], tumour[1], tumour[2], found.iterations, found.seconds
            );
            columns.iter_mut().zip(row).for_each(|(column, value)| column.push(value));
        }
        let of = |column: usize| {
            let last = &columns[column][columns[column].len() - arguments.cases as usize..];
            last.iter().copied().fold(f64::INFINITY, f64::min)
        };
        println!("{name}: least aligned Dice: kidney {:.4}, tumour {:.4}", of(2), of(5));
    }
    println!("\n{} pairs, deformed by {} mm (mean +- sd of hard Dice)", columns[0].len(), arguments.deform);
    println!("{:<16} {:>18} {:>18}", "", "kidney", "tumour");
    for (k, step) in ["as they lie", "centre of mass", "aligned"].into_iter().enumerate() {
        println!("{step:<16} {:>18} {:>18}", spread(&columns[k]), spread(&columns[3 + k]));
    }
    let above =
        (0..columns[0].len()).filter(|&i| columns[2][i] > columns[1][i] && columns[5][i] > columns[4][i]).count();
    println!("above the centre of mass in both: {above}");
    if arguments.deform == 0.0 {
        println!("worst distance from the truth: {} mm", spread(&columns[6]));
    }
    println!("seconds a pair: {}", spread(&columns[7]));
    if let Some(path) = &arguments.csv {
        std::fs::write(path, csv).map_err(|e| Error::in_file(path, e))?;
    }
    Ok(())
}
