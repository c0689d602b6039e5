//! An allocator that records how CPython calls it.
//!
//! ```text
//!   word   0     1        2        3         4      5 …
//!          ctx   malloc   calloc   realloc   free   elsewhere
//! ```
//!
//! A CPython that is newer than all tested versions might use another layout of vtables. We
//! therefore install the vtable shown above for a moment, and check which of its words CPython
//! calls as functions. Every word is the address of a function that only records the call and
//! returns. Even `ctx` and the words after `free` are such an address, that of our function
//! `elsewhere`, so a call of an unexpected word does no harm.

#![forbid(unsafe_code)]

use std::{
    ffi::c_void,
    ptr::{self, NonNull},
    sync::{Mutex, PoisonError},
};

use allocator_api::VTable;

use crate::abi::Words;

/// A call of one of the functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Call {
    /// The position of the function in the vtable.
    word: usize,
    has_context: bool,
    arguments: [usize; 2],
}

impl Call {
    pub(super) const fn malloc(size: usize) -> Self {
        Self { word: 1, has_context: true, arguments: [size, 0] }
    }

    pub(super) const fn calloc(count: usize, size: usize) -> Self {
        Self { word: 2, has_context: true, arguments: [count, size] }
    }

    pub(super) fn realloc(size: usize) -> Self {
        Self { word: 3, has_context: true, arguments: [block().addr().get(), size] }
    }

    pub(super) fn free() -> Self {
        Self { word: 4, has_context: true, arguments: [block().addr().get(), 0] }
    }
}

/// The last call, and the number of calls since [`record`] began. CPython makes one call for each
/// request.
static CALLS: Mutex<(Option<Call>, usize)> = Mutex::new((None, 0));

/// The block that every request returns. CPython may write to it.
static mut BLOCK: [u128; 32] = [0; 32];

pub(super) fn block() -> NonNull<u8> {
    // The address of a static is not null, so the fallback is never used.
    NonNull::new((&raw mut BLOCK).cast()).unwrap_or(NonNull::dangling())
}

/// Returns the five words of the vtable, followed by words that CPython must not use.
pub(super) fn words() -> Words {
    let mut words = [context(); _];
    words[1] = malloc as *const c_void;
    words[2] = calloc as *const c_void;
    words[3] = realloc as *const c_void;
    words[4] = free as *const c_void;
    words
}

/// Returns true if `vtable` consists of the first five words.
pub(super) fn is(vtable: &VTable) -> bool {
    let VTable { ctx, malloc, calloc, realloc, free } = *vtable;
    let words: [*const c_void; 5] =
        [ctx.cast_const(), malloc as _, calloc as _, realloc as _, free as _];
    words.iter().eq(self::words()[..words.len()].iter())
}

/// Runs `request`, and returns the only call that it made. Returns `None` if it made no call or
/// several calls.
pub(super) fn record(request: impl FnOnce()) -> Option<Call> {
    let take = || std::mem::take(&mut *CALLS.lock().unwrap_or_else(PoisonError::into_inner));
    take();
    request();
    match take() {
        (call, 1) => call,
        _ => None,
    }
}

fn context() -> *const c_void {
    elsewhere as *const c_void
}

fn note(word: usize, ctx: *mut c_void, arguments: [usize; 2]) -> *mut c_void {
    let mut calls = CALLS.lock().unwrap_or_else(PoisonError::into_inner);
    let has_context = ptr::eq(ctx, context());
    *calls = (Some(Call { word, has_context, arguments }), calls.1 + 1);
    block().as_ptr().cast()
}

extern "C" fn malloc(ctx: *mut c_void, size: usize) -> *mut c_void {
    note(1, ctx, [size, 0])
}

extern "C" fn calloc(ctx: *mut c_void, count: usize, size: usize) -> *mut c_void {
    note(2, ctx, [count, size])
}

extern "C" fn realloc(ctx: *mut c_void, block: *mut c_void, size: usize) -> *mut c_void {
    note(3, ctx, [block.addr(), size])
}

extern "C" fn free(ctx: *mut c_void, block: *mut c_void) {
    note(4, ctx, [block.addr(), 0]);
}

extern "C" fn elsewhere() -> *mut c_void {
    note(0, ptr::null_mut(), [0, 0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_single_call_is_recorded() {
        let other = || free(ptr::null_mut(), ptr::null_mut());
        assert_eq!(record(|| ()), None);
        assert_eq!(record(|| _ = elsewhere()).map(|call| call.word), Some(0));
        assert_eq!(record(other).map(|call| (call.word, call.has_context)), Some((4, false)));
        assert_eq!(record(|| [(); 2].map(|()| other()).into_iter().collect()), None);
    }

    #[test]
    fn every_word_is_a_function_that_returns_the_block() {
        assert!(words().iter().all(|word| !word.is_null()));
        assert_eq!(words().iter().filter(|word| **word == context()).count(), 12);
        let ctx = context().cast_mut();
        let call = record(|| assert_eq!(malloc(ctx, 7), block().as_ptr().cast()));
        assert_eq!(call, Some(Call::malloc(7)));
    }
}
