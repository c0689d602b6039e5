//! Blocks of others that this thread has freed and not sent yet.
//!
//! They are collected for one heap at a time and sent together, so that a thread that frees what
//! another one allocates pays one compare-and-swap for many blocks.

use std::{
    mem::MaybeUninit,
    ptr::{self, NonNull},
    slice,
};

/// The most blocks that wait.
pub(crate) const MOST_WAITING: usize = 32;

/// The blocks that wait, all for one receiver.
#[derive(Debug)]
pub(crate) struct Outbox<T> {
    receiver: Option<NonNull<T>>,
    /// # Invariant
    ///
    /// At most [`MOST_WAITING`]. So many of `blocks` were written, and are the outbox's alone and
    /// the receiver's.
    len: usize,
    blocks: [MaybeUninit<NonNull<u8>>; MOST_WAITING],
}

impl<T> Outbox<T> {
    pub(crate) const fn new() -> Self {
        Self { receiver: None, len: 0, blocks: [MaybeUninit::uninit(); MOST_WAITING] }
    }

    /// Another block for `receiver` can be [added](Self::add).
    #[inline]
    pub(crate) fn has_room_for(&self, receiver: NonNull<T>) -> bool {
        // Compared as pointers, because a comparison of options tests for `None` first.
        let current = self.receiver.map_or(ptr::null_mut(), NonNull::as_ptr);
        self.len == 0 || (ptr::eq(current, receiver.as_ptr()) && self.len < MOST_WAITING)
    }

    /// Adds a block of `receiver`.
    ///
    /// # Safety
    ///
    /// The block is the caller's alone, who gives it away, and `receiver`'s, for which there is
    /// room.
    #[inline]
    pub(crate) unsafe fn add(&mut self, receiver: NonNull<T>, block: NonNull<u8>) {
        debug_assert!(self.has_room_for(receiver));
        self.receiver = Some(receiver);
        // SAFETY: there is room.
        unsafe { self.blocks.get_unchecked_mut(self.len) }.write(block);
        // INVARIANT: it was written just now.
        self.len += 1;
    }

    /// Takes everything that waits: the blocks, and whose they are.
    pub(crate) fn take(&mut self) -> Option<(NonNull<T>, &[NonNull<u8>])> {
        let receiver = self.receiver.take()?;
        // SAFETY: the invariant: so many are written, one after the other.
        let blocks = unsafe { slice::from_raw_parts(self.blocks.as_ptr().cast(), self.len) };
        // INVARIANT: the blocks are given away.
        self.len = 0;
        Some((receiver, blocks))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_wait_until_there_are_many_or_another_receiver_comes() {
        let receivers = [0_u8; 2];
        let [here, there] = receivers.each_ref().map(NonNull::from);
        let block = here.cast();
        let mut outbox = Outbox::new();
        assert_eq!(outbox.take(), None);
        for _ in 0..MOST_WAITING {
            assert!(outbox.has_room_for(here));
            // SAFETY: there is room, and nobody looks at the block.
            unsafe { outbox.add(here, block) };
            assert!(!outbox.has_room_for(there));
        }
        assert!(!outbox.has_room_for(here));
        assert_eq!(outbox.take(), Some((here, &[block; MOST_WAITING][..])));
        assert!(outbox.has_room_for(there));
    }
}
