//! A heap for each interpreter, from CPython 3.12 on.
//!
//! A thread may call CPython's object allocators only while it holds the GIL of an interpreter. It
//! then allocates from this interpreter's heap, so the GIL also protects the heap. A thread may
//! free a block of another interpreter's heap without holding that interpreter's GIL. The block
//! then waits in a queue until a thread that holds that GIL reclaims it.
//!
//! To find an interpreter's heap, we use the address of the interpreter. After a second
//! `Py_Initialize`, the main interpreter has the same address as before, so it keeps its heap.
//!
//! When a subinterpreter ends, its heap is released for reuse. To notice the end, we store a
//! capsule in the subinterpreter's dictionary. A capsule is a Python object with a destructor in C.
//! CPython destroys the capsule when the subinterpreter ends, and the destructor releases the heap.
//!
//! # Fork
//!
//! A forked child can use a heap only if no other thread was changing the heap during the fork. If
//! the parent had only one thread, the child keeps the heaps of all interpreters. Otherwise, it
//! keeps only the heap of its current interpreter. No other thread can have been changing this
//! heap, because the forking thread held the interpreter's GIL.

mod current;
mod entries;

use std::{
    ffi::{CStr, c_char, c_void},
    iter,
    ptr::{self, NonNull},
    sync::atomic::{AtomicBool, AtomicPtr, Ordering::Relaxed},
};

use obmalloc::{BlockPtr, Blocks, SizeClass, Stats};
use thread_heap::{OwnedHeap, PerThread, ThreadGeometry};

use crate::{
    abi::{CPython, Interpreter, InterpreterFunctions},
    loader,
};
use entries::{Entry, MAIN};

/// The name of the capsule in an interpreter's dictionary, and its key there.
const CAPSULE: &CStr = c"obmalloc.heap";

/// True if the process had only one thread just before the last fork.
static HAD_ONE_THREAD: AtomicBool = AtomicBool::new(false);

/// The address of the C library's variable `__libc_single_threaded`. We look it up once, because
/// the [`loader`] may not be called later.
///
/// # Invariant
///
/// Null, or the address of that variable, which is never unmapped.
static SINGLE_THREADED: AtomicPtr<c_char> = AtomicPtr::new(ptr::null_mut());

/// Stores CPython's functions and handles forks. Must be called before the heap is installed.
pub(crate) fn watch(python: &CPython) {
    current::watch(python);
    // SAFETY: the handle is a pseudo-handle. The symbol is a `char`, so a pointer to one matches
    // it.
    match unsafe { loader::symbol(libc::RTLD_DEFAULT, c"__libc_single_threaded") } {
        // INVARIANT: this is the address of the variable.
        Some(variable) => SINGLE_THREADED.store(variable, Relaxed),
        None => loader::clear_error(),
    }
    // SAFETY: the handlers have the expected types, and this library is never unloaded.
    unsafe { libc::pthread_atfork(Some(before_fork), None, Some(in_child)) };
}

pub(crate) fn main_is_current() -> bool {
    current::interpreter().is_some_and(current::is_main)
}

/// Prepares the heap of the current interpreter, which is about to create its first module.
///
/// # Safety
///
/// - The calling thread must hold the GIL of the current interpreter.
pub(crate) unsafe fn start(python: &CPython) {
    let Some((functions, interpreter)) = current::functions().zip(current::interpreter()) else {
        return;
    };
    if current::is_main(interpreter) {
        // SAFETY: this thread holds the GIL and may release it, because no Python code has run yet.
        unsafe { current::find_offset(python) };
        return;
    }
    // An earlier interpreter at this address left its entry behind if its capsule was never
    // destroyed.
    if let Some(entry) = entry() {
        // SAFETY: this thread holds the GIL of the interpreter at the entry's address, and the
        // interpreter that used the entry before no longer exists.
        unsafe { entry.release() };
    }
    // SAFETY: this thread holds the GIL of `interpreter` (contract of `start`).
    unsafe { open_heap(functions, interpreter) };
}

/// Gives `interpreter` a heap, and stores the capsule that later releases the heap.
///
/// If this fails, the interpreter has no heap, and its threads use their own heaps.
///
/// # Safety
///
/// - `interpreter` must have no heap.
/// - The calling thread must hold the GIL of `interpreter`.
unsafe fn open_heap(functions: &InterpreterFunctions, interpreter: Interpreter) {
    let Some(heap) = OwnedHeap::open() else { return };
    let entry = entries::claim();
    let place: *mut c_void = ptr::from_ref(entry).cast_mut().cast();
    // SAFETY: this thread holds the GIL of `interpreter`, so it may call CPython, and it has
    // claimed the entry. The capsule points to an entry, as its destructor expects.
    unsafe {
        let capsule = (functions.capsule_new)(place, CAPSULE.as_ptr(), end_of_interpreter);
        let dict = (functions.interpreter_dict)(interpreter.as_ptr());
        let failed = capsule.is_null()
            || dict.is_null()
            || (functions.dict_set_item)(dict, CAPSULE.as_ptr(), capsule) != 0;
        // The entry must be assigned before the capsule is released, because the capsule's
        // destructor may release the entry.
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

/// Releases the heap of an interpreter when CPython destroys the interpreter's capsule.
///
/// By then, the interpreter has run its last code.
unsafe extern "C" fn end_of_interpreter(capsule: *mut c_void) {
    let Some(functions) = current::functions() else { return };
    // SAFETY: CPython passes the capsule that it destroys, which has this name.
    let place = unsafe { (functions.capsule_pointer)(capsule, CAPSULE.as_ptr()) };
    // SAFETY: the capsule contains a pointer to an entry, and entries are never freed.
    let Some(entry) = (unsafe { place.cast::<Entry>().as_ref() }) else { return };
    let is_current =
        current::interpreter().is_some_and(|interpreter| entry.is_of(interpreter.as_ptr()));
    // Only a thread that holds the interpreter's GIL may release the interpreter's heap. After a
    // fork, however, CPython may destroy an interpreter on a thread that does not hold this GIL. In
    // that case, we do not release the heap here. If a new interpreter later starts at the same
    // address, the function `start` releases the old heap.
    if is_current {
        // SAFETY: the calling thread holds the interpreter's GIL.
        unsafe { entry.release() };
    }
}

extern "C" fn before_fork() {
    HAD_ONE_THREAD.store(has_one_thread(), Relaxed);
}

/// Gives up every heap that another thread may have been using during the fork.
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

/// Returns true if the process is known to have only one thread. Needs glibc 2.32 or later.
fn has_one_thread() -> bool {
    let variable = SINGLE_THREADED.load(Relaxed);
    // SAFETY: the pointer is null or valid (invariant of `SINGLE_THREADED`). Only glibc writes the
    // variable.
    unsafe { variable.as_ref() }.is_some_and(|single| *single != 0)
}

fn entry() -> Option<&'static Entry> {
    entries::find(current::interpreter()?.as_ptr())
}

/// Returns the current interpreter's entry, after giving the main interpreter a heap if needed.
#[cold]
fn entry_or_main() -> Option<&'static Entry> {
    let interpreter = current::interpreter()?;
    let entry = entries::find(interpreter.as_ptr());
    if entry.is_some() || !current::is_main(interpreter) {
        return entry;
    }
    // This thread's heap already contains the blocks from before the interpreter existed.
    let heap = OwnedHeap::of_this_thread()?;
    // SAFETY: `MAIN` has no interpreter, and this thread holds the main GIL.
    unsafe { MAIN.assign(interpreter, heap) };
    Some(&MAIN)
}

/// Returns true only if this thread holds the main GIL and the main interpreter has a heap.
#[inline(always)]
fn main_is_at_hand() -> bool {
    current::is_at_hand(MAIN.interpreter())
}

/// Allocates a block on a thread for which [`main_is_at_hand`] returns false.
#[cold]
#[inline(never)]
fn alloc_elsewhere(class: SizeClass<ThreadGeometry>) -> Option<BlockPtr> {
    match entry_or_main() {
        // SAFETY: this thread holds the entry's GIL, and the heap never calls back.
        Some(entry) => unsafe { entry.heap() }.alloc(class),
        None => PerThread.alloc_listed(class).or_else(|| PerThread.alloc(class)),
    }
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
        // SAFETY: the thread holds the interpreter's GIL, and `block` may be freed (contract).
        Some(entry) => unsafe { entry.heap().free(block) },
        // SAFETY: our caller has promised the same (contract of this function).
        None => unsafe { PerThread.free(block) },
    }
}

/// The heaps of all interpreters, presented as one.
///
/// Each request goes to the current interpreter's heap if there is one, and otherwise to the
/// thread's own heap.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PerInterpreter;

impl PerInterpreter {
    /// Counts the memory of the main interpreter's heap, this thread's heap and unowned heaps.
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

// SAFETY: every block comes from a heap of this process. A heap recognises the addresses in its
// arenas, and no two heaps share memory. An interpreter's GIL keeps other threads out of its heap.
unsafe impl Blocks for PerInterpreter {
    type Geometry = ThreadGeometry;

    /// Returns `None` outside the main interpreter, so that this fast path needs no stack frame.
    #[inline(always)]
    fn alloc_listed(&self, class: SizeClass<ThreadGeometry>) -> Option<BlockPtr> {
        if !main_is_at_hand() {
            return None;
        }
        // SAFETY: this thread holds the main GIL, and the heap never calls back into this code.
        unsafe { MAIN.heap() }.alloc_listed(class)
    }

    #[inline(always)]
    fn alloc(&self, class: SizeClass<ThreadGeometry>) -> Option<BlockPtr> {
        if main_is_at_hand() {
            // SAFETY: this thread holds the main GIL, and the heap never calls back.
            return unsafe { MAIN.heap() }.alloc(class);
        }
        alloc_elsewhere(class)
    }

    fn alloc_zeroed(&self, class: SizeClass<ThreadGeometry>, bytes: usize) -> Option<BlockPtr> {
        match entry_or_main() {
            // SAFETY: this thread holds the entry's GIL, and the heap never calls back.
            Some(entry) => unsafe { entry.heap() }.alloc_zeroed(class, bytes),
            None => PerThread.alloc_zeroed(class, bytes),
        }
    }

    fn trim(&self) -> usize {
        match entry() {
            // SAFETY: this thread holds the entry's GIL, and the heap never calls back.
            Some(entry) => unsafe { entry.heap() }.flush(),
            None => PerThread.flush(),
        }
    }

    #[inline(always)]
    fn visit(&self) {
        if main_is_at_hand() {
            // SAFETY: this thread holds the main GIL, and the heap never calls back into this code.
            unsafe { MAIN.heap() }.visit();
        }
    }

    #[inline(always)]
    unsafe fn free(&self, block: BlockPtr) {
        if main_is_at_hand() {
            // SAFETY: the thread holds the main GIL, and `block` may be freed (contract of `free`).
            unsafe { MAIN.heap().free(block) };
        } else {
            // SAFETY: `block` came from one of these heaps and is not used again (contract).
            unsafe { free_elsewhere(block) };
        }
    }

    #[inline(always)]
    unsafe fn free_if_ours(&self, ptr: NonNull<u8>) -> Option<NonNull<u8>> {
        if !PerThread.holds(ptr.addr().get()) {
            return Some(ptr);
        }
        // SAFETY: `ptr` lies in an arena of these heaps, so it points to the start of a live block
        // that the caller owns (contract).
        let block = unsafe { BlockPtr::from_start(ptr) };
        if main_is_at_hand() {
            // SAFETY: the thread holds the main GIL. The block came from one of these heaps and is
            // small or a span. The caller gives up the block (contract).
            unsafe { MAIN.heap().free_linked_or_span(block) };
        } else {
            // SAFETY: `block` came from one of these heaps and is not used again (contract).
            unsafe { free_elsewhere(block) };
        }
        None
    }

    #[inline(always)]
    unsafe fn size_if_ours(&self, ptr: NonNull<u8>) -> Option<usize> {
        // SAFETY: our caller has promised the same (contract of this function).
        unsafe { PerThread.size_if_ours(ptr) }
    }
}
