//! The domains of CPython that the heap serves, and a way to find out whose functions serve a
//! domain at present.

#![forbid(unsafe_code)]

use std::{ffi::c_void, path::PathBuf};

use allocator_api::{Domain, VTable};

use crate::{abi::CPython, loader::Code};

/// The domains that the heap serves.
pub(crate) const SERVED: [Domain; 2] = [Domain::Mem, Domain::Obj];

/// The origin of the functions that serve a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    /// One of CPython's own allocators. Its functions are in CPython, and it has no context.
    CPython,
    /// One of CPython's hooks over another allocator. Its functions are in CPython, and it has a
    /// context. Before the interpreter is initialised, the hook can only be the debug allocator,
    /// because `tracemalloc` starts later.
    Hook,
    /// This library.
    Obmalloc,
    /// The library at this path.
    Library(PathBuf),
}

impl Server {
    /// Determines the origin of `vtable`, by looking up which program or library contains its
    /// function `malloc`.
    pub(crate) fn of(vtable: &VTable, python: &CPython) -> Self {
        let server = Code::at(vtable.malloc as *const c_void);
        if server.is(&Code::at(Self::of as *const c_void)) {
            Self::Obmalloc
        } else if server.is(&Code::at(python.code_address())) {
            // The context tells CPython's allocators and hooks apart. The allocators have no
            // context, and each hook needs one.
            if vtable.ctx.is_null() { Self::CPython } else { Self::Hook }
        } else {
            Self::Library(server.path)
        }
    }
}

/// Returns true if the heap is in force, which means that it serves all domains in [`SERVED`].
pub(crate) fn is_in_force(python: &CPython) -> bool {
    SERVED.iter().all(|domain| Server::of(&python.allocator(*domain), python) == Server::Obmalloc)
}
