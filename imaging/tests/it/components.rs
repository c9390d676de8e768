//! Connected components and diameters against the simplest possible code.

use nephron_imaging::volume::{Affine, Component, components};
use rand::Rng;

use crate::support::rng;

/// The components by flood fill, numbered from 1; 0 is background.
fn flood(labels: &[u8], [d, h, w]: [usize; 3]) -> Vec<usize> {
    let mut found = vec![0; labels.len()];
    let mut next = 0;
    for start in 0..labels.len() {
        if labels[start] != 2 || found[start] != 0 {
            continue;
        }
        next += 1;
        found[start] = next;
        let mut open = vec![start];
        while let Some(at) = open.pop() {
            let (z, y, x) = (at / (h * w), at / w % h, at % w);
            for k in z.saturating_sub(1)..(z + 2).min(d) {
                for j in y.saturating_sub(1)..(y + 2).min(h) {
                    for i in x.saturating_sub(1)..(x + 2).min(w) {
                        let other = (k * h + j) * w + i;
                        if labels[other] == 2 && found[other] == 0 {
                            found[other] = next;
                            open.push(other);
                        }
                    }
                }
            }
        }
    }
    found
}

#[test]
fn components_are_those_of_a_flood_fill() {
    let mut rng = rng();
    for (shape, share) in [([5, 7, 11], 0.2), ([3, 13, 8], 0.1), ([1, 1, 17], 0.5), ([6, 1, 5], 0.4), ([4, 6, 1], 0.3)]
    {
        for _ in 0..20 {
            let [d, h, w] = shape;
            let labels: Vec<u8> =
                (0..d * h * w).map(|_| if rng.random_bool(share) { 2 } else { rng.random_range(0..2) }).collect();
            let want = flood(&labels, shape);
            let got = components(&labels, shape, 2);
            assert_eq!(got.len(), want.iter().copied().max().unwrap_or(0));
            let mut painted = vec![0; labels.len()];
            for (i, component) in got.iter().enumerate() {
                let mut own = vec![0; labels.len()];
                component.paint(&mut own, 1).expect("its mask");
                let voxels: Vec<usize> = (0..own.len()).filter(|&v| own[v] == 1).collect();
                assert_eq!(voxels.len(), component.voxels());
                assert!(voxels.iter().all(|&v| want[v] == want[voxels[0]]), "one component is one of the fill's");
                assert!(i == 0 || got[i - 1].voxels() >= component.voxels(), "the largest first");
                component.paint(&mut painted, 2).expect("its mask");
                let mean = |of: &dyn Fn(usize) -> usize| {
                    voxels.iter().map(|&v| of(v) as f64).sum::<f64>() / voxels.len() as f64
                };
                let centre = component.centre().expect("it has voxels");
                for (got, want) in
                    centre.into_iter().zip([mean(&|v| v % w), mean(&|v| v / w % h), mean(&|v| v / (h * w))])
                {
                    assert!((got - want).abs() < 1e-9, "{got} {want}");
                }
            }
            assert!(painted.iter().zip(&labels).all(|(p, l)| (*p == 2) == (*l == 2)), "together they are the label");
        }
    }
    assert!(components(&[0, 1, 1], [1, 1, 3], 2).is_empty());
    assert!(components(&[], [0, 4, 0], 2).is_empty());
}

#[test]
fn overlaps_count_shared_voxels() {
    let mut rng = rng();
    let shape = [3, 5, 9];
    for _ in 0..40 {
        let [a, b] = [(), ()].map(|()| {
            let labels: Vec<u8> = (0..135).map(|_| if rng.random_bool(0.4) { 2 } else { 0 }).collect();
            (Component::joined(&components(&labels, shape, 2)).expect("one shape"), labels)
        });
        let want = a.1.iter().zip(&b.1).filter(|(a, b)| **a == 2 && **b == 2).count();
        assert_eq!((a.0.overlap(&b.0), b.0.overlap(&a.0)), (want, want));
    }
}

#[test]
fn diameters_are_those_of_all_corners() {
    let mut rng = rng();
    let shape = [3, 6, 7];
    let oblique = Affine([[0.8, 0.1, -0.3, 5.0], [-0.05, 0.9, 0.4, -7.0], [0.1, 0.0, 4.0, 90.0]]);
    for round in 0..30 {
        let share = if round < 10 { 0.05 } else { 0.3 };
        let labels: Vec<u8> = (0..126).map(|_| if rng.random_bool(share) { 2 } else { 0 }).collect();
        let all = Component::joined(&components(&labels, shape, 2)).expect("one shape");
        let got = all.diameter(&oblique);
        let (mut axial, mut any) = (0.0f64, 0.0f64);
        let mut corners = Vec::new();
        for v in (0..126).filter(|&v| labels[v] == 2) {
            let at = [v % 7, v / 7 % 6, v / 42].map(|i| i as f64);
            for corner in 0..8 {
                let half = |bit: usize| if corner >> bit & 1 == 1 { 0.5 } else { -0.5 };
                corners.push((at[2], half(2), oblique.apply([at[0] + half(0), at[1] + half(1), at[2] + half(2)])));
            }
        }
        for (z, face, a) in &corners {
            for (other, own, b) in &corners {
                let distance = (0..3).map(|k| (a[k] - b[k]).powi(2)).sum::<f64>().sqrt();
                any = any.max(distance);
                if z == other && face == own {
                    axial = axial.max(distance);
                }
            }
        }
        assert!(
            (got.maximum_2d_diameter_mm - axial).abs() < 1e-9 && (got.maximum_3d_diameter_mm - any).abs() < 1e-9,
            "{got:?} {axial} {any}"
        );
    }
    // The diameters of one voxel are its diagonals.
    let one = &components(&[2], [1, 1, 1], 2)[0];
    let d = one.diameter(&Affine([[3.0, 0.0, 0.0, 0.0], [0.0, 4.0, 0.0, 0.0], [0.0, 0.0, 12.0, 0.0]]));
    assert_eq!((d.maximum_2d_diameter_mm, d.maximum_3d_diameter_mm), (5.0, 13.0));
}

#[test]
fn other_volumes_are_refused() {
    let [here, there] = [[2, 3, 4], [2, 4, 3]].map(|shape| components(&[2; 24], shape, 2).remove(0));
    let message = Component::joined([&here, &there]).expect_err("two shapes").to_string();
    assert!(message.contains("[2, 3, 4]") && message.contains("[2, 4, 3]"), "{message}");
    let message = here.paint(&mut [0; 23], 1).expect_err("too short").to_string();
    assert!(message.contains("[2, 3, 4]") && message.contains("23 voxels"), "{message}");
    let none = Component::default();
    assert_eq!((none.voxels(), none.centre(), none.overlap(&here)), (0, None, 0));
    assert_eq!(none.diameter(&Affine::IDENTITY).maximum_3d_diameter_mm, 0.0);
    none.paint(&mut [0; 5], 1).expect("nothing to paint");
}
