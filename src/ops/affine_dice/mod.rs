//! The registration loss and its gradient in one sweep.
