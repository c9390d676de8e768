//! Adding tensors and concatenating channels.
