//! The domains of CPython for which the heap allocates, and a function that determines whose
//! allocator is in force for a domain.

#![forbid(unsafe_code)]

use std::{ffi::c_void, path::PathBuf};

use allocator_api::{Domain, VTable};

use crate::{abi::CPython, loader::Code};

/// The domains of CPython for which the heap allocates.
pub(crate) const SERVED: [Domain; 2] = [Domain::Mem, Domain::Obj];

/// The origin of the allocator that is in force for a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    /// One of CPython's own allocators. Its functions lie in CPython's code, and its vtable has no
    /// context.
    CPython,
    /// One of CPython's hooks, which wraps another allocator. Its functions lie in CPython's code,
    /// and its vtable has a context. Before the interpreter is initialised, the only possible hook
    /// is the debug allocator, because `tracemalloc` starts later.
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
            // CPython's own allocators have no context, and each of CPython's hooks needs one. The
            // context therefore distinguishes an allocator from a hook.
            if vtable.ctx.is_null() { Self::CPython } else { Self::Hook }
        } else {
            Self::Library(server.path)
        }
    }
}

/// Returns true if the heap is in force, which means that CPython uses it for all domains in
/// [`SERVED`].
pub(crate) fn is_in_force(python: &CPython) -> bool {
    SERVED.iter().all(|domain| Server::of(&python.allocator(*domain), python) == Server::Obmalloc)
}
