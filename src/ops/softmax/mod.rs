//! Softmax and argmax over channels.
