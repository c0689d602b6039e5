//! The exported functions, loaded with `dlopen` and called directly.

use std::{
    ffi::{c_int, c_void},
    sync::LazyLock,
};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use crate::support::library;

pub(crate) type Ptr = *mut c_void;

/// Defines a structure of function pointers. Each field has the name of its symbol.
macro_rules! api {
    ($($name:ident: fn($($argument:ty),*) $(-> $result:ty)?;)*) => {
        pub(crate) struct Api {
            $(pub(crate) $name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
        }

        impl Api {
            fn load(library: &Library) -> Self {
                Self {
                    // SAFETY: the library exports each symbol with this type.
                    $($name: unsafe { *library.get(stringify!($name)).unwrap() },)*
                }
            }
        }
    };
}

api! {
    malloc: fn(usize) -> Ptr;
    calloc: fn(usize, usize) -> Ptr;
    free: fn(Ptr);
    realloc: fn(Ptr, usize) -> Ptr;
    reallocarray: fn(Ptr, usize, usize) -> Ptr;
    malloc_usable_size: fn(Ptr) -> usize;
    posix_memalign: fn(*mut Ptr, usize, usize) -> c_int;
    aligned_alloc: fn(usize, usize) -> Ptr;
    memalign: fn(usize, usize) -> Ptr;
    valloc: fn(usize) -> Ptr;
    pvalloc: fn(usize) -> Ptr;
    free_sized: fn(Ptr, usize);
    free_aligned_sized: fn(Ptr, usize, usize);
    cfree: fn(Ptr);
    malloc_trim: fn(usize) -> c_int;
    mallinfo: fn() -> libc::mallinfo;
    mallinfo2: fn() -> libc::mallinfo2;
    mallopt: fn(c_int, c_int) -> c_int;
    malloc_info: fn(c_int, *mut libc::FILE) -> c_int;
    __libc_malloc: fn(usize) -> Ptr;
    __libc_calloc: fn(usize, usize) -> Ptr;
    __libc_realloc: fn(Ptr, usize) -> Ptr;
    __libc_free: fn(Ptr);
    __libc_memalign: fn(usize, usize) -> Ptr;
    __libc_valloc: fn(usize) -> Ptr;
    __libc_pvalloc: fn(usize) -> Ptr;
}

/// Loads the library and returns its functions. This test program still uses its own malloc.
pub(crate) fn api() -> &'static Api {
    static API: LazyLock<Api> = LazyLock::new(|| {
        // SAFETY: the constructor of the library only reads the environment.
        let library = unsafe { Library::open(Some(library()), RTLD_NOW | RTLD_LOCAL) }.unwrap();
        let api = Api::load(&library);
        // Some threads can outlive the last test, so the library must stay loaded.
        std::mem::forget(library);
        api
    });
    &API
}

pub(crate) fn errno() -> c_int {
    // SAFETY: the C library's `errno` exists as long as its thread runs.
    unsafe { *libc::__errno_location() }
}

pub(crate) fn set_errno(value: c_int) {
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = value };
}

/// Calls `request`, which must return null and set `errno`, and returns `errno`.
pub(crate) fn refused(request: impl FnOnce() -> Ptr) -> c_int {
    set_errno(0);
    assert!(request().is_null());
    errno()
}

/// A block that is filled with bytes that depend on their position and on a seed.
///
/// In a large block, only some of the bytes are written and compared.
pub(crate) struct Filled {
    pub(crate) ptr: Ptr,
    seed: usize,
}

impl Filled {
    /// Fills `len` bytes at `ptr`, which must be live memory of at least that size.
    pub(crate) fn new(ptr: Ptr, len: usize, seed: usize) -> Self {
        assert!(!ptr.is_null());
        for at in places(len) {
            // SAFETY: the tests pass live memory of that size.
            unsafe { ptr.cast::<u8>().add(at).write(expected(at, seed)) };
        }
        Self { ptr, seed }
    }

    /// Asserts that the first `len` bytes are unchanged. `ptr` is their current address.
    pub(crate) fn assert_at(&self, ptr: Ptr, len: usize) {
        assert!(!ptr.is_null());
        // SAFETY: the tests pass live memory whose first bytes were filled.
        let is_same = |at| unsafe { ptr.cast::<u8>().add(at).read() } == expected(at, self.seed);
        let wrong = places(len).find(|at| !is_same(*at) && is_written(*at));
        assert!(wrong.is_none(), "the byte {wrong:?} of {len} has changed");
    }
}

/// Every position below this one is written.
const DENSE: usize = 16 << 10;

/// Returns the positions that are written in a block of `len` bytes.
fn places(len: usize) -> impl Iterator<Item = usize> {
    let last = len.saturating_sub(64);
    let dense = last.min(DENSE);
    (0..dense).chain((dense..last).filter(|at| is_written(*at))).chain(last..len)
}

/// Returns true for positions that are written in every block that contains them.
fn is_written(at: usize) -> bool {
    at < DENSE || at.is_multiple_of(509)
}

fn expected(at: usize, seed: usize) -> u8 {
    (at.wrapping_mul(31) ^ (at >> 8) ^ seed) as u8
}
