//! The C functions that are in force in this process, which means that calls by name reach them.
//!
//! A program may define its own `malloc`, `calloc`, `realloc` and `free`, but no function such as
//! `reallocarray`. It then passes blocks of its own allocator to our `reallocarray`. The functions
//! on the left below therefore call the program's function on the right, just as the C library's
//! `reallocarray` calls the program's `realloc`:
//!
//! ```text
//!   reallocarray ──────► realloc
//!   free_sized ────────┬─► free
//!   free_aligned_sized ┤
//!   cfree ─────────────┘
//! ```
//!
//! `malloc_usable_size` cannot ask the program, so it returns 0 for a block outside of our memory.
//!
//! The address of each function in force is in a variable, which the dynamic loader sets when it
//! loads this library. The loader chooses the program's version of the function if there is one,
//! and our version otherwise.
//!
//! We define the variables in assembly, because a Rust static could contain a wrong address. The
//! compiler may treat two functions with the same code as one, and could store the address of
//! `operator delete` instead of that of `free`.

use std::{arch::global_asm, ffi::c_void};

type Realloc = unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void;
type Free = unsafe extern "C" fn(*mut c_void);

global_asm!(
    ".pushsection .data.rel.ro.in_force, \"aw\", %progbits",
    ".balign 8",
    ".globl obmalloc_in_force_realloc, obmalloc_in_force_free",
    ".globl obmalloc_in_force_info, obmalloc_in_force_pvalloc",
    ".hidden obmalloc_in_force_realloc, obmalloc_in_force_free",
    ".hidden obmalloc_in_force_info, obmalloc_in_force_pvalloc",
    "obmalloc_in_force_realloc: .quad realloc",
    "obmalloc_in_force_free: .quad free",
    "obmalloc_in_force_info: .quad malloc_info",
    "obmalloc_in_force_pvalloc: .quad __libc_pvalloc",
    ".popsection",
);

// SAFETY: the assembler defines these variables above. The loader fills them in before it runs any
// code of this library, and nothing changes them later.
unsafe extern "C" {
    #[link_name = "obmalloc_in_force_realloc"]
    safe static REALLOC: Realloc;
    #[link_name = "obmalloc_in_force_free"]
    safe static FREE: Free;
    /// The address of `malloc_info`.
    #[link_name = "obmalloc_in_force_info"]
    safe static INFO: usize;
    /// The address of `__libc_pvalloc`.
    #[link_name = "obmalloc_in_force_pvalloc"]
    safe static PVALLOC: usize;
}

/// Returns the program's own `realloc`, or `None` if it has none.
#[inline(always)]
pub(crate) fn realloc_of_program() -> Option<Realloc> {
    is_of_program(REALLOC as usize).then_some(REALLOC)
}

/// Returns the program's own `free`, or `None` if it has none.
#[inline(always)]
pub(crate) fn free_of_program() -> Option<Free> {
    is_of_program(FREE as usize).then_some(FREE)
}

/// Returns true if the function at `address` replaces one of ours for the whole process.
///
/// If a program loads this library with `dlopen`, the functions of the C library are in force. The
/// program then calls our functions by their addresses, with blocks of this library, so this
/// function returns false. To recognise this case, we look at two functions that the C library
/// defines, but other allocators rarely do. We assume this case only if neither of the two is ours,
/// because an allocator may define one of them: mimalloc, for example, defines `__libc_pvalloc`,
/// but not `malloc_info`.
///
/// This function may also return true although the program defines no `free` or `realloc` of its
/// own. If a program is not position-independent and takes the address of `free`, the linker uses
/// the address of a stub in the program. We then mistake the stub for the program's own `free` and
/// call it. This is harmless, because the stub calls our function.
#[inline(always)]
fn is_of_program(address: usize) -> bool {
    !is_ours(address) && (is_ours(INFO) || is_ours(PVALLOC))
}

/// Returns true if the function at `address` belongs to this library.
#[inline(always)]
pub(crate) fn is_ours(address: usize) -> bool {
    unsafe extern "C" {
        /// The start of this library in memory. The linker defines this symbol.
        static __ehdr_start: u8;
        /// The end of this library in memory. The linker defines this symbol.
        static _end: u8;
    }
    ((&raw const __ehdr_start).addr()..(&raw const _end).addr()).contains(&address)
}
