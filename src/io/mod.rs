//! Reading and writing files: NIfTI, npy, safetensors.
