//! U-Net and ResNet, and reading their weights.
