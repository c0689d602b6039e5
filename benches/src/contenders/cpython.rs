//! CPython's own allocator of objects, from a shared libpython.

use std::{
    alloc::Layout,
    env,
    error::Error,
    ffi::{CStr, c_char, c_int, c_void},
    fmt,
    mem::MaybeUninit,
};

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

use crate::contender::Contender;

/// The environment variable that names the shared libpython.
pub const LIBPYTHON: &str = "OBMALLOC_BENCH_LIBPYTHON";

const DOMAIN_OBJ: c_int = 2;

/// CPython's `PyMemAllocatorEx`, which is the same in every version since 3.5.
#[derive(Clone, Copy)]
#[repr(C)]
struct AllocatorEx {
    ctx: *mut c_void,
    malloc: extern "C" fn(*mut c_void, usize) -> *mut c_void,
    calloc: extern "C" fn(*mut c_void, usize, usize) -> *mut c_void,
    realloc: unsafe extern "C" fn(*mut c_void, *mut c_void, usize) -> *mut c_void,
    free: unsafe extern "C" fn(*mut c_void, *mut c_void),
}

/// The allocator behind `PyObject_Malloc`, called directly while this thread holds the GIL.
pub struct CPython {
    allocator: AllocatorEx,
    version: String,
}

impl CPython {
    /// Loads the libpython that [`LIBPYTHON`] names, and initialises the interpreter.
    ///
    /// # Errors
    ///
    /// Fails if the variable does not name a CPython that can be loaded.
    pub fn load() -> Result<Self, Box<dyn Error>> {
        let path =
            env::var_os(LIBPYTHON).ok_or(format!("{LIBPYTHON} names no shared libpython"))?;
        Self::open(&path).map_err(|error| format!("cannot load {}: {error}", path.display()).into())
    }

    fn open(path: &std::ffi::OsStr) -> Result<Self, libloading::Error> {
        // SAFETY: the constructors of a libpython rely only on the dynamic loader.
        let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL) }?;
        // SAFETY: this is the function's documented signature in every version of CPython.
        let initialise = unsafe { library.get::<extern "C" fn(c_int)>(b"Py_InitializeEx\0") }?;
        type GetAllocator = unsafe extern "C" fn(c_int, *mut AllocatorEx);
        // SAFETY: this is the function's documented signature in every version of CPython.
        let get_allocator = unsafe { library.get::<GetAllocator>(b"PyMem_GetAllocator\0") }?;
        type GetVersion = extern "C" fn() -> *const c_char;
        // SAFETY: this is the function's documented signature in every version of CPython.
        let get_version = unsafe { library.get::<GetVersion>(b"Py_GetVersion\0") }?;
        initialise(0);
        let mut allocator = MaybeUninit::uninit();
        // SAFETY: the pointer is valid for writing an `AllocatorEx`.
        unsafe { get_allocator(DOMAIN_OBJ, allocator.as_mut_ptr()) };
        // SAFETY: the function returns a C string that lives as long as the library.
        let version = unsafe { CStr::from_ptr(get_version()) }.to_string_lossy();
        let version = version.split(' ').next().unwrap_or_default().to_owned();
        // The library must stay loaded, because it contains the functions of the allocator.
        std::mem::forget(library);
        // SAFETY: `get_allocator` initialised `allocator`.
        Ok(Self { allocator: unsafe { allocator.assume_init() }, version })
    }

    /// Returns the version of CPython.
    pub fn version(&self) -> &str {
        &self.version
    }
}

impl fmt::Debug for CPython {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CPython").field("version", &self.version).finish_non_exhaustive()
    }
}

// SAFETY: blocks of the domain have the requested size and an alignment of 16 bytes, and CPython
// does not use them before they are freed.
unsafe impl Contender for CPython {
    #[inline(always)]
    fn alloc(&mut self, layout: Layout) -> *mut u8 {
        (self.allocator.malloc)(self.allocator.ctx, layout.size()).cast()
    }

    #[inline(always)]
    fn alloc_zeroed(&mut self, layout: Layout) -> *mut u8 {
        (self.allocator.calloc)(self.allocator.ctx, 1, layout.size()).cast()
    }

    #[inline(always)]
    unsafe fn free(&mut self, memory: *mut u8, _layout: Layout) {
        // SAFETY: `memory` came from this domain and is not used again (contract of `free`).
        unsafe { (self.allocator.free)(self.allocator.ctx, memory.cast()) };
    }

    #[inline(always)]
    unsafe fn realloc(&mut self, memory: *mut u8, _layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: `memory` came from this domain (contract of `realloc`).
        unsafe { (self.allocator.realloc)(self.allocator.ctx, memory.cast(), size) }.cast()
    }
}
