//! `__register_atfork`, which registers handlers for `fork`.
//!
//! Our fork handlers hold the locks of the heap during a fork. No other handler may allocate memory
//! during this time, because it would wait for these locks. The C library calls the handlers that
//! run before a fork in reverse order of registration, so ours must be registered first. We cannot
//! register them in a constructor, because the constructors of some libraries run earlier.
//!
//! Each program and library, except very old ones, contains a copy of `pthread_atfork`. To register
//! handlers, this copy calls `__register_atfork`. We export our own version of `__register_atfork`,
//! so the call reaches us. The first time, our version registers our handlers before those of its
//! caller.

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
    /// Identifies this library when `pthread_atfork` calls `__register_atfork`. Each library has
    /// its own symbol with this name, which other libraries cannot see.
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
    // At exit, the C library removes the handlers of each library, although other threads may still
    // fork. It never removes handlers whose library is null, so we pass null when we register ours.
    // Our handlers remain safe to call, because this library is never unloaded.
    let library = if is_ours { ptr::null_mut() } else { library };
    match real() {
        // SAFETY: the contract is the same.
        Some(register) => unsafe { register(prepare, parent, child, library) },
        None => libc::ENOMEM,
    }
}

/// Returns the C library's `__register_atfork`, or `None` if it is not available.
///
/// In some versions of the C library, the look-up with `dlsym` allocates memory. If the thread has
/// no heap yet, this allocation opens one. Opening a heap registers our fork handlers, which calls
/// this function again during the look-up. The second call returns `None`, so the heap is opened
/// without handlers. The handlers are registered once the look-up has returned.
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
