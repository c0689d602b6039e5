//! What is compared: something that hands out storage for an object and takes it back.

use std::{arch::asm, mem::MaybeUninit};

/// An object of 64 bytes.
pub(crate) type Object = [u64; 8];

/// Storage for an object.
pub(crate) type Storage = MaybeUninit<Object>;

/// A pool, a cache or an allocator, used in its own fastest way for one thread.
pub(crate) trait Contender {
    /// What a user holds while the object is in use: a pointer, a key or a guard.
    type Held;

    /// Makes a contender with room for `most` objects at once.
    fn new(most: usize) -> Self;

    /// Takes uninitialised storage for an object.
    fn take(&mut self) -> Self::Held;

    /// Returns the address of the object.
    fn place(&mut self, held: &mut Self::Held) -> *mut Storage;

    /// Puts the storage back.
    fn put(&mut self, held: Self::Held);
}

/// Takes an object and writes to it, as a program does. The compiler cannot see that nobody reads
/// it.
#[inline(always)]
pub(crate) fn begin<C: Contender>(contender: &mut C) -> C::Held {
    let mut held = contender.take();
    let place = contender.place(&mut held).cast::<u64>();
    // SAFETY: the holder owns the storage, and an object begins with a word.
    unsafe { place.write(1) };
    opaque(place);
    opaque(contender);
    held
}

/// Puts an object back.
#[inline(always)]
pub(crate) fn end<C: Contender>(contender: &mut C, held: C::Held) {
    contender.put(held);
    opaque(contender);
}

/// Makes the compiler assume that unknown code reads and writes what `place` points to, so a
/// contender cannot stay in registers between calls.
///
/// It emits no instructions, while [`black_box`](std::hint::black_box) stores and reloads its
/// argument.
#[inline(always)]
fn opaque<T>(place: *mut T) {
    // SAFETY: the assembly contains no instruction.
    unsafe { asm!("/* {0} */", in(reg) place, options(nostack, preserves_flags)) };
}
