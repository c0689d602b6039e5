//! CPython's C functions, looked up at run time.
//!
//! Their signatures are the same from 3.8 to 3.15. Source: `Include/cpython/pymem.h`, and
//! `pymem.h`, `pylifecycle.h`, `pystate.h` and `import.h` in `Include`.

use std::{
    ffi::{CStr, c_char, c_int, c_uint, c_void},
    mem::MaybeUninit,
    ptr::NonNull,
};

use allocator_api::{Domain, VTable};

use crate::loader::{clear_error, symbol};

/// Declares a struct of pointers to C functions, whose names may depend on the version of CPython.
macro_rules! c_functions {
    ($(#[$meta:meta])* struct $name:ident {$(
        $(#[$doc:meta])*
        $($symbol:literal)|+ => $field:ident: fn($($argument:ty),*) $(-> $result:ty)?;
    )+}) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug)]
        pub(crate) struct $name {
            $($(#[$doc])* pub(crate) $field: unsafe extern "C" fn($($argument),*) $(-> $result)?,)+
        }

        impl $name {
            /// Looks up all functions, or returns `None` at the first one that is missing.
            ///
            /// # Safety
            ///
            /// As for [`CPython::find_in`].
            unsafe fn find(handle: *mut c_void) -> Option<Self> {
                Some(Self {
                    // SAFETY: the C declaration has this type, and the handle is valid (contract).
                    $($field: None$(.or_else(|| unsafe { symbol(handle, $symbol) }))+?,)+
                })
            }
        }
    };
}

c_functions! {
    struct CoreFunctions {
        // Comes first, because most processes contain no CPython and fail this look-up at once.
        c"PyMem_SetAllocator" => set_allocator: fn(c_uint, *const VTable);
        c"PyMem_GetAllocator" => get_allocator: fn(c_uint, *mut VTable);
        c"Py_GetVersion" => get_version: fn() -> *const c_char;
        c"Py_IsInitialized" => is_initialized: fn() -> c_int;
        c"PyGILState_Check" => holds_gil: fn() -> c_int;
    }
}

c_functions! {
    struct RawFunctions {
        c"PyMem_RawMalloc" => malloc: fn(usize) -> Option<NonNull<u8>>;
        c"PyMem_RawCalloc" => calloc: fn(usize, usize) -> Option<NonNull<u8>>;
        c"PyMem_RawRealloc" => realloc: fn(Option<NonNull<u8>>, usize) -> Option<NonNull<u8>>;
        c"PyMem_RawFree" => free: fn(Option<NonNull<u8>>);
    }
}

c_functions! {
    /// The function that makes CPython call another one between two instructions of Python code.
    struct PendingFunctions {
        c"Py_AddPendingCall" => add_pending_call:
            fn(unsafe extern "C" fn(*mut c_void) -> c_int, *mut c_void) -> c_int;
    }
}

impl PendingFunctions {
    /// Looks for the function among the symbols that all libraries can see.
    pub(crate) fn of_process() -> Option<Self> {
        // SAFETY: `RTLD_DEFAULT` is always a valid handle.
        let found = unsafe { Self::find(libc::RTLD_DEFAULT) };
        clear_error();
        found
    }
}

c_functions! {
    /// The functions that tell which interpreter a thread is running and when it ends.
    struct InterpreterFunctions {
        /// Returns the calling thread's state, or null if the thread holds no GIL.
        c"PyThreadState_GetUnchecked" | c"_PyThreadState_UncheckedGet"
            => current_state: fn() -> *mut c_void;
        c"PyThreadState_GetInterpreter" => interpreter_of: fn(*mut c_void) -> *mut c_void;
        c"PyInterpreterState_Main" => main_interpreter: fn() -> *mut c_void;
        c"PyInterpreterState_GetDict" => interpreter_dict: fn(*mut c_void) -> *mut c_void;
        c"PyDict_SetItemString" => dict_set_item:
            fn(*mut c_void, *const c_char, *mut c_void) -> c_int;
        c"PyCapsule_New" => capsule_new:
            fn(*mut c_void, *const c_char, unsafe extern "C" fn(*mut c_void)) -> *mut c_void;
        c"PyCapsule_GetPointer" => capsule_pointer: fn(*mut c_void, *const c_char) -> *mut c_void;
        c"Py_DecRef" => release: fn(*mut c_void);
        c"PyErr_Clear" => clear_error: fn();
        c"PyEval_SaveThread" => save_thread: fn() -> *mut c_void;
        c"PyEval_RestoreThread" => restore_thread: fn(*mut c_void);
    }
}

/// An interpreter of CPython. Only its address is used.
pub(crate) type Interpreter = NonNull<c_void>;

/// A function that creates a built-in module, and returns the module or its definition.
pub(crate) type ModuleInit = unsafe extern "C" fn() -> *mut c_void;

/// An entry of CPython's table of built-in modules (`struct _inittab`). The last one has no name.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct BuiltinModule {
    pub(crate) name: *const c_char,
    pub(crate) init: Option<ModuleInit>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct CPython {
    core: CoreFunctions,
    pub(crate) raw: RawFunctions,
    /// True if this CPython exports functions that only a free-threaded build needs.
    pub(crate) shares_refcounts: bool,
    /// CPython's variable `PyImport_Inittab`, which points to the table of built-in modules.
    pub(crate) builtin_modules: NonNull<*const BuiltinModule>,
    pub(crate) interpreters: Option<InterpreterFunctions>,
}

// SAFETY: the value holds only addresses. Code that uses one must choose a suitable thread.
unsafe impl Send for CPython {}
// SAFETY: the value holds only addresses. Code that uses one must choose a suitable thread.
unsafe impl Sync for CPython {}

impl CPython {
    /// Looks for a CPython of version 3.5 or later whose symbols all libraries can see.
    pub(crate) fn find() -> Option<Self> {
        // SAFETY: `RTLD_DEFAULT` is always a valid handle.
        unsafe { Self::find_in(libc::RTLD_DEFAULT) }
    }

    /// Looks for CPython in the library that `handle` refers to, and in the library's dependencies.
    ///
    /// # Safety
    ///
    /// - `handle` must be an open handle returned by `dlopen`, or a pseudo-handle such as
    ///   `RTLD_DEFAULT`.
    /// - The library must stay loaded while the result is in use.
    pub(crate) unsafe fn find_in(handle: *mut c_void) -> Option<Self> {
        // SAFETY: our caller has promised the same (contract of this function).
        let found = unsafe { Self::find_all(handle) };
        // Only a free-threaded build has all symbols. Any other look-up leaves an error message.
        clear_error();
        found
    }

    /// Like [`find_in`](Self::find_in), but leaves the loader's error messages in place.
    ///
    /// # Safety
    ///
    /// As for [`find_in`](Self::find_in).
    unsafe fn find_all(handle: *mut c_void) -> Option<Self> {
        // SAFETY: each symbol has the type of its C declaration, and the handle is valid
        // (contract).
        unsafe {
            Some(Self {
                core: CoreFunctions::find(handle)?,
                raw: RawFunctions::find(handle)?,
                shares_refcounts: [c"_Py_MergeZeroLocalRefcount", c"_Py_DecRefShared"]
                    .into_iter()
                    .any(|name| symbol::<*const c_void>(handle, name).is_some()),
                builtin_modules: symbol(handle, c"PyImport_Inittab")?,
                interpreters: InterpreterFunctions::find(handle),
            })
        }
    }

    pub(crate) fn allocator(&self, domain: Domain) -> VTable {
        let mut vtable = MaybeUninit::uninit();
        // SAFETY: CPython fills in all five words for any of its domains, and can do so at any
        // time.
        unsafe {
            (self.core.get_allocator)(domain as c_uint, vtable.as_mut_ptr());
            vtable.assume_init()
        }
    }

    /// Makes CPython use `vtable` for all requests to `domain`.
    ///
    /// # Safety
    ///
    /// - `vtable` must be able to free every live block of the domain.
    /// - The functions must be safe to call from every thread that uses CPython.
    /// - The functions must stay valid for as long as CPython may call them.
    pub(crate) unsafe fn set_allocator(&self, domain: Domain, vtable: &VTable) {
        // SAFETY: CPython copies the vtable, which suits the domain (contract of `set_allocator`).
        unsafe { (self.core.set_allocator)(domain as c_uint, vtable) }
    }

    /// Returns the text of `sys.version`, such as `3.13.0 (main, …) [GCC 12.2.0]`.
    pub(crate) fn version_text(&self) -> &'static str {
        // SAFETY: the result is a C string in a static buffer that CPython fills in only once.
        let text = unsafe { CStr::from_ptr((self.core.get_version)()) };
        text.to_str().unwrap_or("?")
    }

    pub(crate) fn is_initialized(&self) -> bool {
        // SAFETY: the function reads a flag and may be called at any time.
        unsafe { (self.core.is_initialized)() != 0 }
    }

    /// Returns true if the calling thread holds the GIL. Valid only while CPython is initialised.
    pub(crate) fn holds_gil(&self) -> bool {
        // SAFETY: the function only compares the calling thread's state with the current one.
        unsafe { (self.core.holds_gil)() != 0 }
    }

    pub(crate) fn code_address(&self) -> *const c_void {
        self.core.set_allocator as *const c_void
    }
}
