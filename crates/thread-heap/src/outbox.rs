//! Blocks of others that this thread has freed and not sent yet.
//!
//! They are collected for one heap at a time and sent together, so that a thread that frees what
//! another one allocates pays one compare-and-swap for many blocks.

use std::ptr::NonNull;

use crate::link::{Chain, FreeBlock};

/// The most blocks that wait.
pub(crate) const MOST_WAITING: usize = 32;

/// A chain on its way to `T`.
#[derive(Debug)]
pub(crate) struct Parcel<T> {
    /// Whose the blocks are.
    pub(crate) receiver: NonNull<T>,
    /// The blocks.
    pub(crate) chain: Chain<FreeBlock>,
}

/// The blocks that wait, all for one receiver.
#[derive(Debug)]
pub(crate) struct Outbox<T>(Option<Parcel<T>>);

impl<T> Outbox<T> {
    pub(crate) const fn new() -> Self {
        Self(None)
    }

    /// Adds a block of `receiver`. Returns what must be sent now: the blocks of another receiver,
    /// or all of this one when [`MOST_WAITING`] are together.
    ///
    /// # Safety
    ///
    /// The block is the caller's alone, who gives it away, and `receiver`'s.
    #[inline]
    pub(crate) unsafe fn add(
        &mut self,
        receiver: NonNull<T>,
        block: NonNull<FreeBlock>,
    ) -> Option<Parcel<T>> {
        if let Some(parcel) = self.0.as_mut()
            && parcel.receiver == receiver
        {
            // SAFETY: the caller's promise.
            unsafe { parcel.chain.push(block) };
            return if parcel.chain.len() < MOST_WAITING { None } else { self.0.take() };
        }
        // SAFETY: the caller's promise.
        let chain = unsafe { Chain::of(block) };
        self.0.replace(Parcel { receiver, chain })
    }

    /// Takes everything that waits.
    pub(crate) fn take(&mut self) -> Option<Parcel<T>> {
        self.0.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block() -> NonNull<FreeBlock> {
        NonNull::from(Box::leak(Box::new([0_usize; 2]))).cast()
    }

    fn drop_blocks(parcel: Parcel<u8>) -> usize {
        let blocks = parcel.chain.into_nodes();
        // SAFETY: `block` boxed them.
        blocks
            .map(|node| drop(unsafe { Box::from_raw(node.cast::<[usize; 2]>().as_ptr()) }))
            .count()
    }

    #[test]
    fn blocks_wait_until_there_are_many_or_another_receiver_comes() {
        let (mut here, mut there) = (0_u8, 0_u8);
        let (here, there) = (NonNull::from(&mut here), NonNull::from(&mut there));
        let mut outbox = Outbox::new();
        // SAFETY: the blocks are new, and given away.
        let mut add = |receiver| unsafe { outbox.add(receiver, block()) };
        for _ in 1..MOST_WAITING {
            assert!(add(here).is_none());
        }
        let full = add(here).expect("enough are together");
        assert_eq!(drop_blocks(full), MOST_WAITING);
        assert!(add(here).is_none());
        let other = add(there).expect("another receiver");
        assert_eq!((other.receiver, drop_blocks(other)), (here, 1));
        assert_eq!(outbox.take().map(drop_blocks), Some(1));
    }
}
