//! NVRTC, loaded from a given file: the C functions that a compilation needs.

use std::ffi::{CStr, CString, c_char, c_int};
use std::path::Path;
use std::ptr;

use libloading::Library;

/// `nvrtcResult`; 0 is success.
type Status = c_int;
/// `nvrtcProgram`.
type Program = *mut std::ffi::c_void;

const SUCCESS: Status = 0;
/// The status of an invalid source: the only failure that always repeats, and therefore the only one that is cached.
const ERROR_COMPILATION: Status = 6;

type Create = unsafe extern "C" fn(
    *mut Program,
    *const c_char,
    *const c_char,
    c_int,
    *const *const c_char,
    *const *const c_char,
) -> Status;
type Destroy = unsafe extern "C" fn(*mut Program) -> Status;
type Compile = unsafe extern "C" fn(Program, c_int, *const *const c_char) -> Status;
type Size = unsafe extern "C" fn(Program, *mut usize) -> Status;
type Bytes = unsafe extern "C" fn(Program, *mut c_char) -> Status;
type Version = unsafe extern "C" fn(*mut c_int, *mut c_int) -> Status;
type ErrorString = unsafe extern "C" fn(Status) -> *const c_char;

/// The opened library.
pub(crate) struct Nvrtc {
    create: Create,
    destroy: Destroy,
    compile: Compile,
    log_size: Size,
    log: Bytes,
    cubin_size: Size,
    cubin: Bytes,
    error_string: ErrorString,
    /// The version, such as 13.2.
    pub(crate) version: String,
    /// Whether it precompiles headers: since 12.8.
    pub(crate) precompiles_headers: bool,
    /// Keeps the functions above valid.
    _library: Library,
}

/// The result of a compilation.
pub(crate) struct Compiled {
    pub(crate) cubin: Vec<u8>,
    /// The report of ptxas on registers, stack, spills and shared memory, and warnings.
    pub(crate) log: String,
}

/// Why a compilation failed.
pub(crate) enum Failure {
    /// The source does not compile; the value is NVRTC's log.
    Source(String),
    /// Any other failure, such as a lack of memory.
    Compiler(String),
}

impl Nvrtc {
    pub(crate) fn load(path: &Path) -> Result<Self, String> {
        let failed = |e: libloading::Error| format!("{} cannot be loaded: {e}", path.display());
        // SAFETY: NVIDIA's library; its initialisers have no preconditions.
        let library = unsafe { Library::new(path) }.map_err(failed)?;
        // SAFETY: the types are those of nvrtc.h, unchanged since CUDA 11.
        unsafe {
            let version: Version = *library.get(b"nvrtcVersion").map_err(failed)?;
            let (mut major, mut minor) = (0, 0);
            version(&mut major, &mut minor);
            Ok(Self {
                create: *library.get(b"nvrtcCreateProgram").map_err(failed)?,
                destroy: *library.get(b"nvrtcDestroyProgram").map_err(failed)?,
                compile: *library.get(b"nvrtcCompileProgram").map_err(failed)?,
                log_size: *library.get(b"nvrtcGetProgramLogSize").map_err(failed)?,
                log: *library.get(b"nvrtcGetProgramLog").map_err(failed)?,
                cubin_size: *library.get(b"nvrtcGetCUBINSize").map_err(failed)?,
                cubin: *library.get(b"nvrtcGetCUBIN").map_err(failed)?,
                error_string: *library.get(b"nvrtcGetErrorString").map_err(failed)?,
                version: format!("{major}.{minor}"),
                precompiles_headers: (major, minor) >= (12, 8),
                _library: library,
            })
        }
    }

    /// Compiles CUDA C++ to machine code with the given options.
    pub(crate) fn compile(&self, source: &str, options: &[String]) -> Result<Compiled, Failure> {
        let text =
            |s: &str| CString::new(s).map_err(|_| Failure::Compiler("a NUL byte in the source or an option".into()));
        let source = text(source)?;
        // Precompiled headers are named after the program, and each process needs its own.
        let name = text(&format!("kernel_{}", std::process::id()))?;
        let options = options.iter().map(|o| text(o)).collect::<Result<Vec<_>, _>>()?;
        let option_pointers: Vec<_> = options.iter().map(|o| o.as_ptr()).collect();
        let count = c_int::try_from(options.len()).map_err(|_| Failure::Compiler("too many options".into()))?;

        let mut handle = ptr::null_mut();
        // SAFETY: `source` and `name` outlive the program; no headers.
        let status = unsafe { (self.create)(&mut handle, source.as_ptr(), name.as_ptr(), 0, ptr::null(), ptr::null()) };
        self.check(status)?;
        let program = OpenProgram { nvrtc: self, handle };
        // SAFETY: an open program and `count` strings.
        let status = unsafe { (self.compile)(program.handle, count, option_pointers.as_ptr()) };
        let log = program.bytes(self.log_size, self.log)?;
        let log = String::from_utf8_lossy(&log).trim_end_matches('\0').to_owned();
        if status == ERROR_COMPILATION {
            return Err(Failure::Source(log));
        }
        self.check(status)?;
        Ok(Compiled { cubin: program.bytes(self.cubin_size, self.cubin)?, log })
    }

    fn check(&self, status: Status) -> Result<(), Failure> {
        if status == SUCCESS {
            return Ok(());
        }
        // SAFETY: NVRTC returns a static string for any status.
        let reason = unsafe { CStr::from_ptr((self.error_string)(status)) };
        Err(Failure::Compiler(reason.to_string_lossy().into_owned()))
    }
}

/// A program that is destroyed when it goes out of scope.
struct OpenProgram<'a> {
    nvrtc: &'a Nvrtc,
    handle: Program,
}

impl OpenProgram<'_> {
    fn bytes(&self, size: Size, get: Bytes) -> Result<Vec<u8>, Failure> {
        let mut len = 0;
        // SAFETY: an open program.
        self.nvrtc.check(unsafe { size(self.handle, &mut len) })?;
        let mut bytes = vec![0u8; len];
        // SAFETY: as above, and room for as many bytes as it said.
        self.nvrtc.check(unsafe { get(self.handle, bytes.as_mut_ptr().cast()) })?;
        Ok(bytes)
    }
}

impl Drop for OpenProgram<'_> {
    fn drop(&mut self) {
        // SAFETY: the program is open and no one uses it after this.
        unsafe { (self.nvrtc.destroy)(&mut self.handle) };
    }
}
