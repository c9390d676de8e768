//! The stages of the kidney-cancer pipeline.
