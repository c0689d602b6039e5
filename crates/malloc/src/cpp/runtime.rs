//! The functions of the C++ runtime that a failed `operator new` needs.
//!
//! If an `operator new` of this library cannot allocate memory, it calls functions of the C++
//! runtime. These are `std::get_new_handler`, the function that throws `std::bad_alloc`, and the
//! runtime's own forms of `operator new` that return null instead of throwing. We look up these
//! functions by name instead of linking against a C++ runtime, because the library also serves
//! programs without C++.

use std::{
    ffi::{CStr, c_void},
    mem, ptr,
    sync::atomic::{AtomicPtr, Ordering::Relaxed},
};

/// A function that may throw: a new-handler, or the function that throws `std::bad_alloc`.
///
/// An exception must not reach a Rust stack frame. With `panic = "abort"`, the exception would end
/// the process there.
pub(super) type Throwing = unsafe extern "C-unwind" fn();

/// A form of `operator new` that returns null.
#[derive(Clone, Copy, Debug)]
pub(super) enum Form {
    Object,
    Array,
    AlignedObject,
    AlignedArray,
}

impl Form {
    fn symbol(self) -> &'static CStr {
        match self {
            Self::Object => c"_ZnwmRKSt9nothrow_t",
            Self::Array => c"_ZnamRKSt9nothrow_t",
            Self::AlignedObject => c"_ZnwmSt11align_val_tRKSt9nothrow_t",
            Self::AlignedArray => c"_ZnamSt11align_val_tRKSt9nothrow_t",
        }
    }

    fn is_aligned(self) -> bool {
        matches!(self, Self::AlignedObject | Self::AlignedArray)
    }
}

/// A handle for the look-up of symbols of the C++ runtime.
pub(super) struct Runtime {
    /// # Invariant
    ///
    /// The handle is `RTLD_DEFAULT`, or was returned by `dlopen` and never closed.
    handle: *mut c_void,
}

const THROW: &CStr = c"_ZSt17__throw_bad_allocv";

/// Libraries that can define the symbols of the C++ runtime.
///
/// We open the library by name, because a look-up with the default handle misses libraries that
/// were loaded with `RTLD_LOCAL`.
const LIBRARIES: [&CStr; 3] = [c"libstdc++.so.6", c"libc++abi.so.1", c"libc++.so.1"];

impl Runtime {
    /// Finds the C++ runtime. Without a C++ runtime, look-ups of its symbols fail.
    pub(super) fn find() -> Self {
        // INVARIANT: this is the default handle.
        let global = Self { handle: libc::RTLD_DEFAULT };
        if !global.look_up(THROW).is_null() {
            return global;
        }
        for library in LIBRARIES {
            // SAFETY: the name is a C string. With RTLD_NOLOAD, no library is initialised.
            let handle =
                unsafe { libc::dlopen(library.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
            if !handle.is_null() {
                // INVARIANT: `dlopen` returned the handle, and it stays open.
                return Self { handle };
            }
        }
        global
    }

    fn look_up(&self, symbol: &CStr) -> *mut c_void {
        // SAFETY: the handle is valid (invariant of `handle`), and the symbol is a C string.
        unsafe { libc::dlsym(self.handle, symbol.as_ptr()) }
    }

    /// Returns the handler that the program installed with `std::set_new_handler`.
    pub(super) fn new_handler(&self) -> Option<Throwing> {
        let getter = self.look_up(c"_ZSt15get_new_handlerv");
        if getter.is_null() {
            return None;
        }
        // SAFETY: this symbol is `std::new_handler std::get_new_handler() noexcept`.
        let getter: unsafe extern "C" fn() -> Option<Throwing> = unsafe { mem::transmute(getter) };
        // SAFETY: the function has no precondition.
        unsafe { getter() }
    }

    /// Returns the function that throws `std::bad_alloc`, if there is a C++ runtime.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "nothing throws there"))]
    pub(super) fn thrower(&self) -> Option<Throwing> {
        let thrower = self.look_up(THROW);
        // SAFETY: this symbol is `void std::__throw_bad_alloc()`. A null pointer becomes `None`.
        unsafe { mem::transmute(thrower) }
    }

    /// Returns the runtime's own `operator new` of the given form, or null.
    fn nothrow_operator(&self, form: Form) -> *mut c_void {
        // A look-up with the default handle would find the operator of this library again.
        let is_global = self.handle == libc::RTLD_DEFAULT;
        let handle = if is_global { libc::RTLD_NEXT } else { self.handle };
        // SAFETY: the handle is valid (invariant of `handle`), and the symbol is a C string.
        unsafe { libc::dlsym(handle, form.symbol().as_ptr()) }
    }
}

/// The runtime's own forms of `operator new` that never throw, as far as they were looked up.
static NOTHROW: [AtomicPtr<c_void>; 4] = [const { AtomicPtr::new(ptr::null_mut()) }; 4];

/// Returns the runtime's own `operator new` of the given form, or null if there is no runtime that
/// has it.
///
/// Looks it up only once, because a look-up takes a lock of the dynamic loader.
pub(super) fn nothrow_operator(form: Form) -> *mut c_void {
    let known = &NOTHROW[form as usize];
    let mut operator = known.load(Relaxed);
    if operator.is_null() {
        operator = Runtime::find().nothrow_operator(form);
        known.store(operator, Relaxed);
    }
    operator
}

/// Calls the runtime's own `operator new` of the given form, which never throws.
///
/// The runtime's operator calls the throwing form of `operator new`, which may be the program's own
/// function. If this form throws an exception, the runtime's operator catches it and returns null.
/// If the process has no C++ runtime with such an operator, this function returns `None`.
pub(super) fn new_nothrow(form: Form, size: usize, align: usize) -> Option<*mut c_void> {
    let operator = nothrow_operator(form);
    let nothrow = (&raw const NOTHROW).cast::<c_void>();
    if operator.is_null() {
        return None;
    }
    if form.is_aligned() {
        type Aligned = unsafe extern "C" fn(usize, usize, *const c_void) -> *mut c_void;
        // SAFETY: the symbol is an aligned `operator new`, which has this type.
        let operator: Aligned = unsafe { mem::transmute(operator) };
        // SAFETY: `std::nothrow_t` is an empty type, so the operator does not read it.
        return Some(unsafe { operator(size, align, nothrow) });
    }
    type Plain = unsafe extern "C" fn(usize, *const c_void) -> *mut c_void;
    // SAFETY: the symbol is an `operator new` without an alignment, which has this type.
    let operator: Plain = unsafe { mem::transmute(operator) };
    // SAFETY: `std::nothrow_t` is an empty type, so the operator does not read it.
    Some(unsafe { operator(size, nothrow) })
}
