//! C++: every form of `operator new` and `operator delete` in the standard.
//!
//! Each function is exported under its mangled name, which the Itanium C++ ABI defines:
//!
//! | part of the name | meaning |
//! | --- | --- |
//! | `nw`, `na` | `operator new`, `operator new[]` |
//! | `dl`, `da` | `operator delete`, `operator delete[]` |
//! | `m` | a size |
//! | `St11align_val_t` | an alignment |
//! | `RKSt9nothrow_t` | `std::nothrow` |

mod runtime;
#[cfg_attr(not(target_arch = "x86_64"), path = "cpp/throwing_elsewhere.rs")]
mod throwing;

use std::{
    ffi::c_void,
    ptr::{self, NonNull},
};

pub use self::throwing::{new, new_aligned, new_array, new_array_aligned};
use crate::{
    cpp::runtime::{Form, Runtime},
    heap::{self, MIN_ALIGN},
};

/// Handles a failed request. If a new-handler is installed, lets the C++ runtime repeat the
/// request. Otherwise returns null.
///
/// The C++ runtime calls our throwing `operator new`, and catches any exception of the new-handler.
#[cold]
#[inline(never)]
fn new_or_null(form: Form, size: usize, align: usize) -> *mut c_void {
    let runtime = Runtime::find();
    if !align.is_power_of_two() || runtime.new_handler().is_none() {
        return ptr::null_mut();
    }
    runtime.new_nothrow(form, size, align)
}

#[inline]
fn alloc(size: usize, align: usize) -> Option<NonNull<u8>> {
    if align.is_power_of_two() { heap::alloc(size, align) } else { None }
}

/// Defines forms of `operator new` that return null on failure.
macro_rules! nothrow {
    ($($symbol:literal $name:ident $form:expr;)*) => { $(
        #[doc = concat!("`", $symbol, "`: `operator new` that returns null on failure.")]
        #[unsafe(export_name = $symbol)]
        pub extern "C" fn $name(size: usize, _: *const c_void) -> *mut c_void {
            match heap::alloc(size, MIN_ALIGN) {
                Some(block) => block.as_ptr().cast(),
                None => new_or_null($form, size, MIN_ALIGN),
            }
        }
    )* };
}

nothrow! {
    "_ZnwmRKSt9nothrow_t" new_nothrow Form::Object;
    "_ZnamRKSt9nothrow_t" new_array_nothrow Form::Array;
}

/// Defines forms of `operator new` with an alignment that return null on failure.
macro_rules! nothrow_aligned {
    ($($symbol:literal $name:ident $form:expr;)*) => { $(
        #[doc = concat!("`", $symbol, "`: aligned `operator new` that returns null on failure.")]
        #[unsafe(export_name = $symbol)]
        pub extern "C" fn $name(
            size: usize,
            align: usize,
            _: *const c_void,
        ) -> *mut c_void {
            match alloc(size, align) {
                Some(block) => block.as_ptr().cast(),
                None => new_or_null($form, size, align),
            }
        }
    )* };
}

nothrow_aligned! {
    "_ZnwmSt11align_val_tRKSt9nothrow_t" new_aligned_nothrow Form::AlignedObject;
    "_ZnamSt11align_val_tRKSt9nothrow_t" new_array_aligned_nothrow Form::AlignedArray;
}

/// Defines forms of `operator delete`. Each of them frees the memory at its first argument.
macro_rules! deletes {
    ($($symbol:literal $name:ident($($ignored:ty),*);)*) => { $(
        #[doc = concat!("`", $symbol, "`: `operator delete`. `ptr` may be null.")]
        ///
        /// # Safety
        ///
        /// - `ptr` must be null or point to live memory of this library that is not used again.
        #[unsafe(export_name = $symbol)]
        pub unsafe extern "C" fn $name(ptr: *mut c_void $(, _: $ignored)*) {
            if let Some(block) = NonNull::new(ptr.cast()) {
                // SAFETY: the block is live and not used again (contract).
                unsafe { heap::free(block) };
            }
        }
    )* };
}

type Size = usize;
type Align = usize;
type Nothrow = *const c_void;

deletes! {
    "_ZdlPv" delete();
    "_ZdaPv" delete_array();
    "_ZdlPvm" delete_sized(Size);
    "_ZdaPvm" delete_array_sized(Size);
    "_ZdlPvRKSt9nothrow_t" delete_nothrow(Nothrow);
    "_ZdaPvRKSt9nothrow_t" delete_array_nothrow(Nothrow);
    "_ZdlPvSt11align_val_t" delete_aligned(Align);
    "_ZdaPvSt11align_val_t" delete_array_aligned(Align);
    "_ZdlPvmSt11align_val_t" delete_sized_aligned(Size, Align);
    "_ZdaPvmSt11align_val_t" delete_array_sized_aligned(Size, Align);
    "_ZdlPvSt11align_val_tRKSt9nothrow_t" delete_aligned_nothrow(Align, Nothrow);
    "_ZdaPvSt11align_val_tRKSt9nothrow_t" delete_array_aligned_nothrow(Align, Nothrow);
}
