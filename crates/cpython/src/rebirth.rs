//! A second `Py_Initialize` in one process.
//!
//! Up to 3.11 the allocators stay as they were set. From 3.12 on CPython resets its runtime and
//! has its own allocators back, without a word; and blocks of the first life are still about, in
//! static types of extension modules and in the hands of the embedding program. CPython's own
//! allocator would give such a block to `free` of the C library, which aborts.
//!
//! So the heap is installed again, as early as a program can know of the new life without hooking
//! anything that other processes use: when the interpreter makes the first of its built-in
//! modules, `_imp`. That is before it imports anything, and before any code but CPython's own runs.
//!
//! ```text
//!   PyImport_Inittab ─► … │ "_imp", begin_of_life ─► the real function │ …     (our copy)
//!
//!   first life         the heap, from before main on
//!   second life        CPython's own allocator ─► _imp ─► the heap
//!                        its blocks ◄──────────────────── what is not ours goes there: Below
//! ```
//!
//! An embedding program that has CPython put its own allocators in place for the first life is
//! not overruled: only what was in force once is installed again.

use std::{
    ffi::{CStr, c_void},
    ptr::{self, NonNull},
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use allocator_api::{Domain, Foreign, MemAllocator};
use raw_mem::MemAlloc;

use crate::{
    abi::{BuiltinModule, CPython, ModuleInit},
    install::SERVED,
    interpreters,
    raw_domain::RawDomain,
};

/// The module that every interpreter makes first.
const FIRST_MODULE: &CStr = c"_imp";

/// The heap was installed again, so there are blocks of CPython's own allocator.
static REBORN: AtomicBool = AtomicBool::new(false);

static REBIRTH: OnceLock<Rebirth> = OnceLock::new();

/// The heap was installed again in this process.
pub(crate) fn happened() -> bool {
    // Who has an elder block has it from a thread that saw the store, and the order with it.
    REBORN.load(Relaxed)
}

/// The layer below the heap: the raw domain; after a rebirth, the allocator that CPython put in
/// our place, which knows its own blocks and hands all others to the raw domain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Below {
    raw: RawDomain,
    elder: Foreign,
}

impl Below {
    /// The layer below in `python`, which is as it was before anything was installed.
    pub(crate) fn new(python: &CPython) -> Self {
        // SAFETY: it is called after a rebirth only: from the domains mem and obj, as CPython
        // would call it itself.
        let elder = unsafe { Foreign::new(python.allocator(Domain::Obj)) };
        Self { raw: RawDomain::new(python.raw), elder }
    }
}

// SAFETY: the raw domain keeps the promises; and the elder, which is CPython's own allocator over
// the raw domain, knows the blocks of both.
unsafe impl MemAlloc for Below {
    fn malloc(&self, size: usize) -> Option<NonNull<u8>> {
        if happened() { self.elder.malloc(size) } else { self.raw.malloc(size) }
    }

    fn calloc(&self, count: usize, size: usize) -> Option<NonNull<u8>> {
        if happened() { self.elder.calloc(count, size) } else { self.raw.calloc(count, size) }
    }

    unsafe fn realloc(&self, ptr: Option<NonNull<u8>>, size: usize) -> Option<NonNull<u8>> {
        // SAFETY: the caller's promise; the elder knows blocks of the raw domain.
        unsafe {
            if happened() { self.elder.realloc(ptr, size) } else { self.raw.realloc(ptr, size) }
        }
    }

    unsafe fn free(&self, ptr: Option<NonNull<u8>>) {
        // SAFETY: the caller's promise; the elder knows blocks of the raw domain.
        unsafe { if happened() { self.elder.free(ptr) } else { self.raw.free(ptr) } }
    }
}

/// What it takes to install the heap again.
struct Rebirth {
    python: CPython,
    /// The vtables of [`SERVED`], ours and those of CPython.
    ours: [MemAllocator; 2],
    elders: [MemAllocator; 2],
    init_first_module: Option<ModuleInit>,
    /// An interpreter has begun with the heap in force.
    served: AtomicBool,
}

/// Installs `ours` again whenever a new life of `python` begins without it. To be called before
/// the first installation.
pub(crate) fn watch(python: &CPython, ours: [MemAllocator; 2]) {
    REBIRTH.get_or_init(|| {
        let elders = SERVED.map(|domain| python.allocator(domain));
        // SAFETY: the interpreter has not begun.
        let init_first_module = unsafe { replace_first_module(python) };
        Rebirth { python: *python, ours, elders, init_first_module, served: AtomicBool::new(false) }
    });
}

/// Puts [`begin_of_life`] in the place of the function that makes the first module, and returns
/// that function. `None`, and nothing has changed, without such a module.
///
/// # Safety
///
/// The interpreter has not begun, so that nobody reads its table of modules meanwhile.
unsafe fn replace_first_module(python: &CPython) -> Option<ModuleInit> {
    // SAFETY: CPython's variable, which is there before anything of CPython runs.
    let table = unsafe { python.builtin_modules.read() };
    let mut copy: Vec<BuiltinModule> = Vec::new();
    while copy.last().is_none_or(|entry| !entry.name.is_null()) {
        // SAFETY: the table goes on until an entry without a name, which the last one was not.
        copy.push(unsafe { *table.add(copy.len()) });
    }
    let first = copy.iter_mut().find(|entry| is_named(entry, FIRST_MODULE))?;
    let init = first.init.replace(begin_of_life)?;
    // SAFETY: the variable is CPython's, and is there to be changed before the interpreter begins.
    // The copy lives forever.
    unsafe { python.builtin_modules.write(copy.leak().as_ptr()) };
    Some(init)
}

fn is_named(entry: &BuiltinModule, name: &CStr) -> bool {
    // SAFETY: a name that is not null is a C string.
    !entry.name.is_null() && unsafe { CStr::from_ptr(entry.name) } == name
}

/// Makes the first module of an interpreter: the first of a life, or a later one.
unsafe extern "C" fn begin_of_life() -> *mut c_void {
    let Some(rebirth) = REBIRTH.get() else { return ptr::null_mut() };
    rebirth.install_again_if_reset();
    // SAFETY: CPython makes a module under the GIL of its interpreter.
    unsafe { interpreters::begin(&rebirth.python) };
    // SAFETY: CPython's own function, called where CPython would call it.
    rebirth.init_first_module.map_or(ptr::null_mut(), |init| unsafe { init() })
}

impl Rebirth {
    fn install_again_if_reset(&self) {
        let in_force = SERVED.map(|domain| self.python.allocator(domain));
        let reset = in_force.iter().zip(&self.elders).all(|(vtable, elder)| vtable.is(elder));
        if !reset {
            self.served.store(true, Relaxed);
        } else if self.served.load(Relaxed) {
            // Before the vtables: from the first call on, elder blocks must find their way.
            REBORN.store(true, Relaxed);
            for (domain, vtable) in SERVED.into_iter().zip(&self.ours) {
                // SAFETY: blocks older than this moment are ours, from the life before, or the
                // elder's, and go to it through `Below`.
                unsafe { self.python.set_allocator(domain, vtable) };
            }
        }
    }
}
