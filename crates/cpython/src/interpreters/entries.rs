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

/// Marks an entry without an interpreter. No object has this address.
const NO_INTERPRETER: *mut c_void = ptr::without_provenance_mut(1);

/// An interpreter and its heap. A later interpreter can reuse the entry, which is never freed.
pub(super) struct Entry {
    /// The address of the interpreter, or [`NO_INTERPRETER`].
    ///
    /// # Invariant
    ///
    /// If this field contains the address of an interpreter, the field `heap` is `Some`. Only a
    /// thread that holds this interpreter's GIL may store or remove the address, unless the process
    /// has only one thread.
    interpreter: AtomicPtr<c_void>,
    /// # Invariant
    ///
    /// Only one thread at a time may access `heap`:
    ///
    /// | entry | thread that may access `heap` |
    /// | --- | --- |
    /// | an entry with an interpreter | the thread that holds the interpreter's GIL |
    /// | [`MAIN`] without an interpreter | the thread that holds the main GIL |
    /// | another entry without an interpreter | the thread that has claimed the entry |
    ///
    /// If only one thread uses CPython, that thread may access `heap` in every entry.
    heap: UnsafeCell<Option<OwnedHeap>>,
    /// True if the entry is reserved for one interpreter.
    is_claimed: AtomicBool,
    next: AtomicPtr<Entry>,
}

// SAFETY: only one thread at a time accesses `heap` (invariant). All other fields are atomics.
unsafe impl Sync for Entry {}

pub(super) static MAIN: Entry = Entry::new();

/// The list of the entries of all other interpreters. Entries are never removed.
static OTHERS: AtomicPtr<Entry> = AtomicPtr::new(ptr::null_mut());

/// A cache for [`find`]. For each hash of an address, it contains the entry that was found last.
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

    pub(super) fn has_heap(&self) -> bool {
        !self.is_of(NO_INTERPRETER)
    }

    /// Returns the address of the entry's interpreter, or an address that no interpreter has.
    #[inline(always)]
    pub(super) fn interpreter(&self) -> *const c_void {
        self.interpreter.load(Relaxed)
    }

    #[inline(always)]
    pub(super) fn is_of(&self, interpreter: *const c_void) -> bool {
        ptr::eq(self.interpreter(), interpreter)
    }

    /// Returns the heap of the entry's interpreter.
    ///
    /// # Safety
    ///
    /// - An interpreter must have been assigned to this entry with [`assign`](Self::assign).
    /// - The calling thread must hold the GIL of that interpreter, or be the only thread that uses
    ///   CPython.
    /// - The calling thread must not already hold a reference to the interpreter's heap.
    #[inline(always)]
    #[expect(clippy::mut_from_ref, reason = "the GIL is the lock")]
    pub(super) unsafe fn heap(&self) -> &mut OwnedHeap {
        // SAFETY: this thread has sole access (contract), and an entry with an interpreter has a
        // heap.
        unsafe { (*self.heap.get()).as_mut().unwrap_unchecked() }
    }

    /// Assigns the entry to `interpreter`, which uses `heap` from then on.
    ///
    /// # Safety
    ///
    /// - No interpreter may be assigned to this entry yet.
    /// - The calling thread must have reserved the entry with [`claim`], unless the entry is
    ///   `MAIN`, which always belongs to the main interpreter.
    /// - The calling thread must hold the GIL of `interpreter`.
    pub(super) unsafe fn assign(&self, interpreter: Interpreter, heap: OwnedHeap) {
        // SAFETY: the entry has no interpreter, so only this thread may access `heap` (contract).
        unsafe { *self.heap.get() = Some(heap) };
        // INVARIANT: the heap is `Some`.
        self.interpreter.store(interpreter.as_ptr(), Release);
    }

    /// Removes the heap and the interpreter from the entry, and returns the heap.
    ///
    /// # Safety
    ///
    /// - The calling thread must hold the interpreter's GIL, or be the only thread in the process.
    pub(super) unsafe fn take(&self) -> Option<OwnedHeap> {
        self.interpreter.store(NO_INTERPRETER, Relaxed);
        // SAFETY: no other thread is inside the heap (contract of `take`).
        unsafe { (*self.heap.get()).take() }
    }

    /// Releases the entry's heap for reuse, and makes the entry available to another interpreter.
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

pub(super) fn others() -> impl Iterator<Item = &'static Entry> {
    // SAFETY: entries are never freed. The Acquire load makes their initialisation visible.
    let entry = |place: &AtomicPtr<Entry>| unsafe { place.load(Acquire).as_ref() };
    iter::successors(entry(&OTHERS), move |last| entry(&last.next))
}

pub(super) fn find(interpreter: *const c_void) -> Option<&'static Entry> {
    if MAIN.is_of(interpreter) {
        return Some(&MAIN);
    }
    // Interpreters are large objects, so the low bits of their addresses carry little information.
    let found = &FOUND[interpreter.addr() / 1024 % FOUND.len()];
    // SAFETY: entries are never freed. The Acquire load makes their initialisation visible.
    let entry = unsafe { found.load(Acquire).as_ref() };
    if entry.is_some_and(|entry| entry.is_of(interpreter)) {
        return entry;
    }
    let entry = others().find(|entry| entry.is_of(interpreter))?;
    found.store(ptr::from_ref(entry).cast_mut(), Release);
    Some(entry)
}

/// Claims an unused entry of the list, or adds a new one.
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
