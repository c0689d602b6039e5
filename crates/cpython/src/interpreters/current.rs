//! Finds the interpreter that the calling thread is running.
//!
//! A thread's current thread state tells us which GIL the thread holds: CPython sets the thread
//! state only after it has taken the GIL of that state's interpreter, and clears it before it
//! releases this GIL. (Source: `_PyThreadState_Attach` and `detach_thread` in CPython's
//! `Python/pystate.c`, and in 3.12 `PyEval_RestoreThread` and `PyEval_SaveThread`.) The only
//! exception is `PyThreadState_Swap` in CPython 3.12, which sets the thread state before it takes
//! the GIL. If CPython's finalization ends the thread at this point, the destructors of the
//! thread's thread-local variables run without the GIL, so they must not call CPython's allocators.
//!
//! ```text
//!   fs:[offset] ─► thread state ─► │ prev │ next │ interp │ …     the same from 3.12 to 3.15
//! ```
//!
//! CPython stores a pointer to the current thread state in a thread-local variable. We read this
//! variable directly, because calling CPython's public function is much slower. CPython exports no
//! symbol for the variable, so we search for its address once.

use std::{
    ffi::c_void,
    ptr::{self, NonNull},
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
};

use crate::{
    abi::{CPython, Interpreter, InterpreterFunctions},
    loader,
};

/// The position of the interpreter's address in a thread state, in words. [`layout_holds`] checks
/// it.
///
/// CPython: `struct _ts` in `Include/cpython/pystate.h`, 3.12 to 3.15.
const WORDS_BEFORE_INTERPRETER: usize = 2;

static FUNCTIONS: OnceLock<InterpreterFunctions> = OnceLock::new();

static LAYOUT_HOLDS: AtomicBool = AtomicBool::new(false);

/// The distance from the thread pointer to CPython's variable for the current thread state, in
/// bytes.
///
/// # Invariant
///
/// `OFFSET` is 0 until we have found the thread-local variable in which CPython stores the current
/// thread state. From then on, `OFFSET` is the distance in bytes from the thread pointer to that
/// variable.
///
/// We set `OFFSET` only after [`layout_holds`] has confirmed that the third word of a thread state
/// is the address of its interpreter. The function [`is_at_hand`] relies on this layout.
///
/// The function [`is_at_hand`] does not test whether `OFFSET` is still 0. If it is, the function
/// reads the word at the thread pointer instead of CPython's variable. That word is the first one
/// of the C library's control block for the thread, and contains the address of the control block
/// itself. The function therefore mistakes the control block for a thread state. It compares the
/// block's third word with the address of an interpreter, and returns false, because the two are
/// never equal.
static OFFSET: AtomicUsize = AtomicUsize::new(0);

/// Stores CPython's functions for interpreters. Must be called before the heap is installed.
pub(super) fn watch(python: &CPython) {
    if let Some(functions) = python.interpreters {
        FUNCTIONS.get_or_init(|| functions);
    }
}

pub(super) fn functions() -> Option<&'static InterpreterFunctions> {
    FUNCTIONS.get()
}

/// Returns true if the calling thread holds the GIL of `interpreter`, without calling CPython.
///
/// The result is always false until [`find_offset`] succeeds.
#[inline(always)]
pub(super) fn is_at_hand(interpreter: *const c_void) -> bool {
    let state = word::at(OFFSET.load(Relaxed));
    // SAFETY: a thread state and a thread's control block both have more than three words.
    !state.is_null() && unsafe { *state.add(WORDS_BEFORE_INTERPRETER) } == interpreter
}

/// Asks CPython for the interpreter whose GIL the calling thread holds.
pub(super) fn interpreter() -> Option<Interpreter> {
    let functions = functions()?;
    // SAFETY: the function may be called at any time.
    let state = NonNull::new(unsafe { (functions.current_state)() })?;
    if !LAYOUT_HOLDS.load(Relaxed) && !layout_holds(functions, state) {
        return None;
    }
    // SAFETY: the current thread state is live, and its layout is verified.
    NonNull::new(unsafe { *interpreter_of(state) })
}

pub(super) fn is_main(interpreter: Interpreter) -> bool {
    // SAFETY: the function returns an address, and may be called at any time.
    functions()
        .is_some_and(|functions| interpreter.as_ptr() == unsafe { (functions.main_interpreter)() })
}

fn interpreter_of(state: NonNull<c_void>) -> *const *mut c_void {
    state.as_ptr().cast::<*mut c_void>().wrapping_add(WORDS_BEFORE_INTERPRETER).cast_const()
}

#[cold]
fn layout_holds(functions: &InterpreterFunctions, state: NonNull<c_void>) -> bool {
    // SAFETY: the state is the calling thread's current one.
    let reported = unsafe { (functions.interpreter_of)(state.as_ptr()) };
    // SAFETY: a thread state has more than three words in every supported version.
    let holds = unsafe { *interpreter_of(state) } == reported;
    LAYOUT_HOLDS.store(holds, Relaxed);
    holds
}

/// Looks for the variable that holds the current thread state, and sets [`OFFSET`].
///
/// The function releases the GIL for a moment, so call it only while no other thread runs Python
/// code.
///
/// The function searches only the thread-local variables of the calling thread, but the offset that
/// it finds is valid for all threads. CPython was loaded before `main`, so its thread-local
/// variables use static TLS. In static TLS, a variable has the same offset from the thread pointer
/// in every thread.
///
/// # Safety
///
/// - The calling thread must hold the GIL.
/// - The caller must allow this function to release it temporarily.
pub(super) unsafe fn find_offset(python: &CPython) {
    let Some(functions) = functions() else { return };
    if !word::CAN_BE_READ || OFFSET.load(Relaxed) != 0 {
        return;
    }
    // SAFETY: the function may be called at any time.
    let state = unsafe { (functions.current_state)() };
    // `is_at_hand` relies on the layout of thread states: the third word must point to the
    // interpreter.
    if !NonNull::new(state).is_some_and(|state| layout_holds(functions, state)) {
        return;
    }
    let without_gil = |look: &mut dyn FnMut()| {
        // SAFETY: the thread may release the GIL (contract), and restores the saved state.
        unsafe {
            let saved = (functions.save_thread)();
            look();
            (functions.restore_thread)(saved);
        }
    };
    if let Some(word) = Locals::of(python.code_address()).find(state, without_gil) {
        // INVARIANT: the word is CPython's pointer to the current state.
        OFFSET.store(word.address().wrapping_sub(word::thread_pointer()), Relaxed);
    }
}

/// The calling thread's copy of the thread-locals of a program or library.
struct Locals {
    start: *const *mut c_void,
    words: usize,
}

/// One word of [`Locals`]. CPython may write it at any time.
#[derive(Clone, Copy)]
struct Word(*const *mut c_void);

impl Locals {
    const NONE: Self = Self { start: ptr::null(), words: 0 };

    fn of(code: *const c_void) -> Self {
        let found = loader::look_at_object(code, |info, headers| {
            let locals = headers.iter().find(|header| header.p_type == libc::PT_TLS)?;
            let start = info.dlpi_tls_data.cast_const().cast::<*mut c_void>();
            let words = locals.p_memsz as usize / size_of::<*mut c_void>();
            (!start.is_null() && start.is_aligned()).then_some(Self { start, words })
        });
        found.flatten().unwrap_or(Self::NONE)
    }

    /// Finds the only word that equals `state` under the GIL and is null without it.
    ///
    /// `without_gil` must release the GIL, call its argument, and take the GIL again.
    fn find(&self, state: *mut c_void, without_gil: impl FnOnce(&mut dyn FnMut())) -> Option<Word> {
        let mut candidates: Vec<_> = self.words().filter(|word| word.read() == state).collect();
        without_gil(&mut || candidates.retain(|word| word.read().is_null()));
        candidates.retain(|word| word.read() == state);
        match candidates[..] {
            [word] => Some(word),
            _ => None,
        }
    }

    fn words(&self) -> impl Iterator<Item = Word> {
        (0..self.words).map(|nth| Word(self.start.wrapping_add(nth)))
    }
}

impl Word {
    fn read(self) -> *mut c_void {
        // The read is volatile, because CPython changes the word without the compiler's knowledge.
        // SAFETY: the word is aligned and inside the calling thread's thread-locals.
        unsafe { self.0.read_volatile() }
    }

    fn address(self) -> usize {
        self.0.addr()
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod word {
    use std::{arch::asm, ffi::c_void};

    pub(super) const CAN_BE_READ: bool = true;

    /// Reads the word that is `offset` bytes from the thread pointer.
    #[inline(always)]
    pub(super) fn at(offset: usize) -> *const *const c_void {
        let word;
        // SAFETY: the word is static TLS or in the control block (invariant of `OFFSET`).
        unsafe {
            asm!(
                "mov {word}, qword ptr fs:[{offset}]",
                word = out(reg) word,
                offset = in(reg) offset,
                options(pure, readonly, nostack, preserves_flags)
            );
        }
        word
    }

    /// Returns the address of the thread's control block.
    pub(super) fn thread_pointer() -> usize {
        at(0).addr()
    }
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
mod word {
    use std::{ffi::c_void, ptr};

    pub(super) const CAN_BE_READ: bool = false;

    pub(super) fn at(_offset: usize) -> *const *const c_void {
        ptr::null()
    }

    pub(super) fn thread_pointer() -> usize {
        0
    }
}

#[cfg(all(test, target_arch = "x86_64", target_os = "linux"))]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        static CURRENT: Cell<*mut c_void> = const { Cell::new(ptr::null_mut()) };
        static ALIKE: Cell<*mut c_void> = const { Cell::new(ptr::null_mut()) };
    }

    fn find(state: *mut c_void, others_change: bool) -> Option<Word> {
        Locals::of(find as *const c_void).find(state, |look| {
            let alike = ALIKE.get();
            CURRENT.set(ptr::null_mut());
            if others_change {
                ALIKE.set(ptr::null_mut());
            }
            look();
            CURRENT.set(state);
            ALIKE.set(alike);
        })
    }

    #[test]
    fn the_word_that_is_null_without_the_gil_is_found() {
        let mut state = 0_u8;
        let state = (&raw mut state).cast::<c_void>();
        CURRENT.set(state);
        ALIKE.set(state);
        let word = find(state, false).expect("one word changes");
        assert_eq!(word.address(), CURRENT.with(Cell::as_ptr).addr());
        let offset = word.address().wrapping_sub(word::thread_pointer());
        assert_eq!(word::at(offset), state.cast_const().cast());
    }

    #[test]
    fn no_word_is_found_if_two_words_behave_like_the_current_state() {
        let mut state = 0_u8;
        let state = (&raw mut state).cast::<c_void>();
        CURRENT.set(state);
        ALIKE.set(state);
        assert!(find(state, true).is_none());
    }

    #[test]
    fn no_word_is_found_if_none_holds_the_state() {
        let mut state = 0_u8;
        CURRENT.set(ptr::null_mut());
        assert!(
            Locals::of(find as *const c_void)
                .find((&raw mut state).cast(), |look| look())
                .is_none()
        );
    }

    #[test]
    fn code_outside_of_any_library_has_no_thread_locals() {
        let mut local = 0_u8;
        assert_eq!(Locals::of((&raw mut local).cast::<c_void>().cast_const()).words, 0);
    }
}
