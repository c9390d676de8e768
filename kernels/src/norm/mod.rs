//! Instance and batch normalisation over channels-last data [groups, positions, channels]: a group is an image (instance
//! norm) or the whole batch (batch norm), and each of its channels has statistics of its own.
//!
//! Statistics take one read of x and no shift has to be guessed: a unit reads eight values, forms their mean and sum of
//! squared deviations in registers, and merges that into its running moments (Chan, Golub and LeVeque 1979); the units of
//! a cube, then the cubes of a group merge the same way in a fixed order. A mean far above the standard deviation
//! therefore costs no digits, and the same input gives the same bits.

mod backward;
mod moments;
mod normalize;

pub use backward::{add_groups, apply_gradients, merge_gradients, partial_gradients};
pub(crate) use moments::{Moments, merge};
pub use moments::{merge_moments, partial_moments};
pub use normalize::{apply_in_place, apply_statistics, inverse_sd};
