//! `__register_atfork`, which registers handlers for `fork`.
//!
//! Our handlers hold the locks of the heap during a fork, so the handlers of others must not
//! allocate memory in the meantime. The C library calls the handlers that run before a fork in
//! reverse order of registration, so ours must be registered first. A constructor of our own cannot
//! ensure this, because the constructors of some libraries run earlier.
//!
//! `pthread_atfork` is linked statically into each program and library, except into very old ones,
//! and calls this function. We export our own version of it, which registers our handlers before the
//! first ones of anybody else.

use std::{
    cell::Cell,
    ffi::{c_int, c_void},
    mem, ptr,
    sync::atomic::{AtomicPtr, Ordering::Relaxed},
};

use crate::heap;

type Handler = Option<unsafe extern "C" fn()>;
type Register = unsafe extern "C" fn(Handler, Handler, Handler, *mut c_void) -> c_int;

unsafe extern "C" {
    /// Identifies this library when `pthread_atfork` calls `__register_atfork`. Each library has a
    /// symbol with this name, which only the library itself can see.
    static __dso_handle: *mut c_void;
}

thread_local! {
    static IS_LOOKING_UP: Cell<bool> = const { Cell::new(false) };
}

/// Registers handlers for `fork`, after ours. `library` identifies the library of the handlers.
///
/// # Safety
///
/// - The handlers must be functions that may run at every fork, as `pthread_atfork` requires.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __register_atfork(
    prepare: Handler,
    parent: Handler,
    child: Handler,
    library: *mut c_void,
) -> c_int {
    // Opening a heap registers our handlers, which calls this function again.
    // SAFETY: the linker defines the symbol, and nothing writes to it.
    let is_ours = library == unsafe { __dso_handle };
    if !is_ours {
        heap::open();
    }
    // The C library removes the handlers of a library at exit, when others can still fork. It never
    // removes handlers of no library, and ours stay in memory.
    let library = if is_ours { ptr::null_mut() } else { library };
    match real() {
        // SAFETY: the contract is the same.
        Some(register) => unsafe { register(prepare, parent, child, library) },
        None => libc::ENOMEM,
    }
}

/// Returns the C library's function.
///
/// The look-up may allocate memory in some versions of the C library. If the thread has no heap,
/// this opens one, which tries to register our handlers and so calls this function again. The
/// function then returns `None`. The heap is opened nevertheless, and our handlers are registered
/// when the first call continues.
fn real() -> Option<Register> {
    static REAL: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());
    let mut function = REAL.load(Relaxed);
    if function.is_null() {
        if IS_LOOKING_UP.replace(true) {
            return None;
        }
        // SAFETY: the name is a C string.
        function = unsafe { libc::dlsym(libc::RTLD_NEXT, c"__register_atfork".as_ptr()) };
        IS_LOOKING_UP.set(false);
        REAL.store(function, Relaxed);
    }
    // SAFETY: the C library's function has this type. A null pointer becomes `None`.
    unsafe { mem::transmute::<*mut c_void, Option<Register>>(function) }
}
