//! Lesions over the phases, and their classification.

use nephron::phase::Phase::{self, Arterial, Delayed, NonContrast, Portal};
use nephron::pipeline::classify::{Classifier, ClassifierConfig};
use nephron::pipeline::crop::Margin;
use nephron::pipeline::lesion_results::{Findings, findings};
use nephron::pipeline::lesions::{Lesion, LesionChoice, find, together};
use nephron::pipeline::{PhaseScan, Study};
use nephron::volume::{Affine, LabelVolume, Volume, Voxels};
use nephron::{DType, Device};

use crate::support::{compiles_only, devices};

const SHAPE: [usize; 3] = [12, 40, 40];

/// Voxels of 1 x 1 x 3 mm, translated by `x` along the first axis.
fn affine(x: f64) -> Affine {
    Affine([[-1.0, 0.0, 0.0, x], [0.0, -1.0, 0.0, 0.0], [0.0, 0.0, 3.0, 0.0]])
}

/// A phase with boxes of tumour, each given by its first voxel and its size, (z, y, x).
fn phase(phase: Phase, boxes: &[([usize; 3], [usize; 3])]) -> PhaseScan {
    let [d, h, w] = SHAPE;
    let mut labels = vec![0u8; d * h * w];
    for ([z, y, x], [dz, dy, dx]) in boxes {
        for k in *z..z + dz {
            for j in *y..y + dy {
                labels[(k * h + j) * w + x..(k * h + j) * w + x + dx].fill(2);
            }
        }
    }
    let values: Vec<i16> = (0..d * h * w).map(|i| (i * 31 % 400) as i16 - 50).collect();
    let image = Volume::new(SHAPE, Voxels::I16(values.into()), affine(0.0)).expect("an image");
    let mask = LabelVolume::new(SHAPE, labels, affine(0.0)).expect("a mask");
    PhaseScan::new(phase, image, mask).expect("a scan")
}

fn study(scans: impl IntoIterator<Item = PhaseScan>) -> Study {
    Study::new(scans).expect("each phase once")
}

fn volumes(lesion: &Lesion) -> Vec<f64> {
    // A voxel has 3 mm3.
    lesion.phases.iter().map(|p| (p.volume_ml * 1000.0 / 3.0).round()).collect()
}

#[test]
fn the_same_lesion_is_found_in_every_phase() {
    let large = |z, y, x| ([z, y, x], [4, 10, 10]);
    let small = |z, y, x| ([z, y, x], [2, 5, 5]);
    // In the last phase the smaller lesion has the larger component, and both lesions are at other positions than before.
    let phases = [
        phase(NonContrast, &[large(2, 5, 5), small(8, 30, 30)]),
        phase(Arterial, &[small(8, 31, 29), large(2, 6, 4)]),
        phase(Portal, &[large(3, 4, 6), small(8, 30, 31)]),
        phase(Delayed, &[small(9, 30, 30), large(2, 5, 7)]),
    ];
    let lesions = find(&study(phases.clone())).expect("lesions").0;
    assert_eq!(lesions.iter().map(|l| l.number).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(volumes(&lesions[0]), [400.0; 4]);
    assert_eq!(volumes(&lesions[1]), [50.0; 4]);
    assert!((lesions[0].volume_ml - 1.2).abs() < 1e-9);
    // The diagonal of a box of 10 x 10 x 12 mm.
    let diameter = lesions[0].phases[2].diameter;
    assert!(
        (diameter.maximum_2d_diameter_mm - 200f64.sqrt()).abs() < 1e-9
            && (diameter.maximum_3d_diameter_mm - 344f64.sqrt()).abs() < 1e-9
    );
    let centre = lesions[0].phases[0].centre.expect("found");
    assert_eq!(centre, [-9.5, -9.5, 10.5]);
}

#[test]
fn pieces_are_joined_and_strangers_are_not() {
    // A lesion that is split in one phase, and a neighbour that overlaps it by one row after alignment.
    let phases = [
        phase(Arterial, &[([2, 5, 5], [4, 10, 10]), ([2, 16, 5], [4, 6, 10])]),
        phase(Portal, &[([2, 5, 5], [4, 4, 10]), ([2, 11, 5], [4, 4, 10]), ([2, 16, 5], [4, 6, 10])]),
        phase(Delayed, &[([2, 5, 5], [4, 10, 10]), ([2, 17, 5], [4, 6, 10])]),
    ];
    let lesions = find(&study(phases.clone())).expect("lesions").0;
    assert_eq!(lesions.iter().map(volumes).collect::<Vec<_>>(), [[400.0, 320.0, 400.0], [240.0; 3]]);
    // Components that do not overlap are one lesion when they are close enough, otherwise two. The radius of the larger one is
    // (0.75 x 1200 mm3 / pi)^(1/3) = 6.6 mm; the centres are 6.5 and 7.5 mm apart.
    for (x, count) in [(15, 1), (16, 2)] {
        let phases = [phase(Portal, &[([2, 5, 5], [4, 10, 10])]), phase(Delayed, &[([2, 5, x], [4, 10, 3])])];
        let lesions = find(&study(phases.clone())).expect("lesions").0;
        assert_eq!(lesions.len(), count, "{x}");
        assert_eq!(lesions[0].missing().len(), usize::from(count == 2));
    }
    // On different grids only the distance in millimetres counts.
    let there = phase(Delayed, &[([2, 5, 20], [2, 6, 6])]);
    let image = there.image().with_affine(affine(15.0)).expect("an image");
    let mask = LabelVolume::new(SHAPE, there.mask().labels().to_vec(), affine(15.0)).expect("a mask");
    let moved = PhaseScan::new(Delayed, image, mask).expect("a scan");
    let here = phase(Portal, &[([2, 5, 5], [2, 6, 6])]);
    assert_eq!(find(&study([here, moved])).expect("lesions").0.len(), 1);
}

#[test]
fn specks_are_counted_and_not_listed() {
    // A voxel has 3 mm3, so 33 voxels are 0.099 ml.
    let (speck, lesion) = (([9, 1, 1], [1, 3, 11]), ([2, 5, 5], [2, 6, 6]));
    let phases = [phase(Portal, &[lesion, speck]), phase(Delayed, &[speck, lesion])];
    let (lesions, specks) = find(&study(phases.clone())).expect("lesions");
    assert_eq!((lesions.len(), specks.count), (1, 1));
    assert!((specks.volume_ml - 0.099).abs() < 1e-9, "{}", specks.volume_ml);
    let (alone, specks) = find(&study([phase(Portal, &[speck]), phase(Delayed, &[speck])])).expect("lesions");
    assert_eq!((alone.len(), specks.count), (1, 0), "where there is nothing else it is the tumour");
}

#[test]
fn a_speck_is_no_lesion_and_makes_no_two_lesions_one() {
    let lesion = ([2, 5, 5], [4, 10, 10]);
    // A small component next to a lesion is not part of it, even within the sum of the radii: this phase has missed the lesion.
    let phases = [phase(Arterial, &[lesion]), phase(Portal, &[lesion]), phase(Delayed, &[([4, 9, 16], [1, 1, 1])])];
    let (lesions, specks) = find(&study(phases.clone())).expect("lesions");
    assert_eq!((lesions.len(), lesions[0].missing(), specks.count), (1, vec![Delayed], 1));
    // A small component that overlaps the lesion is part of it.
    let phases = [phase(Arterial, &[lesion]), phase(Portal, &[lesion]), phase(Delayed, &[([4, 9, 9], [1, 1, 1])])];
    let (lesions, specks) = find(&study(phases.clone())).expect("lesions");
    assert_eq!((lesions.len(), volumes(&lesions[0]), specks.count), (1, vec![400.0, 400.0, 1.0], 0));
    assert_eq!(lesions[0].faint().iter().map(|f| f.0).collect::<Vec<_>>(), [Delayed]);
    let warnings =
        findings(&study(phases.clone()), Some(&classifier()), LesionChoice::Largest).expect("findings").warnings;
    assert!(warnings.len() == 1 && warnings[0].contains("delayed phase: lesion 1 has 0.00 ml there"), "{warnings:?}");
    // One that overlaps two lesions belongs to the one with which it shares most voxels.
    let two = [([2, 5, 5], [4, 10, 6]), ([2, 5, 12], [4, 10, 6])];
    let phases = [phase(Arterial, &two), phase(Portal, &two), phase(Delayed, &[([4, 9, 9], [1, 1, 5])])];
    let (lesions, specks) = find(&study(phases.clone())).expect("lesions");
    assert_eq!(lesions.iter().map(volumes).collect::<Vec<_>>(), [[240.0, 240.0, 5.0], [240.0, 240.0, 0.0]]);
    assert_eq!(specks.count, 0);
}

/// Very many small components in each phase: the time depends only on the pairs that overlap.
#[test]
fn a_noisy_mask_is_no_trouble() {
    let shape = [40, 200, 200];
    let noisy = |phase: Phase, shift: usize| {
        let mut labels = vec![0u8; 40 * 200 * 200];
        for (z, y, x) in (0..20).flat_map(|z| (0..50).flat_map(move |y| (0..20).map(move |x| (z, y, x)))) {
            labels[(2 * z * 200 + 4 * y) * 200 + 4 * x + shift] = 2;
        }
        for (z, y) in (10..20).flat_map(|z| (50..70).map(move |y| (z, y))) {
            labels[(z * 200 + y) * 200 + 150..][..20].fill(2);
        }
        let image = Volume::new(shape, Voxels::I16(vec![0i16; 40 * 200 * 200].into()), affine(0.0)).expect("an image");
        let mask = LabelVolume::new(shape, labels, affine(0.0)).expect("a mask");
        PhaseScan::new(phase, image, mask).expect("a scan")
    };
    let phases = [noisy(NonContrast, 0), noisy(Arterial, 0), noisy(Portal, 1), noisy(Delayed, 2)];
    let started = std::time::Instant::now();
    let (lesions, specks) = find(&study(phases.clone())).expect("lesions");
    eprintln!("20,000 specks in each of four phases: {:.2} s", started.elapsed().as_secs_f64());
    assert_eq!((lesions.len(), volumes(&lesions[0])), (1, vec![4000.0; 4]));
    // Those of the first two phases overlap.
    assert_eq!(specks.count, 60_000);
    // Where there is only noise, the largest component of each phase is a lesion and the others are counted.
    let only = [noisy(Portal, 0), noisy(Delayed, 2)].map(|p| {
        let mut labels = p.mask().labels().to_vec();
        labels.iter_mut().enumerate().filter(|(i, _)| i % 200 >= 150).for_each(|(_, label)| *label = 0);
        let mask = p.mask().with_labels(labels).expect("a mask");
        PhaseScan::new(p.phase(), p.image().clone(), mask).expect("a scan")
    });
    let (lesions, specks) = find(&study(only)).expect("lesions");
    assert_eq!((lesions.len(), specks.count), (1, 39_999));
}

#[test]
fn the_largest_is_one_that_every_phase_shows() {
    let (large, small) = (([2, 5, 5], [4, 10, 10]), ([8, 30, 30], [2, 5, 5]));
    let phases = [phase(Arterial, &[large, small]), phase(Portal, &[small]), phase(Delayed, &[small, large])];
    let found = findings(&study(phases.clone()), Some(&classifier()), LesionChoice::Largest).expect("findings");
    assert_eq!((found.lesion, answered(&found), found.not_classified), (Some(2), vec![false, true], None));
    let reason = "lesion 1 was not found in the portal phase: lesion 2 is classified, though that one is larger";
    assert!(found.warnings.iter().any(|w| w.starts_with(reason)), "{:?}", found.warnings);
    // Chosen by its number it has the same result.
    let asked = findings(&study(phases.clone()), Some(&classifier()), LesionChoice::Number(1)).expect("findings");
    assert!(asked.classification.is_none() && asked.not_classified.expect("why").contains("the portal phase"));
}

#[test]
fn together_all_tumour_voxels_are_one() {
    let boxes = [([2, 5, 5], [4, 10, 10]), ([3, 30, 30], [2, 5, 5])];
    let phases = [Arterial, Portal, Delayed].map(|p| phase(p, &boxes));
    let all = together(&study(phases.clone())).expect("one").expect("there is one");
    assert_eq!((all.number, volumes(&all)), (1, vec![450.0; 3]));
    let found = findings(&study(phases.clone()), Some(&classifier()), LesionChoice::Together).expect("findings");
    assert!(found.together && found.lesions.len() == 1 && found.small_components.count == 0);
    let at = found.classification.expect("an answer").crops[0].at;
    // Slice 3 has both lesions, and the rectangle contains both.
    assert_eq!((at.slice, at.rows, at.columns, at.area), (3, [5, 34], [5, 34], 125));
    let one_without = [phase(Arterial, &boxes), phase(Portal, &[]), phase(Delayed, &boxes)];
    let found = findings(&study(one_without), Some(&classifier()), LesionChoice::Together).expect("findings");
    assert!(found.not_classified.expect("why").contains("not found in the portal phase"));
    let none = [Arterial, Portal, Delayed].map(|p| phase(p, &[]));
    assert!(together(&study(none)).expect("none").is_none());
}

#[test]
fn calls_that_do_not_fit_are_errors() {
    let boxes = [([2, 5, 5], [4, 10, 10])];
    let phases = [Arterial, Portal, Delayed].map(|p| phase(p, &boxes));
    let lesion = find(&study(phases.clone())).expect("lesions").0.remove(0);
    let smaller = phases.map(|p| {
        let voxels = Voxels::I16(vec![0i16; 50].into());
        let image = Volume::new([2, 5, 5], voxels, p.image().affine()).expect("an image");
        let mask = LabelVolume::new([2, 5, 5], vec![2u8; 50], p.image().affine()).expect("a mask");
        PhaseScan::new(p.phase(), image, mask).expect("a scan")
    });
    let message = classifier().classify(&study(smaller), &lesion).expect_err("another shape").to_string();
    assert!(message.contains("[12, 40, 40]") && message.contains("[2, 5, 5]"), "{message}");
    for count in [2, 65] {
        let message = Study::new((0..count).map(|_| phase(Portal, &boxes))).expect_err("twice").to_string();
        assert!(message.contains("found the portal phase twice"), "{message}");
    }
    assert!(find(&study([])).expect("nothing").0.is_empty());
    let (one, other) = (phase(Portal, &boxes), phase(Portal, &[]));
    let moved = other.image().with_affine(affine(1.0)).expect("an image");
    let message = PhaseScan::new(Portal, moved, one.mask().clone()).expect_err("another grid").to_string();
    assert!(message.contains("portal phase: mask's grid") && message.contains("[12, 40, 40]"), "{message}");
}

fn classifier() -> Classifier {
    let config = ClassifierConfig { depth: 18, input_size: 32, ..ClassifierConfig::default() };
    Classifier::seeded(config, 5, &Device::Cpu).expect("a classifier")
}

/// With the configured precision f16, where the device supports it, the result is close to that of f32 and not equal.
#[test]
fn a_classifier_computes_with_what_it_is_told() {
    let phases = [Arterial, Portal, Delayed].map(|p| phase(p, &[([2, 5, 5], [4, 10, 10])]));
    let lesion = find(&study(phases.clone())).expect("lesions").0.remove(0);
    let told = |precision: &str, device: &Device| {
        let text = format!("{{\"depth\": 18, \"input_size\": 32, \"precision\": \"{precision}\"}}");
        let config: ClassifierConfig = serde_json::from_str(&text).expect("a configuration");
        let model = Classifier::seeded(config, 5, device).expect("a classifier");
        model.classify(&study(phases.clone()), &lesion).expect("an answer").probabilities
    };
    let exact = told("single", &Device::Cpu);
    for device in devices().iter().filter(|d| !compiles_only(d)) {
        let fast = told("fastest", device);
        let apart = fast.iter().zip(&exact).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let halves = device.supports(DType::F16);
        // A probability changes by at most a quarter of the change of its logits, which have a range of a few units.
        assert!(if halves { apart > 0.0 && apart < 2e-2 } else { apart < 1e-5 }, "{}: {apart}", device.name());
    }
    assert!(serde_json::from_str::<ClassifierConfig>("{\"precision\": \"double\"}").is_err());
}

fn answered(findings: &Findings) -> Vec<bool> {
    findings.lesions.iter().map(|l| l.classification.is_some()).collect()
}

#[test]
fn the_chosen_lesions_are_classified() {
    let boxes = [([2, 5, 5], [4, 10, 10]), ([8, 30, 30], [2, 5, 5])];
    let phases = [Arterial, Portal, Delayed].map(|p| phase(p, &boxes));
    let model = classifier();
    let ask = |choice| findings(&study(phases.clone()), Some(&model), choice).expect("findings");
    let largest = ask(LesionChoice::Largest);
    assert_eq!((answered(&largest), largest.lesion), (vec![true, false], Some(1)));
    let all = ask(LesionChoice::All);
    assert_eq!((answered(&all), all.lesion), (vec![true, true], Some(1)));
    let second = ask(LesionChoice::Number(2));
    assert_eq!((answered(&second), second.lesion), (vec![false, true], Some(2)));
    let answer = |f: &Findings| f.classification.as_ref().expect("an answer").probabilities.clone();
    assert_eq!(answer(&largest), answer(&all));
    let own = all.lesions[1].classification.as_ref().expect("an answer");
    assert_eq!(answer(&second), own.probabilities);
    // Each lesion is cropped separately.
    let at = |f: &Findings| f.classification.as_ref().expect("an answer").crops[0].at;
    assert_eq!((at(&largest).rows, at(&largest).columns, at(&largest).area), ([5, 14], [5, 14], 100));
    assert_eq!((at(&second).slice, at(&second).rows, at(&second).area), (8, [30, 34], 25));
    let third = ask(LesionChoice::Number(3));
    assert!(third.classification.is_none() && third.lesion.is_none());
    assert!(third.not_classified.expect("a reason").contains("no lesion 3: 2 found"));
}

#[test]
fn what_cannot_be_classified_is_said() {
    let model = classifier();
    let tumour = [([2, 5, 5], [4, 10, 10])];
    let reason = |phases: &[PhaseScan], model: Option<&Classifier>| {
        let found = findings(&study(phases.iter().cloned()), model, LesionChoice::default()).expect("a finding");
        assert!(found.classification.is_none());
        found.not_classified.expect("a reason")
    };
    let two = [Portal, Delayed].map(|p| phase(p, &tumour));
    assert_eq!(reason(&two, None), "classification needs three or four phases, 2 given");
    let three = [Arterial, Portal, Delayed].map(|p| phase(p, &tumour));
    assert_eq!(reason(&three, None), "no classification model was loaded");
    let none = [Arterial, Portal, Delayed].map(|p| phase(p, &[]));
    assert!(reason(&none, Some(&model)).contains("no tumour was found"));
    let one_without = [phase(Arterial, &tumour), phase(Portal, &[]), phase(Delayed, &tumour)];
    assert!(reason(&one_without, Some(&model)).contains("not found in the portal phase"));
}

#[test]
fn margins_and_thresholds_override_the_configuration() {
    let phases = [Arterial, Portal, Delayed].map(|p| phase(p, &[([2, 5, 1], [4, 10, 10])]));
    let ask = |thresholds: Option<Vec<f64>>, margin: Option<&str>| {
        let margin = margin.map(|text| text.parse().expect("a margin"));
        let model = classifier().adjusted(thresholds, margin).expect("adjusted");
        let found = findings(&study(phases.clone()), Some(&model), LesionChoice::Largest).expect("findings");
        found.classification.expect("an answer")
    };
    let plain = ask(None, None);
    // The margin ends at the edge of the image; voxels have 1 mm in the slice.
    for (margin, rows, columns) in [("3", [2, 17], [0, 13]), ("2.5mm", [2, 17], [0, 13]), ("0", [5, 14], [1, 10])] {
        let at = ask(None, Some(margin)).crops[0].at;
        assert_eq!((at.rows, at.columns), (rows, columns), "{margin}");
    }
    // Only the least likely class is above its threshold.
    let least = (0..5).min_by(|a, b| plain.probabilities[*a].total_cmp(&plain.probabilities[*b])).expect("a class");
    let thresholds = (0..5).map(|i| if i == least { 0.0 } else { 1.0 }).collect();
    let turned = ask(Some(thresholds), None);
    assert_eq!((turned.decision as usize, turned.probabilities), (least, plain.probabilities));
    for wrong in [vec![0.1; 4], vec![0.1, 0.2, 1.5, 0.1, 0.1], vec![f64::NAN; 5]] {
        assert!(classifier().adjusted(Some(wrong), None).is_err());
    }
    for wrong in ["", "-1", "5cm", "mm", "NaNmm", "1.5"] {
        assert!(wrong.parse::<Margin>().is_err(), "{wrong}");
    }
    for wrong in ["", "0", "-1", "smallest"] {
        assert!(wrong.parse::<LesionChoice>().is_err(), "{wrong}");
    }
    let config: ClassifierConfig = serde_json::from_str(r#"{"margin": "5mm"}"#).expect("a configuration");
    assert_eq!(config.margin.voxels([5.0, 0.7, 2.5]), [8, 2]);
    let config: ClassifierConfig = serde_json::from_str(r#"{"margin": 4, "fusion": false}"#).expect("a configuration");
    assert_eq!((config.margin, config.fusion), (Margin::Voxels(4), Some(false)));
    for (margin, found) in
        [("2.5", "found 2.5"), ("-1", "found -1"), ("[1]", "found [1]"), ("\"6cm\"", "found \"6cm\"")]
    {
        let wrong = serde_json::from_str::<ClassifierConfig>(&format!("{{\"margin\": {margin}}}"));
        let message = wrong.expect_err("refused").to_string();
        let expected = "margin: expected a whole number of voxels, or millimetres below 10000 such as 5mm";
        assert!(message.contains(expected) && message.contains(found), "{message}");
    }
    for margin in [Margin::Voxels(3), Margin::Millimetres(2.5)] {
        let text = serde_json::to_string(&margin).expect("JSON");
        assert_eq!(serde_json::from_str::<Margin>(&text).expect("a margin"), margin);
    }
}
