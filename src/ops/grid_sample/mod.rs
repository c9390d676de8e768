//! Sampling at normalised coordinates.

/// What lies outside the input's grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PaddingMode {
    /// Corners outside weigh 0.
    #[default]
    Zeros,
    /// The coordinate is clamped to the grid.
    Border,
}
