use std::{
    ffi::{CStr, c_char, c_int},
    mem::{ManuallyDrop, MaybeUninit},
    path::Path,
    ptr::null_mut,
};

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

use super::{
    arena_hook::ArenaHook,
    headers,
    vtable::{ArenaVtable, MEM, OBJ, RAW, Vtable},
};
use crate::{
    failing::Faults,
    place::ArenaLog,
    pythons::parse_version,
    reference::{Rules, State},
};

type GetAllocator = unsafe extern "C" fn(c_int, *mut Vtable);
type SetAllocator = unsafe extern "C" fn(c_int, *mut Vtable);

/// A CPython in this process. Its `pymalloc` is used only by the test.
#[derive(Debug)]
pub struct Interpreter {
    /// The library is never unloaded, because CPython's destructors run when a thread ends.
    library: ManuallyDrop<Library>,
    rules: Rules,
    pymalloc: Vtable,
    arenas: ArenaLog,
    faults: Faults,
}

impl Interpreter {
    /// Loads `libpython` and starts the interpreter on the calling thread.
    ///
    /// # Panics
    ///
    /// Panics in these cases:
    /// - `libpython` cannot be loaded.
    /// - [`Rules::of_cpython`] does not know the allocator of this version of CPython.
    /// - CPython's allocator `pymalloc` maps an arena while the interpreter starts. This should not
    ///   happen, because this function makes the interpreter allocate with `malloc`.
    ///
    /// # Safety
    ///
    /// - `libpython` must be CPython, built with a GIL and without `--with-pydebug`.
    /// - This process must never start another CPython.
    pub unsafe fn start(libpython: &Path) -> Self {
        // SAFETY: CPython's library has no initialisers that run when it is loaded.
        let library = unsafe { Library::open(Some(libpython), RTLD_NOW | RTLD_GLOBAL) };
        let library = library.unwrap_or_else(|error| panic!("{}: {error}", libpython.display()));
        let library = ManuallyDrop::new(library);
        // SAFETY: `library` is CPython (contract of `start`).
        let version = unsafe { version(&library) };
        let rules = parse_version(&version).and_then(Rules::of_cpython);
        let rules = rules.unwrap_or_else(|| panic!("the rules of CPython {version} are not known"));
        let (arenas, faults) = (ArenaLog::default(), Faults::default());
        let mut hook = ArenaHook::leak(rules.arena_size, arenas.clone(), faults.clone());
        // SAFETY: the names and types are those of CPython's headers. CPython allows its allocators
        // to be replaced before initialisation, when no block exists.
        let pymalloc = unsafe {
            let pymalloc = get_allocator(&library, OBJ);
            let malloc = get_allocator(&library, RAW);
            set_allocator(&library, MEM, malloc);
            set_allocator(&library, OBJ, malloc);
            let set_arenas: unsafe extern "C" fn(*mut ArenaVtable) =
                *library.get(b"PyObject_SetArenaAllocator").expect("a function since 3.4");
            set_arenas(&raw mut hook);
            let no_site: *mut c_int = *library.get(b"Py_NoSiteFlag").expect("a flag since 2.3");
            no_site.write(1);
            let initialize: unsafe extern "C" fn(c_int) =
                *library.get(b"Py_InitializeEx").expect("a function since 2.4");
            initialize(0);
            pymalloc
        };
        assert_eq!(arenas.ever(), 0, "malloc serves the interpreter itself");
        Self { library, rules, pymalloc, arenas, faults }
    }

    /// Returns the allocator rules of this version of CPython.
    pub fn rules(&self) -> Rules {
        self.rules
    }

    /// Returns `pymalloc`, which only the thread that started the interpreter may call.
    pub fn pymalloc(&self) -> Vtable {
        self.pymalloc
    }

    /// Returns the log of the arenas of `pymalloc`.
    pub fn arenas(&self) -> &ArenaLog {
        &self.arenas
    }

    /// Returns the [`Faults`] that decide which of `pymalloc`'s requests for arenas fail.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Reads the state of `pymalloc` from the headers of its pools.
    pub fn state(&self) -> State {
        headers::state(&self.arenas, &self.rules)
    }

    /// Returns the statistics of `pymalloc`, as `_PyObject_DebugMallocStats` prints them.
    ///
    /// # Panics
    ///
    /// Panics if CPython prints nothing.
    pub fn stats_text(&self) -> String {
        let mut text: *mut c_char = null_mut();
        let mut size = 0_usize;
        // CPython prints the statistics only while `pymalloc` is installed.
        // SAFETY: the names and types are those of CPython's headers. The interpreter allocates and
        // frees nothing during the call. A closed stream leaves a valid C string in `text`.
        unsafe {
            let print: unsafe extern "C" fn(*mut libc::FILE) -> c_int =
                *self.library.get(b"_PyObject_DebugMallocStats").expect("a function since 3.3");
            let stream = libc::open_memstream(&raw mut text, &raw mut size);
            assert!(!stream.is_null(), "no memory for a stream");
            let malloc = get_allocator(&self.library, OBJ);
            set_allocator(&self.library, OBJ, self.pymalloc);
            let printed = print(stream);
            set_allocator(&self.library, OBJ, malloc);
            libc::fclose(stream);
            assert_eq!(printed, 1, "the statistics are those of pymalloc");
            let copy = CStr::from_ptr(text).to_string_lossy().into_owned();
            libc::free(text.cast());
            copy
        }
    }
}

/// # Safety
///
/// - `library` must be CPython.
unsafe fn version(library: &Library) -> String {
    // SAFETY: the type is CPython's. The function returns a constant, even before initialisation.
    let text = unsafe {
        let get: unsafe extern "C" fn() -> *const c_char =
            *library.get(b"Py_GetVersion").expect("a function of every version");
        CStr::from_ptr(get())
    };
    text.to_str().expect("a version is ASCII").to_owned()
}

/// # Safety
///
/// - `library` must be CPython.
unsafe fn get_allocator(library: &Library, domain: c_int) -> Vtable {
    let mut vtable = MaybeUninit::<Vtable>::uninit();
    // SAFETY: `GetAllocator` has the signature that CPython declares. The call initialises all fields
    // of `vtable`.
    unsafe {
        let get: GetAllocator = *library.get(b"PyMem_GetAllocator").expect("a function since 3.4");
        get(domain, vtable.as_mut_ptr());
        vtable.assume_init()
    }
}

/// # Safety
///
/// - `library` must be a loaded CPython library.
/// - `vtable` must describe an allocator that CPython itself provides.
/// - While `vtable` is installed, nothing may free memory that the previous allocator of `domain`
///   allocated.
unsafe fn set_allocator(library: &Library, domain: c_int, mut vtable: Vtable) {
    // SAFETY: the type is that of CPython's headers. The function copies the vtable.
    unsafe {
        let set: SetAllocator = *library.get(b"PyMem_SetAllocator").expect("a function since 3.4");
        set(domain, &raw mut vtable);
    }
}
