//! What is compared: something that gives storage for an object and takes it back.

use std::{arch::asm, mem::MaybeUninit};

/// An object of 64 bytes.
pub(crate) type Object = [u64; 8];

/// Storage for an object.
pub(crate) type Storage = MaybeUninit<Object>;

/// A pool, a cache or an allocator, by its own fastest way for one thread.
pub(crate) trait Contender {
    /// What a user holds while the object lives: a pointer, a key or a guard.
    type Held;

    /// Room for `most` objects at once.
    fn new(most: usize) -> Self;

    /// Storage for an object, uninitialised.
    fn take(&mut self) -> Self::Held;

    /// Where the object is.
    fn place(&mut self, held: &mut Self::Held) -> *mut Storage;

    /// Gives the storage back.
    fn put(&mut self, held: Self::Held);
}

/// Begins an object's life as a program does, by writing to it, where the compiler cannot see
/// that nobody reads it.
#[inline(always)]
pub(crate) fn begin<C: Contender>(contender: &mut C) -> C::Held {
    let mut held = contender.take();
    let place = contender.place(&mut held).cast::<u64>();
    // SAFETY: the storage is the holder's, and an object begins with a word.
    unsafe { place.write(1) };
    elsewhere(place);
    elsewhere(contender);
    held
}

/// Ends it.
#[inline(always)]
pub(crate) fn end<C: Contender>(contender: &mut C, held: C::Held) {
    contender.put(held);
    elsewhere(contender);
}

/// Code that the compiler does not know, and that might read and write what `place` points to: a
/// contender cannot live in registers from one call to the next. It has no instructions, where
/// [`black_box`](std::hint::black_box) stores its argument and loads it again.
#[inline(always)]
fn elsewhere<T>(place: *mut T) {
    // SAFETY: there is no instruction.
    unsafe { asm!("/* {0} */", in(reg) place, options(nostack, preserves_flags)) };
}
