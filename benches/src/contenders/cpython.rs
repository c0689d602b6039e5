//! CPython's own allocator of objects, in this process, through a shared libpython.

use std::{
    alloc::Layout,
    env,
    ffi::{CStr, OsString, c_char, c_int, c_void},
    fmt,
    mem::MaybeUninit,
    path::Path,
};

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

use crate::contender::Contender;

/// The variable that names the shared library.
pub const LIBPYTHON: &str = "OBMALLOC_BENCH_LIBPYTHON";

/// CPython: `PYMEM_DOMAIN_OBJ`.
const DOMAIN_OBJ: c_int = 2;

/// CPython: `PyMemAllocatorEx`, the same in every version since 3.5.
#[derive(Clone, Copy)]
#[repr(C)]
struct AllocatorEx {
    ctx: *mut c_void,
    malloc: extern "C" fn(*mut c_void, usize) -> *mut c_void,
    calloc: extern "C" fn(*mut c_void, usize, usize) -> *mut c_void,
    realloc: unsafe extern "C" fn(*mut c_void, *mut c_void, usize) -> *mut c_void,
    free: unsafe extern "C" fn(*mut c_void, *mut c_void),
}

/// The allocator behind `PyObject_Malloc`, called by its own functions, without the look-up of
/// who serves the domain. The interpreter is initialised, and its lock is held.
pub struct CPython {
    allocator: AllocatorEx,
    version: String,
}

/// Why there is none.
#[derive(Debug)]
pub enum NotLoaded {
    /// [`LIBPYTHON`] is not set.
    NotNamed,
    /// The library cannot be loaded, or is no CPython.
    Library(OsString, libloading::Error),
}

impl fmt::Display for NotLoaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotNamed => write!(f, "{LIBPYTHON} names no shared libpython"),
            Self::Library(path, error) => write!(f, "{}: {error}", Path::new(path).display()),
        }
    }
}

impl std::error::Error for NotLoaded {}

impl CPython {
    /// Loads the library that [`LIBPYTHON`] names and initialises the interpreter.
    ///
    /// # Errors
    ///
    /// Fails when none is named, or it is no CPython.
    pub fn load() -> Result<Self, NotLoaded> {
        let path = env::var_os(LIBPYTHON).ok_or(NotLoaded::NotNamed)?;
        Self::open(&path).map_err(|error| NotLoaded::Library(path, error))
    }

    fn open(path: &OsString) -> Result<Self, libloading::Error> {
        // SAFETY: a libpython runs no code on loading that relies on more than the loader.
        let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL) }?;
        // SAFETY: CPython's documented signatures, in every version.
        let (initialise, get_allocator, get_version) = unsafe {
            (
                library.get::<extern "C" fn(c_int)>(b"Py_InitializeEx\0")?,
                library.get::<unsafe extern "C" fn(c_int, *mut AllocatorEx)>(
                    b"PyMem_GetAllocator\0",
                )?,
                library.get::<extern "C" fn() -> *const c_char>(b"Py_GetVersion\0")?,
            )
        };
        initialise(0);
        let mut allocator = MaybeUninit::uninit();
        // SAFETY: there is room for the record, which the call fills.
        unsafe { get_allocator(DOMAIN_OBJ, allocator.as_mut_ptr()) };
        // SAFETY: a C string that stays as long as the library, which is never unloaded.
        let version = unsafe { CStr::from_ptr(get_version()) }.to_string_lossy();
        let version = version.split(' ').next().unwrap_or_default().to_owned();
        std::mem::forget(library);
        // SAFETY: it was filled above.
        Ok(Self { allocator: unsafe { allocator.assume_init() }, version })
    }

    /// CPython's version.
    pub fn version(&self) -> &str {
        &self.version
    }
}

impl fmt::Debug for CPython {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CPython").field("version", &self.version).finish_non_exhaustive()
    }
}

// SAFETY: CPython promises as much for memory of the domain, aligned to 16.
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
        // SAFETY: the caller's promise.
        unsafe { (self.allocator.free)(self.allocator.ctx, memory.cast()) };
    }

    #[inline(always)]
    unsafe fn realloc(&mut self, memory: *mut u8, _layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { (self.allocator.realloc)(self.allocator.ctx, memory.cast(), size) }.cast()
    }
}
