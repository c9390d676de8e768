//! Drawing: overlays of masks on CT slices, charts of curves, and report pages in HTML.

mod marks;
mod overlay;
mod page;
pub mod plot;

pub use overlay::{Rectangle, SOFT_TISSUE, Window, overlay, preview, write_png};
pub use page::{Bar, Page, Section};
