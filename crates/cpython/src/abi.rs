//! CPython's C functions, looked up at run time.
//!
//! The signatures are the same in CPython 3.8 to 3.15. Source: `Include/cpython/pymem.h`, and
//! `pymem.h`, `pylifecycle.h`, `pystate.h` and `import.h` in `Include`.

use std::{
    ffi::{CStr, c_char, c_int, c_uint, c_void},
    mem::MaybeUninit,
    ptr::NonNull,
};

use allocator_api::{Domain, VTable};

use crate::loader::{clear_error, symbol};

/// Declares a struct of pointers to C functions. The name of a function may depend on the version
/// of CPython.
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
        // Comes first, because most processes contain no CPython and thus need only one look-up.
        c"PyMem_SetAllocator" => set_allocator: fn(c_uint, *const VTable);
        c"PyMem_GetAllocator" => get_allocator: fn(c_uint, *mut VTable);
        c"Py_GetVersion" => get_version: fn() -> *const c_char;
        c"Py_IsInitialized" => is_initialized: fn() -> c_int;
        c"PyGILState_Check" => holds_gil: fn() -> c_int;
        c"PyGILState_Ensure" => ensure_gil: fn() -> c_int;
        c"PyGILState_Release" => release_gil: fn(c_int);
    }
}

/// The public functions of a domain, which call the functions of the domain's vtable.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DomainFunctions {
    pub(crate) malloc: unsafe extern "C" fn(usize) -> Option<NonNull<u8>>,
    pub(crate) calloc: unsafe extern "C" fn(usize, usize) -> Option<NonNull<u8>>,
    pub(crate) realloc: unsafe extern "C" fn(Option<NonNull<u8>>, usize) -> Option<NonNull<u8>>,
    pub(crate) free: unsafe extern "C" fn(Option<NonNull<u8>>),
}

impl DomainFunctions {
    /// Looks up all functions, or returns `None` at the first one that is missing.
    ///
    /// # Safety
    ///
    /// As for [`CPython::find_in`].
    unsafe fn find(handle: *mut c_void, domain: Domain) -> Option<Self> {
        let [malloc, calloc, realloc, free] = match domain {
            Domain::Raw => {
                [c"PyMem_RawMalloc", c"PyMem_RawCalloc", c"PyMem_RawRealloc", c"PyMem_RawFree"]
            }
            Domain::Mem => [c"PyMem_Malloc", c"PyMem_Calloc", c"PyMem_Realloc", c"PyMem_Free"],
            Domain::Obj => {
                [c"PyObject_Malloc", c"PyObject_Calloc", c"PyObject_Realloc", c"PyObject_Free"]
            }
        };
        // SAFETY: the C declarations have these types, and the handle is valid (contract).
        unsafe {
            Some(Self {
                malloc: symbol(handle, malloc)?,
                calloc: symbol(handle, calloc)?,
                realloc: symbol(handle, realloc)?,
                free: symbol(handle, free)?,
            })
        }
    }
}

c_functions! {
    struct VersionFunction {
        c"Py_GetVersion" => get_version: fn() -> *const c_char;
    }
}

/// Returns the version of the CPython that this program is, by its name. It may be too old to have
/// vtables.
///
/// Other programs can contain a Python 2 as well, such as debuggers and editors.
pub(crate) fn version_of_program() -> Option<&'static str> {
    let program = std::env::current_exe().ok()?;
    if !program.file_name()?.as_encoded_bytes().starts_with(b"python") {
        return None;
    }
    // SAFETY: `RTLD_DEFAULT` is always a valid handle.
    let found = unsafe { VersionFunction::find(libc::RTLD_DEFAULT) };
    clear_error();
    // SAFETY: the function may be called at any time.
    let version = unsafe { (found?.get_version)() };
    // SAFETY: the function returns a C string that is never freed.
    (!version.is_null()).then(|| unsafe { CStr::from_ptr(version) })?.to_str().ok()
}

c_functions! {
    /// The function that schedules a call between two instructions of Python code.
    struct PendingFunctions {
        c"Py_AddPendingCall" => add_pending_call:
            fn(unsafe extern "C" fn(*mut c_void) -> c_int, *mut c_void) -> c_int;
    }
}

impl PendingFunctions {
    /// Looks up the function among the symbols that are visible to all libraries.
    pub(crate) fn of_process() -> Option<Self> {
        // SAFETY: `RTLD_DEFAULT` is always a valid handle.
        let found = unsafe { Self::find(libc::RTLD_DEFAULT) };
        clear_error();
        found
    }
}

c_functions! {
    /// The functions that identify the interpreter of a thread and detect the end of an
    /// interpreter.
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

c_functions! {
    /// The functions that run a Python script after CPython has started.
    struct ScriptFunctions {
        c"PySys_AddAuditHook" => add_audit_hook: fn(
            unsafe extern "C" fn(*const c_char, *mut c_void, *mut c_void) -> c_int, *mut c_void
        ) -> c_int;
        c"Py_AddPendingCall" => add_pending_call:
            fn(unsafe extern "C" fn(*mut c_void) -> c_int, *mut c_void) -> c_int;
        c"PyRun_StringFlags" => run_string:
            fn(*const c_char, c_int, *mut c_void, *mut c_void, *mut c_void) -> *mut c_void;
        c"PyDict_New" => dict_new: fn() -> *mut c_void;
        c"PyDict_SetItemString" => dict_set_item:
            fn(*mut c_void, *const c_char, *mut c_void) -> c_int;
        c"PyCFunction_NewEx" => function_new:
            fn(&'static MethodDef, *mut c_void, *mut c_void) -> *mut c_void;
        c"PyLong_FromSize_t" => int_new: fn(usize) -> *mut c_void;
        c"PyErr_Clear" => clear_error: fn();
    }
}

impl ScriptFunctions {
    /// Looks up the functions among the symbols that are visible to all libraries.
    pub(crate) fn of_process() -> Option<Self> {
        // SAFETY: `RTLD_DEFAULT` is always a valid handle.
        let found = unsafe { Self::find(libc::RTLD_DEFAULT) };
        clear_error();
        found
    }
}

/// The description of a C function that Python code can call (`struct PyMethodDef`).
#[derive(Debug)]
#[repr(C)]
pub(crate) struct MethodDef {
    pub(crate) name: *const c_char,
    pub(crate) call: unsafe extern "C" fn(*mut c_void, *mut c_void) -> *mut c_void,
    pub(crate) flags: c_int,
    pub(crate) doc: *const c_char,
}

/// The words of a vtable, with room for additional words in case a newer CPython has larger
/// vtables.
pub(crate) type Words = [*const c_void; 16];

/// An interpreter of CPython. Only its address is used.
pub(crate) type Interpreter = NonNull<c_void>;

/// A function that creates a built-in module, and returns the module or its definition.
pub(crate) type ModuleInit = unsafe extern "C" fn() -> *mut c_void;

/// An entry of CPython's table of built-in modules (`struct _inittab`). The last entry has no name.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct BuiltinModule {
    pub(crate) name: *const c_char,
    pub(crate) init: Option<ModuleInit>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct CPython {
    core: CoreFunctions,
    pub(crate) raw: DomainFunctions,
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
    /// Looks for a CPython of version 3.5 or later whose symbols are visible to all libraries.
    pub(crate) fn find() -> Option<Self> {
        // SAFETY: `RTLD_DEFAULT` is always a valid handle.
        unsafe { Self::find_in(libc::RTLD_DEFAULT) }
    }

    /// Looks for CPython in the library that `handle` refers to, and in the library's dependencies.
    ///
    /// # Safety
    ///
    /// - `handle` must be an open handle that `dlopen` returned, or a pseudo-handle such as
    ///   `RTLD_DEFAULT`.
    /// - The library that contains CPython must stay loaded while the returned value is in use.
    pub(crate) unsafe fn find_in(handle: *mut c_void) -> Option<Self> {
        // SAFETY: our caller has promised the same (contract of this function).
        let found = unsafe { Self::find_all(handle) };
        // Only a free-threaded build has all symbols. For other builds, the failed look-ups leave
        // an error message.
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
                raw: DomainFunctions::find(handle, Domain::Raw)?,
                shares_refcounts: [c"_Py_MergeZeroLocalRefcount", c"_Py_DecRefShared"]
                    .into_iter()
                    .any(|name| symbol::<*const c_void>(handle, name).is_some()),
                builtin_modules: symbol(handle, c"PyImport_Inittab")?,
                interpreters: InterpreterFunctions::find(handle),
            })
        }
    }

    /// Looks up the public functions of `domain` among the symbols that are visible to all
    /// libraries.
    pub(crate) fn functions(domain: Domain) -> Option<DomainFunctions> {
        // SAFETY: `RTLD_DEFAULT` is always a valid handle.
        let found = unsafe { DomainFunctions::find(libc::RTLD_DEFAULT, domain) };
        if found.is_none() {
            clear_error();
        }
        found
    }

    /// Returns the allocator of `domain`. The layout of CPython's vtables must be known or checked.
    pub(crate) fn allocator(&self, domain: Domain) -> VTable {
        let mut vtable = MaybeUninit::uninit();
        // SAFETY: CPython fills in all five words for any of its domains, and can do so at any
        // time.
        unsafe {
            (self.core.get_allocator)(domain as c_uint, vtable.as_mut_ptr());
            vtable.assume_init()
        }
    }

    /// Lets CPython write the vtable of `domain` over the first words of `words`.
    pub(crate) fn read_words(&self, domain: Domain, words: &mut Words) {
        // SAFETY: CPython writes the words of its vtable, which fit even if it has grown.
        unsafe { (self.core.get_allocator)(domain as c_uint, words.as_mut_ptr().cast()) }
    }

    /// Lets CPython read the vtable of `domain` from the first words of `words`.
    ///
    /// # Safety
    ///
    /// - As for [`set_allocator`](Self::set_allocator), for the vtable in `words`.
    pub(crate) unsafe fn write_words(&self, domain: Domain, words: &Words) {
        // SAFETY: CPython copies the words, which form a suitable vtable (contract).
        unsafe { (self.core.set_allocator)(domain as c_uint, words.as_ptr().cast()) }
    }

    /// Makes CPython use `vtable` for all requests to `domain`.
    ///
    /// # Safety
    ///
    /// - The functions in `vtable` must be able to free every live block of `domain`.
    /// - Every thread that uses CPython must be able to call the functions safely.
    /// - The functions must stay valid as long as CPython may call them.
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

    /// Calls `visit` while the calling thread holds the GIL. Takes the GIL if necessary.
    ///
    /// Returns `None` if CPython is not initialised, and does not call `visit` in that case.
    ///
    /// If the calling thread has no Python thread state, for example because Python did not create
    /// the thread, the caller must ensure that CPython is not finalised during the call.
    pub(crate) fn with_gil<R>(&self, visit: impl FnOnce() -> R) -> Option<R> {
        if !self.is_initialized() {
            return None;
        }
        // SAFETY: CPython is initialised, so any thread may call the function.
        let state = unsafe { (self.core.ensure_gil)() };
        let result = visit();
        // SAFETY: `state` came from the matching call above, and `visit` did not change the state.
        unsafe { (self.core.release_gil)(state) };
        Some(result)
    }

    pub(crate) fn code_address(&self) -> *const c_void {
        self.core.set_allocator as *const c_void
    }
}
