//! Asking for memory before it is taken. An allocation that fails ends the process; one that was asked for first is an error.

use crate::error::{Error, Result};

/// Smaller amounts are not asked for: where they fail, nothing else works either.
const MIN_ASKED: usize = 1 << 20;

/// Bytes that are left for small allocations, threads and stacks, which nobody asks for.
const SPARE: usize = 16 << 20;

/// Checks that `count` values of type `T`, which `what` needs now, fit in memory. The caller allocates them directly afterwards.
///
/// Memory is reserved and given back untouched, which costs microseconds whatever the size.
///
/// # Errors
/// [`Error::Data`] with the number of bytes.
pub fn ensure_room<T>(what: &str, count: usize) -> Result<()> {
    let bytes = count.saturating_mul(size_of::<T>());
    if bytes < MIN_ASKED || Vec::<u8>::new().try_reserve_exact(bytes.saturating_add(SPARE)).is_ok() {
        return Ok(());
    }
    Err(Error::Data(format!("{what}: {bytes} bytes do not fit in this machine's memory")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_any_machine_has_is_refused_with_its_bytes() {
        assert!(ensure_room::<f32>("a volume", 1 << 20).is_ok());
        let message = ensure_room::<f32>("a volume", 1 << 60).expect_err("4 EiB").to_string();
        assert_eq!(message, "a volume: 4611686018427387904 bytes do not fit in this machine's memory");
        assert!(ensure_room::<f64>("a volume", usize::MAX).is_err());
    }
}
