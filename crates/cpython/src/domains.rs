//! The domains that the heap serves, and who serves a domain now.

#![forbid(unsafe_code)]

use std::{ffi::c_void, path::PathBuf};

use allocator_api::{Domain, VTable};

use crate::{abi::CPython, loader::Code};

/// The domains that the heap serves.
pub(crate) const SERVED: [Domain; 2] = [Domain::Mem, Domain::Obj];

/// The origin of the functions that serve a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    /// CPython, without a context, which means one of its allocators.
    CPython,
    /// CPython, with a context, which means one of its hooks over another allocator. Before the
    /// interpreter is initialised, this can only be the debug allocator, because `tracemalloc`
    /// starts later.
    Hook,
    /// This library.
    Obmalloc,
    /// The library at this path.
    Library(PathBuf),
}

impl Server {
    /// Looks up which code contains the function `vtable.malloc`.
    pub(crate) fn of(vtable: &VTable, python: &CPython) -> Self {
        let server = Code::at(vtable.malloc as *const c_void);
        if server.is(&Code::at(Self::of as *const c_void)) {
            Self::Obmalloc
        } else if server.is(&Code::at(python.code_address())) {
            // CPython's allocators have no context, and each of its hooks needs one.
            if vtable.ctx.is_null() { Self::CPython } else { Self::Hook }
        } else {
            Self::Library(server.path)
        }
    }
}

/// Returns true if the heap is in force, which means that it serves all of [`SERVED`].
pub(crate) fn is_in_force(python: &CPython) -> bool {
    SERVED.iter().all(|domain| Server::of(&python.allocator(*domain), python) == Server::Obmalloc)
}
