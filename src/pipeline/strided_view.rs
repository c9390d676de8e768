//! A strided view of a 3D array: turned, cropped and permuted, read and written through the same strides, so that a mask is written to
//! exactly those voxels that the network's input was read from.

use std::ops::Range;

use rayon::prelude::*;

use crate::ensure_room;
use crate::error::Result;
use crate::volume::Turn;

/// A view: a position (three axes, the last fastest) is mapped to an offset in an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StridedView {
    pub(super) shape: [usize; 3],
    /// Elements from one position to the next along each axis, below 0 along flipped ones.
    strides: [isize; 3],
    offset: isize,
}

impl StridedView {
    /// The view of a whole array [d, h, w].
    pub(super) fn whole(shape: [usize; 3]) -> Self {
        Self { shape, strides: [(shape[1] * shape[2]) as isize, shape[2] as isize, 1], offset: 0 }
    }

    /// The view whose axis a is the present axis `order[a]`, as NumPy's `transpose`.
    pub(super) fn permuted(self, order: [usize; 3]) -> Self {
        Self { shape: order.map(|a| self.shape[a]), strides: order.map(|a| self.strides[a]), ..self }
    }

    /// The view of the box `ranges`, which must lie inside the view.
    pub(super) fn cropped(self, ranges: &[Range<usize>; 3]) -> Self {
        Self {
            shape: std::array::from_fn(|a| ranges[a].len()),
            offset: self.offset + (0..3).map(|a| ranges[a].start as isize * self.strides[a]).sum::<isize>(),
            ..self
        }
    }

    /// The view in another orientation.
    pub(super) fn turned(self, turn: &Turn) -> Self {
        let mut view = self.permuted(turn.axes);
        for a in (0..3).filter(|a| turn.flipped[*a]) {
            view.offset += view.strides[a] * (view.shape[a] as isize - 1);
            view.strides[a] = -view.strides[a];
        }
        view
    }

    fn row(&self, row: usize) -> isize {
        let (z, y) = ((row / self.shape[1]) as isize, (row % self.shape[1]) as isize);
        self.offset + z * self.strides[0] + y * self.strides[1]
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
                *out = f(array[(start + i as isize * self.strides[2]) as usize]);
            }
        });
        Ok(out)
    }

    /// The smallest and the largest element; None of nothing, or where one cannot be compared.
    pub(super) fn range<T: Copy + PartialOrd + Sync + Send>(&self, array: &[T]) -> Option<(T, T)> {
        let join = |a: (T, T), b: (T, T)| (if b.0 < a.0 { b.0 } else { a.0 }, if b.1 > a.1 { b.1 } else { a.1 });
        let rows = self.shape[0] * self.shape[1];
        let of_row = |row: usize| {
            let start = self.row(row);
            let values = (0..self.shape[2] as isize).map(|i| array[(start + i * self.strides[2]) as usize]);
            values.map(|v| (v, v)).reduce(join)
        };
        (0..rows).into_par_iter().filter_map(of_row).reduce_with(join)
    }

    /// Writes values, given in the order of the view, to the elements that it shows.
    pub(super) fn write<T: Copy>(&self, values: &[T], array: &mut [T]) {
        for (row, values) in values.chunks_exact(self.shape[2].max(1)).enumerate() {
            let start = self.row(row);
            for (i, &value) in values.iter().enumerate() {
                array[(start + i as isize * self.strides[2]) as usize] = value;
            }
        }
    }
}

/// A box in another orientation of an array of `shape`.
pub(super) fn turned_box(ranges: &[Range<usize>; 3], shape: [usize; 3], turn: &Turn) -> [Range<usize>; 3] {
    std::array::from_fn(|a| {
        let (old, size) = (&ranges[turn.axes[a]], shape[turn.axes[a]]);
        if turn.flipped[a] { size - old.end..size - old.start } else { old.clone() }
    })
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
    fn a_turned_view_shows_the_turned_volume() {
        use crate::volume::{Affine, Orientation, Volume, Voxels};
        let (shape, values) = ([2, 3, 4], (0..24).map(|v| v - 5).collect::<Vec<i16>>());
        let volume = Volume::new(shape, Voxels::I16(values.clone().into()), Affine::IDENTITY).expect("a volume");
        let ranges = [0..1, 1..3, 1..4];
        for target in ["RAS", "LPS", "SLA", "PIR", "ILP", "ARS"] {
            let target: Orientation = target.parse().expect("an orientation");
            let (turn, turned) = (volume.orientation().turn_to(target), volume.reorient(target).expect("turned"));
            let Voxels::I16(want) = turned.voxels() else { panic!("values keep their type") };
            let view = StridedView::whole(shape).turned(&turn);
            let read = |view: &StridedView| view.read(&values, |v| v).expect("it fits");
            assert_eq!((view.shape, &read(&view)), (turned.shape(), want.as_ref()), "{target}");
            assert_eq!(volume.grid().turned(&turn), turned.grid(), "{target}");
            assert_eq!(view.range(&values), Some((-5, 18)), "{target}");
            // Cropping before and after turning is the same.
            let before = StridedView::whole(shape).cropped(&ranges).turned(&turn);
            let after = view.cropped(&turned_box(&ranges, shape, &turn));
            assert_eq!(read(&before), read(&after), "{target}");
            let mut back = vec![0; 24];
            view.write(want, &mut back);
            assert_eq!(back, values, "{target}");
        }
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
