//! Soft Dice and Dice with cross-entropy, with gradients.
