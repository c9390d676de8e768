//! Synthetic patients: the same bytes every time, ground truth that fits the images, enhancement that distinguishes the subtypes.

use std::ops::ControlFlow;

use nephron::io::nifti;
use nephron::phantom::{Patient, PhantomOptions, generate};
use nephron::phase::{Phase, Subtype};
use nephron::pipeline::{ModelOptions, Precision, SegmentOptions, Segmenter};
use nephron::volume::{Grid, TUMOUR, Volume, Voxels, WHOLE_KIDNEY};
use nephron::{Device, Error};

use crate::support;

fn hu(volume: &Volume) -> &[i16] {
    match volume.voxels() {
        Voxels::I16(v) => v,
        other => panic!("expected i16, found {other:?}"),
    }
}

fn coarse(seed: u64) -> PhantomOptions {
    PhantomOptions { seed, spacing: [5.0, 5.0, 6.0], ..Default::default() }
}

/// The position of voxel n in millimetres.
fn position(grid: &Grid, n: usize) -> [f64; 3] {
    let [_, h, w] = grid.shape;
    grid.affine.apply([(n % w) as f64, (n / w % h) as f64, (n / (w * h)) as f64])
}

#[test]
fn the_same_seed_gives_the_same_bytes_on_any_number_of_threads() {
    let on = |threads: usize, options: &PhantomOptions| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        pool.install(|| generate(options)).expect("valid options")
    };
    let (one, three) = (on(1, &coarse(11)), on(3, &coarse(11)));
    assert_eq!(one.truth(), three.truth());
    for (a, b) in one.phases.iter().zip(&three.phases) {
        assert_eq!(hu(&a.image), hu(&b.image));
        assert_eq!(a.mask.labels(), b.mask.labels());
    }
    let other = on(2, &coarse(12));
    assert_ne!(hu(&one.phases[2].image), hu(&other.phases[2].image));
}

#[test]
fn a_phase_depends_neither_on_the_other_phases_nor_its_shapes_on_the_subtype() {
    let all = generate(&coarse(3)).expect("valid options");
    let options = PhantomOptions { phases: vec![Phase::Delayed], ..coarse(3) };
    let alone = generate(&options).expect("valid options");
    assert_eq!(alone.subtype, all.subtype);
    assert_eq!(hu(&alone.phases[0].image), hu(&all.phases[3].image));
    let masks = Subtype::ALL.map(|subtype| {
        let patient = generate(&PhantomOptions { subtype: Some(subtype), spacing: [10.0; 3], ..options.clone() });
        patient.expect("valid options").phases[0].mask.labels().to_vec()
    });
    assert!(masks.iter().all(|m| *m == masks[0]), "the subtype changed the anatomy");
}

/// The ground truth maps the mask of the portal phase to that of every other phase: exactly away from surfaces, and in the centre of
/// mass.
#[test]
fn the_transforms_carry_the_portal_mask_onto_the_others() {
    let options = PhantomOptions { spacing: [3.0; 3], size: [220.0, 150.0, 150.0], ..coarse(5) };
    let patient = generate(&options).expect("valid options");
    let portal = &patient.phases[Phase::Portal as usize];
    assert_eq!(portal.from_portal([10.0, -20.0, 30.0]), [10.0, -20.0, 30.0]);
    let fixed = portal.mask.labels();
    let [_, h, w] = portal.mask.shape();
    let interior = |n: usize| {
        let step = |dz: usize, dy: usize, dx: usize| (n + dz * w * h + dy * w + dx).checked_sub(w * h + w + 1);
        (0..27).all(|i| step(i / 9, i / 3 % 3, i % 3).and_then(|m| fixed.get(m)).is_some_and(|l| *l == fixed[n]))
    };
    for phase in patient.phases.iter().filter(|p| p.phase != Phase::Portal) {
        let (mut checked, mut wrong) = (0usize, 0usize);
        let (mut moved, mut count) = ([0.0; 3], 0.0);
        let [pd, ph, pw] = phase.mask.shape();
        let back = phase.mask.affine().inverse().expect("a grid");
        for n in (0..fixed.len()).filter(|n| fixed[*n] != 0) {
            let q = phase.from_portal(position(&portal.mask.grid(), n));
            if fixed[n] == 2 {
                moved = std::array::from_fn(|i| moved[i] + q[i]);
                count += 1.0;
            }
            if interior(n) {
                let [i, j, k] = back.apply(q).map(|x| x.round() as usize);
                assert!(i < pw && j < ph && k < pd, "{}: the kidney left the field of view", phase.phase);
                checked += 1;
                wrong += usize::from(phase.mask.labels()[(k * ph + j) * pw + i] != fixed[n]);
            }
        }
        assert!(checked > 1000 && wrong * 200 < checked, "{}: {wrong} of {checked} labels differ", phase.phase);
        let found: Vec<[f64; 3]> = (0..pd * ph * pw)
            .filter(|n| phase.mask.labels()[*n] == 2)
            .map(|n| position(&phase.mask.grid(), n))
            .collect();
        for axis in 0..3 {
            let centre = found.iter().map(|p| p[axis]).sum::<f64>() / found.len() as f64;
            assert!((centre - moved[axis] / count).abs() < 1.0, "{}: axis {axis}", phase.phase);
        }
    }
}

/// Every phase but the portal one moves the kidneys by millimetres to centimetres, and its motion is invertible.
#[test]
fn phases_lie_apart() {
    for seed in 0..20 {
        let options = PhantomOptions { spacing: [20.0; 3], ..coarse(seed) };
        for phase in generate(&options).expect("valid options").phases {
            let q = phase.from_portal([60.0, -35.0, 0.0]);
            let shift = ((q[0] - 60.0).powi(2) + (q[1] + 35.0).powi(2) + q[2].powi(2)).sqrt();
            let determinant = phase.transform.determinant();
            if phase.phase == Phase::Portal {
                assert_eq!(shift, 0.0);
            } else {
                assert!((1.0..30.0).contains(&shift), "seed {seed}, {}: {shift} mm", phase.phase);
                assert!((0.9..1.1).contains(&determinant), "seed {seed}, {}: {determinant}", phase.phase);
            }
        }
    }
}

#[test]
fn kidneys_are_whole_in_the_default_field_of_view() {
    for seed in 0..4 {
        let options = PhantomOptions { spacing: [9.0, 9.0, 3.0], ..coarse(seed) };
        for phase in generate(&options).expect("valid options").phases {
            let mask = phase.mask.labels();
            let plane = mask.len() / phase.mask.shape()[0];
            assert!(
                mask[..plane].iter().chain(&mask[mask.len() - plane..]).all(|l| *l == 0),
                "seed {seed}, {}",
                phase.phase
            );
            let volume = mask.iter().filter(|l| **l == 1).count() as f64 * 9.0 * 9.0 * 3.0 / 1000.0;
            assert!((140.0..420.0).contains(&volume), "seed {seed}, {}: {volume} ml of kidneys", phase.phase);
        }
    }
}

#[test]
fn noise_has_the_documented_strength() {
    let options = PhantomOptions { phases: vec![Phase::Portal], ..coarse(2) };
    let patient = generate(&options).expect("valid options");
    let image = &patient.phases[0].image;
    let [d, h, w] = image.shape();
    // The noise in air: four pixels near a corner of each slice, away from the edge, where the blur repeats pixels.
    let air: Vec<f64> = (0..d * 4).map(|n| f64::from(hu(image)[(n / 4) * h * w + 2 * w + 2 + n % 4])).collect();
    let mean = air.iter().sum::<f64>() / air.len() as f64;
    let sd = (air.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / air.len() as f64).sqrt();
    let ratio = sd / patient.noise;
    assert!((mean + 1000.0).abs() < 4.0 && (9.5 / 11.0..12.0 / 11.0).contains(&ratio), "mean {mean}, sd {sd}");
}

fn refused(options: &PhantomOptions) -> String {
    match generate(options) {
        Err(error @ (Error::Argument { .. } | Error::Inputs(_))) => error.to_string(),
        other => panic!("expected a refusal, found {:?}", other.map(|p| p.truth())),
    }
}

#[test]
fn options_out_of_range_are_refused() {
    let base = PhantomOptions::default();
    assert!(refused(&PhantomOptions { phases: vec![], ..base.clone() }).contains("at least one"));
    assert!(refused(&PhantomOptions { phases: vec![Phase::Portal; 2], ..base.clone() }).contains("portal phase twice"));
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY, 0.1, 25.0] {
        assert!(refused(&PhantomOptions { spacing: [1.0, bad, 1.0], ..base.clone() }).contains("0.3 to 20 mm"));
        assert!(refused(&PhantomOptions { size: [300.0, bad, 100.0], ..base.clone() }).contains("40 to 600 mm"));
    }
    let huge = PhantomOptions { spacing: [0.3; 3], size: [600.0; 3], ..base };
    assert!(refused(&huge).contains("8000000000"));
}

#[test]
fn written_files_read_back_as_they_were_made() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let out = dir.path().join("new/patient");
    let options = PhantomOptions { phases: vec![Phase::Arterial, Phase::Portal], ..coarse(8) };
    let patient: Patient = generate(&options).expect("valid options");
    let paths = patient.write(&out).expect("a writable folder");
    assert_eq!(paths.len(), 5);
    let truth: serde_json::Value =
        serde_json::from_slice(&std::fs::read(out.join("truth.json")).expect("written")).expect("JSON");
    assert_eq!(truth["subtype"], patient.subtype.name());
    for (n, phase) in patient.phases.iter().enumerate() {
        assert_eq!(truth["phases"][n]["phase"], phase.phase.name());
        let shift = truth["phases"][n]["affine"][2][3].as_f64().expect("a number");
        assert!((shift - phase.transform.0[2][3]).abs() < 1e-9);
        let image = nifti::read(out.join(format!("{}.nii.gz", phase.phase))).expect("a NIfTI file");
        let mask = nifti::read_labels(out.join(format!("{}_mask.nii.gz", phase.phase))).expect("a NIfTI file");
        assert_eq!(hu(&image.volume), hu(&phase.image));
        assert_eq!(mask.labels.labels(), phase.mask.labels());
        for (got, want) in [(image.volume.grid(), phase.image.grid()), (mask.labels.grid(), phase.mask.grid())] {
            assert_eq!(got.shape, want.shape);
            // NIfTI stores its matrix in f32.
            let (got, want) = (got.affine.0, want.affine.0);
            let mut pairs = got.as_flattened().iter().zip(want.as_flattened());
            assert!(pairs.all(|(a, b)| (a - b).abs() < 1e-4));
        }
    }
    let blocked = dir.path().join("file");
    std::fs::write(&blocked, b"x").expect("writable");
    let error = patient.write(&blocked).expect_err("a file is no folder").to_string();
    assert!(error.contains("file") && error.contains("folder"), "{error}");
}

/// models/demo/segmentation: plan, names and weights fit, and the network finds kidneys that it was not trained on. The field of view
/// is that of training; tiles do not overlap, to keep the test short.
#[test]
fn the_demo_network_segments_an_unseen_phantom() {
    let folder = support::root().join("models/demo/segmentation");
    let network =
        Segmenter::load(&folder, &ModelOptions::default(), Precision::Single, &Device::Cpu).expect("the shipped model");
    let options = PhantomOptions {
        seed: 20_001,
        subtype: Some(Subtype::ClearCell),
        phases: vec![Phase::Portal],
        ..PhantomOptions::default()
    };
    let phase = &generate(&options).expect("valid options").phases[0];
    let segmentation = SegmentOptions { step: 1.0, ..SegmentOptions::default() };
    let found =
        network.segment(&phase.image, &segmentation, &mut |_| ControlFlow::Continue(())).expect("a segmentation");
    let names: Vec<&str> = found.labels.targets().iter().map(|target| target.name.as_str()).collect();
    assert_eq!(names, ["kidney", "tumour"]);
    let dice = |labels: &[u8]| phase.mask.dice(&found.mask, labels).expect("one grid");
    let (kidney, tumour) = (dice(&WHOLE_KIDNEY), dice(&[TUMOUR]));
    assert!(kidney > 0.95 && tumour > 0.8, "kidney and tumour together: Dice {kidney}, tumour {tumour}");
}
