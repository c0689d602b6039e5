//! The forms of `operator new` that throw, on processors for which there is no assembly.
//!
//! These functions are written in Rust, so they cannot throw an exception such as `std::bad_alloc`.
//! Instead, they end the process if a request fails and the program has installed no handler with
//! `std::set_new_handler`.
//!
//! The process also ends if an exception of the program passes through one of these functions. Such
//! an exception can come from the program's new-handler, or from the program's `operator new`,
//! which our `operator new[]` calls.

use std::ffi::c_void;

use crate::{
    cpp::{in_force, runtime::Runtime},
    heap::{self, MIN_ALIGN},
};

#[cold]
fn new_or_abort(size: usize, align: usize) -> *mut c_void {
    let runtime = Runtime::find();
    while align.is_power_of_two() {
        if let Some(block) = heap::alloc(size, align) {
            return block.as_ptr().cast();
        }
        let Some(handler) = runtime.new_handler() else { break };
        // SAFETY: the program installed the handler for calls after a failed request.
        unsafe { handler() };
    }
    host::abort(format_args!(
        "operator new cannot allocate {size} bytes: out of memory, and std::bad_alloc cannot be \
         thrown on this processor"
    ));
}

/// `_Znwm`: `operator new` that throws.
#[unsafe(export_name = "_Znwm")]
pub extern "C-unwind" fn new(size: usize) -> *mut c_void {
    match heap::alloc(size, MIN_ALIGN) {
        Some(block) => block.as_ptr().cast(),
        None => new_or_abort(size, MIN_ALIGN),
    }
}

/// `_ZnwmSt11align_val_t`: aligned `operator new` that throws.
#[unsafe(export_name = "_ZnwmSt11align_val_t")]
pub extern "C-unwind" fn new_aligned(size: usize, align: usize) -> *mut c_void {
    new_or_abort(size, align)
}

/// `_Znam`: `operator new[]` that throws. Calls the `operator new` in force.
#[unsafe(export_name = "_Znam")]
pub extern "C-unwind" fn new_array(size: usize) -> *mut c_void {
    // SAFETY: every `operator new` may be called with any size.
    unsafe { in_force::of(&in_force::NEW)(size) }
}

/// `_ZnamSt11align_val_t`: aligned `operator new[]` that throws. Calls the aligned `operator new` in
/// force.
#[unsafe(export_name = "_ZnamSt11align_val_t")]
pub extern "C-unwind" fn new_array_aligned(size: usize, align: usize) -> *mut c_void {
    // SAFETY: every `operator new` may be called with any size. The caller determines the alignment.
    unsafe { in_force::of(&in_force::NEW_ALIGNED)(size, align) }
}
