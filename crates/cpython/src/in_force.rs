//! Which library's functions serve a domain.

use std::{
    ffi::{CStr, OsStr, c_void},
    mem::MaybeUninit,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use allocator_api::MemAllocator;

use crate::{abi::CPython, install::SERVED};

/// Who serves a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    /// Functions of CPython without a context: one of its allocators.
    CPython,
    /// Functions of CPython with a context: one of its hooks over another allocator. Before the
    /// interpreter is initialised, this can only be the debug allocator, because `tracemalloc`
    /// starts later.
    Hook,
    /// Functions of this library.
    Obmalloc,
    /// Functions of the library at this path.
    Library(PathBuf),
}

impl Server {
    /// Looks up whose function `allocator.malloc` is.
    pub(crate) fn of(allocator: &MemAllocator, python: &CPython) -> Self {
        let server = Code::of(allocator);
        if server.base == Code::at(Self::of as *const c_void).base {
            Self::Obmalloc
        } else if server.base == Code::at(python.code_address()).base {
            // None of CPython's allocators has a context, and each of its hooks needs one.
            if allocator.ctx.is_null() { Self::CPython } else { Self::Hook }
        } else {
            Self::Library(server.path)
        }
    }
}

/// Returns true if our heap serves all the domains that it is for.
pub(crate) fn is_in_force(python: &CPython) -> bool {
    SERVED.iter().all(|domain| Server::of(&python.allocator(*domain), python) == Server::Obmalloc)
}

/// A piece of code that the loader loaded: the program, or a library.
#[derive(Debug)]
pub(crate) struct Code {
    base: usize,
    pub(crate) path: PathBuf,
}

impl Code {
    /// The code of `allocator`'s functions.
    pub(crate) fn of(allocator: &MemAllocator) -> Self {
        Self::at(allocator.malloc as *const c_void)
    }

    /// The code that `address` is in.
    pub(crate) fn at(address: *const c_void) -> Self {
        let mut info = MaybeUninit::<libc::Dl_info>::zeroed();
        // SAFETY: dladdr takes any address and fills `info` in if it is in loaded code.
        let info = unsafe {
            libc::dladdr(address, info.as_mut_ptr());
            info.assume_init()
        };
        let path = if info.dli_fname.is_null() {
            PathBuf::from("code that no library holds")
        } else {
            // SAFETY: a C string of the loader's, which lives as long as the library is loaded.
            let name = unsafe { CStr::from_ptr(info.dli_fname) };
            Path::new(OsStr::from_bytes(name.to_bytes())).to_owned()
        };
        Self { base: info.dli_fbase.addr(), path }
    }
}
