//! The forms of `operator new` that throw, on processors for which there is no assembly.
//!
//! These functions are written in Rust, so an exception such as `std::bad_alloc` cannot leave them.
//! If a request fails and the program has installed no handler with `std::set_new_handler`, the
//! process therefore ends. It also ends if such a handler throws an exception.

use std::ffi::c_void;

use crate::{
    cpp::runtime::Runtime,
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

/// Defines throwing forms of `operator new`.
macro_rules! define {
    ($($symbol:literal $name:ident;)*) => { $(
        #[doc = concat!("`", $symbol, "`: `operator new` that throws.")]
        #[unsafe(export_name = $symbol)]
        pub extern "C" fn $name(size: usize) -> *mut c_void {
            match heap::alloc(size, MIN_ALIGN) {
                Some(block) => block.as_ptr().cast(),
                None => new_or_abort(size, MIN_ALIGN),
            }
        }
    )* };
}

define! {
    "_Znwm" new;
    "_Znam" new_array;
}

/// Defines throwing forms of `operator new` with an alignment.
macro_rules! define_aligned {
    ($($symbol:literal $name:ident;)*) => { $(
        #[doc = concat!("`", $symbol, "`: aligned `operator new` that throws.")]
        #[unsafe(export_name = $symbol)]
        pub extern "C" fn $name(size: usize, align: usize) -> *mut c_void {
            new_or_abort(size, align)
        }
    )* };
}

define_aligned! {
    "_ZnwmSt11align_val_t" new_aligned;
    "_ZnamSt11align_val_t" new_array_aligned;
}
