//! 3D convolution and its gradients (2D is depth 1).
