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

/// The value of the field `interpreter` in an entry that belongs to no interpreter. No object has
/// this address.
const NO_INTERPRETER: *mut c_void = ptr::without_provenance_mut(1);

/// A table entry that holds an interpreter and its heap. When the interpreter has ended, another
/// interpreter may reuse the entry. Entries are never freed.
pub(super) struct Entry {
    /// The address of the interpreter, or [`NO_INTERPRETER`].
    ///
    /// # Invariant
    ///
    /// If `interpreter` points to an interpreter, `heap` is `Some`. `interpreter` is written only
    /// by a thread that holds the GIL of that interpreter, or by the only thread that is left in
    /// the process.
    interpreter: AtomicPtr<c_void>,
    /// # Invariant
    ///
    /// While the entry has an interpreter, only the thread that holds the interpreter's GIL
    /// accesses `heap`. While the entry has no interpreter, only the thread that claimed the entry
    /// may access `heap`. The entry `MAIN` is never claimed. Only the thread that holds the GIL of
    /// the main interpreter may access the heap of `MAIN`.
    heap: UnsafeCell<Option<OwnedHeap>>,
    /// True if a thread has claimed the entry for an interpreter. While this is true, no other
    /// interpreter can use the entry.
    is_claimed: AtomicBool,
    next: AtomicPtr<Entry>,
}

// SAFETY: only one thread at a time accesses `heap` (invariant of `heap`). All other fields are
// atomics.
unsafe impl Sync for Entry {}

/// The entry of the main interpreter.
pub(super) static MAIN: Entry = Entry::new();

/// The first entry in the list of all interpreters other than the main one. Entries are added to
/// this list, but never removed.
static OTHERS: AtomicPtr<Entry> = AtomicPtr::new(ptr::null_mut());

/// A cache for [`find`], indexed by a hash of the interpreter's address. Each element is the entry
/// that `find` found most recently for an address with that hash.
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

    /// Returns the address of the entry's interpreter. If the entry has no interpreter, returns an
    /// address that no interpreter has.
    #[inline(always)]
    pub(super) fn interpreter(&self) -> *const c_void {
        self.interpreter.load(Relaxed)
    }

    /// Returns true if the entry belongs to the interpreter at this address.
    #[inline(always)]
    pub(super) fn is_of(&self, interpreter: *const c_void) -> bool {
        ptr::eq(self.interpreter(), interpreter)
    }

    /// Returns the heap of the entry's interpreter.
    ///
    /// # Safety
    ///
    /// - The entry must have an interpreter. The calling thread must hold the GIL of that
    ///   interpreter, or be the only thread in CPython.
    /// - The calling thread must not already hold a reference to this heap.
    #[inline(always)]
    #[expect(clippy::mut_from_ref, reason = "the GIL is the lock")]
    pub(super) unsafe fn heap(&self) -> &mut OwnedHeap {
        // SAFETY: the calling thread holds the interpreter's GIL, which keeps other threads out of
        // this heap. The entry has an interpreter (contract), so `heap` is `Some`.
        unsafe { (*self.heap.get()).as_mut().unwrap_unchecked() }
    }

    /// Assigns the entry to `interpreter`, and stores `heap` in the entry.
    ///
    /// # Safety
    ///
    /// - The entry must have no interpreter.
    /// - If the entry is not `MAIN`, the caller must have claimed it.
    /// - The calling thread must hold the GIL of `interpreter`.
    pub(super) unsafe fn assign(&self, interpreter: Interpreter, heap: OwnedHeap) {
        // SAFETY: the entry has no interpreter, and the caller has claimed the entry or holds the
        // GIL of the main interpreter (contract). No other thread may access `heap` then.
        unsafe { *self.heap.get() = Some(heap) };
        // INVARIANT: the heap is `Some`.
        self.interpreter.store(interpreter.as_ptr(), Release);
    }

    /// Removes the heap from the entry and returns it. The entry has no interpreter from then on.
    ///
    /// # Safety
    ///
    /// - The calling thread must hold the GIL of the entry's interpreter, or be the only thread in
    ///   the process.
    pub(super) unsafe fn take(&self) -> Option<OwnedHeap> {
        self.interpreter.store(NO_INTERPRETER, Relaxed);
        // SAFETY: no other thread is inside the heap (contract of `take`).
        unsafe { (*self.heap.get()).take() }
    }

    /// Abandons the entry's heap, and makes the entry available to another interpreter.
    ///
    /// # Safety
    ///
    /// - The calling thread must hold the GIL of the entry's interpreter.
    pub(super) unsafe fn release(&self) {
        // SAFETY: our caller has promised the same (contract of this function).
        drop(unsafe { self.take() });
        self.is_claimed.store(false, Release);
    }
}

/// Returns the entries of all interpreters other than the main one.
pub(super) fn others() -> impl Iterator<Item = &'static Entry> {
    // SAFETY: entries are never freed. The Acquire load makes the initialisation of the entry
    // visible.
    let entry = |place: &AtomicPtr<Entry>| unsafe { place.load(Acquire).as_ref() };
    iter::successors(entry(&OTHERS), move |last| entry(&last.next))
}

/// Returns the entry of the interpreter at this address, or `None` if that interpreter has no heap.
pub(super) fn find(interpreter: *const c_void) -> Option<&'static Entry> {
    if MAIN.is_of(interpreter) {
        return Some(&MAIN);
    }
    // Interpreters are large objects, so the low bits of their addresses hardly differ. The index
    // therefore leaves out these bits.
    let found = &FOUND[interpreter.addr() / 1024 % FOUND.len()];
    // SAFETY: entries are never freed. The Acquire load makes the initialisation of the entry
    // visible.
    let entry = unsafe { found.load(Acquire).as_ref() };
    if entry.is_some_and(|entry| entry.is_of(interpreter)) {
        return entry;
    }
    let entry = others().find(|entry| entry.is_of(interpreter))?;
    found.store(ptr::from_ref(entry).cast_mut(), Release);
    Some(entry)
}

/// Claims an entry that belongs to no interpreter, and returns it. If every entry in the list is
/// claimed, adds a new entry.
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
