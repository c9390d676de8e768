//! A strided view of a 3D array: cropped and permuted, read and written through the same strides, so that a mask is written to
//! exactly those voxels that the network's input was read from.

use std::ops::Range;

use rayon::prelude::*;

use crate::ensure_room;
use crate::error::Result;

/// A view: a position (three axes, the last fastest) is mapped to an offset in an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StridedView {
    pub(super) shape: [usize; 3],
    strides: [usize; 3],
    offset: usize,
}

impl StridedView {
    /// The view of a whole array [d, h, w].
    pub(super) fn whole(shape: [usize; 3]) -> Self {
        Self { shape, strides: [shape[1] * shape[2], shape[2], 1], offset: 0 }
    }

    /// The view whose axis a is the present axis `order[a]`, as NumPy's `transpose`.
    pub(super) fn permuted(self, order: [usize; 3]) -> Self {
        Self { shape: order.map(|a| self.shape[a]), strides: order.map(|a| self.strides[a]), ..self }
    }

    /// The view of the box `ranges`, which must lie inside the view.
    pub(super) fn cropped(self, ranges: &[Range<usize>; 3]) -> Self {
        Self {
            shape: std::array::from_fn(|a| ranges[a].len()),
            offset: self.offset + (0..3).map(|a| ranges[a].start * self.strides[a]).sum::<usize>(),
            ..self
        }
    }

    fn row(&self, row: usize) -> usize {
        self.offset + row / self.shape[1] * self.strides[0] + row % self.shape[1] * self.strides[1]
    }

    /// `f` of each element, in the order of the view.
    ///
    /// # Errors
    /// A view that does not fit in memory.
    pub(super) fn read<T: Copy + Sync, U: Copy + Default + Send>(
        &self,
        array: &[T],
        f: impl Fn(T) -> U + Sync,
    ) -> Result<Vec<U>> {
        ensure_room::<U>("an image in the network's axes", self.shape.iter().product())?;
        let mut out = vec![U::default(); self.shape.iter().product()];
        out.par_chunks_mut(self.shape[2].max(1)).enumerate().for_each(|(row, out)| {
            let start = self.row(row);
            for (i, out) in out.iter_mut().enumerate() {
                *out = f(array[start + i * self.strides[2]]);
            }
        });
        Ok(out)
    }

    /// Writes values, given in the order of the view, to the elements that it shows.
    pub(super) fn write<T: Copy>(&self, values: &[T], array: &mut [T]) {
        for (row, values) in values.chunks_exact(self.shape[2].max(1)).enumerate() {
            let start = self.row(row);
            for (i, &value) in values.iter().enumerate() {
                array[start + i * self.strides[2]] = value;
            }
        }
    }
}

/// The smallest box that contains every non-zero element; None where all elements are zero.
pub(super) fn nonzero_box<T: Copy + Default + PartialEq>(array: &[T], shape: [usize; 3]) -> Option<[Range<usize>; 3]> {
    let [_, h, w] = shape;
    let zero = T::default();
    let mut found: Option<[Range<usize>; 3]> = None;
    for (row, values) in array.chunks_exact(w.max(1)).enumerate() {
        let Some(first) = values.iter().position(|v| *v != zero) else { continue };
        let last = values.iter().rposition(|v| *v != zero).unwrap_or(first);
        let (z, y) = (row / h, row % h);
        let own = [z..z + 1, y..y + 1, first..last + 1];
        found = Some(match found {
            None => own,
            Some(all) => std::array::from_fn(|a| all[a].start.min(own[a].start)..all[a].end.max(own[a].end)),
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writing_undoes_reading() {
        let array: Vec<u8> = (0..60).collect();
        let view = StridedView::whole([3, 4, 5]).permuted([2, 0, 1]).cropped(&[1..4, 0..2, 1..4]);
        assert_eq!(view.shape, [3, 2, 3]);
        let values = view.read(&array, |v| v).expect("it fits");
        assert_eq!(values[..6], [6, 11, 16, 26, 31, 36]);
        let mut back = vec![0; 60];
        view.write(&values, &mut back);
        let inside = |i: usize| (1..4).contains(&(i % 5)) && i / 20 < 2 && (1..4).contains(&(i / 5 % 4));
        assert!(back.iter().enumerate().all(|(i, &v)| usize::from(v) == if inside(i) { i } else { 0 }));
    }

    #[test]
    fn the_box_is_tight() {
        let mut array = vec![0i16; 3 * 4 * 5];
        assert_eq!(nonzero_box(&array, [3, 4, 5]), None);
        array[20 + 5 + 2] = -7;
        array[40 + 15 + 1] = 3;
        assert_eq!(nonzero_box(&array, [3, 4, 5]), Some([1..3, 1..4, 1..3]));
    }
}
