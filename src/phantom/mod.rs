//! Synthetic multi-phase patients with ground truth.
