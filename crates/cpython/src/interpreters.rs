//! A heap for each interpreter, from CPython 3.12 on.
//!
//! ```text
//!   main interpreter   every thread that holds its GIL ──► one heap
//!   interpreter B      every thread that holds its GIL ──► another heap, from `_imp` to its end
//!   no interpreter     PyMem_Malloc without a GIL, the first requests of B ──► the thread's own heap
//! ```
//!
//! CPython allows a call into the domains mem and obj only under the GIL of the calling thread's
//! interpreter, so whoever holds that GIL may enter the interpreter's heap. A block that one thread
//! allocated and another frees goes straight back to its pool, and no memory waits for an idle
//! thread. A thread that switches interpreters switches heaps with them.
//!
//! A block that is freed under another GIL, or without one, travels to its heap through that heap's
//! inbox. CPython's own allocator would corrupt its memory there.
//!
//! The main interpreter gets its heap at its first slow request and keeps it for the life of the
//! process, because its address does not change, not even in a second `Py_Initialize`. Any other
//! interpreter gets a heap when it creates its first module. When such an interpreter ends, a
//! capsule in its own dictionary abandons the heap. Blocks that the interpreter frees afterwards
//! are sent to the abandoned heap.
//!
//! # Fork
//!
//! The forking thread holds the GIL of one interpreter at most, whose heap is consistent in the
//! child. Other threads may have been inside the other heaps, so the child gives those up, unless
//! the process had one thread only.

mod current;

use std::{
    cell::UnsafeCell,
    ffi::{CStr, c_char, c_void},
    iter,
    ptr::{self, NonNull},
    sync::atomic::{
        AtomicBool, AtomicPtr,
        Ordering::{Acquire, Relaxed, Release},
    },
};

use obmalloc::{BlockPtr, Blocks, SizeClass, Stats};
use thread_heap::{OwnedHeap, PerThread, ThreadGeometry};

use crate::abi::{CPython, InterpreterFunctions};
use current::Interpreter;

/// The name of the capsule, and its key in an interpreter's dictionary.
const CAPSULE: &CStr = c"obmalloc.heap";

/// The interpreter of an entry that serves none. No object is at this address.
const NO_INTERPRETER: *mut c_void = ptr::without_provenance_mut(1);

/// An interpreter and its heap. Entries are never freed, but they are reused.
struct Entry {
    /// The interpreter, or [`NO_INTERPRETER`].
    ///
    /// # Invariant
    ///
    /// If it is an interpreter, `heap` is some. Written under the GIL of that interpreter, or where
    /// only one thread is left.
    interpreter: AtomicPtr<c_void>,
    /// # Invariant
    ///
    /// Accessed only under the GIL of `interpreter`. While the entry has no interpreter, only the
    /// thread that claimed it may access it, or for `MAIN` the thread that holds the main GIL.
    heap: UnsafeCell<Option<OwnedHeap>>,
    /// True if a thread has claimed the entry for an interpreter, so that no other one can use it.
    claimed: AtomicBool,
    next: AtomicPtr<Entry>,
}

// SAFETY: the invariant of `heap`; everything else is atomics.
unsafe impl Sync for Entry {}

/// The main interpreter's.
static MAIN: Entry = Entry::new();

/// The head of the list of entries of the other interpreters. The list only grows.
static OTHERS: AtomicPtr<Entry> = AtomicPtr::new(ptr::null_mut());

/// The entry that was found most recently for each hash of an interpreter's address.
static FOUND: [AtomicPtr<Entry>; 64] = [const { AtomicPtr::new(ptr::null_mut()) }; 64];

impl Entry {
    const fn new() -> Self {
        Self {
            interpreter: AtomicPtr::new(NO_INTERPRETER),
            heap: UnsafeCell::new(None),
            claimed: AtomicBool::new(false),
            next: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// Enters the heap.
    ///
    /// # Safety
    ///
    /// The calling thread holds the GIL of this entry's interpreter, and is not inside already.
    #[inline(always)]
    #[expect(clippy::mut_from_ref, reason = "the GIL is the lock")]
    unsafe fn heap(&self) -> &mut OwnedHeap {
        // SAFETY: the GIL keeps other threads out; the entry has an interpreter, so it has a heap.
        unsafe { (*self.heap.get()).as_mut().unwrap_unchecked() }
    }

    /// Returns true if the entry is `interpreter`'s.
    #[inline(always)]
    fn is_of(&self, interpreter: *const c_void) -> bool {
        ptr::eq(self.interpreter.load(Relaxed), interpreter)
    }

    /// Gives the entry to `interpreter`, with a heap.
    ///
    /// # Safety
    ///
    /// - The entry has no interpreter. The caller has claimed it, unless it is `MAIN`.
    /// - The caller holds the GIL of `interpreter`.
    unsafe fn begin(&self, interpreter: Interpreter, heap: OwnedHeap) {
        // SAFETY: the entry has no interpreter, so only the caller may access it (contract).
        unsafe { *self.heap.get() = Some(heap) };
        // INVARIANT: the heap is there.
        self.interpreter.store(interpreter.as_ptr(), Release);
    }

    /// Takes the heap away from the interpreter, which has none from now on.
    ///
    /// # Safety
    ///
    /// The caller holds the GIL of the entry's interpreter, or is the only thread.
    unsafe fn end(&self) -> Option<OwnedHeap> {
        self.interpreter.store(NO_INTERPRETER, Relaxed);
        // SAFETY: the caller's promise: nobody else is inside.
        unsafe { (*self.heap.get()).take() }
    }

    /// Lets another interpreter claim the entry.
    fn unclaim(&self) {
        self.claimed.store(false, Release);
    }
}

/// The entries of interpreters other than the main one.
fn others() -> impl Iterator<Item = &'static Entry> {
    // SAFETY: entries live forever, and the Acquire sees one as it was before it was linked.
    let entry = |place: &AtomicPtr<Entry>| unsafe { place.load(Acquire).as_ref() };
    iter::successors(entry(&OTHERS), move |last| entry(&last.next))
}

/// Claims an entry without an interpreter for the caller: an existing one, or else a new one.
fn claim() -> &'static Entry {
    let is_free = |entry: &&Entry| {
        !entry.claimed.load(Relaxed)
            && entry.claimed.compare_exchange(false, true, Acquire, Relaxed).is_ok()
    };
    if let Some(entry) = others().find(is_free) {
        return entry;
    }
    let entry: &'static Entry = Box::leak(Box::new(Entry::new()));
    entry.claimed.store(true, Relaxed);
    let mut first = OTHERS.load(Relaxed);
    loop {
        entry.next.store(first, Relaxed);
        let place = ptr::from_ref(entry).cast_mut();
        match OTHERS.compare_exchange_weak(first, place, Release, Relaxed) {
            Ok(_) => return entry,
            Err(now) => first = now,
        }
    }
}

/// Returns true if the calling thread runs the main interpreter and that interpreter has a heap.
/// May return false even then, as long as [`current`] has no fast way to tell.
#[inline(always)]
fn main_is_at_hand() -> bool {
    current::is_at_hand(MAIN.interpreter.load(Relaxed))
}

/// The entry of the calling thread's current interpreter, if that interpreter has a heap.
fn entry() -> Option<&'static Entry> {
    let interpreter = current::interpreter()?.as_ptr();
    if MAIN.is_of(interpreter) {
        return Some(&MAIN);
    }
    // Interpreters are large objects, so the low bits of their addresses tell little.
    let hash = interpreter.addr() / 1024 % FOUND.len();
    // SAFETY: an entry lives forever, and the Acquire sees it as it was before it was stored.
    let found = unsafe { FOUND[hash].load(Acquire).as_ref() };
    if found.is_some_and(|entry| entry.is_of(interpreter)) {
        return found;
    }
    let entry = others().find(|entry| entry.is_of(interpreter))?;
    FOUND[hash].store(ptr::from_ref(entry).cast_mut(), Release);
    Some(entry)
}

/// As [`entry`], and gives the main interpreter its heap if it has none.
#[cold]
fn entry_or_main() -> Option<&'static Entry> {
    let entry = entry();
    if entry.is_some() {
        return entry;
    }
    let interpreter = current::interpreter()?;
    if !current::is_main(interpreter) {
        return None;
    }
    // What the thread allocated before it had an interpreter is the main interpreter's, too.
    let heap = OwnedHeap::of_this_thread()?;
    // SAFETY: `MAIN` has no interpreter, and this thread holds the main GIL, so nobody else is here.
    unsafe { MAIN.begin(interpreter, heap) };
    Some(&MAIN)
}

/// Frees a block for a thread that does not run the main interpreter, as far as is known.
///
/// # Safety
///
/// `block` came from one of these heaps, and nobody uses it any more.
#[cold]
#[inline(never)]
unsafe fn free_elsewhere(block: BlockPtr) {
    match entry() {
        // SAFETY: the calling thread holds the GIL of the entry's interpreter; the rest is the
        // caller's promise.
        Some(entry) => unsafe { entry.heap().free(block) },
        // SAFETY: the caller's promise.
        None => unsafe { PerThread.free(block) },
    }
}

/// Returns true if the calling thread holds the GIL of the main interpreter.
pub(crate) fn main_is_current() -> bool {
    current::interpreter().is_some_and(current::is_main)
}

/// Prepares for the interpreters of `python`. Must be called before the heap is installed.
pub(crate) fn watch(python: &CPython) {
    current::watch(python);
    // SAFETY: the handlers take no arguments, return, and stay while this code is loaded.
    unsafe { libc::pthread_atfork(Some(before_fork), None, Some(in_child)) };
}

/// Notices that an interpreter makes its first module.
///
/// # Safety
///
/// The calling thread holds the GIL of that interpreter.
pub(crate) unsafe fn begin(python: &CPython) {
    let Some((functions, interpreter)) = current::functions().zip(current::interpreter()) else {
        return;
    };
    if current::is_main(interpreter) {
        // SAFETY: the caller's promise; the interpreter has not imported anything, so this is the
        // only thread that runs Python code.
        unsafe { current::find_offset(python) };
    } else {
        // An interpreter that ended without its capsule's destructor has left its entry behind, and
        // this one has the same address.
        if let Some(entry) = entry() {
            // SAFETY: this thread holds the interpreter's GIL, and the other interpreter is gone.
            drop(unsafe { entry.end() });
            entry.unclaim();
        }
        // SAFETY: the caller's promise.
        unsafe { begin_other(functions, interpreter) };
    }
}

/// Gives an interpreter a heap, which is abandoned when its dictionary is cleared. If there is no
/// memory for the heap or the capsule, the interpreter uses the heaps of its threads.
///
/// # Safety
///
/// The calling thread holds the GIL of `interpreter`, which has no heap.
unsafe fn begin_other(functions: &InterpreterFunctions, interpreter: Interpreter) {
    let Some(heap) = OwnedHeap::open() else { return };
    let entry = claim();
    let place: *mut c_void = ptr::from_ref(entry).cast_mut().cast();
    // SAFETY: the interpreter is current, and the capsule's destructor knows what the pointer is.
    unsafe {
        let capsule = (functions.capsule_new)(place, CAPSULE.as_ptr(), end_of_interpreter);
        let dict = (functions.interpreter_dict)(interpreter.as_ptr());
        let failed = capsule.is_null()
            || dict.is_null()
            || (functions.dict_set_item)(dict, CAPSULE.as_ptr(), capsule) != 0;
        // From here on the heap serves. If the dictionary does not hold the capsule, its destructor
        // takes the heap away again at once.
        entry.begin(interpreter, heap);
        if failed {
            (functions.clear_error)();
        }
        if capsule.is_null() {
            drop(entry.end());
            entry.unclaim();
        } else {
            (functions.release)(capsule);
        }
    }
}

/// The destructor of an interpreter's capsule: the interpreter has run its last code, and is being
/// cleared.
unsafe extern "C" fn end_of_interpreter(capsule: *mut c_void) {
    let Some(functions) = current::functions() else { return };
    // SAFETY: CPython passes the capsule, which has that name.
    let place = unsafe { (functions.capsule_pointer)(capsule, CAPSULE.as_ptr()) };
    // SAFETY: the pointer is an entry, which lives forever.
    let Some(entry) = (unsafe { place.cast::<Entry>().as_ref() }) else { return };
    let is_current =
        current::interpreter().is_some_and(|interpreter| entry.is_of(interpreter.as_ptr()));
    // In the child of a fork CPython clears interpreters that it does not run. Their entries stay,
    // without a heap unless the process had one thread, until an interpreter has the same address.
    if is_current {
        // SAFETY: the calling thread holds the interpreter's GIL.
        drop(unsafe { entry.end() });
        entry.unclaim();
    }
}

/// The process had one thread when it forked, as far as the C library knows.
static ONE_THREAD: AtomicBool = AtomicBool::new(false);

extern "C" fn before_fork() {
    ONE_THREAD.store(has_one_thread(), Relaxed);
}

/// Gives up the heaps in which another thread may have been.
extern "C" fn in_child() {
    if ONE_THREAD.load(Relaxed) {
        return;
    }
    let here = current::interpreter().map_or(ptr::null_mut(), NonNull::as_ptr);
    for entry in iter::once(&MAIN).chain(others()) {
        if !entry.is_of(here) {
            // SAFETY: the child of a fork has this thread only.
            if let Some(heap) = unsafe { entry.end() } {
                heap.lose();
            }
        }
    }
}

/// Returns true if the C library knows that the process has only one thread. glibc 2.32 and later
/// can tell; otherwise the function returns false.
fn has_one_thread() -> bool {
    // SAFETY: the name is a C string.
    let variable = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"__libc_single_threaded".as_ptr()) };
    // SAFETY: null, or glibc's variable of type `char`, which only the C library writes.
    unsafe { variable.cast::<c_char>().as_ref() }.is_some_and(|single| *single != 0)
}

/// The heaps of the interpreters, as one heap: a request goes to the heap of the interpreter whose
/// GIL the calling thread holds, and without one to the calling thread's own heap.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PerInterpreter;

impl PerInterpreter {
    /// Counts what is in use in the main interpreter's heap, in the calling thread's heap and in
    /// abandoned ones.
    ///
    /// # Safety
    ///
    /// The calling thread holds the GIL of the main interpreter, or no interpreter runs.
    pub(crate) unsafe fn stats(self) -> Stats {
        // SAFETY: the caller's promise.
        match unsafe { &mut *MAIN.heap.get() } {
            Some(heap) => heap.stats_of_all().total,
            None => PerThread.stats_of_all().total,
        }
    }
}

// SAFETY: all blocks are of one family of heaps, which keeps them apart from each other and knows
// their arenas; the GIL of an interpreter lets one thread at a time into its heap.
unsafe impl Blocks for PerInterpreter {
    type Geometry = ThreadGeometry;

    /// Serves the main interpreter only. All others ask [`alloc`](Blocks::alloc), so that the path of
    /// the main one needs no stack frame.
    #[inline(always)]
    fn alloc_listed(&self, class: SizeClass<ThreadGeometry>) -> Option<BlockPtr> {
        if !main_is_at_hand() {
            return None;
        }
        // SAFETY: the calling thread holds the GIL of the entry's interpreter, and the heap calls
        // nothing that comes back here.
        unsafe { MAIN.heap() }.alloc_listed(class)
    }

    fn alloc(&self, class: SizeClass<ThreadGeometry>) -> Option<BlockPtr> {
        match entry_or_main() {
            // SAFETY: as above.
            Some(entry) => unsafe { entry.heap() }.alloc(class),
            None => PerThread.alloc_listed(class).or_else(|| PerThread.alloc(class)),
        }
    }

    fn trim(&self) {
        match entry() {
            // SAFETY: as above.
            Some(entry) => unsafe { entry.heap() }.flush(),
            None => PerThread.flush(),
        }
    }

    #[inline(always)]
    unsafe fn free(&self, block: BlockPtr) {
        if main_is_at_hand() {
            // SAFETY: as above; the block is given up, as the caller promises.
            unsafe { MAIN.heap().free(block) };
        } else {
            // SAFETY: the caller's promise.
            unsafe { free_elsewhere(block) };
        }
    }

    #[inline(always)]
    unsafe fn free_if_ours(&self, ptr: NonNull<u8>) -> Option<NonNull<u8>> {
        if !PerThread.holds(ptr.addr().get()) {
            return Some(ptr);
        }
        // SAFETY: it is in an arena of ours, so it is a block, which the caller gives up.
        unsafe { self.free(BlockPtr::from_start(ptr)) };
        None
    }

    #[inline(always)]
    unsafe fn size_if_ours(&self, ptr: NonNull<u8>) -> Option<usize> {
        // SAFETY: the caller's promise.
        unsafe { PerThread.size_if_ours(ptr) }
    }
}
