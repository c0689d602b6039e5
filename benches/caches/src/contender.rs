//! The pools, caches and allocators under test, called contenders.

use std::{arch::asm, mem::MaybeUninit};

pub(crate) type Object = [u64; 8];

pub(crate) type Storage = MaybeUninit<Object>;

/// A pool, a cache or an allocator, used by one thread in the way that is fastest for it.
pub(crate) trait Contender {
    /// What a user holds while an object is in use: a pointer, a key or a guard.
    type Held;

    fn new(most: usize) -> Self;

    /// Takes uninitialised storage for an object.
    fn take(&mut self) -> Self::Held;

    fn place(&mut self, held: &mut Self::Held) -> *mut Storage;

    fn put(&mut self, held: Self::Held);
}

/// Takes an object and writes to it. The compiler cannot remove the write.
#[inline(always)]
pub(crate) fn begin<C: Contender>(contender: &mut C) -> C::Held {
    let mut held = contender.take();
    let place = contender.place(&mut held).cast::<u64>();
    // SAFETY: the holder owns the storage, which begins with a word.
    unsafe { place.write(1) };
    opaque(place);
    opaque(contender);
    held
}

#[inline(always)]
pub(crate) fn end<C: Contender>(contender: &mut C, held: C::Held) {
    contender.put(held);
    opaque(contender);
}

/// Makes the compiler assume that unknown code reads and writes the memory at `place`. Unlike
/// [`black_box`](std::hint::black_box), this function emits no instructions.
#[inline(always)]
fn opaque<T>(place: *mut T) {
    // SAFETY: the assembly is only a comment.
    unsafe { asm!("/* {0} */", in(reg) place, options(nostack, preserves_flags)) };
}
