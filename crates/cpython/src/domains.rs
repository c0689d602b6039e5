//! The domains of CPython, and the allocators that serve them.

#![forbid(unsafe_code)]

use std::{ffi::c_void, path::PathBuf};

use allocator_api::{Domain, VTable};

use crate::{abi::CPython, loader::Code};

/// The domains of CPython for which the heap allocates.
pub(crate) const SERVED: [Domain; 2] = [Domain::Mem, Domain::Obj];

/// The origin of the allocator that serves a domain at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    /// An allocator of CPython. It has no context.
    CPython,
    /// A hook of CPython. It has a context and, before initialisation, is the debug allocator.
    Hook,
    Obmalloc,
    Library(PathBuf),
}

impl Server {
    /// Determines which program or library contains the `malloc` of `vtable`.
    pub(crate) fn of(vtable: &VTable, python: &CPython) -> Self {
        let server = Code::at(vtable.malloc as *const c_void);
        if server.is(&Code::at(Self::of as *const c_void)) {
            Self::Obmalloc
        } else if server.is(&Code::at(python.code_address())) {
            if vtable.ctx.is_null() { Self::CPython } else { Self::Hook }
        } else {
            Self::Library(server.path)
        }
    }
}

/// Returns true if CPython uses the heap for all domains in [`SERVED`].
pub(crate) fn is_in_force(python: &CPython) -> bool {
    SERVED.iter().all(|domain| Server::of(&python.allocator(*domain), python) == Server::Obmalloc)
}
