//! A channel's values as the network was trained on them.

use super::strided_view::StridedView;
use crate::error::{Error, Result};
use crate::models::{ChannelNormalization, Normalization};

/// What divides is at least this, as in nnU-Net.
const MIN_DIVISOR: f64 = 1e-8;

/// The values of `voxels` under `view`, normalised. `mask` holds the image's non-zero part under the same view where the
/// channel's scheme asks for it.
///
/// # Errors
/// Values outside 0 to 255 where the scheme expects colours.
pub(super) fn normalize<T: Copy + Into<f32> + Sync>(
    voxels: &[T],
    view: &StridedView,
    channel: ChannelNormalization,
    mask: Option<&[bool]>,
) -> Result<Vec<f32>> {
    match channel.scheme {
        Normalization::None => view.read(voxels, |v| v.into()),
        Normalization::Ct { clip: [low, high], mean, sd } => {
            let divisor = sd.max(MIN_DIVISOR as f32);
            view.read(voxels, |v| (v.into().max(low).min(high) - mean) / divisor)
        }
        Normalization::ZScore => {
            let mut values = view.read(voxels, |v| v.into())?;
            let inside = mask.filter(|_| channel.inside_mask);
            let is_inside = |i: usize| inside.is_none_or(|mask| mask[i]);
            let (mean, divisor) = mean_and_divisor(&values, is_inside);
            for (i, value) in values.iter_mut().enumerate() {
                if is_inside(i) {
                    *value = ((f64::from(*value) - mean) / divisor) as f32;
                }
            }
            Ok(values)
        }
        Normalization::RescaleTo01 => {
            let mut values = view.read(voxels, |v| v.into())?;
            let (low, high) =
                values.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), v| (low.min(*v), high.max(*v)));
            let divisor = (high - low).max(MIN_DIVISOR as f32);
            values.iter_mut().for_each(|value| *value = (*value - low) / divisor);
            Ok(values)
        }
        Normalization::RgbTo01 => {
            let values = view.read(voxels, |v| v.into() / 255.0)?;
            match values.iter().find(|v| !(0.0..=1.0).contains(*v)) {
                None => Ok(values),
                Some(value) => Err(Error::Data(format!(
                    "the model expects colours from 0 to 255 (RGBTo01Normalization), found {}",
                    value * 255.0
                ))),
            }
        }
    }
}

/// The mean and the standard deviation (divided by the count) of the values inside, the latter never 0. Two passes in f64.
fn mean_and_divisor(values: &[f32], is_inside: impl Fn(usize) -> bool) -> (f64, f64) {
    let inside = || values.iter().enumerate().filter(|(i, _)| is_inside(*i)).map(|(_, v)| f64::from(*v));
    let count = inside().count().max(1) as f64;
    let mean = inside().sum::<f64>() / count;
    let variance = inside().map(|v| (v - mean).powi(2)).sum::<f64>() / count;
    (mean, variance.sqrt().max(MIN_DIVISOR))
}

/// Fills the holes of a mask: what is not in it and is not joined, by faces, to the outside of the array. As
/// `scipy.ndimage.binary_fill_holes`.
pub(super) fn fill_holes(mask: &mut [bool], [d, h, w]: [usize; 3]) {
    let mut outside = vec![false; mask.len()];
    let mut queue = Vec::new();
    for (i, inside) in mask.iter().enumerate() {
        let (z, y, x) = (i / w / h, i / w % h, i % w);
        let on_face = z == 0 || y == 0 || x == 0 || z + 1 == d || y + 1 == h || x + 1 == w;
        if on_face && !inside {
            outside[i] = true;
            queue.push(i);
        }
    }
    while let Some(i) = queue.pop() {
        let (z, y, x) = (i / w / h, i / w % h, i % w);
        let neighbours = [
            (z > 0, i.wrapping_sub(h * w)),
            (z + 1 < d, i + h * w),
            (y > 0, i.wrapping_sub(w)),
            (y + 1 < h, i + w),
            (x > 0, i.wrapping_sub(1)),
            (x + 1 < w, i + 1),
        ];
        for (_, neighbour) in neighbours.into_iter().filter(|(exists, _)| *exists) {
            if !mask[neighbour] && !outside[neighbour] {
                outside[neighbour] = true;
                queue.push(neighbour);
            }
        }
    }
    for (inside, outside) in mask.iter_mut().zip(outside) {
        *inside = !outside;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(scheme: Normalization, inside_mask: bool) -> ChannelNormalization {
        ChannelNormalization { scheme, inside_mask }
    }

    #[test]
    fn every_scheme_gives_nnunets_values() {
        let view = StridedView::whole([1, 1, 4]);
        let values = |scheme, mask: Option<&[bool]>| {
            normalize(&[0i16, 10, 20, 30], &view, channel(scheme, mask.is_some()), mask).expect("values")
        };
        assert_eq!(values(Normalization::None, None), [0.0, 10.0, 20.0, 30.0]);
        let ct = Normalization::Ct { clip: [5.0, 25.0], mean: 10.0, sd: 5.0 };
        assert_eq!(values(ct, None), [-1.0, 0.0, 2.0, 3.0]);
        assert_eq!(values(Normalization::RescaleTo01, None), [0.0, 1.0 / 3.0, 2.0 / 3.0, 1.0]);
        assert_eq!(values(Normalization::RgbTo01, None), [0.0, 10.0 / 255.0, 20.0 / 255.0, 30.0 / 255.0]);
        // Mean 15, variance 125.
        let sd = 125f64.sqrt();
        let want = [-15.0, -5.0, 5.0, 15.0].map(|v| (v / sd) as f32);
        assert_eq!(values(Normalization::ZScore, None), want);
        // Inside: 10 and 30, mean 20, deviation 10; outside the values stay.
        let mask = [false, true, false, true];
        assert_eq!(values(Normalization::ZScore, Some(&mask)), [0.0, -1.0, 20.0, 1.0]);
    }

    #[test]
    fn colours_out_of_range_are_refused_and_flat_images_are_not_divided_by_zero() {
        let view = StridedView::whole([1, 1, 2]);
        let error = normalize(&[0i16, 300], &view, channel(Normalization::RgbTo01, false), None).expect_err("refused");
        assert!(error.to_string().contains("255") && error.to_string().contains("300"), "{error}");
        for scheme in [Normalization::ZScore, Normalization::RescaleTo01] {
            assert_eq!(normalize(&[7i16, 7], &view, channel(scheme, false), None).expect("values"), [0.0, 0.0]);
        }
    }

    #[test]
    fn holes_are_what_the_outside_does_not_reach() {
        // A ring in the middle slice, open in the second case.
        let ring = |open: bool| {
            let mut mask = vec![false; 3 * 5 * 5];
            for i in 0..3 * 25 {
                let (z, y, x) = (i / 25, i / 5 % 5, i % 5);
                mask[i] = (1..4).contains(&y) && (1..4).contains(&x) && !(z == 1 && y == 2 && x == 2);
            }
            if open {
                mask[25 + 2 * 5 + 3] = false;
                mask[25 + 2 * 5 + 4] = false;
            }
            mask
        };
        for (open, filled) in [(false, true), (true, false)] {
            let mut mask = ring(open);
            fill_holes(&mut mask, [3, 5, 5]);
            assert_eq!(mask[25 + 2 * 5 + 2], filled);
            assert!(!mask[0] && mask[25 + 6]);
        }
    }
}
