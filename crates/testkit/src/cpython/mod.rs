//! A real CPython, in this process, whose `pymalloc` serves nobody but us.
//!
//! ```text
//!                       mem, obj ──────────► malloc          the interpreter's own objects
//!   tests ──► Vtable (saved) ─► pymalloc ─┬► arena hook      ours alone, and empty at the start
//!                                         └► raw: malloc
//! ```
//!
//! The functions of `pymalloc` are read before the interpreter starts, then its own requests are
//! turned to `malloc`. From 3.12 on `pymalloc` needs a thread state, so the interpreter is started
//! in any case. There is one for each process: [`in_each`] makes the processes.

mod arena_hook;
mod each;
mod find;
mod headers;
mod version;
mod vtable;

use std::{
    ffi::{CStr, c_char, c_int},
    mem::{ManuallyDrop, MaybeUninit},
    path::Path,
    ptr::null_mut,
};

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

use self::{
    arena_hook::ArenaHook,
    vtable::{ArenaVtable, MEM, OBJ, RAW},
};
pub use self::{
    each::in_each,
    find::{Libpython, libpythons},
    version::Version,
    vtable::Vtable,
};
use crate::{
    failing::Faults,
    place::ArenaLog,
    reference::{Figures, Rules, State},
};

type GetAllocator = unsafe extern "C" fn(c_int, *mut Vtable);
type SetAllocator = unsafe extern "C" fn(c_int, *mut Vtable);

/// A started CPython.
#[derive(Debug)]
pub struct Interpreter {
    /// Never unloaded: threads end with CPython's thread-local state.
    library: ManuallyDrop<Library>,
    version: Version,
    pymalloc: Vtable,
    arenas: ArenaLog,
    faults: Faults,
}

impl Interpreter {
    /// Loads `libpython` and starts it on this thread.
    ///
    /// # Panics
    ///
    /// Panics when it cannot be loaded, is of a version without known rules, or has given out an
    /// arena before anything was asked of it.
    ///
    /// # Safety
    ///
    /// `libpython` is CPython, built without `--disable-gil` and without `--with-pydebug`, and it
    /// is the first to be started in this process.
    pub unsafe fn start(libpython: &Path) -> Self {
        // SAFETY: loading CPython runs no code of its own.
        let library = unsafe { Library::open(Some(libpython), RTLD_NOW | RTLD_GLOBAL) };
        let library = library.unwrap_or_else(|error| panic!("{}: {error}", libpython.display()));
        let library = ManuallyDrop::new(library);
        // SAFETY: the name and the type are those of CPython's headers.
        let version = unsafe { version(&library) };
        let rules = version.rules().expect("a version with known rules");
        let (arenas, faults) = (ArenaLog::default(), Faults::default());
        let mut hook = ArenaHook::leak(rules.arena_size, arenas.clone(), faults.clone());
        // SAFETY: the names and types are those of CPython's headers. Before initialisation the
        // allocators of all domains may be set; malloc's are older than the interpreter's first
        // request, so everything is freed where it came from.
        let pymalloc = unsafe {
            let pymalloc = get_allocator(&library, OBJ);
            let malloc = get_allocator(&library, RAW);
            set_allocator(&library, MEM, malloc);
            set_allocator(&library, OBJ, malloc);
            let set_arenas: unsafe extern "C" fn(*mut ArenaVtable) =
                *library.get(b"PyObject_SetArenaAllocator").expect("a function of 3.4");
            set_arenas(&raw mut hook);
            // Without the site module it starts faster, and from fewer files.
            let no_site: *mut c_int = *library.get(b"Py_NoSiteFlag").expect("a flag of 2.3");
            no_site.write(1);
            let initialize: unsafe extern "C" fn(c_int) =
                *library.get(b"Py_InitializeEx").expect("a function of 2.4");
            initialize(0);
            pymalloc
        };
        assert_eq!(arenas.ever(), 0, "the interpreter itself lives on malloc");
        Self { library, version, pymalloc, arenas, faults }
    }

    /// Its version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The rules of its version.
    ///
    /// # Panics
    ///
    /// Never: an interpreter without rules is not started.
    pub fn rules(&self) -> Rules {
        self.version.rules().expect("a version with known rules")
    }

    /// Its allocator of small objects, to be called on the thread that started it.
    pub fn pymalloc(&self) -> Vtable {
        self.pymalloc
    }

    /// The arenas that `pymalloc` has.
    pub fn arenas(&self) -> &ArenaLog {
        &self.arenas
    }

    /// Which of `pymalloc`'s requests for arenas fail.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// The state of `pymalloc`'s heap, read from its pools' headers.
    pub fn state(&self) -> State {
        headers::state(&self.arenas, &self.rules())
    }

    /// The figures that `_PyObject_DebugMallocStats` prints.
    ///
    /// # Panics
    ///
    /// Panics when a figure is missing from its text.
    pub fn figures(&self) -> Figures {
        Figures::parse(&self.stats_text())
    }

    /// What `_PyObject_DebugMallocStats` prints.
    ///
    /// # Panics
    ///
    /// Panics when it prints nothing.
    pub fn stats_text(&self) -> String {
        let mut text: *mut c_char = null_mut();
        let mut size = 0_usize;
        // SAFETY: the names and types are those of CPython's headers. The statistics are printed
        // only while `pymalloc` is the allocator in force; nothing is allocated or freed in
        // between, so the interpreter's objects notice nothing. The stream is closed before
        // `text` is read, which is then a C string of the C library's making.
        unsafe {
            let print: unsafe extern "C" fn(*mut libc::FILE) -> c_int =
                *self.library.get(b"_PyObject_DebugMallocStats").expect("a function of 3.3");
            let stream = libc::open_memstream(&raw mut text, &raw mut size);
            assert!(!stream.is_null(), "no memory for a stream");
            let malloc = get_allocator(&self.library, OBJ);
            set_allocator(&self.library, OBJ, self.pymalloc);
            let printed = print(stream);
            set_allocator(&self.library, OBJ, malloc);
            libc::fclose(stream);
            assert_eq!(printed, 1, "statistics are of pymalloc");
            let copy = CStr::from_ptr(text).to_string_lossy().into_owned();
            libc::free(text.cast());
            copy
        }
    }
}

/// # Safety
///
/// `library` is CPython.
unsafe fn version(library: &Library) -> Version {
    // SAFETY: the name and the type are those of CPython's headers; the answer is a constant
    // string. It may be asked before initialisation.
    let text = unsafe {
        let get: unsafe extern "C" fn() -> *const c_char =
            *library.get(b"Py_GetVersion").expect("a function of every version");
        CStr::from_ptr(get())
    };
    let text = text.to_str().expect("a version is ASCII");
    Version::parse(text).unwrap_or_else(|| panic!("{text} does not begin with a version"))
}

/// # Safety
///
/// `library` is CPython.
unsafe fn get_allocator(library: &Library, domain: c_int) -> Vtable {
    let mut vtable = MaybeUninit::<Vtable>::uninit();
    // SAFETY: the name and the type are those of CPython's headers; of a known domain every field
    // is filled in.
    unsafe {
        let get: GetAllocator = *library.get(b"PyMem_GetAllocator").expect("a function of 3.4");
        get(domain, vtable.as_mut_ptr());
        vtable.assume_init()
    }
}

/// # Safety
///
/// `library` is CPython, `vtable` is an allocator of its, and what the domain has allocated so far
/// is not freed while `vtable` is in force.
unsafe fn set_allocator(library: &Library, domain: c_int, mut vtable: Vtable) {
    // SAFETY: the name and the type are those of CPython's headers; the vtable is copied.
    unsafe {
        let set: SetAllocator = *library.get(b"PyMem_SetAllocator").expect("a function of 3.4");
        set(domain, &raw mut vtable);
    }
}
