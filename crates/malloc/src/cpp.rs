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
//!
//! A program may replace some of these functions. The module `in_force` explains how the others
//! then call the program's functions.

mod in_force;
mod runtime;
#[cfg_attr(not(target_arch = "x86_64"), path = "cpp/throwing_elsewhere.rs")]
mod throwing;

use std::{
    ffi::c_void,
    ptr::{self, NonNull},
};

pub use self::throwing::{new, new_aligned, new_array, new_array_aligned};
use crate::{
    c::release,
    cpp::{
        in_force::{NEW, NEW_ALIGNED, NEW_ARRAY, NEW_ARRAY_ALIGNED},
        runtime::{Form, Runtime},
    },
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
    runtime::new_nothrow(form, size, align).unwrap_or(ptr::null_mut())
}

/// Serves a request for which the program has replaced the throwing form of `operator new`.
///
/// The program's function may throw an exception, which Rust code cannot catch. We therefore call
/// the C++ runtime's nothrow form of `operator new`. It calls the program's function, catches the
/// exception and returns null. If the process has no C++ runtime, we call the program's function
/// ourselves, and an exception ends the process.
#[cold]
#[inline(never)]
fn replaced_or_null(form: Form, size: usize, align: usize) -> *mut c_void {
    runtime::new_nothrow(form, size, align).unwrap_or_else(|| match form {
        // SAFETY: every `operator new` may be called with any size.
        Form::Object => unsafe { in_force::of(&NEW)(size) },
        // SAFETY: as above.
        Form::Array => unsafe { in_force::of(&NEW_ARRAY)(size) },
        // SAFETY: as above. The caller of our form determines the alignment.
        Form::AlignedObject => unsafe { in_force::of(&NEW_ALIGNED)(size, align) },
        // SAFETY: as above.
        Form::AlignedArray => unsafe { in_force::of(&NEW_ARRAY_ALIGNED)(size, align) },
    })
}

/// Returns true unless the program has replaced a function from which the nothrow form is derived.
#[inline(always)]
fn is_ours(form: Form) -> bool {
    let [derived_from, in_turn] = match form {
        Form::Object => [in_force::of(&NEW) as usize; 2],
        Form::Array => [in_force::of(&NEW_ARRAY) as usize, in_force::of(&NEW) as usize],
        Form::AlignedObject => [in_force::of(&NEW_ALIGNED) as usize; 2],
        Form::AlignedArray => {
            [in_force::of(&NEW_ARRAY_ALIGNED) as usize, in_force::of(&NEW_ALIGNED) as usize]
        }
    };
    in_force::is_ours(derived_from) && in_force::is_ours(in_turn)
}

/// Looks up what the nothrow forms need if the program has replaced other forms.
///
/// A later look-up could wait for a thread that is loading a library, and would change what
/// `dlerror` returns.
pub(crate) fn prepare() {
    for form in [Form::Object, Form::Array, Form::AlignedObject, Form::AlignedArray] {
        if !is_ours(form) {
            runtime::nothrow_operator(form);
        }
    }
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
            if !is_ours($form) {
                return replaced_or_null($form, size, MIN_ALIGN);
            }
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
            if !is_ours($form) {
                return replaced_or_null($form, size, align);
            }
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

/// Frees the memory at `ptr`. This is `_ZdlPv`, the plain form of `operator delete`.
///
/// All other forms without an alignment are derived from the plain form, so that they call it by
/// default.
///
/// # Safety
///
/// - `ptr` must be null or point to live memory of this library that is not used again.
#[unsafe(export_name = "_ZdlPv")]
pub unsafe extern "C" fn delete(ptr: *mut c_void) {
    // SAFETY: the contract is the same.
    unsafe { release(ptr) };
}

/// Frees the memory at `ptr`. This is `_ZdlPvSt11align_val_t`, aligned `operator delete`.
///
/// All other forms with an alignment are derived from this form, so that they call it by default.
///
/// # Safety
///
/// - `ptr` must be null or point to live memory of this library that is not used again.
#[unsafe(export_name = "_ZdlPvSt11align_val_t")]
pub unsafe extern "C" fn delete_aligned(ptr: *mut c_void, _: Align) {
    // SAFETY: the contract is the same.
    unsafe { release(ptr) };
}

/// Defines derived forms of `operator delete`. Each of them calls the form in force from which it
/// is derived.
macro_rules! derived {
    ($($symbol:literal $name:ident($($param:ident: $type:ty),*) => $base:ident($($arg:ident),*);)*)
    => { $(
        #[doc = concat!("`", $symbol, "`: `operator delete`. `ptr` may be null.")]
        ///
        /// # Safety
        ///
        /// - `ptr` must be null or point to live memory.
        /// - The memory must come from the matching form of `operator new`. For example, the memory
        ///   for `delete[]` must come from `new[]`.
        /// - The caller must not use the memory after this call.
        #[unsafe(export_name = $symbol)]
        pub unsafe extern "C" fn $name($($param: $type),*) {
            // SAFETY: the forms of `operator new` are derived in the same way, so the memory came
            // from the one that belongs to the called form (contract).
            unsafe { in_force::of(&in_force::$base)($($arg),*) };
        }
    )* };
}

type Ptr = *mut c_void;
type Size = usize;
type Align = usize;
type Nothrow = *const c_void;

derived! {
    "_ZdlPvm" delete_sized(ptr: Ptr, _size: Size) => DELETE(ptr);
    "_ZdlPvRKSt9nothrow_t" delete_nothrow(ptr: Ptr, _nothrow: Nothrow) => DELETE(ptr);
    "_ZdaPv" delete_array(ptr: Ptr) => DELETE(ptr);
    "_ZdaPvm" delete_array_sized(ptr: Ptr, _size: Size) => DELETE_ARRAY(ptr);
    "_ZdaPvRKSt9nothrow_t" delete_array_nothrow(ptr: Ptr, _nothrow: Nothrow) => DELETE_ARRAY(ptr);
    "_ZdlPvmSt11align_val_t" delete_sized_aligned(ptr: Ptr, _size: Size, align: Align)
        => DELETE_ALIGNED(ptr, align);
    "_ZdlPvSt11align_val_tRKSt9nothrow_t"
        delete_aligned_nothrow(ptr: Ptr, align: Align, _nothrow: Nothrow)
        => DELETE_ALIGNED(ptr, align);
    "_ZdaPvSt11align_val_t" delete_array_aligned(ptr: Ptr, align: Align)
        => DELETE_ALIGNED(ptr, align);
    "_ZdaPvmSt11align_val_t" delete_array_sized_aligned(ptr: Ptr, _size: Size, align: Align)
        => DELETE_ARRAY_ALIGNED(ptr, align);
    "_ZdaPvSt11align_val_tRKSt9nothrow_t"
        delete_array_aligned_nothrow(ptr: Ptr, align: Align, _nothrow: Nothrow)
        => DELETE_ARRAY_ALIGNED(ptr, align);
}
