//! The table of interpreters and their heaps.

use std::{
    cell::UnsafeCell,
    ffi::c_void,
    iter, ptr,
    sync::atomic::{
        AtomicBool, AtomicPtr,
        Ordering::{Acquire, Relaxed, Release},
    },
};

use thread_heap::OwnedHeap;

use crate::abi::Interpreter;

/// The interpreter of an entry that serves none. No object has this address.
const NO_INTERPRETER: *mut c_void = ptr::without_provenance_mut(1);

/// An interpreter and its heap. Entries are reused, but never freed.
pub(super) struct Entry {
    /// The interpreter, or [`NO_INTERPRETER`].
    ///
    /// # Invariant
    ///
    /// If it is an interpreter, `heap` is `Some`. It is written under the GIL of that interpreter,
    /// or when only one thread is left.
    interpreter: AtomicPtr<c_void>,
    /// # Invariant
    ///
    /// Accessed only under the GIL of `interpreter`. While the entry has no interpreter, only the
    /// thread that claimed it may access it. `MAIN` needs no claim: the thread that holds the main
    /// GIL may access it.
    heap: UnsafeCell<Option<OwnedHeap>>,
    /// True if a thread has claimed the entry for an interpreter, so that no other one can use it.
    is_claimed: AtomicBool,
    next: AtomicPtr<Entry>,
}

// SAFETY: `heap` is accessed by one thread at a time (its invariant). All other fields are atomics.
unsafe impl Sync for Entry {}

/// The entry of the main interpreter.
pub(super) static MAIN: Entry = Entry::new();

/// The list of the entries of all other interpreters. It only grows.
static OTHERS: AtomicPtr<Entry> = AtomicPtr::new(ptr::null_mut());

/// For each hash of an interpreter's address, the entry that was found most recently.
static FOUND: [AtomicPtr<Entry>; 64] = [const { AtomicPtr::new(ptr::null_mut()) }; 64];

impl Entry {
    const fn new() -> Self {
        Self {
            interpreter: AtomicPtr::new(NO_INTERPRETER),
            heap: UnsafeCell::new(None),
            is_claimed: AtomicBool::new(false),
            next: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// Returns true if the entry has an interpreter, and therefore a heap.
    pub(super) fn has_heap(&self) -> bool {
        !self.is_of(NO_INTERPRETER)
    }

    /// Returns the address of the interpreter, or one that no interpreter has.
    #[inline(always)]
    pub(super) fn interpreter(&self) -> *const c_void {
        self.interpreter.load(Relaxed)
    }

    /// Returns true if the entry belongs to the interpreter at this address.
    #[inline(always)]
    pub(super) fn is_of(&self, interpreter: *const c_void) -> bool {
        ptr::eq(self.interpreter(), interpreter)
    }

    /// Returns the heap.
    ///
    /// # Safety
    ///
    /// - The entry must have an interpreter, and the calling thread must hold its GIL or be the
    ///   only thread in CPython.
    /// - The calling thread must not have the heap borrowed already.
    #[inline(always)]
    #[expect(clippy::mut_from_ref, reason = "the GIL is the lock")]
    pub(super) unsafe fn heap(&self) -> &mut OwnedHeap {
        // SAFETY: the GIL keeps other threads out. An entry with an interpreter has a heap.
        unsafe { (*self.heap.get()).as_mut().unwrap_unchecked() }
    }

    /// Assigns the entry to `interpreter`, with a heap.
    ///
    /// # Safety
    ///
    /// - The entry must have no interpreter. Unless it is `MAIN`, the caller must have claimed it.
    /// - The calling thread must hold the GIL of `interpreter`.
    pub(super) unsafe fn assign(&self, interpreter: Interpreter, heap: OwnedHeap) {
        // SAFETY: the entry has no interpreter, so only the caller may access it (contract).
        unsafe { *self.heap.get() = Some(heap) };
        // INVARIANT: the heap is `Some`.
        self.interpreter.store(interpreter.as_ptr(), Release);
    }

    /// Takes the heap away from the interpreter, which has none from now on.
    ///
    /// # Safety
    ///
    /// - The calling thread must hold the GIL of the entry's interpreter, or be the only thread.
    pub(super) unsafe fn take(&self) -> Option<OwnedHeap> {
        self.interpreter.store(NO_INTERPRETER, Relaxed);
        // SAFETY: no other thread is inside (contract of `take`).
        unsafe { (*self.heap.get()).take() }
    }

    /// Abandons the heap and lets another interpreter claim the entry.
    ///
    /// # Safety
    ///
    /// - The calling thread must hold the GIL of the entry's interpreter.
    pub(super) unsafe fn release(&self) {
        // SAFETY: the contract is the same.
        drop(unsafe { self.take() });
        self.is_claimed.store(false, Release);
    }
}

/// Returns the entries of all interpreters other than the main one.
pub(super) fn others() -> impl Iterator<Item = &'static Entry> {
    // SAFETY: entries are never freed. Acquire makes their initialisation visible.
    let entry = |place: &AtomicPtr<Entry>| unsafe { place.load(Acquire).as_ref() };
    iter::successors(entry(&OTHERS), move |last| entry(&last.next))
}

/// Returns the entry of the interpreter at this address, if it has a heap.
pub(super) fn find(interpreter: *const c_void) -> Option<&'static Entry> {
    if MAIN.is_of(interpreter) {
        return Some(&MAIN);
    }
    // Interpreters are large objects, so the low bits of their addresses differ little.
    let found = &FOUND[interpreter.addr() / 1024 % FOUND.len()];
    // SAFETY: entries are never freed. Acquire makes their initialisation visible.
    let entry = unsafe { found.load(Acquire).as_ref() };
    if entry.is_some_and(|entry| entry.is_of(interpreter)) {
        return entry;
    }
    let entry = others().find(|entry| entry.is_of(interpreter))?;
    found.store(ptr::from_ref(entry).cast_mut(), Release);
    Some(entry)
}

/// Claims an entry without an interpreter, which is created if there is none.
pub(super) fn claim() -> &'static Entry {
    let claims = |entry: &&Entry| {
        !entry.is_claimed.load(Relaxed)
            && entry.is_claimed.compare_exchange(false, true, Acquire, Relaxed).is_ok()
    };
    if let Some(entry) = others().find(claims) {
        return entry;
    }
    let entry: &'static Entry = Box::leak(Box::new(Entry::new()));
    entry.is_claimed.store(true, Relaxed);
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
