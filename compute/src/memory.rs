//! Host memory of the CPU backend's tensors: an allocator that reuses freed buffers.
//!
//! The system hands out a large allocation as untouched pages, and touching them costs a page fault for every 4 KiB: for a layer
//! with a large output as much time as its arithmetic. A freed [`Buffer`] is therefore kept and reused for one of about the same
//! size. Buffers in use and kept buffers together never exceed the largest amount that was ever in use at once.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytemuck::{Pod, Zeroable};

/// Number of floats in a cache line.
const LINE: usize = 16;
/// Smallest buffer in floats that is kept; smaller ones are left to the system's allocator.
const MIN_POOLED: usize = 1 << 14;

/// A buffer of floats that is returned to the pool when it is dropped.
pub(crate) struct Buffer {
    data: Data,
    derived: OnceLock<Arc<dyn Any + Send + Sync>>,
}

enum Data {
    Aligned {
        lines: Vec<Line>,
        /// Number of floats in use.
        len: usize,
    },
    /// A vector of the caller, of any alignment.
    Plain(Vec<f32>),
}

/// A cache line. Vectors that start on one never straddle two.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([f32; LINE]);

/// Bytes of host memory held for tensors of the CPU backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostMemory {
    /// Number of bytes in use now.
    pub used: usize,
    /// Number of bytes that were freed and are kept for reuse.
    pub kept: usize,
    /// The largest number of bytes in use at once since the start or the last [`reset_peak`].
    pub peak: usize,
}

struct Pool {
    free: VecDeque<Vec<Line>>,
    memory: HostMemory,
    /// The largest number of bytes ever in use at once, which bounds what is in use and kept together.
    limit: usize,
}

static POOL: Mutex<Pool> =
    Mutex::new(Pool { free: VecDeque::new(), memory: HostMemory { used: 0, kept: 0, peak: 0 }, limit: 0 });

/// The pool. A poisoned lock is ignored, because no code that holds the lock can panic halfway through a change.
fn pool() -> MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

fn bytes(lines: &Vec<Line>) -> usize {
    lines.capacity() * size_of::<Line>()
}

impl Pool {
    fn take(&mut self, len: usize) -> Option<Vec<Line>> {
        let fits = |v: &Vec<Line>| (len..=len + len / 4).contains(&v.capacity());
        let best = (0..self.free.len()).filter(|&i| fits(&self.free[i])).min_by_key(|&i| self.free[i].capacity())?;
        let data = self.free.remove(best)?;
        self.memory.kept -= bytes(&data);
        Some(data)
    }

    fn count(&mut self, more: usize) {
        let memory = &mut self.memory;
        memory.used += more;
        memory.peak = memory.peak.max(memory.used);
        self.limit = self.limit.max(memory.used);
    }

    /// Removes the buffers that were kept the longest until the limit holds, and returns them to be freed.
    fn shrink(&mut self) -> Vec<Vec<Line>> {
        let mut freed = Vec::new();
        while self.memory.used + self.memory.kept > self.limit {
            let Some(data) = self.free.pop_front() else { break };
            self.memory.kept -= bytes(&data);
            freed.push(data);
        }
        freed
    }
}

impl Buffer {
    /// `len` floats of unspecified value; the caller writes every one. Debug builds fill them with NaN, so that tests detect a
    /// float that was not written.
    pub fn unwritten(len: usize) -> Self {
        let count = len.div_ceil(LINE);
        let unset = Line([if cfg!(debug_assertions) { f32::NAN } else { 0.0 }; LINE]);
        if len < MIN_POOLED {
            return Self::new(Data::Aligned { lines: vec![unset; count], len });
        }
        let found = pool().take(count);
        let mut lines = found.unwrap_or_else(|| {
            let lines = Vec::with_capacity(count);
            prefer_huge_pages(&lines);
            lines
        });
        if cfg!(debug_assertions) {
            lines.clear();
        }
        lines.resize(count, unset);
        Self::counted(Data::Aligned { lines, len })
    }

    fn counted(data: Data) -> Self {
        let mut pool = pool();
        pool.count(data.bytes());
        let freed = pool.shrink();
        drop(pool);
        drop(freed);
        Self::new(data)
    }

    fn new(data: Data) -> Self {
        Self { data, derived: OnceLock::new() }
    }

    /// A value derived from these floats, such as packed weights: computed on first use and kept as long as the buffer. Where
    /// `fits` rejects the kept value, a new one is computed and not kept.
    pub fn derived<T: Any + Send + Sync>(
        &self,
        fits: impl FnOnce(&T) -> bool,
        make: impl FnOnce(&[f32]) -> T,
    ) -> Arc<T> {
        let kept = self.derived.get().and_then(|kept| Arc::clone(kept).downcast::<T>().ok());
        if let Some(kept) = kept
            && fits(&kept)
        {
            return kept;
        }
        let made = Arc::new(make(self));
        // Another thread may have set its value first; both are equal.
        let _ = self.derived.set(made.clone());
        made
    }
}

/// Floats of unspecified value for what a task computes in between. They are no tensor's memory: not counted, not kept.
pub(crate) struct Scratch(Vec<Line>);

impl Scratch {
    /// Room for `len` floats from the start of a cache line, of which the caller reads none that it has not written. Debug builds fill
    /// them with NaN.
    pub fn unwritten(len: usize) -> Self {
        let count = len.div_ceil(LINE);
        let mut lines = Vec::with_capacity(count);
        if cfg!(debug_assertions) {
            lines.resize(count, Line([f32::NAN; LINE]));
        }
        Self(lines)
    }

    /// The first float.
    pub fn as_mut_ptr(&mut self) -> *mut f32 {
        self.0.as_mut_ptr().cast()
    }
}

impl Data {
    fn bytes(&self) -> usize {
        match self {
            Self::Aligned { lines, .. } => bytes(lines),
            Self::Plain(data) => data.capacity() * size_of::<f32>(),
        }
    }
}

impl From<Vec<f32>> for Buffer {
    fn from(data: Vec<f32>) -> Self {
        Self::counted(Data::Plain(data))
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let data = mem::replace(&mut self.data, Data::Plain(Vec::new()));
        if matches!(&data, Data::Aligned { len, .. } if *len < MIN_POOLED) {
            return;
        }
        let mut pool = pool();
        pool.memory.used -= data.bytes();
        if let Data::Aligned { lines, .. } = data {
            pool.memory.kept += bytes(&lines);
            pool.free.push_back(lines);
        }
        let freed = pool.shrink();
        drop(pool);
        // Freed without the lock, because returning pages to the system takes long.
        drop(freed);
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &self.data {
            Data::Aligned { lines, len } => &bytemuck::cast_slice(lines)[..*len],
            Data::Plain(data) => data,
        }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        match &mut self.data {
            Data::Aligned { lines, len } => &mut bytemuck::cast_slice_mut(lines)[..*len],
            Data::Plain(data) => data,
        }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} floats)", self.len())
    }
}

/// The host memory that tensors of the CPU backend hold.
pub fn host_memory() -> HostMemory {
    pool().memory
}

/// Starts a new measurement of [`HostMemory::peak`] at what is in use now.
pub fn reset_peak() {
    let mut pool = pool();
    pool.memory.peak = pool.memory.used;
}

/// Returns kept memory to the system, and lowers the limit of kept memory to what is in use now.
pub fn release_host_memory() {
    let mut pool = pool();
    pool.limit = pool.memory.used;
    let freed = pool.shrink();
    drop(pool);
    drop(freed);
}

/// Advises the system to back a fresh allocation with pages of 2 MiB, which means 512 times fewer page faults and fewer TLB
/// misses. The system may ignore the advice; allocations too small for a whole such page are left alone.
fn prefer_huge_pages(data: &Vec<Line>) {
    #[cfg(target_os = "linux")]
    {
        const PAGE: usize = 4096;
        let start = data.as_ptr() as usize;
        let first = start.next_multiple_of(PAGE);
        let end = (start + bytes(data)) / PAGE * PAGE;
        if end.saturating_sub(first) >= 4 << 20 {
            // SAFETY: the range lies inside an allocation of ours, and the advice changes none of its contents.
            unsafe { libc::madvise(first as *mut libc::c_void, end - first, libc::MADV_HUGEPAGE) };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = data;
}

#[cfg(test)]
mod tests {
    use super::{Buffer, HostMemory, LINE, Line, MIN_POOLED, Pool, bytes};

    #[test]
    fn a_freed_buffer_of_the_same_size_is_taken_over_and_others_make_room() {
        let mut pool = Pool { free: Default::default(), memory: HostMemory { used: 0, kept: 0, peak: 0 }, limit: 0 };
        let large = vec![Line([0.0; LINE]); 1000];
        pool.count(bytes(&large));
        assert_eq!(pool.memory.peak, 64_000);
        pool.memory.used -= bytes(&large);
        pool.memory.kept += bytes(&large);
        pool.free.push_back(large);
        assert!(pool.take(400).is_none(), "much larger than needed");
        assert!(pool.take(1001).is_none(), "too small");
        assert!(pool.shrink().is_empty());
        pool.count(64);
        assert_eq!(pool.shrink().len(), 1, "64,064 bytes would be over the most ever in use");
        assert_eq!(pool.memory, HostMemory { used: 64, kept: 0, peak: 64_000 });
    }

    #[test]
    fn unwritten_floats_start_a_cache_line_and_show_in_debug_builds() {
        for len in [1, LINE + 1, MIN_POOLED, MIN_POOLED + 5] {
            let buffer = Buffer::unwritten(len);
            assert_eq!((buffer.len(), buffer.as_ptr() as usize % 64), (len, 0));
            assert!(!cfg!(debug_assertions) || buffer.iter().all(|v| v.is_nan()));
        }
    }
}
