//! Instance and batch normalisation.
