//! The interface between a debug hook and the program that it serves.

#![forbid(unsafe_code)]

use core::{ffi::CStr, fmt};

use raw_mem::{Output, abort_with};

/// A call to an allocator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operation {
    /// A call to `malloc`.
    Malloc,
    /// A call to `calloc`.
    Calloc,
    /// A call to `realloc`.
    Realloc,
    /// A call to `free`.
    Free,
    /// A request for the size of a block, such as a call to `malloc_usable_size`.
    UsableSize,
}

impl Operation {
    /// Returns the name of the operation, such as `free`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malloc => "malloc",
            Self::Calloc => "calloc",
            Self::Realloc => "realloc",
            Self::Free => "free",
            Self::UsableSize => "malloc_usable_size",
        }
    }

    /// Returns the function of CPython that reports `misuse` in this operation.
    pub const fn cpython_function(self, misuse: Misuse) -> &'static CStr {
        match (self, matches!(misuse, Misuse::Caller)) {
            (Self::Malloc, _) => c"_PyMem_DebugMalloc",
            (Self::Calloc, _) => c"_PyMem_DebugCalloc",
            (Self::Realloc, true) => c"_PyMem_DebugRealloc",
            (Self::Free, true) => c"_PyMem_DebugFree",
            (Self::Realloc, false) => c"_PyMem_DebugRawRealloc",
            (Self::Free, false) => c"_PyMem_DebugRawFree",
            // CPython has no such operation. This function of CPython checks a block.
            (Self::UsableSize, _) => c"_PyMem_DebugCheckAddress",
        }
    }
}

/// A misuse of an allocator by the program.
///
/// `Display` writes CPython's wording for each error that CPython also reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Misuse {
    /// The calling thread may not use the allocator. See [`Host::may_call`].
    Caller,
    /// No block begins at an address that is not a multiple of the word size.
    Unaligned,
    /// The memory before the address, where the header of a block is, cannot be read.
    Unreadable,
    /// The block was freed before.
    Freed,
    /// The block belongs to another domain, or to no domain at all.
    WrongApi {
        /// The letter of the domain that allocated the block, or any byte.
        allocated: u8,
        /// The letter of the domain through which the program frees or reallocates the block.
        verified: u8,
    },
    /// The size before the block exceeds the largest block, or the memory after the block.
    BadSize,
    /// A byte before the block was overwritten.
    Underflow,
    /// A byte after the block was overwritten.
    Overflow,
}

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Caller => "Python memory allocator called without holding the GIL",
            Self::Unaligned => "no block begins at an address that is not aligned",
            Self::Unreadable => {
                "the memory before the address cannot be read, \
                 so no block begins there, or it was freed before"
            }
            Self::Freed => "the block was freed before (double free, or use after free)",
            Self::WrongApi { allocated, verified } => {
                let [allocated, verified] = [*allocated, *verified].map(Letter);
                return write!(
                    f,
                    "bad ID: Allocated using API '{allocated}', verified using API '{verified}'"
                );
            }
            Self::BadSize => "bad size before the block",
            Self::Underflow => "bad leading pad byte",
            Self::Overflow => "bad trailing pad byte",
        };
        f.write_str(text)
    }
}

/// The letter of a domain. It can be any byte if memory is corrupted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Letter(pub(super) u8);

impl fmt::Display for Letter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.escape_ascii().fmt(f)
    }
}

/// The program that a debug hook serves.
///
/// A debug hook calls the methods of its host while it serves a request, so these methods must not
/// allocate from the hook. If a method panics, the process is aborted.
pub trait Host: Sync {
    /// Returns true if the calling thread may use the allocator now.
    ///
    /// In CPython, a thread must hold the GIL to use the domains mem and obj.
    fn may_call(&self) -> bool {
        true
    }

    /// Writes where the block at `ptr` was allocated, if the program knows.
    fn write_place(&self, out: &mut Output<'_>, ptr: *const u8) {
        let _ = (out, ptr);
    }

    /// Reports the error in `operation` and ends the process.
    fn end(&self, operation: Operation, misuse: Misuse) -> ! {
        abort_with(format_args!("debug {}: {misuse}", operation.name()))
    }
}

/// The default host. It lets any thread allocate, and knows nothing about the program.
#[derive(Clone, Copy, Debug, Default)]
pub struct Standalone;

impl Host for Standalone {}
