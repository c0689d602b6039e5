//! A heap for each interpreter, from CPython 3.12 on.
//!
//! ```text
//!   main interpreter   every thread that holds its GIL ──► one heap
//!   interpreter B      every thread that holds its GIL ──► another heap, from `_imp` to its end
//!   no interpreter     PyMem_Malloc without a GIL, the first requests of B ──► the thread's own heap
//! ```
//!
//! CPython allows a call into the domains mem and obj only under the GIL of the calling thread's
//! interpreter, so a thread that holds this GIL may enter the interpreter's heap. A block that one
//! thread allocated and another one frees goes straight back to its pool, and no memory waits for
//! an idle thread. A thread that switches interpreters switches heaps with them.
//!
//! A block that is freed under another GIL, or without one, is sent to the inbox of its heap.
//! CPython's own allocator would corrupt its memory in that case.
//!
//! The main interpreter gets its heap at its first slow request, and keeps it until the process
//! ends, because its address never changes, not even in a second `Py_Initialize`. Any other
//! interpreter gets a heap when it creates its first module. When such an interpreter ends, a
//! capsule in its own dictionary abandons the heap. Blocks that the interpreter frees afterwards
//! are sent to the abandoned heap.
//!
//! # Fork
//!
//! The forking thread holds the GIL of at most one interpreter, whose heap is consistent in the
//! child. Other threads may have been inside the other heaps, so the child gives those up, unless
//! the process had only one thread.

mod current;
mod entries;

use std::{
    ffi::{CStr, c_char, c_void},
    iter,
    ptr::{self, NonNull},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use obmalloc::{BlockPtr, Blocks, SizeClass, Stats};
use thread_heap::{OwnedHeap, PerThread, ThreadGeometry};

use crate::abi::{CPython, Interpreter, InterpreterFunctions};
use entries::{Entry, MAIN};

/// The name of the capsule, and its key in an interpreter's dictionary.
const CAPSULE: &CStr = c"obmalloc.heap";

/// True if the C library knew at the last fork that the process had one thread.
static HAD_ONE_THREAD: AtomicBool = AtomicBool::new(false);

/// Prepares for the interpreters of `python`. Must be called before the heap is installed.
pub(crate) fn watch(python: &CPython) {
    current::watch(python);
    // SAFETY: the handlers have the types that the call expects, and are never unloaded.
    unsafe { libc::pthread_atfork(Some(before_fork), None, Some(in_child)) };
}

/// Returns true if the calling thread holds the GIL of the main interpreter.
pub(crate) fn main_is_current() -> bool {
    current::interpreter().is_some_and(current::is_main)
}

/// Prepares the current interpreter, which is about to create its first module.
///
/// # Safety
///
/// - The calling thread must hold the GIL of that interpreter.
pub(crate) unsafe fn start(python: &CPython) {
    let Some((functions, interpreter)) = current::functions().zip(current::interpreter()) else {
        return;
    };
    if current::is_main(interpreter) {
        // SAFETY: this thread holds the GIL (contract of `start`). The interpreter has not imported
        // anything, so no other thread runs Python code.
        unsafe { current::find_offset(python) };
        return;
    }
    // If an interpreter ended without calling its capsule's destructor, it has left its entry, and
    // the new interpreter may have the same address.
    if let Some(entry) = entry() {
        // SAFETY: this thread holds the GIL of the new interpreter, and the old one is gone.
        unsafe { entry.release() };
    }
    // SAFETY: this thread holds the GIL of `interpreter` (contract of `start`).
    unsafe { open_heap(functions, interpreter) };
}

/// Gives an interpreter a heap, which is abandoned when its dictionary is cleared. If there is no
/// memory for the heap or the capsule, the interpreter uses the heaps of its threads.
///
/// # Safety
///
/// - `interpreter` must have no heap.
/// - The calling thread must hold its GIL.
unsafe fn open_heap(functions: &InterpreterFunctions, interpreter: Interpreter) {
    let Some(heap) = OwnedHeap::open() else { return };
    let entry = entries::claim();
    let place: *mut c_void = ptr::from_ref(entry).cast_mut().cast();
    // SAFETY: this thread holds the GIL of `interpreter`, so it may call CPython and access the
    // entry that it claimed. The capsule's destructor expects a pointer to an entry.
    unsafe {
        let capsule = (functions.capsule_new)(place, CAPSULE.as_ptr(), end_of_interpreter);
        let dict = (functions.interpreter_dict)(interpreter.as_ptr());
        let failed = capsule.is_null()
            || dict.is_null()
            || (functions.dict_set_item)(dict, CAPSULE.as_ptr(), capsule) != 0;
        // The heap is in use from here on. If the dictionary does not hold the capsule, releasing
        // the capsule calls its destructor, which takes the heap away again.
        entry.assign(interpreter, heap);
        if failed {
            (functions.clear_error)();
        }
        if capsule.is_null() {
            entry.release();
        } else {
            (functions.release)(capsule);
        }
    }
}

/// The destructor of an interpreter's capsule. The interpreter has run its last code and is being
/// cleared.
unsafe extern "C" fn end_of_interpreter(capsule: *mut c_void) {
    let Some(functions) = current::functions() else { return };
    // SAFETY: CPython passes the capsule, which has that name.
    let place = unsafe { (functions.capsule_pointer)(capsule, CAPSULE.as_ptr()) };
    // SAFETY: `open_heap` put a pointer to an entry into the capsule, and entries are never freed.
    let Some(entry) = (unsafe { place.cast::<Entry>().as_ref() }) else { return };
    let is_current =
        current::interpreter().is_some_and(|interpreter| entry.is_of(interpreter.as_ptr()));
    // In the child of a fork, CPython clears interpreters that it does not run. Their entries stay
    // until an interpreter has the same address.
    if is_current {
        // SAFETY: the calling thread holds the interpreter's GIL.
        unsafe { entry.release() };
    }
}

extern "C" fn before_fork() {
    HAD_ONE_THREAD.store(has_one_thread(), Relaxed);
}

/// Gives up the heaps in which another thread may have been.
extern "C" fn in_child() {
    if HAD_ONE_THREAD.load(Relaxed) {
        return;
    }
    let here = current::interpreter().map_or(ptr::null_mut(), NonNull::as_ptr);
    for entry in iter::once(&MAIN).chain(entries::others()) {
        if !entry.is_of(here) {
            // SAFETY: the child of a fork has only this thread.
            if let Some(heap) = unsafe { entry.take() } {
                heap.lose();
            }
        }
    }
}

/// Returns true if the C library knows that the process has only one thread. glibc 2.32 and later
/// can tell. With other libraries, the function returns false.
fn has_one_thread() -> bool {
    // SAFETY: the name is a C string.
    let variable = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"__libc_single_threaded".as_ptr()) };
    // SAFETY: null, or glibc's variable of type `char`, which only the C library writes.
    unsafe { variable.cast::<c_char>().as_ref() }.is_some_and(|single| *single != 0)
}

/// Returns the entry of the calling thread's current interpreter, if that interpreter has a heap.
fn entry() -> Option<&'static Entry> {
    entries::find(current::interpreter()?.as_ptr())
}

/// As [`entry`], but opens the heap of the main interpreter if it has none yet.
#[cold]
fn entry_or_main() -> Option<&'static Entry> {
    let interpreter = current::interpreter()?;
    let entry = entries::find(interpreter.as_ptr());
    if entry.is_some() || !current::is_main(interpreter) {
        return entry;
    }
    // Blocks that the thread allocated before it had an interpreter become the main interpreter's.
    let heap = OwnedHeap::of_this_thread()?;
    // SAFETY: `MAIN` has no interpreter, and this thread holds the main GIL.
    unsafe { MAIN.assign(interpreter, heap) };
    Some(&MAIN)
}

/// Returns true if the calling thread runs the main interpreter and that interpreter has a heap.
/// Until the thread-local of CPython is found, it returns false in any case.
#[inline(always)]
fn main_is_at_hand() -> bool {
    current::is_at_hand(MAIN.interpreter())
}

/// Frees a block if [`main_is_at_hand`] is false.
///
/// # Safety
///
/// - `block` must have come from one of the process's heaps.
/// - It must not be used again.
#[cold]
#[inline(never)]
unsafe fn free_elsewhere(block: BlockPtr) {
    match entry() {
        // SAFETY: the thread holds the GIL of the entry's interpreter. The contract is the same.
        Some(entry) => unsafe { entry.heap().free(block) },
        // SAFETY: the contract is the same.
        None => unsafe { PerThread.free(block) },
    }
}

/// The heaps of all interpreters as one heap. A request goes to the heap of the interpreter whose
/// GIL the calling thread holds. Without a GIL it goes to the calling thread's own heap.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PerInterpreter;

impl PerInterpreter {
    /// Counts what is in use in the main interpreter's heap, in the calling thread's heap and in
    /// abandoned heaps.
    ///
    /// # Safety
    ///
    /// - The calling thread must hold the GIL of the main interpreter, or no interpreter may run.
    pub(crate) unsafe fn stats(self) -> Stats {
        if !MAIN.has_heap() {
            return PerThread.stats_of_all().total;
        }
        // SAFETY: no other thread is inside the main interpreter's heap (contract of `stats`).
        unsafe { MAIN.heap() }.stats_of_all().total
    }
}

// SAFETY: all blocks come from the heaps of the process, which are apart from each other and know
// their arenas. The GIL of an interpreter lets one thread at a time into its heap.
unsafe impl Blocks for PerInterpreter {
    type Geometry = ThreadGeometry;

    /// Serves only the main interpreter, so that its path needs no stack frame. All others call
    /// [`alloc`](Blocks::alloc).
    #[inline(always)]
    fn alloc_listed(&self, class: SizeClass<ThreadGeometry>) -> Option<BlockPtr> {
        if !main_is_at_hand() {
            return None;
        }
        // SAFETY: the calling thread holds the main GIL, and the heap never calls back.
        unsafe { MAIN.heap() }.alloc_listed(class)
    }

    fn alloc(&self, class: SizeClass<ThreadGeometry>) -> Option<BlockPtr> {
        match entry_or_main() {
            // SAFETY: the thread holds the GIL of the entry's interpreter. The heap never calls back.
            Some(entry) => unsafe { entry.heap() }.alloc(class),
            None => PerThread.alloc_listed(class).or_else(|| PerThread.alloc(class)),
        }
    }

    fn trim(&self) {
        match entry() {
            // SAFETY: the thread holds the GIL of the entry's interpreter. The heap never calls back.
            Some(entry) => unsafe { entry.heap() }.flush(),
            None => PerThread.flush(),
        }
    }

    #[inline(always)]
    unsafe fn free(&self, block: BlockPtr) {
        if main_is_at_hand() {
            // SAFETY: the thread holds the main GIL. `block` came from these heaps (contract).
            unsafe { MAIN.heap().free(block) };
        } else {
            // SAFETY: `block` came from these heaps (contract of `free`).
            unsafe { free_elsewhere(block) };
        }
    }

    #[inline(always)]
    unsafe fn free_if_ours(&self, ptr: NonNull<u8>) -> Option<NonNull<u8>> {
        if !PerThread.holds(ptr.addr().get()) {
            return Some(ptr);
        }
        // SAFETY: the pointer is in an arena of these heaps, so it is a block in use (contract).
        unsafe { self.free(BlockPtr::from_start(ptr)) };
        None
    }

    #[inline(always)]
    unsafe fn size_if_ours(&self, ptr: NonNull<u8>) -> Option<usize> {
        // SAFETY: the contract is the same.
        unsafe { PerThread.size_if_ours(ptr) }
    }
}
