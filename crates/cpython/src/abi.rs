//! CPython's C functions, as found in this process.
//!
//! This process may contain any version of CPython, either linked into the program or loaded as a
//! shared library. We use the signatures of CPython's functions as they are declared in
//! `Include/cpython/pymem.h`, `Include/pymem.h`, `Include/pylifecycle.h`, `Include/pystate.h` and
//! `Include/import.h`. These signatures did not change from 3.8 to 3.15.

use std::{
    ffi::{CStr, c_char, c_int, c_uint, c_void},
    mem::MaybeUninit,
    ptr::NonNull,
};

use allocator_api::{Domain, VTable};

use crate::loader::{clear_error, symbol};

/// Declares a struct whose fields are pointers to C functions. Each field lists one or more
/// symbols, because a function may have different names in different versions of CPython. The macro
/// also defines a function that looks up the symbols and fills in the struct.
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
            /// Looks up all functions of this struct in the library that `handle` refers to.
            /// Returns `None` as soon as one function cannot be found.
            ///
            /// # Safety
            ///
            /// As for [`CPython::find_in`].
            unsafe fn find(handle: *mut c_void) -> Option<Self> {
                Some(Self {
                    // SAFETY: the type is that of the C declaration, and the handle is valid
                    // (contract of `find`).
                    $($field: None$(.or_else(|| unsafe { symbol(handle, $symbol) }))+?,)+
                })
            }
        }
    };
}

c_functions! {
    /// The functions for allocators and for the state of the runtime.
    struct CoreFunctions {
        // We look up this function before all others. Most processes that load this library contain
        // no CPython. In such a process this look-up fails, and we then skip all other look-ups.
        c"PyMem_SetAllocator" => set_allocator: fn(c_uint, *const VTable);
        c"PyMem_GetAllocator" => get_allocator: fn(c_uint, *mut VTable);
        c"Py_GetVersion" => get_version: fn() -> *const c_char;
        c"Py_IsInitialized" => is_initialized: fn() -> c_int;
        c"PyGILState_Check" => holds_gil: fn() -> c_int;
    }
}

c_functions! {
    /// The functions of the raw domain.
    struct RawFunctions {
        c"PyMem_RawMalloc" => malloc: fn(usize) -> Option<NonNull<u8>>;
        c"PyMem_RawCalloc" => calloc: fn(usize, usize) -> Option<NonNull<u8>>;
        c"PyMem_RawRealloc" => realloc: fn(Option<NonNull<u8>>, usize) -> Option<NonNull<u8>>;
        c"PyMem_RawFree" => free: fn(Option<NonNull<u8>>);
    }
}

c_functions! {
    /// The functions that tell us which interpreter a thread is running, and those with which we
    /// notice that an interpreter ends.
    struct InterpreterFunctions {
        /// Returns the calling thread's state, or null if the thread holds no GIL.
        c"PyThreadState_GetUnchecked" | c"_PyThreadState_UncheckedGet"
            => current_state: fn() -> *mut c_void;
        c"PyThreadState_GetInterpreter" => interpreter_of: fn(*mut c_void) -> *mut c_void;
        c"PyInterpreterState_Main" => main_interpreter: fn() -> *mut c_void;
        /// Returns the dictionary in which extensions store their data about the interpreter.
        c"PyInterpreterState_GetDict" => interpreter_dict: fn(*mut c_void) -> *mut c_void;
        c"PyDict_SetItemString" => dict_set_item:
            fn(*mut c_void, *const c_char, *mut c_void) -> c_int;
        c"PyCapsule_New" => capsule_new:
            fn(*mut c_void, *const c_char, unsafe extern "C" fn(*mut c_void)) -> *mut c_void;
        c"PyCapsule_GetPointer" => capsule_pointer: fn(*mut c_void, *const c_char) -> *mut c_void;
        c"Py_DecRef" => release: fn(*mut c_void);
        c"PyErr_Clear" => clear_error: fn();
        /// Releases the GIL and returns the calling thread's state.
        c"PyEval_SaveThread" => save_thread: fn() -> *mut c_void;
        /// Takes the GIL again, and makes the given thread state the current one.
        c"PyEval_RestoreThread" => restore_thread: fn(*mut c_void);
    }
}

/// An interpreter of CPython. We use only its address.
pub(crate) type Interpreter = NonNull<c_void>;

/// A function that creates a built-in module. It returns either the module or the module's
/// definition.
pub(crate) type ModuleInit = unsafe extern "C" fn() -> *mut c_void;

/// An entry of CPython's table of built-in modules. The table ends with an entry whose name is
/// null. CPython: `struct _inittab`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct BuiltinModule {
    pub(crate) name: *const c_char,
    pub(crate) init: Option<ModuleInit>,
}

/// The CPython in this process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CPython {
    core: CoreFunctions,
    pub(crate) raw: RawFunctions,
    /// True if this CPython exports `_Py_MergeZeroLocalRefcount` or `_Py_DecRefShared`, which only
    /// a free-threaded build needs.
    pub(crate) shares_refcounts: bool,
    /// The variable that points to the table of built-in modules. CPython: `PyImport_Inittab`.
    pub(crate) builtin_modules: NonNull<*const BuiltinModule>,
    /// The functions that deal with interpreters, or `None` if this CPython lacks one of them.
    pub(crate) interpreters: Option<InterpreterFunctions>,
}

// SAFETY: the value consists only of addresses, so using it on another thread is harmless. Only
// unsafe code dereferences the addresses, and must itself choose a thread on which that is allowed.
unsafe impl Send for CPython {}
// SAFETY: the value consists only of addresses, so using it on another thread is harmless. Only
// unsafe code dereferences the addresses, and must itself choose a thread on which that is allowed.
unsafe impl Sync for CPython {}

impl CPython {
    /// Looks for CPython's functions among the symbols that all libraries of this process can see.
    ///
    /// Returns `None` if there is no CPython. Also returns `None` for CPython 3.4 and earlier,
    /// which lack some of the functions that we need.
    pub(crate) fn find() -> Option<Self> {
        // SAFETY: `RTLD_DEFAULT` is always a valid handle.
        unsafe { Self::find_in(libc::RTLD_DEFAULT) }
    }

    /// Looks for CPython in the library that `handle` refers to, and in the libraries that this
    /// library depends on.
    ///
    /// # Safety
    ///
    /// - `handle` must be an open handle of `dlopen`, or a pseudo-handle of `dlsym`.
    /// - The library must stay loaded as long as the result is used.
    pub(crate) unsafe fn find_in(handle: *mut c_void) -> Option<Self> {
        // SAFETY: our caller has promised the same (contract of this function).
        let found = unsafe { Self::find_all(handle) };
        // Only in a free-threaded build can all look-ups succeed. In any other process, at least
        // one look-up has failed and has left an error message in the dynamic loader. We remove
        // that message.
        clear_error();
        found
    }

    /// Does the same as [`find_in`](Self::find_in), except that it does not remove the error
    /// messages that failed look-ups leave in the dynamic loader.
    ///
    /// # Safety
    ///
    /// As for [`find_in`](Self::find_in).
    unsafe fn find_all(handle: *mut c_void) -> Option<Self> {
        // SAFETY: every symbol is looked up with the type of its C declaration. The handle is valid
        // (contract of `find_all`).
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

    /// Returns the vtable of `domain`.
    pub(crate) fn allocator(&self, domain: Domain) -> VTable {
        let mut vtable = MaybeUninit::uninit();
        // SAFETY: `domain` is one of the domains that CPython has, so CPython fills in all five
        // words of the vtable. The function may be called at any time, even before CPython is
        // initialised and after it is finalized.
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
    /// - The functions of `vtable` must be callable on every thread on which CPython calls them,
    ///   for as long as CPython may call them.
    pub(crate) unsafe fn set_allocator(&self, domain: Domain, vtable: &VTable) {
        // SAFETY: CPython copies the five words of `vtable`, so it does not use the reference after
        // the call. The vtable may be used for the domain (contract of `set_allocator`).
        unsafe { (self.core.set_allocator)(domain as c_uint, vtable) }
    }

    /// Returns the version in the form of `sys.version`, such as `3.13.0 (main, …) [GCC 12.2.0]`.
    pub(crate) fn version_text(&self) -> &'static str {
        // SAFETY: the function returns a C string in a static buffer, which CPython fills in only
        // once.
        let text = unsafe { CStr::from_ptr((self.core.get_version)()) };
        text.to_str().unwrap_or("?")
    }

    /// Returns true between `Py_Initialize` and `Py_Finalize`.
    pub(crate) fn is_initialized(&self) -> bool {
        // SAFETY: the function reads a flag and may be called at any time.
        unsafe { (self.core.is_initialized)() != 0 }
    }

    /// Returns true if the calling thread holds the GIL. The answer is valid only if CPython is
    /// initialised.
    pub(crate) fn holds_gil(&self) -> bool {
        // SAFETY: the function only compares the calling thread's state with the current thread
        // state.
        unsafe { (self.core.holds_gil)() != 0 }
    }

    /// Returns an address inside CPython's own code.
    pub(crate) fn code_address(&self) -> *const c_void {
        self.core.set_allocator as *const c_void
    }
}
