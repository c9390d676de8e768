//! Label maps: counts and measurements against plain loops.

use nephron_imaging::volume::{
    Affine, Grid, LabelVolume, Orientation, TUMOUR, Volume, Voxels, WHOLE_KIDNEY, hard_dice,
};
use rand::Rng;

use crate::support::rng;

/// An affine with axes that are neither orthogonal nor of equal length.
const SHEARED: Affine = Affine([[1.5, 0.75, 0.0, -20.0], [0.0, -2.0, 0.25, 4.0], [0.0, 0.0, 3.0, 7.0]]);

fn drawn(shape: [usize; 3]) -> LabelVolume {
    let mut rng = rng();
    let labels: Vec<u8> = (0..shape.iter().product()).map(|_| [0, 0, 0, 1, 2, 7][rng.random_range(0..6)]).collect();
    LabelVolume::new(shape, labels, SHEARED).expect("a mask")
}

#[test]
fn unsound_ones_are_refused() {
    for (shape, count, affine) in
        [([2, 2, 2], 7, SHEARED), ([2, 0, 2], 0, SHEARED), ([1, 1, 2], 2, Affine([[1.0, 1.0, 1.0, 0.0]; 3]))]
    {
        assert!(LabelVolume::new(shape, vec![0; count], affine).is_err(), "{shape:?} of {count}");
    }
    let mask = drawn([2, 3, 4]);
    assert!(mask.with_labels(vec![0; 23]).is_err());
}

#[test]
fn counts_volumes_and_boxes_are_those_of_a_plain_loop() {
    for shape in [[1, 1, 1], [3, 5, 7], [11, 40, 200]] {
        let mask = drawn(shape);
        let [d, h, w] = shape;
        for set in [&[TUMOUR][..], &WHOLE_KIDNEY, &[7, 7], &[9]] {
            let inside: Vec<usize> = (0..d * h * w).filter(|&n| set.contains(&mask.labels()[n])).collect();
            assert_eq!(mask.count(set), inside.len());
            // A voxel has |1.5 x -2 x 3| mm3, whatever the shear.
            assert_eq!(mask.volume_ml(set), inside.len() as f64 * 0.009);
            let places: [fn(usize, usize, usize) -> usize; 3] =
                [|n, h, w| n / (h * w), |n, h, w| n / w % h, |n, _, w| n % w];
            let edges = places.map(|place| {
                let along: Vec<usize> = inside.iter().map(|&n| place(n, h, w)).collect();
                along.iter().min().zip(along.iter().max()).map(|(low, high)| [*low, *high])
            });
            let want = match edges {
                [Some(z), Some(y), Some(x)] => Some([z, y, x]),
                _ => None,
            };
            assert_eq!(mask.bounding_box(set), want, "{set:?} of {shape:?}");
        }
        let areas: Vec<usize> =
            mask.labels().chunks(h * w).map(|slice| slice.iter().filter(|l| **l == TUMOUR).count()).collect();
        let most = areas.iter().copied().max().filter(|area| *area > 0);
        let want = most.map(|area| (areas.iter().position(|a| *a == area).expect("there"), area));
        assert_eq!(mask.largest_slice(TUMOUR), want);
    }
}

#[test]
fn dice_has_one_convention() {
    let (a, b) = (drawn([4, 9, 31]), drawn([4, 9, 31]));
    for set in [&[TUMOUR][..], &WHOLE_KIDNEY] {
        let is = |mask: &LabelVolume| mask.labels().iter().map(|l| set.contains(l)).collect::<Vec<_>>();
        let (p, q) = (is(&a), is(&b));
        let both = p.iter().zip(&q).filter(|(p, q)| **p && **q).count() as f64;
        let sizes = p.iter().chain(&q).filter(|inside| **inside).count() as f64;
        assert_eq!(a.dice(&b, set).expect("one grid"), 2.0 * both / sizes);
        assert_eq!(a.dice(&a, set).expect("one grid"), 1.0);
    }
    // Two empty masks have Dice 1, an empty and a non-empty mask Dice 0.
    assert_eq!((a.dice(&b, &[9]).expect("one grid"), hard_dice(0, 0, 0), hard_dice(0, 0, 5)), (1.0, 1.0, 0.0));
    let moved = LabelVolume::new(a.shape(), b.labels().to_vec(), Affine::IDENTITY).expect("a mask");
    let message = a.dice(&moved, &[TUMOUR]).expect_err("another grid").to_string();
    assert!(message.contains("grid") && message.contains("[4, 9, 31]"), "{message}");
}

#[test]
fn they_turn_and_are_cut_as_volumes_are() {
    let mask = drawn([3, 4, 5]);
    let volume = Volume::new(mask.shape(), Voxels::U8(mask.labels().to_vec().into()), SHEARED).expect("a volume");
    assert_eq!(volume.to_labels().expect("labels"), mask);
    let (turned, want) = (mask.reorient(Orientation::RAS).expect("turned"), volume.reorient(Orientation::RAS));
    assert_eq!(turned, want.expect("turned").to_labels().expect("labels"));
    assert_eq!(turned.grid(), Grid { shape: [3, 4, 5], ..turned.grid() });
    let cut = mask.slices([1, 2]).expect("slices");
    assert_eq!((cut.shape(), cut.labels()), ([2, 4, 5], &mask.labels()[20..]));
    assert_eq!(cut.affine().apply([0.0; 3]), SHEARED.apply([0.0, 0.0, 1.0]));
    for wrong in [[1, 3], [2, 1]] {
        assert!(mask.slices(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn not_finite_voxels_are_counted_once_for_all_clones() {
    let values = vec![0.0, f32::NAN, 2.0, f32::INFINITY];
    let volume = Volume::new([1, 2, 2], Voxels::F32(values.into()), SHEARED).expect("a volume");
    let moved = volume.clone().with_affine(Affine::IDENTITY).expect("a volume");
    for v in [&volume, &moved, &volume] {
        assert_eq!(v.not_finite(), 2);
        let message = v.ensure_finite().expect_err("NaN").to_string();
        assert!(message.contains("2 of 4") && message.contains("[1, 0, 0]"), "{message}");
    }
    let mended = volume.with_voxels(Voxels::F32(vec![1.0; 4].into())).expect("a volume");
    assert!(mended.not_finite() == 0 && mended.ensure_finite().is_ok());
}
