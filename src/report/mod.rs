//! Pictures, curves and the report of a diagnosis.

mod overlay;
mod page;
pub mod plot;

pub use overlay::{Frame, largest_slice, overlay};
pub use page::{Page, Section};
