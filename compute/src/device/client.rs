//! A CubeCL client of any runtime as a trait object: what a device needs besides the launches of its ops.

use std::any::Any;
use std::thread::{self, ThreadId};

use cubecl::bytes::Bytes;
use cubecl::ir::features::TypeUsage;
use cubecl::prelude::*;
use cubecl::server::Handle;

/// Properties of a client and its device, read once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Abilities {
    /// The thread that runs the device's work.
    pub(super) runner: ThreadId,
    pub(super) max_buffer_bytes: u64,
    pub(super) f16: bool,
    pub(super) bf16: bool,
}

/// The client as a device uses it. Errors are the messages of CubeCL.
pub(crate) trait Client: Send + Sync {
    /// The properties of the device.
    fn abilities(&self) -> Result<Abilities, String>;

    /// Runs `task` on the device's thread and waits until it has returned.
    fn exclusive(&self, task: &mut (dyn FnMut() + Send)) -> Result<(), String>;

    /// A buffer of undefined contents.
    fn allocate(&self, bytes: usize) -> Handle;

    /// A buffer that holds `data`.
    fn create(&self, data: &[u8]) -> Handle;

    /// The contents of buffers, with one wait for all.
    fn contents(&self, handles: Vec<Handle>) -> Result<Vec<Bytes>, String>;

    /// Waits for everything launched so far.
    fn finish(&self) -> Result<(), String>;

    /// The client as `ComputeClient<R>`, for downcasting.
    fn as_any(&self) -> &dyn Any;
}

impl<R: Runtime> Client for ComputeClient<R> {
    fn abilities(&self) -> Result<Abilities, String> {
        let runner = ComputeClient::exclusive(self, || thread::current().id()).map_err(|e| e.to_string())?;
        let arithmetic = TypeUsage::Arithmetic | TypeUsage::Buffer;
        Ok(Abilities {
            runner,
            max_buffer_bytes: self.properties().memory.max_page_size,
            f16: half::f16::supported_uses(self).is_superset(arithmetic),
            bf16: half::bf16::supported_uses(self).is_superset(arithmetic),
        })
    }

    fn exclusive(&self, task: &mut (dyn FnMut() + Send)) -> Result<(), String> {
        ComputeClient::exclusive(self, task).map_err(|e| e.to_string())
    }

    fn allocate(&self, bytes: usize) -> Handle {
        self.empty(bytes)
    }

    fn create(&self, data: &[u8]) -> Handle {
        self.create_from_slice(data)
    }

    fn contents(&self, handles: Vec<Handle>) -> Result<Vec<Bytes>, String> {
        cubecl::future::block_on(self.read_async(handles)).map_err(|e| e.to_string())
    }

    fn finish(&self) -> Result<(), String> {
        self.flush().and_then(|()| cubecl::future::block_on(self.sync())).map_err(|e| e.to_string())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
