//! Which interpreter the calling thread is running.
//!
//! A thread has a current thread state exactly while it holds the GIL of that state's interpreter:
//! CPython sets the state after it has taken the GIL, and clears it before it releases the GIL. So
//! the state says which heap the thread may enter. CPython: `_PyThreadState_Attach` and
//! `detach_thread` in `Python/pystate.c` (3.12: `PyEval_RestoreThread`, `PyEval_SaveThread`).
//!
//! `PyThreadState_Swap` of 3.12 sets the state first and takes the GIL afterwards. It makes no
//! request in between. A thread that finalization ends there must not make one in its own
//! destructors, as in every CPython.
//!
//! ```text
//!   fs:[offset] ─► thread state ─► │ prev │ next │ interp │ …     the same from 3.12 to 3.15
//! ```
//!
//! CPython keeps the state in a thread-local that no symbol names. Its public function returns it,
//! but in a shared libpython that takes some twenty instructions. So we look for the thread-local
//! once ([`find_offset`]) and then read it directly. Until it is found, and where it cannot be
//! found, we call the function.

use std::{
    ffi::c_void,
    ptr::{self, NonNull},
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
};

use crate::abi::{CPython, InterpreterFunctions};

/// An interpreter of CPython, of which only the address matters.
pub(super) type Interpreter = NonNull<c_void>;

/// The words of a thread state before its interpreter. CPython: `struct _ts` in
/// `Include/cpython/pystate.h`, 3.12 to 3.15; [`layout_holds`] verifies it in the process.
const WORDS_BEFORE_INTERPRETER: usize = 2;

static FUNCTIONS: OnceLock<InterpreterFunctions> = OnceLock::new();

/// A thread state's interpreter was found where we expect it.
static LAYOUT_HOLDS: AtomicBool = AtomicBool::new(false);

/// The distance from the thread pointer to CPython's current thread state, in bytes.
///
/// # Invariant
///
/// 0 until the thread-local is found. The word at distance 0 points to the thread's own control
/// block. The third word of that block is never the address of an interpreter, so [`is_at_hand`]
/// then returns false.
static OFFSET: AtomicUsize = AtomicUsize::new(0);

/// Makes the functions of `python` known. Called before the heap is installed.
pub(super) fn watch(python: &CPython) {
    if let Some(functions) = python.interpreters {
        FUNCTIONS.get_or_init(|| functions);
    }
}

/// CPython's functions, if it has all that we need.
pub(super) fn functions() -> Option<&'static InterpreterFunctions> {
    FUNCTIONS.get()
}

/// Returns true if the calling thread holds the GIL of `interpreter`, without a call. Returns false
/// as long as the thread-local is not known.
#[inline(always)]
pub(super) fn is_at_hand(interpreter: *const c_void) -> bool {
    let state = word::at(OFFSET.load(Relaxed));
    // SAFETY: a thread state, whose third word is there; or, before the thread-local is known, the
    // thread's control block, which has more than three words in every C library.
    !state.is_null() && unsafe { *state.add(WORDS_BEFORE_INTERPRETER) } == interpreter
}

/// Returns the interpreter whose GIL the calling thread holds, by asking CPython.
pub(super) fn interpreter() -> Option<Interpreter> {
    let functions = functions()?;
    // SAFETY: it returns the calling thread's state, or null, at any time.
    let state = NonNull::new(unsafe { (functions.current_state)() })?;
    if !LAYOUT_HOLDS.load(Relaxed) && !layout_holds(functions, state) {
        return None;
    }
    // SAFETY: the state is current, so it lives, and its layout was verified.
    NonNull::new(unsafe { *interpreter_of(state) })
}

/// Returns true if `interpreter` is the main one.
pub(super) fn is_main(interpreter: Interpreter) -> bool {
    // SAFETY: it returns an address, at any time.
    functions()
        .is_some_and(|functions| interpreter.as_ptr() == unsafe { (functions.main_interpreter)() })
}

/// The place where `state` keeps its interpreter.
fn interpreter_of(state: NonNull<c_void>) -> *const *mut c_void {
    state.as_ptr().cast::<*mut c_void>().wrapping_add(WORDS_BEFORE_INTERPRETER).cast_const()
}

/// Compares the place of the interpreter in `state` with what CPython says.
#[cold]
fn layout_holds(functions: &InterpreterFunctions, state: NonNull<c_void>) -> bool {
    // SAFETY: the state is the calling thread's current one.
    let told = unsafe { (functions.interpreter_of)(state.as_ptr()) };
    // SAFETY: a thread state is longer than three words in every version that is supported.
    let holds = unsafe { *interpreter_of(state) } == told;
    LAYOUT_HOLDS.store(holds, Relaxed);
    holds
}

/// Looks for CPython's thread-local, in a moment when only this thread runs Python code.
///
/// CPython was in the process when the loader ran our constructor, so its thread-locals are at the
/// same distance from the thread pointer in every thread (the loader's "static TLS").
///
/// # Safety
///
/// The calling thread holds the GIL and may release it here.
pub(super) unsafe fn find_offset(python: &CPython) {
    let Some(functions) = functions() else { return };
    if !word::CAN_BE_READ || OFFSET.load(Relaxed) != 0 {
        return;
    }
    // SAFETY: it returns the calling thread's state, at any time.
    let state = unsafe { (functions.current_state)() };
    let without_gil = |look: &mut dyn FnMut()| {
        // SAFETY: the caller's promise; the state that is saved is restored.
        unsafe {
            let saved = (functions.save_thread)();
            look();
            (functions.restore_thread)(saved);
        }
    };
    if let Some(word) = Locals::of(python.code_address()).find(state, without_gil) {
        // INVARIANT: it is CPython's word for the current state.
        OFFSET.store(word.address().wrapping_sub(word::thread_pointer()), Relaxed);
    }
}

/// The calling thread's copy of the thread-locals of a program or library.
struct Locals {
    start: *const *mut c_void,
    words: usize,
}

/// One word of a thread-local block, which CPython may write at any time.
#[derive(Clone, Copy)]
struct Word(*const *mut c_void);

impl Locals {
    const NONE: Self = Self { start: ptr::null(), words: 0 };

    /// Finds the thread-locals of the program or library that `code` is in.
    fn of(code: *const c_void) -> Self {
        struct Search {
            code: usize,
            found: Locals,
        }

        unsafe extern "C" fn visit(
            info: *mut libc::dl_phdr_info,
            _size: usize,
            search: *mut c_void,
        ) -> libc::c_int {
            // SAFETY: the loader passes its own record, and the search that it was given.
            let (info, search) = unsafe { (&*info, &mut *search.cast::<Search>()) };
            // SAFETY: the loader's table of that many entries.
            let headers =
                unsafe { std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
            let holds_code = headers.iter().any(|header| {
                let start = info.dlpi_addr.wrapping_add(header.p_vaddr) as usize;
                header.p_type == libc::PT_LOAD
                    && search.code.wrapping_sub(start) < header.p_memsz as usize
            });
            if !holds_code {
                return 0;
            }
            let locals = headers.iter().find(|header| header.p_type == libc::PT_TLS);
            if let Some(locals) = locals.filter(|_| !info.dlpi_tls_data.is_null()) {
                let start = info.dlpi_tls_data.cast_const().cast();
                let words = locals.p_memsz as usize / size_of::<*mut c_void>();
                search.found = Locals { start, words };
            }
            1
        }

        let mut search = Search { code: code.addr(), found: Self::NONE };
        // SAFETY: `visit` gets the search, which outlives the call.
        unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut search).cast()) };
        if search.found.start.is_aligned() { search.found } else { Self::NONE }
    }

    /// Finds the word that is `state` now, and null while the GIL is released. Returns `None` if no
    /// word behaves like that, or more than one. `without_gil` releases the GIL, calls what it is
    /// given, and takes the GIL back.
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
        // SAFETY: the word is inside the calling thread's block of thread-locals and aligned. It
        // changes behind the compiler's back, so the read is volatile.
        unsafe { self.0.read_volatile() }
    }

    fn address(self) -> usize {
        self.0.addr()
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod word {
    use std::{arch::asm, ffi::c_void};

    /// Words at a distance from the thread pointer can be read.
    pub(super) const CAN_BE_READ: bool = true;

    /// Reads the word at `offset` from the thread pointer.
    #[inline(always)]
    pub(super) fn at(offset: usize) -> *const *const c_void {
        let word;
        // SAFETY: the invariant of `OFFSET`: a word of the thread's static thread-locals, or of its
        // control block.
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

    /// The thread pointer, which is also the address of the thread's control block.
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

    /// Looks for the word that holds `state`, among those of this program.
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
    fn the_current_state_is_the_word_that_is_null_without_the_gil() {
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
    fn two_words_that_behave_alike_are_not_told_apart() {
        let mut state = 0_u8;
        let state = (&raw mut state).cast::<c_void>();
        CURRENT.set(state);
        ALIKE.set(state);
        assert!(find(state, true).is_none());
    }

    #[test]
    fn a_state_that_no_word_holds_is_not_found() {
        let mut state = 0_u8;
        CURRENT.set(ptr::null_mut());
        assert!(
            Locals::of(find as *const c_void)
                .find((&raw mut state).cast(), |look| look())
                .is_none()
        );
    }

    #[test]
    fn code_that_no_library_holds_has_no_thread_locals() {
        let mut local = 0_u8;
        assert_eq!(Locals::of((&raw mut local).cast::<c_void>().cast_const()).words, 0);
    }
}
