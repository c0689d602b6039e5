//! CPython's C functions, as found in this process: linked into the program or in a shared
//! library, whichever version.
//!
//! Source of the signatures: `Include/cpython/pymem.h`, `Include/pymem.h`, `Include/pylifecycle.h`,
//! `Include/pystate.h` and `Include/import.h`, unchanged from 3.8 to 3.15.

use std::{
    ffi::{CStr, c_char, c_int, c_uint, c_void},
    mem::{self, MaybeUninit},
    ptr::NonNull,
};

use allocator_api::{Domain, MemAllocator};

/// `PyMem_RawMalloc` and its siblings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawFunctions {
    pub(crate) malloc: unsafe extern "C" fn(usize) -> *mut c_void,
    pub(crate) calloc: unsafe extern "C" fn(usize, usize) -> *mut c_void,
    pub(crate) realloc: unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void,
    pub(crate) free: unsafe extern "C" fn(*mut c_void),
}

/// Makes a built-in module, and returns it or its definition.
pub(crate) type ModuleInit = unsafe extern "C" fn() -> *mut c_void;

/// An entry of CPython's table of built-in modules; the last one has no name. CPython:
/// `struct _inittab`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct BuiltinModule {
    pub(crate) name: *const c_char,
    pub(crate) init: Option<ModuleInit>,
}

/// The functions that tell which interpreter a thread runs, and that notice its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InterpreterFunctions {
    /// The calling thread's state, null if it holds no GIL. CPython: `PyThreadState_GetUnchecked`,
    /// in 3.12 `_PyThreadState_UncheckedGet`.
    pub(crate) current_state: unsafe extern "C" fn() -> *mut c_void,
    /// CPython: `PyThreadState_GetInterpreter`.
    pub(crate) interpreter_of: unsafe extern "C" fn(*mut c_void) -> *mut c_void,
    /// CPython: `PyInterpreterState_Main`.
    pub(crate) main_interpreter: unsafe extern "C" fn() -> *mut c_void,
    /// The interpreter's dictionary for extensions. CPython: `PyInterpreterState_GetDict`.
    pub(crate) interpreter_dict: unsafe extern "C" fn(*mut c_void) -> *mut c_void,
    /// CPython: `PyDict_SetItemString`.
    pub(crate) dict_set_item:
        unsafe extern "C" fn(*mut c_void, *const c_char, *mut c_void) -> c_int,
    /// CPython: `PyCapsule_New`.
    pub(crate) capsule_new: unsafe extern "C" fn(
        *mut c_void,
        *const c_char,
        unsafe extern "C" fn(*mut c_void),
    ) -> *mut c_void,
    /// CPython: `PyCapsule_GetPointer`.
    pub(crate) capsule_pointer: unsafe extern "C" fn(*mut c_void, *const c_char) -> *mut c_void,
    /// CPython: `Py_DecRef`.
    pub(crate) release: unsafe extern "C" fn(*mut c_void),
    /// CPython: `PyErr_Clear`.
    pub(crate) clear_error: unsafe extern "C" fn(),
    /// Releases the GIL and returns the state. CPython: `PyEval_SaveThread`.
    pub(crate) save_thread: unsafe extern "C" fn() -> *mut c_void,
    /// Takes the GIL back. CPython: `PyEval_RestoreThread`.
    pub(crate) restore_thread: unsafe extern "C" fn(*mut c_void),
}

/// The CPython in this process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CPython {
    set_allocator: unsafe extern "C" fn(c_uint, *const MemAllocator),
    get_allocator: unsafe extern "C" fn(c_uint, *mut MemAllocator),
    get_version: unsafe extern "C" fn() -> *const c_char,
    is_initialized: unsafe extern "C" fn() -> c_int,
    holds_gil: unsafe extern "C" fn() -> c_int,
    /// True if it exports `_Py_MergeZeroLocalRefcount` or `_Py_DecRefShared`, which only a
    /// free-threaded build needs.
    pub(crate) shares_refcounts: bool,
    /// The raw domain's entry points.
    pub(crate) raw: RawFunctions,
    /// The variable that points to the table of built-in modules. CPython: `PyImport_Inittab`.
    pub(crate) builtin_modules: NonNull<*const BuiltinModule>,
    /// `None` if one of them is missing.
    pub(crate) interpreters: Option<InterpreterFunctions>,
}

// SAFETY: addresses of functions and of a variable; those who use them say why they may.
unsafe impl Send for CPython {}
// SAFETY: as above.
unsafe impl Sync for CPython {}

impl InterpreterFunctions {
    /// Looks for the functions in the library that `handle` stands for.
    ///
    /// # Safety
    ///
    /// As for [`CPython::find_in`].
    unsafe fn find(handle: *mut c_void) -> Option<Self> {
        // SAFETY: each type is that of the C declaration; the handle is valid (contract of `find`).
        unsafe {
            let current_state = symbol(handle, c"PyThreadState_GetUnchecked");
            Some(Self {
                current_state: current_state
                    .or_else(|| symbol(handle, c"_PyThreadState_UncheckedGet"))?,
                interpreter_of: symbol(handle, c"PyThreadState_GetInterpreter")?,
                main_interpreter: symbol(handle, c"PyInterpreterState_Main")?,
                interpreter_dict: symbol(handle, c"PyInterpreterState_GetDict")?,
                dict_set_item: symbol(handle, c"PyDict_SetItemString")?,
                capsule_new: symbol(handle, c"PyCapsule_New")?,
                capsule_pointer: symbol(handle, c"PyCapsule_GetPointer")?,
                release: symbol(handle, c"Py_DecRef")?,
                clear_error: symbol(handle, c"PyErr_Clear")?,
                save_thread: symbol(handle, c"PyEval_SaveThread")?,
                restore_thread: symbol(handle, c"PyEval_RestoreThread")?,
            })
        }
    }
}

impl CPython {
    /// Looks for CPython among the symbols that every library of this process can see.
    ///
    /// Returns `None` without one, and for CPython 3.4 and earlier, which lack some of the
    /// functions.
    pub(crate) fn find() -> Option<Self> {
        // SAFETY: `RTLD_DEFAULT` is a handle that is always valid.
        unsafe { Self::find_in(libc::RTLD_DEFAULT) }
    }

    /// Looks for CPython in the library that `handle` stands for, and in those that it needs.
    ///
    /// # Safety
    ///
    /// - `handle` must be a handle of `dlopen` that was not closed, or a pseudo-handle of `dlsym`.
    /// - The library must stay loaded for as long as the result is used.
    pub(crate) unsafe fn find_in(handle: *mut c_void) -> Option<Self> {
        // SAFETY: each type is that of the C declaration; the handle is valid (contract of
        // `find_in`).
        let found = unsafe {
            // The first one decides for most processes: they have no CPython.
            symbol(handle, c"PyMem_SetAllocator").and_then(|set_allocator| {
                Some(Self {
                    set_allocator,
                    get_allocator: symbol(handle, c"PyMem_GetAllocator")?,
                    get_version: symbol(handle, c"Py_GetVersion")?,
                    is_initialized: symbol(handle, c"Py_IsInitialized")?,
                    holds_gil: symbol(handle, c"PyGILState_Check")?,
                    shares_refcounts: [c"_Py_MergeZeroLocalRefcount", c"_Py_DecRefShared"]
                        .into_iter()
                        .any(|name| symbol::<*const c_void>(handle, name).is_some()),
                    raw: RawFunctions {
                        malloc: symbol(handle, c"PyMem_RawMalloc")?,
                        calloc: symbol(handle, c"PyMem_RawCalloc")?,
                        realloc: symbol(handle, c"PyMem_RawRealloc")?,
                        free: symbol(handle, c"PyMem_RawFree")?,
                    },
                    builtin_modules: symbol(handle, c"PyImport_Inittab")?,
                    interpreters: InterpreterFunctions::find(handle),
                })
            })
        };
        // At least one look-up has failed in every build but a free-threaded one.
        forget_failed_look_up();
        found
    }

    /// The vtable of `domain`.
    pub(crate) fn allocator(&self, domain: Domain) -> MemAllocator {
        let mut allocator = MaybeUninit::uninit();
        // SAFETY: CPython fills in all five words for a domain that it knows. It may be called
        // before initialisation and after finalization.
        unsafe {
            (self.get_allocator)(domain as c_uint, allocator.as_mut_ptr());
            allocator.assume_init()
        }
    }

    /// Makes `allocator` serve `domain`.
    ///
    /// # Safety
    ///
    /// `allocator` can free every live block of the domain, from every thread that CPython calls
    /// it from, for as long as CPython may call it.
    pub(crate) unsafe fn set_allocator(&self, domain: Domain, allocator: &MemAllocator) {
        // SAFETY: CPython copies the five words; the rest is the caller's promise.
        unsafe { (self.set_allocator)(domain as c_uint, allocator) }
    }

    /// The version as `sys.version` has it, such as `3.13.0 (main, …) [GCC 12.2.0]`.
    pub(crate) fn version_text(&self) -> &'static str {
        // SAFETY: CPython returns a C string in a static of its own, which it fills in once.
        let text = unsafe { CStr::from_ptr((self.get_version)()) };
        text.to_str().unwrap_or("?")
    }

    /// The interpreter is between `Py_Initialize` and `Py_Finalize`.
    pub(crate) fn is_initialized(&self) -> bool {
        // SAFETY: it reads a flag, at any time.
        unsafe { (self.is_initialized)() != 0 }
    }

    /// This thread holds the GIL. Only for an initialised interpreter.
    pub(crate) fn holds_gil(&self) -> bool {
        // SAFETY: it compares this thread's state with the current one.
        unsafe { (self.holds_gil)() != 0 }
    }

    /// The address that stands for CPython's own code, wherever it is linked.
    pub(crate) fn code_address(&self) -> *const c_void {
        self.set_allocator as *const c_void
    }
}

/// The address of a symbol that `handle` finds.
///
/// # Safety
///
/// - `handle` must be valid, as in [`CPython::find_in`].
/// - `T` must be a pointer or function pointer type that is right for the symbol.
unsafe fn symbol<T: Copy>(handle: *mut c_void, name: &CStr) -> Option<T> {
    const { assert!(size_of::<T>() == size_of::<*mut c_void>()) };
    // SAFETY: the name is a C string, and the handle is valid (contract of `symbol`).
    let address = NonNull::new(unsafe { libc::dlsym(handle, name.as_ptr()) })?;
    // SAFETY: an address, as an address of the type that the caller vouches for.
    Some(unsafe { mem::transmute_copy(&address) })
}

/// Takes the loader's error message away, which the program might find and take for its own: the
/// first call reads it, the second frees it.
pub(crate) fn forget_failed_look_up() {
    for _ in 0..2 {
        // SAFETY: the message is not looked at.
        unsafe { libc::dlerror() };
    }
}
