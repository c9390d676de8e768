//! The product of one stage of A and B by a plane, whose lanes hold its fragments.
//!
//! [`Step::Plain`] computes the same blocks from the same shared tiles, each lane the four sums that the instruction would
//! give it, in ordinary arithmetic without plane operations: what it shares with [`Step::Mma`], which is all but the
//! instruction and its two operand loads, is tested wherever there is a GPU of any kind.

use cubecl::prelude::*;

use super::layout::{Lane, Layout, lane_along, vector_at};
use super::{BLOCK, PLANE, Planes, Step};

/// The sums of a unit: two rows of each block of 16 x 8, two columns of each row.
pub(crate) type Sums = Sequence<Array<Vector<f32, Const<2>>>>;

/// What a plane multiplies in one stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Product {
    /// Number of blocks along m and n.
    pub blocks: [usize; 2],
    /// Terms of the sum in a stage.
    pub k: usize,
    /// Bytes of an element.
    pub bytes: usize,
    /// Where A lies.
    pub a: Layout,
    /// Where B lies.
    pub b: Layout,
}

/// Number of blocks along m and n of a plane's part of a tile of `m` x `n`.
pub fn plane_blocks(m: usize, n: usize, planes: Planes) -> [usize; 2] {
    [m / planes.m / BLOCK[0], n / planes.n / BLOCK[1]]
}

/// The first row and column of this unit's plane in a tile of `m` x `n`.
#[cube]
pub fn plane_start(#[comptime] m: usize, #[comptime] n: usize, #[comptime] planes: Planes) -> (usize, usize) {
    let plane = UNIT_POS as usize / PLANE;
    (plane / planes.n * comptime!(m / planes.m), plane % planes.n * comptime!(n / planes.n))
}

/// The sums of [`plane_blocks`], all zero.
#[cube]
pub fn zero_sums(#[comptime] blocks: [usize; 2]) -> Sums {
    let mut sums = Sums::new();
    #[unroll]
    for _ in 0..comptime!(blocks[0] * blocks[1]) {
        let mut block = Array::<Vector<f32, Const<2>>>::new(2usize);
        block[0] = Vector::new(0.0f32);
        block[1] = Vector::new(0.0f32);
        sums.push(block);
    }
    sums
}

/// The row of A, within its plane's, and the term of the first element that this lane loads.
///
/// `ldmatrix` x4 gives lane l the row l % 8 of matrix l / 8, and A's four are (rows 0-7, 8-15) x (terms 0-7, 8-15), rows first.
#[cube]
pub fn lane_in_a(#[comptime] step: Step) -> (usize, usize) {
    let lane = UNIT_POS as usize % PLANE;
    if comptime!(step == Step::Mma) {
        (lane % 16, lane / 16 * 8)
    } else if comptime!(step == Step::Tf32) {
        (lane / 4, lane % 4 * 4)
    } else {
        (lane / 4, 0usize.runtime())
    }
}

/// The row of B, which is a column of the product, and the term of the first element that this lane loads.
///
/// `ldmatrix` x4 loads two blocks of B: (terms 0-7, 8-15) x (columns 0-7, 8-15), terms first, untransposed since a row of B
/// holds terms.
#[cube]
pub fn lane_in_b(#[comptime] step: Step) -> (usize, usize) {
    let lane = UNIT_POS as usize % PLANE;
    if comptime!(step == Step::Mma) {
        (lane / 16 * 8 + lane % 8, lane / 8 % 2 * 8)
    } else if comptime!(step == Step::Tf32) {
        (lane / 4, lane % 4 * 4)
    } else {
        (lane % 4 * 2, 0usize.runtime())
    }
}

/// Adds the product of a stage to the sums. `lane_a` and `lane_b` are where [`lane_in_a`] and [`lane_in_b`] say.
#[cube]
pub fn multiply<F: Float, N: Size>(
    a: &SharedMemory<Vector<F, N>>,
    b: &SharedMemory<Vector<F, N>>,
    sums: &mut Sums,
    lane_a: &Lane,
    lane_b: &Lane,
    #[comptime] product: Product,
    #[comptime] step: Step,
) {
    if comptime!(step == Step::Mma) {
        multiply_mma::<F, N>(a, b, sums, lane_a, lane_b, product);
    } else if comptime!(step == Step::Tf32) {
        multiply_tf32::<F, N>(a, b, sums, lane_a, lane_b, product);
    } else {
        multiply_plain::<F, N>(a, b, sums, lane_a, lane_b, product);
    }
}

/// [`multiply`] by [`Step::Mma`].
#[cube]
fn multiply_mma<F: Float, N: Size>(
    a: &SharedMemory<Vector<F, N>>,
    b: &SharedMemory<Vector<F, N>>,
    sums: &mut Sums,
    lane_a: &Lane,
    lane_b: &Lane,
    #[comptime] product: Product,
) {
    let width = N::value();
    let def = cmma::MmaDefinition::<F, F, f32>::new(16usize, 8usize, 16usize);
    let [mi, ni] = comptime!(product.blocks);
    let piece = comptime!(16 / product.bytes);
    #[unroll]
    for k in 0..comptime!(product.k / BLOCK[2]) {
        let mut left = Sequence::<Array<Vector<F, Const<2>>>>::new();
        #[unroll]
        for i in 0..mi {
            let at = vector_at(lane_a, comptime!(i * BLOCK[0]), comptime!(k * BLOCK[2]), product.a, width);
            let row = a.slice(at, at + comptime!(piece / width));
            left.push(def.load_matrix::<Vector<F, N>, Const<2>>(&row, cmma::MatrixIdent::A, 4usize, false));
        }
        #[unroll]
        for j in 0..comptime!(ni / 2) {
            let at = vector_at(lane_b, comptime!(j * 2 * BLOCK[1]), comptime!(k * BLOCK[2]), product.b, width);
            let row = b.slice(at, at + comptime!(piece / width));
            let both = def.load_matrix::<Vector<F, N>, Const<2>>(&row, cmma::MatrixIdent::B, 4usize, false);
            #[unroll]
            for h in 0..2usize {
                let mut right = Array::<Vector<F, Const<2>>>::new(2usize);
                right[0] = both[h * 2];
                right[1] = both[h * 2 + 1];
                #[unroll]
                for i in 0..mi {
                    def.execute_inplace(left.index(i), &right, sums.index_mut(comptime!(i * ni + j * 2 + h)));
                }
            }
        }
    }
}

/// [`multiply`] by [`Step::Tf32`], over vectors of four f32 (`N` is 4).
///
/// Sixteen terms come from vectors of four: lane l has four terms of rows l / 4 and l / 4 + 8 of A and of column l / 4 of
/// B, where the instruction has it hold terms l % 4 and l % 4 + 4 of eight. Which of the sixteen those are is the same for A
/// and B, and a sum does not mind their order: two instructions take the first and the last two of the four.
#[cube]
fn multiply_tf32<F: Float, N: Size>(
    a: &SharedMemory<Vector<F, N>>,
    b: &SharedMemory<Vector<F, N>>,
    sums: &mut Sums,
    lane_a: &Lane,
    lane_b: &Lane,
    #[comptime] product: Product,
) {
    let width = N::value();
    let def = cmma::MmaDefinition::<tf32, tf32, f32>::new(16usize, 8usize, 8usize);
    let [mi, ni] = comptime!(product.blocks);
    #[unroll]
    for part in 0..comptime!(product.k / 16) {
        let mut right = Array::<Vector<F, N>>::new(ni);
        #[unroll]
        for j in 0..ni {
            right[j] = b[vector_at(lane_b, comptime!(j * BLOCK[1]), comptime!(part * 16), product.b, width)];
        }
        #[unroll]
        for i in 0..mi {
            let low = a[vector_at(lane_a, comptime!(i * BLOCK[0]), comptime!(part * 16), product.a, width)];
            let high = a[vector_at(lane_a, comptime!(i * BLOCK[0] + 8), comptime!(part * 16), product.a, width)];
            #[unroll]
            for e in 0..2usize {
                let mut left = Array::<Vector<tf32, Const<1>>>::new(4usize);
                left[0] = rounded::<F>(low[2 * e]);
                left[1] = rounded::<F>(high[2 * e]);
                left[2] = rounded::<F>(low[2 * e + 1]);
                left[3] = rounded::<F>(high[2 * e + 1]);
                #[unroll]
                for j in 0..ni {
                    // Rounded anew for each row of blocks: kept, they would take the registers that the sums need.
                    let mut column = Array::<Vector<tf32, Const<1>>>::new(2usize);
                    column[0] = rounded::<F>(right[j][2 * e]);
                    column[1] = rounded::<F>(right[j][2 * e + 1]);
                    def.execute_inplace(&left, &column, sums.index_mut(comptime!(i * ni + j)));
                }
            }
        }
    }
}

#[cube]
fn rounded<F: Float>(value: F) -> Vector<tf32, Const<1>> {
    Vector::cast_from(Vector::<F, Const<1>>::new(value))
}

/// [`multiply`] by [`Step::Plain`]: the four sums of a block that m16n8k16 leaves to a lane, rows l / 4 and l / 4 + 8,
/// columns l % 4 * 2 and the next.
#[cube]
fn multiply_plain<F: Float, N: Size>(
    a: &SharedMemory<Vector<F, N>>,
    b: &SharedMemory<Vector<F, N>>,
    sums: &mut Sums,
    lane_a: &Lane,
    lane_b: &Lane,
    #[comptime] product: Product,
) {
    let width = N::value();
    let [mi, ni] = comptime!(product.blocks);
    for column in 0..comptime!(product.k / width) {
        let (lane_a, lane_b) =
            (lane_along(lane_a, column, product.a, width), lane_along(lane_b, column, product.b, width));
        let mut right = Array::<Vector<f32, N>>::new(comptime!(2 * ni));
        #[unroll]
        for j in 0..ni {
            right[2 * j] = Vector::cast_from(b[vector_at(&lane_b, comptime!(j * BLOCK[1]), 0usize, product.b, width)]);
            right[2 * j + 1] =
                Vector::cast_from(b[vector_at(&lane_b, comptime!(j * BLOCK[1] + 1), 0usize, product.b, width)]);
        }
        #[unroll]
        for i in 0..mi {
            #[unroll]
            for half in 0..2usize {
                let at = vector_at(&lane_a, comptime!(i * BLOCK[0] + half * 8), 0usize, product.a, width);
                let left = Vector::<f32, N>::cast_from(a[at]);
                #[unroll]
                for j in 0..ni {
                    let block = sums.index_mut(comptime!(i * ni + j));
                    let mut pair = block[half];
                    #[unroll]
                    for v in 0..width {
                        pair[0] += left[v] * right[2 * j][v];
                        pair[1] += left[v] * right[2 * j + 1][v];
                    }
                    block[half] = pair;
                }
            }
        }
    }
}
