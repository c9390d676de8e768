//! Placeholder of this change.
