//! Blocks of networks: compositions of ops.
