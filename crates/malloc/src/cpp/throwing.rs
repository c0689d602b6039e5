//! The forms of `operator new` that throw, on x86-64.
//!
//! A C++ exception must not reach a stack frame of Rust code. In a build with `panic = "abort"`,
//! the exception would end the process at this frame and never reach its handler. We therefore
//! write every function that an exception can pass through in assembly. The functions marked
//! "(Rust)" below return before an exception is thrown:
//!
//! ```text
//!   new ──► alloc (Rust)                 returns the block, or null
//!    └────► new_or_throw ──► next (Rust)  decides what to do, and returns
//!                    └─────► the new-handler, or the function that throws
//!   new[] ──► the form of new in force, which may be the program's
//! ```

use std::{
    arch::naked_asm,
    ffi::c_void,
    ptr::{self, NonNull},
};

use crate::{
    cpp::{
        in_force,
        runtime::{Runtime, Throwing},
    },
    heap::{self, MIN_ALIGN},
};

/// The next step of `new_or_throw`. The ABI returns the two fields in `rax` and `rdx`.
#[repr(C)]
struct Step {
    /// The block to return, or null.
    block: *mut c_void,
    /// The function to call if there is no block. The request is repeated afterwards.
    call: Option<Throwing>,
}

extern "C" fn alloc(size: usize) -> Option<NonNull<u8>> {
    heap::alloc(size, MIN_ALIGN)
}

extern "C" fn alloc_aligned(size: usize, align: usize) -> Option<NonNull<u8>> {
    if align.is_power_of_two() { heap::alloc(size, align) } else { None }
}

/// Repeats a failed request. If the request fails again, returns the function to call.
///
/// If there is neither a new-handler nor a C++ runtime, ends the process with a message.
#[cold]
extern "C" fn next(size: usize, align: usize) -> Step {
    if let Some(block) = alloc_aligned(size, align) {
        return Step { block: block.as_ptr().cast(), call: None };
    }
    let runtime = Runtime::find();
    // No handler can help if the alignment is invalid.
    let handler = if align.is_power_of_two() { runtime.new_handler() } else { None };
    let Some(call) = handler.or_else(|| runtime.thrower()) else {
        host::abort(format_args!(
            "operator new cannot allocate {size} bytes: out of memory, and no C++ runtime was \
             found that could throw std::bad_alloc"
        ));
    };
    Step { block: ptr::null_mut(), call: Some(call) }
}

/// Repeats a failed request until it succeeds, and calls the new-handler after each failure.
///
/// Throws `std::bad_alloc` if no new-handler is installed.
#[unsafe(naked)]
extern "C-unwind" fn new_or_throw(size: usize, align: usize) -> *mut c_void {
    naked_asm!(
        ".cfi_startproc",
        "push rbx",
        ".cfi_def_cfa_offset 16",
        ".cfi_offset rbx, -16",
        "push rbp",
        ".cfi_def_cfa_offset 24",
        ".cfi_offset rbp, -24",
        "sub rsp, 8",
        ".cfi_def_cfa_offset 32",
        "mov rbx, rdi",
        "mov rbp, rsi",
        "2:",
        "mov rdi, rbx",
        "mov rsi, rbp",
        "call {next}",
        "test rax, rax",
        "jne 3f",
        "call rdx",
        "jmp 2b",
        "3:",
        "add rsp, 8",
        ".cfi_def_cfa_offset 24",
        "pop rbp",
        ".cfi_def_cfa_offset 16",
        "pop rbx",
        ".cfi_def_cfa_offset 8",
        "ret",
        ".cfi_endproc",
        next = sym next,
    )
}

/// `_Znwm`: `operator new` that throws.
#[unsafe(naked)]
#[unsafe(export_name = "_Znwm")]
pub extern "C-unwind" fn new(size: usize) -> *mut c_void {
    naked_asm!(
        ".cfi_startproc",
        "push rdi",
        ".cfi_def_cfa_offset 16",
        "call {alloc}",
        "pop rdi",
        ".cfi_def_cfa_offset 8",
        "test rax, rax",
        "je 2f",
        "ret",
        "2:",
        "mov esi, {align}",
        "jmp {new_or_throw}",
        ".cfi_endproc",
        alloc = sym alloc,
        align = const MIN_ALIGN,
        new_or_throw = sym new_or_throw,
    )
}

/// `_ZnwmSt11align_val_t`: aligned `operator new` that throws.
#[unsafe(naked)]
#[unsafe(export_name = "_ZnwmSt11align_val_t")]
pub extern "C-unwind" fn new_aligned(size: usize, align: usize) -> *mut c_void {
    naked_asm!(
        ".cfi_startproc",
        "push rdi",
        ".cfi_def_cfa_offset 16",
        "push rsi",
        ".cfi_def_cfa_offset 24",
        "sub rsp, 8",
        ".cfi_def_cfa_offset 32",
        "call {alloc}",
        "add rsp, 8",
        ".cfi_def_cfa_offset 24",
        "pop rsi",
        ".cfi_def_cfa_offset 16",
        "pop rdi",
        ".cfi_def_cfa_offset 8",
        "test rax, rax",
        "je 2f",
        "ret",
        "2:",
        "jmp {new_or_throw}",
        ".cfi_endproc",
        alloc = sym alloc_aligned,
        new_or_throw = sym new_or_throw,
    )
}

/// `_Znam`: `operator new[]` that throws. Calls the `operator new` in force.
#[unsafe(naked)]
#[unsafe(export_name = "_Znam")]
pub extern "C-unwind" fn new_array(size: usize) -> *mut c_void {
    naked_asm!(
        ".cfi_startproc",
        "jmp qword ptr [rip + {new}]",
        ".cfi_endproc",
        new = sym in_force::NEW,
    )
}

/// `_ZnamSt11align_val_t`: aligned `operator new[]` that throws. Calls the aligned `operator new` in
/// force.
#[unsafe(naked)]
#[unsafe(export_name = "_ZnamSt11align_val_t")]
pub extern "C-unwind" fn new_array_aligned(size: usize, align: usize) -> *mut c_void {
    naked_asm!(
        ".cfi_startproc",
        "jmp qword ptr [rip + {new}]",
        ".cfi_endproc",
        new = sym in_force::NEW_ALIGNED,
    )
}
