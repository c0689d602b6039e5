//! A second `Py_Initialize` in one process.
//!
//! In CPython up to 3.11, the allocators that we set stay in force during a second `Py_Initialize`.
//! From 3.12 on, `Py_Initialize` resets CPython's runtime and silently restores CPython's own
//! allocators. Some blocks of our heap are still live at that time, for example in static types of
//! extension modules and in the embedding program. CPython's own allocator does not recognise these
//! blocks. When such a block is freed, CPython's allocator passes it to the C library's `free`,
//! which aborts the process.
//!
//! We therefore install the heap again when the interpreter creates `_imp`, its first built-in
//! module. That is the earliest sign of a reinitialisation that we can see without hooking
//! functions that other programs use. At this point, the interpreter has not imported anything yet,
//! and only CPython's own code has run.
//!
//! ```text
//!   PyImport_Inittab ─► … │ "_imp", create_first_module ─► the real function │ …     (our copy)
//!
//!   first Py_Initialize    the heap, from before main on
//!   later ones             CPython's own allocator ─► _imp ─► the heap
//!                            its blocks ◄───────────────────── Lower passes foreign blocks on
//! ```
//!
//! An embedding program can make CPython use CPython's own allocators from the first
//! `Py_Initialize` on. We respect that choice. A later `Py_Initialize` therefore installs the heap
//! again only if the heap was in force when an earlier interpreter started.

use std::{
    ffi::{CStr, c_void},
    ptr,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use allocator_api::VTable;

use crate::{
    abi::{BuiltinModule, CPython, ModuleInit},
    domains::SERVED,
    interpreters, lower,
};

/// The module that every interpreter creates first.
const FIRST_MODULE: &CStr = c"_imp";

/// The data that we need to install the heap again.
struct Watch {
    python: CPython,
    /// The heap's vtables of [`SERVED`].
    ours: [VTable; 2],
    /// CPython's own vtables of [`SERVED`].
    cpythons: [VTable; 2],
    init_first_module: Option<ModuleInit>,
    /// True if an interpreter has started while the heap was in force.
    was_in_force: AtomicBool,
}

static WATCH: OnceLock<Watch> = OnceLock::new();

/// Prepares to install the heap again after a reinitialisation of `python`. `ours` contains the
/// heap's vtables for the domains in [`SERVED`]. Must be called before the heap is installed for
/// the first time.
pub(crate) fn watch(python: &CPython, ours: [VTable; 2]) {
    WATCH.get_or_init(|| {
        let cpythons = SERVED.map(|domain| python.allocator(domain));
        // SAFETY: the interpreter has not started yet.
        let init_first_module = unsafe { replace_first_module(python) };
        let was_in_force = AtomicBool::new(false);
        Watch { python: *python, ours, cpythons, init_first_module, was_in_force }
    });
}

/// Makes CPython call [`create_first_module`] to create [`FIRST_MODULE`]. Returns the function that
/// CPython would have called instead. If CPython's table has no such module, changes nothing and
/// returns `None`.
///
/// # Safety
///
/// - The interpreter must not have started, because a running interpreter reads the table of
///   modules.
unsafe fn replace_first_module(python: &CPython) -> Option<ModuleInit> {
    // SAFETY: CPython initialises the variable statically, so the variable already points to the
    // table.
    let table = unsafe { python.builtin_modules.read() };
    let mut copy: Vec<BuiltinModule> = Vec::new();
    while copy.last().is_none_or(|entry| !entry.name.is_null()) {
        // SAFETY: the table ends with an entry that has no name. The loop has not reached that
        // entry yet, so the next entry lies in the table.
        copy.push(unsafe { *table.add(copy.len()) });
    }
    let first = copy.iter_mut().find(|entry| {
        // SAFETY: a name that is not null is a C string.
        !entry.name.is_null() && unsafe { CStr::from_ptr(entry.name) } == FIRST_MODULE
    })?;
    let init = first.init.replace(create_first_module)?;
    // SAFETY: CPython allows programs to change the variable before the interpreter starts. The
    // copy is never freed.
    unsafe { python.builtin_modules.write(copy.leak().as_ptr()) };
    Some(init)
}

/// Creates the first module of an interpreter, in place of CPython's own function. If CPython has
/// restored its own allocators, first installs the heap again.
unsafe extern "C" fn create_first_module() -> *mut c_void {
    let Some(watch) = WATCH.get() else { return ptr::null_mut() };
    watch.reinstall_if_reset();
    // SAFETY: CPython creates a module under the GIL of its interpreter.
    unsafe { interpreters::start(&watch.python) };
    // SAFETY: `init` is the function that CPython itself would call at this point.
    watch.init_first_module.map_or(ptr::null_mut(), |init| unsafe { init() })
}

impl Watch {
    fn reinstall_if_reset(&self) {
        let in_force = SERVED.map(|domain| self.python.allocator(domain));
        let is_reset = in_force.iter().zip(&self.cpythons).all(|(now, cpython)| now.is(cpython));
        if !is_reset {
            self.was_in_force.store(true, Relaxed);
        } else if self.was_in_force.load(Relaxed) {
            lower::note_reinit();
            for (domain, vtable) in SERVED.into_iter().zip(&self.ours) {
                // SAFETY: every live block came from the heap or from CPython's own allocator. The
                // heap forwards requests for blocks of CPython's allocator to `Lower`. After
                // `note_reinit`, `Lower` passes them to CPython's allocator, which can free these
                // blocks.
                unsafe { self.python.set_allocator(domain, vtable) };
            }
        }
    }
}
