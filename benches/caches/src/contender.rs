//! A contender of the benchmark provides storage for an object and takes the storage back.

use std::{arch::asm, mem::MaybeUninit};

/// An object, which has 64 bytes.
pub(crate) type Object = [u64; 8];

/// Storage for an object.
pub(crate) type Storage = MaybeUninit<Object>;

/// A pool, a cache or an allocator, which one thread uses in the way that is fastest for it.
pub(crate) trait Contender {
    /// The type that a user holds while an object is in use: a pointer, a key or a guard.
    type Held;

    /// Creates a contender with room for `most` objects at the same time.
    fn new(most: usize) -> Self;

    /// Takes uninitialised storage for an object.
    fn take(&mut self) -> Self::Held;

    /// Returns the address of the object.
    fn place(&mut self, held: &mut Self::Held) -> *mut Storage;

    /// Returns the storage to the contender.
    fn put(&mut self, held: Self::Held);
}

/// Takes an object and writes to it, as a program does. The write is hidden behind [`opaque`], so
/// the compiler cannot remove it, although nobody reads the object.
#[inline(always)]
pub(crate) fn begin<C: Contender>(contender: &mut C) -> C::Held {
    let mut held = contender.take();
    let place = contender.place(&mut held).cast::<u64>();
    // SAFETY: the holder owns the storage, which has the size and the alignment of an object. An
    // object begins with a word.
    unsafe { place.write(1) };
    opaque(place);
    opaque(contender);
    held
}

/// Puts an object back into the contender.
#[inline(always)]
pub(crate) fn end<C: Contender>(contender: &mut C, held: C::Held) {
    contender.put(held);
    opaque(contender);
}

/// Makes the compiler assume that unknown code reads and writes the memory that `place` points to.
/// A contender that is passed to this function can therefore not stay in registers between calls.
///
/// This function emits no instructions. [`black_box`](std::hint::black_box) would store its
/// argument to memory and load it again.
#[inline(always)]
fn opaque<T>(place: *mut T) {
    // SAFETY: the assembly contains only a comment, and no instruction.
    unsafe { asm!("/* {0} */", in(reg) place, options(nostack, preserves_flags)) };
}
