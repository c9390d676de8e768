//! Pictures, curves and the report of a diagnosis.

mod overlay;
mod page;
pub mod plot;

pub use overlay::{Frame, overlay};
pub use page::{Page, Section};
