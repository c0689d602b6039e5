//! Installs the heap in a CPython that sets its own allocators, and in a second `Py_Initialize`.
//!
//! CPython sets its own allocators at the start of an initialisation if the user has set
//! `PYTHONMALLOC` or `-X dev`. From CPython 3.12 on, it also sets them in every `Py_Initialize`
//! after the first. In both cases, we then replace CPython's allocators with our heap, unless the
//! user has requested a different allocator, for example with `PYTHONMALLOC=malloc`.
//!
//! When a second `Py_Initialize` sets CPython's own allocators, blocks of our heap may still be
//! live. If Python code then freed such a block, CPython's allocators would abort the process. We
//! must therefore install our heap again before the program's Python code can run. We do this when
//! CPython creates its first module, which is `_thread` in CPython 3.8 and 3.9, and `_imp` in later
//! versions.
//!
//! CPython's own allocators may have allocated blocks before we install the heap. When CPython
//! frees one of these blocks, the heap passes the block back to CPython's own allocators.
//!
//! If CPython has set its debug hooks, we replace them with ours. Our hooks can also free the
//! blocks that CPython's hooks have allocated, because both use the same block layout.
//!
//! In a later `Py_Initialize`, we install the heap only if an earlier interpreter used it. If none
//! did, the program may have chosen CPython's own allocators, and we respect that choice.

use std::{
    ffi::{CStr, c_void},
    ptr,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use allocator_api::{Domain, VTable};

use crate::{
    abi::{BuiltinModule, CPython, ModuleInit},
    decide::Guard,
    domains::{SERVED, Server},
    interpreters, loader, lower,
    version::Version,
};

/// True if the heap was installed again in a later `Py_Initialize`.
static WAS_REINITIALISED: AtomicBool = AtomicBool::new(false);

/// The vtables that we install in place of CPython's own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ours {
    /// For the domains in [`SERVED`].
    pub(crate) plain: [VTable; 2],
    /// For all domains, if CPython may set its debug hooks.
    pub(crate) hooked: Option<[VTable; 3]>,
}

struct Watch {
    python: CPython,
    is_3_8: bool,
    guard: Guard,
    ours: Ours,
    cpythons: [VTable; 2],
    init_first_module: Option<ModuleInit>,
    /// True if an interpreter has started.
    has_started: AtomicBool,
    /// True if an interpreter has started while the heap was installed.
    was_in_force: AtomicBool,
}

static WATCH: OnceLock<Watch> = OnceLock::new();

/// Prepares to install `ours` when an interpreter starts. Must be called while CPython's own
/// allocators are set.
///
/// If `is_expected` is true, the first interpreter gets `ours` too.
pub(crate) fn watch(python: &CPython, guard: Guard, ours: Ours, is_expected: bool) {
    WATCH.get_or_init(|| {
        let cpythons = SERVED.map(|domain| python.allocator(domain));
        // SAFETY: the interpreter has not started yet.
        let init_first_module = unsafe { replace_first_module(python) };
        Watch {
            python: *python,
            is_3_8: version(python) == Some((3, 8)),
            guard,
            ours,
            cpythons,
            init_first_module,
            has_started: AtomicBool::new(false),
            was_in_force: AtomicBool::new(is_expected),
        }
    });
}

/// Returns true if CPython's table of built-in modules has the known layout and contains the first
/// module.
///
/// In the known layout, every pointer of the table points into CPython's own program or library.
///
/// # Safety
///
/// - The interpreter must not have started, because the table may be replaced later.
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
        if unsafe { CStr::from_ptr(name) } == first_module(python) {
            return init.is_some();
        }
        entry = entry.wrapping_add(1);
    }
    false
}

pub(crate) fn was_reinitialised() -> bool {
    WAS_REINITIALISED.load(Relaxed)
}

fn version(python: &CPython) -> Option<(u8, u8)> {
    Version::parse(python.version_text()).map(Version::pair)
}

/// Returns the first module that every interpreter creates from the table of built-in modules.
fn first_module(python: &CPython) -> &'static CStr {
    match version(python) {
        Some((3, 8 | 9)) => c"_thread",
        _ => c"_imp",
    }
}

/// Makes CPython call [`create_first_module`] to create its first module.
///
/// Returns the function that CPython would have called, or `None` if this module is not built in.
///
/// # Safety
///
/// - The interpreter must not have started, because a running interpreter reads the table.
unsafe fn replace_first_module(python: &CPython) -> Option<ModuleInit> {
    let name = first_module(python);
    // SAFETY: CPython initialises the variable statically, so it points to the table.
    let table = unsafe { python.builtin_modules.read() };
    let mut copy: Vec<BuiltinModule> = Vec::new();
    while copy.last().is_none_or(|entry| !entry.name.is_null()) {
        // SAFETY: the last entry has no name, and the loop has not reached it yet.
        copy.push(unsafe { *table.add(copy.len()) });
    }
    let first = copy.iter_mut().find(|entry| {
        // SAFETY: a name that is not null is a C string.
        !entry.name.is_null() && unsafe { CStr::from_ptr(entry.name) } == name
    })?;
    let init = first.init.replace(create_first_module)?;
    // SAFETY: the interpreter has not started (contract), and the copy is never freed.
    unsafe { python.builtin_modules.write(copy.leak().as_ptr()) };
    Some(init)
}

/// Installs the heap if needed, and then creates the first module by calling CPython's function.
unsafe extern "C" fn create_first_module() -> *mut c_void {
    let Some(watch) = WATCH.get() else { return ptr::null_mut() };
    watch.install_if_reset();
    if watch.guard == Guard::Interpreters {
        // SAFETY: CPython creates a module under the GIL of its interpreter.
        unsafe { interpreters::start(&watch.python) };
    }
    // SAFETY: `init` is the function that CPython itself would call at this point.
    watch.init_first_module.map_or(ptr::null_mut(), |init| unsafe { init() })
}

impl Watch {
    fn install_if_reset(&self) {
        if self.python.is_initialized() {
            // A subinterpreter is starting. The program may have hooked the domains by now, so we
            // do not change them.
            return;
        }
        let is_first = !self.has_started.swap(true, Relaxed);
        let now = SERVED.map(|domain| self.python.allocator(domain));
        let is_plain = now.iter().zip(&self.cpythons).all(|(now, cpython)| now.is(cpython));
        let is_hooked = || now.iter().all(|now| Server::of(now, &self.python) == Server::Hook);
        let hooked = self.ours.hooked.filter(|_| is_hooked());
        if !is_plain && hooked.is_none() {
            self.was_in_force.store(true, Relaxed);
        } else if self.was_in_force.load(Relaxed) {
            self.install(hooked);
            WAS_REINITIALISED.store(!is_first, Relaxed);
        }
    }

    /// Installs the heap after CPython's own allocators have served requests.
    fn install(&self, hooked: Option<[VTable; 3]>) {
        lower::expect_blocks_of_cpython();
        match hooked {
            // SAFETY: every live block came from CPython's debug hooks or from ours, which have the
            // same layout. Below them are the same allocators as without hooks.
            Some(hooked) => unsafe { self.set(&Domain::ALL, &hooked) },
            // SAFETY: every live block came from the heap or from CPython's own allocator, which
            // gets its blocks back from `Lower` after `expect_blocks_of_cpython`.
            None => unsafe { self.set(&SERVED, &self.ours.plain) },
        }
    }

    /// # Safety
    ///
    /// - The vtables must be able to free every live block of their domains.
    unsafe fn set(&self, domains: &[Domain], vtables: &[VTable]) {
        for (domain, vtable) in domains.iter().zip(vtables) {
            // In CPython 3.8, we set no debug hook for the raw domain. CPython 3.8 allocates one of
            // its own blocks without the hook, so the block has no guard bytes. If the program
            // forks, the child frees this block through the hook, and the hook would report the
            // block as damaged.
            if *domain == Domain::Raw && self.is_3_8 {
                continue;
            }
            // SAFETY: the contract is the same.
            unsafe { self.python.set_allocator(*domain, vtable) };
        }
    }
}
