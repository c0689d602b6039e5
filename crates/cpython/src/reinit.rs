//! A second `Py_Initialize` in one process.
//!
//! From CPython 3.12 on, a second `Py_Initialize` silently restores CPython's own allocators. We
//! then reinstall our heap.
//!
//! CPython's own allocators cannot free blocks from our heap. The process would abort.
//!
//! We reinstall the heap when CPython creates its first module, `_imp`. No other code has run by
//! then.
//!
//! We reinstall the heap only if an earlier interpreter started with the heap. Otherwise, the
//! program may have chosen CPython's own allocators, and we respect that choice.

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
    interpreters, loader, lower,
};

/// The module that every interpreter creates first.
const FIRST_MODULE: &CStr = c"_imp";

struct Watch {
    python: CPython,
    ours: [VTable; 2],
    cpythons: [VTable; 2],
    init_first_module: Option<ModuleInit>,
    /// True if an interpreter has started while the heap was in force.
    was_in_force: AtomicBool,
}

static WATCH: OnceLock<Watch> = OnceLock::new();

/// Prepares to install the vtables `ours` again. Must be called before they are first installed.
pub(crate) fn watch(python: &CPython, ours: [VTable; 2]) {
    WATCH.get_or_init(|| {
        let cpythons = SERVED.map(|domain| python.allocator(domain));
        // SAFETY: the interpreter has not started yet.
        let init_first_module = unsafe { replace_first_module(python) };
        let was_in_force = AtomicBool::new(false);
        Watch { python: *python, ours, cpythons, init_first_module, was_in_force }
    });
}

/// Returns true if CPython's table has the known layout, and contains [`FIRST_MODULE`].
///
/// Every pointer of the table must lead into CPython's own program or library.
///
/// # Safety
///
/// - The interpreter must not have started, because later the table may be elsewhere.
pub(crate) unsafe fn has_first_module(python: &CPython) -> bool {
    let segments: Vec<_> = loader::look_at_object(python.code_address(), |info, headers| {
        loader::segments(info, headers).collect()
    })
    .unwrap_or_default();
    let is_inside = |address: usize| segments.iter().any(|segment| segment.contains(&address));
    // SAFETY: CPython initialises the variable statically.
    let mut entry = unsafe { python.builtin_modules.read() };
    while is_inside(entry.addr()) {
        // SAFETY: the entry is inside CPython's program or library.
        let BuiltinModule { name, init } = unsafe { *entry };
        if !is_inside(name.addr()) || !init.is_none_or(|init| is_inside(init as usize)) {
            return false;
        }
        // SAFETY: the name is inside CPython's program or library, whose strings end with a zero.
        if unsafe { CStr::from_ptr(name) } == FIRST_MODULE {
            return init.is_some();
        }
        entry = entry.wrapping_add(1);
    }
    false
}

/// Makes CPython call [`create_first_module`] for [`FIRST_MODULE`]. Returns the function that it
/// replaces, or `None` if CPython's table lacks the module.
///
/// # Safety
///
/// - The interpreter must not have started, because a running interpreter reads the table.
unsafe fn replace_first_module(python: &CPython) -> Option<ModuleInit> {
    // SAFETY: CPython initialises the variable statically, so it points to the table.
    let table = unsafe { python.builtin_modules.read() };
    let mut copy: Vec<BuiltinModule> = Vec::new();
    while copy.last().is_none_or(|entry| !entry.name.is_null()) {
        // SAFETY: the last entry has no name, and the loop has not reached it yet.
        copy.push(unsafe { *table.add(copy.len()) });
    }
    let first = copy.iter_mut().find(|entry| {
        // SAFETY: a name that is not null is a C string.
        !entry.name.is_null() && unsafe { CStr::from_ptr(entry.name) } == FIRST_MODULE
    })?;
    let init = first.init.replace(create_first_module)?;
    // SAFETY: the interpreter has not started (contract), and the copy is never freed.
    unsafe { python.builtin_modules.write(copy.leak().as_ptr()) };
    Some(init)
}

/// Creates the first module in place of CPython's function, and installs the heap again if needed.
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
                // SAFETY: every live block came from the heap or from CPython's own allocator,
                // which gets its blocks back from `Lower` after `note_reinit`.
                unsafe { self.python.set_allocator(domain, vtable) };
            }
        }
    }
}
