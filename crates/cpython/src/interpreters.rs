//! A heap for each interpreter, from CPython 3.12 on.
//!
//! ```text
//!   main interpreter   every thread that holds its GIL ──► one heap
//!   interpreter B      every thread that holds its GIL ──► another heap, from `_imp` to its end
//!   no interpreter     PyMem_Malloc without a GIL, the first requests of B ──► the thread's own heap
//! ```
//!
//! CPython allows a call to its domains mem and obj only while the calling thread holds the GIL of
//! its interpreter. Only one thread at a time holds that GIL, so this thread may use the
//! interpreter's heap without another lock. All threads of an interpreter use the same heap. If one
//! of them frees a block that another one allocated, the block therefore goes straight back to its
//! pool, instead of waiting until an idle thread reclaims it. A thread that switches to another
//! interpreter also switches to the heap of that interpreter.
//!
//! A thread may free a block of one interpreter while it holds the GIL of another interpreter, or
//! no GIL. Some other thread may be using the block's heap then. The freeing thread must not enter
//! that heap, so it sends the block to the heap's inbox. CPython's own allocator would corrupt its
//! memory in this case.
//!
//! The main interpreter gets its heap at its first request that the fast path cannot serve, and
//! keeps this heap until the process ends. We find the heap of an interpreter by the interpreter's
//! address. The address of the main interpreter never changes, so its heap can be found even after
//! a second `Py_Initialize`.
//!
//! Any other interpreter gets a heap when it creates its first module. We also put a capsule into
//! the dictionary of such an interpreter. When the interpreter ends, CPython clears the dictionary
//! and destroys the capsule. The destructor of the capsule then abandons the heap. Blocks that the
//! interpreter frees afterwards are sent to the abandoned heap.
//!
//! # Fork
//!
//! The forking thread holds the GIL of at most one interpreter. No other thread can be inside the
//! heap of that interpreter, so the child process gets a consistent copy of this heap. The heaps of
//! all other interpreters may have been in use by other threads at the moment of the fork, so the
//! child's copies of these heaps may be inconsistent. The child therefore gives up these copies,
//! unless the process had only one thread.

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

/// The name of the capsule that we put into an interpreter's dictionary. The name is also the
/// capsule's key in that dictionary.
const CAPSULE: &CStr = c"obmalloc.heap";

/// True if the C library knew, just before the last fork, that the process had only one thread.
static HAD_ONE_THREAD: AtomicBool = AtomicBool::new(false);

/// Stores the functions of `python` that deal with interpreters, and registers the handlers for
/// `fork`. Must be called before the heap is installed.
pub(crate) fn watch(python: &CPython) {
    current::watch(python);
    // SAFETY: the handlers have the types that the call expects, and this library is never
    // unloaded.
    unsafe { libc::pthread_atfork(Some(before_fork), None, Some(in_child)) };
}

/// Returns true if the calling thread holds the GIL of the main interpreter.
pub(crate) fn main_is_current() -> bool {
    current::interpreter().is_some_and(current::is_main)
}

/// Prepares the heap of the current interpreter, just before that interpreter creates its first
/// module. Any interpreter except the main one gets its heap here. The main interpreter gets its
/// heap later, at its first request. For the main interpreter, this function only looks for the
/// thread-local variable in which CPython keeps the current thread state.
///
/// # Safety
///
/// - The calling thread must hold the GIL of the current interpreter.
pub(crate) unsafe fn start(python: &CPython) {
    let Some((functions, interpreter)) = current::functions().zip(current::interpreter()) else {
        return;
    };
    if current::is_main(interpreter) {
        // SAFETY: this thread holds the GIL (contract of `start`). It may release the GIL for a
        // moment. The interpreter has not imported anything, so no other thread runs Python code.
        unsafe { current::find_offset(python) };
        return;
    }
    // An earlier interpreter may have ended without a call of its capsule's destructor. The entry
    // of that interpreter is then still in the table. If the new interpreter has the same address,
    // we would mistake the old entry for the entry of the new interpreter. We therefore release the
    // old entry first.
    if let Some(entry) = entry() {
        // SAFETY: this thread holds the GIL of the new interpreter, which has the address in the
        // entry. The earlier interpreter no longer exists, so no other thread can use the entry.
        unsafe { entry.release() };
    }
    // SAFETY: this thread holds the GIL of `interpreter` (contract of `start`).
    unsafe { open_heap(functions, interpreter) };
}

/// Gives `interpreter` a heap, and puts a capsule into its dictionary. When CPython clears the
/// dictionary, the destructor of the capsule abandons the heap. If the heap or the capsule cannot
/// be allocated, the interpreter gets no heap, and each of its threads uses that thread's own heap.
///
/// # Safety
///
/// - `interpreter` must have no heap.
/// - The calling thread must hold the GIL of `interpreter`.
unsafe fn open_heap(functions: &InterpreterFunctions, interpreter: Interpreter) {
    let Some(heap) = OwnedHeap::open() else { return };
    let entry = entries::claim();
    let place: *mut c_void = ptr::from_ref(entry).cast_mut().cast();
    // SAFETY: this thread holds the GIL of `interpreter`, so it may call CPython. This thread has
    // claimed the entry, so it may access the entry. The capsule's destructor expects a capsule
    // that points to an entry, and `place` points to one.
    unsafe {
        let capsule = (functions.capsule_new)(place, CAPSULE.as_ptr(), end_of_interpreter);
        let dict = (functions.interpreter_dict)(interpreter.as_ptr());
        let failed = capsule.is_null()
            || dict.is_null()
            || (functions.dict_set_item)(dict, CAPSULE.as_ptr(), capsule) != 0;
        // From here on, the interpreter uses the heap. Below, we release our own reference to the
        // capsule. If the capsule could not be put into the dictionary, this reference is the last
        // one. Releasing it destroys the capsule, and the capsule's destructor takes the heap away
        // from the interpreter again.
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

/// Abandons the heap of an interpreter that is ending. This function is the destructor of the
/// capsule in the interpreter's dictionary. CPython calls this function while it clears the
/// interpreter. By then, the interpreter has already run its last code.
unsafe extern "C" fn end_of_interpreter(capsule: *mut c_void) {
    let Some(functions) = current::functions() else { return };
    // SAFETY: CPython passes the capsule that it destroys. `open_heap` gave the capsule this name.
    let place = unsafe { (functions.capsule_pointer)(capsule, CAPSULE.as_ptr()) };
    // SAFETY: `open_heap` put a pointer to an entry into the capsule, and entries are never freed.
    let Some(entry) = (unsafe { place.cast::<Entry>().as_ref() }) else { return };
    let is_current =
        current::interpreter().is_some_and(|interpreter| entry.is_of(interpreter.as_ptr()));
    // In the child of a fork, CPython also clears interpreters that are not current. The calling
    // thread does not hold the GIL of such an interpreter, so we leave the interpreter's entry in
    // the table. If a new interpreter gets the same address later, `start` releases the old entry.
    if is_current {
        // SAFETY: the calling thread holds the interpreter's GIL.
        unsafe { entry.release() };
    }
}

extern "C" fn before_fork() {
    HAD_ONE_THREAD.store(has_one_thread(), Relaxed);
}

/// Gives up every heap that another thread may have been using at the moment of the fork.
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
/// export a variable that provides this information. Other C libraries do not, so this function
/// always returns false with them.
fn has_one_thread() -> bool {
    // SAFETY: the name is a C string.
    let variable = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"__libc_single_threaded".as_ptr()) };
    // SAFETY: `variable` is null or points to glibc's variable of type `char`, which only the C
    // library writes.
    unsafe { variable.cast::<c_char>().as_ref() }.is_some_and(|single| *single != 0)
}

/// Returns the entry of the calling thread's current interpreter, if that interpreter has a heap.
fn entry() -> Option<&'static Entry> {
    entries::find(current::interpreter()?.as_ptr())
}

/// Returns the entry of the calling thread's current interpreter, if that interpreter has a heap.
/// If the current interpreter is the main one and has no heap yet, gives it a heap first.
#[cold]
fn entry_or_main() -> Option<&'static Entry> {
    let interpreter = current::interpreter()?;
    let entry = entries::find(interpreter.as_ptr());
    if entry.is_some() || !current::is_main(interpreter) {
        return entry;
    }
    // The calling thread's own heap becomes the heap of the main interpreter. That heap already
    // contains the blocks that the thread allocated before the interpreter existed.
    let heap = OwnedHeap::of_this_thread()?;
    // SAFETY: `MAIN` has no interpreter, and this thread holds the main GIL.
    unsafe { MAIN.assign(interpreter, heap) };
    Some(&MAIN)
}

/// Returns true if the calling thread runs the main interpreter and that interpreter has a heap.
/// Always returns false until we have found the thread-local variable in which CPython keeps the
/// current thread state.
#[inline(always)]
fn main_is_at_hand() -> bool {
    current::is_at_hand(MAIN.interpreter())
}

/// Frees a block on a thread for which [`main_is_at_hand`] returns false.
///
/// # Safety
///
/// - `block` must have come from one of the process's heaps.
/// - `block` must not be used again.
#[cold]
#[inline(never)]
unsafe fn free_elsewhere(block: BlockPtr) {
    match entry() {
        // SAFETY: the thread holds the GIL of the entry's interpreter. `block` came from a heap of
        // this process and is not used again (contract).
        Some(entry) => unsafe { entry.heap().free(block) },
        // SAFETY: our caller has promised the same (contract of this function).
        None => unsafe { PerThread.free(block) },
    }
}

/// The heaps of all interpreters, presented as one heap. A request goes to the heap of the
/// interpreter whose GIL the calling thread holds. If the thread holds no GIL, the request goes to
/// the thread's own heap.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PerInterpreter;

impl PerInterpreter {
    /// Counts the memory in use in the main interpreter's heap, in the calling thread's heap and in
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

// SAFETY: all blocks come from the heaps of this process. No two heaps share memory, and a heap
// recognises the addresses that lie in arenas. Only the thread that holds the GIL of an interpreter
// enters that interpreter's heap, so no two threads are inside the same heap at the same time.
unsafe impl Blocks for PerInterpreter {
    type Geometry = ThreadGeometry;

    /// Allocates a block only on a thread that runs the main interpreter, so that this fast path
    /// needs no stack frame. Returns `None` on any other thread. The caller then calls
    /// [`alloc`](Blocks::alloc), which handles all threads.
    #[inline(always)]
    fn alloc_listed(&self, class: SizeClass<ThreadGeometry>) -> Option<BlockPtr> {
        if !main_is_at_hand() {
            return None;
        }
        // SAFETY: the calling thread holds the GIL of the main interpreter. The heap never calls
        // back into this code, so no other reference to the heap exists.
        unsafe { MAIN.heap() }.alloc_listed(class)
    }

    fn alloc(&self, class: SizeClass<ThreadGeometry>) -> Option<BlockPtr> {
        match entry_or_main() {
            // SAFETY: the thread holds the GIL of the entry's interpreter. The heap never calls
            // back into this code, so no other reference to the heap exists.
            Some(entry) => unsafe { entry.heap() }.alloc(class),
            None => PerThread.alloc_listed(class).or_else(|| PerThread.alloc(class)),
        }
    }

    fn trim(&self) {
        match entry() {
            // SAFETY: the thread holds the GIL of the entry's interpreter. The heap never calls
            // back into this code, so no other reference to the heap exists.
            Some(entry) => unsafe { entry.heap() }.flush(),
            None => PerThread.flush(),
        }
    }

    #[inline(always)]
    unsafe fn free(&self, block: BlockPtr) {
        if main_is_at_hand() {
            // SAFETY: the thread holds the GIL of the main interpreter. `block` came from one of
            // these heaps (contract of `free`).
            unsafe { MAIN.heap().free(block) };
        } else {
            // SAFETY: `block` came from one of these heaps and is not used again (contract of
            // `free`).
            unsafe { free_elsewhere(block) };
        }
    }

    #[inline(always)]
    unsafe fn free_if_ours(&self, ptr: NonNull<u8>) -> Option<NonNull<u8>> {
        if !PerThread.holds(ptr.addr().get()) {
            return Some(ptr);
        }
        // SAFETY: `ptr` lies in an arena of one of these heaps. A pointer into such an arena must
        // be a block in use (contract of `free_if_ours`).
        unsafe { self.free(BlockPtr::from_start(ptr)) };
        None
    }

    #[inline(always)]
    unsafe fn size_if_ours(&self, ptr: NonNull<u8>) -> Option<usize> {
        // SAFETY: our caller has promised the same (contract of this function).
        unsafe { PerThread.size_if_ours(ptr) }
    }
}
