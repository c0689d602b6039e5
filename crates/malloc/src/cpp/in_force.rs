//! The forms of `operator new` and `operator delete` that are in force in this process.
//!
//! A C++ program may replace `operator new` and `operator delete`, or only some of their forms. By
//! default, some forms call others. For example, `new[]` calls `new`. A program that replaces only
//! `operator new(size_t)` therefore expects `new[]` to call its replacement. The C++ runtime's
//! forms do so, and the forms of this library must do the same:
//!
//! ```text
//!   new nothrow ────────► new ◄──── new[] ◄──── new[] nothrow
//!   delete sized ───┬─► delete ◄─── delete[] ◄─┬─ delete[] sized
//!   delete nothrow ─┘                          └─ delete[] nothrow
//! ```
//!
//! The diagram shows the forms without an alignment. The forms that take an alignment call one
//! another in the same way, and never call a form without an alignment.
//!
//! Each static below contains the address of an exported function. The dynamic loader fills in the
//! address when it loads this library, and chooses the program's function if the program defines
//! the function too. A plain call in Rust would always reach our own function.

use std::{ffi::c_void, ptr};

pub(super) use crate::in_force::is_ours;

type New = unsafe extern "C-unwind" fn(usize) -> *mut c_void;
type NewAligned = unsafe extern "C-unwind" fn(usize, usize) -> *mut c_void;
type Delete = unsafe extern "C" fn(*mut c_void);
type DeleteAligned = unsafe extern "C" fn(*mut c_void, usize);

pub(super) static NEW: New = new;
pub(super) static NEW_ARRAY: New = new_array;
pub(super) static NEW_ALIGNED: NewAligned = new_aligned;
pub(super) static NEW_ARRAY_ALIGNED: NewAligned = new_array_aligned;
pub(super) static DELETE: Delete = delete;
pub(super) static DELETE_ARRAY: Delete = delete_array;
pub(super) static DELETE_ALIGNED: DeleteAligned = delete_aligned;
pub(super) static DELETE_ARRAY_ALIGNED: DeleteAligned = delete_array_aligned;

unsafe extern "C-unwind" {
    #[link_name = "_Znwm"]
    fn new(size: usize) -> *mut c_void;
    #[link_name = "_Znam"]
    fn new_array(size: usize) -> *mut c_void;
    #[link_name = "_ZnwmSt11align_val_t"]
    fn new_aligned(size: usize, align: usize) -> *mut c_void;
    #[link_name = "_ZnamSt11align_val_t"]
    fn new_array_aligned(size: usize, align: usize) -> *mut c_void;
}

unsafe extern "C" {
    #[link_name = "_ZdlPv"]
    fn delete(ptr: *mut c_void);
    #[link_name = "_ZdaPv"]
    fn delete_array(ptr: *mut c_void);
    #[link_name = "_ZdlPvSt11align_val_t"]
    fn delete_aligned(ptr: *mut c_void, align: usize);
    #[link_name = "_ZdaPvSt11align_val_t"]
    fn delete_array_aligned(ptr: *mut c_void, align: usize);
}

/// Returns the function whose address the dynamic loader stored in `slot`.
#[inline(always)]
pub(super) fn of<F: Copy>(slot: &'static F) -> F {
    // The compiler must not assume that the function is the one in the initialiser.
    // SAFETY: a reference is valid for reading.
    unsafe { ptr::read_volatile(slot) }
}
