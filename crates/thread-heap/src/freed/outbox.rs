//! The outbox of a heap. It collects up to 32 freed blocks of another heap and sends them together.

use std::{
    mem::MaybeUninit,
    ptr::{self, NonNull},
    slice,
};

pub(crate) const CAPACITY: usize = 32;

#[derive(Debug)]
pub(crate) struct Outbox<T> {
    receiver: Option<NonNull<T>>,
    /// # Invariant
    ///
    /// `len <= CAPACITY`, and `blocks[..len]` are initialised. The outbox exclusively owns these
    /// blocks, and they belong to `receiver`.
    len: usize,
    blocks: [MaybeUninit<NonNull<u8>>; CAPACITY],
}

impl<T> Outbox<T> {
    pub(crate) const fn new() -> Self {
        Self { receiver: None, len: 0, blocks: [MaybeUninit::uninit(); CAPACITY] }
    }

    /// Returns true if a block of `receiver` can be [added](Self::add).
    #[inline]
    pub(crate) fn has_room_for(&self, receiver: NonNull<T>) -> bool {
        // Comparing raw pointers avoids a test for `None`.
        let current = self.receiver.map_or(ptr::null_mut(), NonNull::as_ptr);
        self.len == 0 || (ptr::eq(current, receiver.as_ptr()) && self.len < CAPACITY)
    }

    /// Adds a block of `receiver`.
    ///
    /// # Safety
    ///
    /// - `receiver` must be the heap from which `block` was allocated. It will get the block back.
    /// - The outbox must have room for a block of `receiver`
    ///   (see [`has_room_for`](Self::has_room_for)).
    /// - The caller must own `block` exclusively, and must not use it after this call.
    #[inline]
    pub(crate) unsafe fn add(&mut self, receiver: NonNull<T>, block: NonNull<u8>) {
        debug_assert!(self.has_room_for(receiver));
        self.receiver = Some(receiver);
        // SAFETY: there is room (contract of `add`), so `len < CAPACITY`.
        unsafe { self.blocks.get_unchecked_mut(self.len) }.write(block);
        // INVARIANT: the element was written just now, and the caller gave up the block.
        self.len += 1;
    }

    /// Empties the outbox, and passes ownership of its blocks to the caller.
    pub(crate) fn take(&mut self) -> Option<(NonNull<T>, &[NonNull<u8>])> {
        let receiver = self.receiver.take()?;
        // SAFETY: the first `len` elements are initialised (invariant of `len`).
        let blocks = unsafe { slice::from_raw_parts(self.blocks.as_ptr().cast(), self.len) };
        // INVARIANT: an empty outbox needs no initialised elements.
        self.len = 0;
        Some((receiver, blocks))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outbox_has_room_for_32_blocks_of_one_receiver() {
        let receivers = [0_u8; 2];
        let [here, there] = receivers.each_ref().map(NonNull::from);
        let block = here.cast();
        let mut outbox = Outbox::new();
        assert_eq!(outbox.take(), None);
        for _ in 0..CAPACITY {
            assert!(outbox.has_room_for(here));
            // SAFETY: there is room, and nothing accesses the block.
            unsafe { outbox.add(here, block) };
            assert!(!outbox.has_room_for(there));
        }
        assert!(!outbox.has_room_for(here));
        assert_eq!(outbox.take(), Some((here, &[block; CAPACITY][..])));
        assert!(outbox.has_room_for(there));
    }
}
