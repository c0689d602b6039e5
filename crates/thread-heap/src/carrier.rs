//! Freed blocks on their way home, most of them by address alone.
//!
//! ```text
//!   a carrier, which is one of them     ├ link ┼ count ┼ address ┼ address ┼ ─ ─ ┤
//!                                                           │         │
//!   the others, untouched               ├ ─ ─ ─ ─ ┤◄────────┘         └────────►├ ─ ─ ─ ─ ┤
//! ```
//!
//! The owner is the one who wrote to a block last, most often, and the one who will next. If the
//! freeing thread wrote a link into each, each would come to its processor's cache and go back. So
//! it writes into few of them: a carrier has room for as many addresses as its size allows. The
//! smallest blocks have room for none, and carry themselves; there, several share a cache line.
//!
//! A thread that [takes over](crate::inbox::Inbox::take_over) an inbox replaces its carriers by one
//! table (see `waiting_pools`). The table travels as a node of the same kind, with a count that no
//! carrier has.

use std::ptr::NonNull;

use crate::link::{Chain, Link};

/// The first words of a freed block that is on its way to its owner; the addresses follow.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Carrier {
    link: *mut Self,
    count: usize,
}

/// The count of a node that is not a carrier but the head of a table.
const TABLE: usize = usize::MAX;

/// Bytes that every block has at least.
pub(crate) const LEAST_BLOCK: usize = size_of::<Carrier>();

// SAFETY: the link is read from where it is written.
unsafe impl Link for Carrier {
    #[inline]
    unsafe fn next(node: NonNull<Self>) -> *mut Self {
        // SAFETY: the caller's own block, whose first word is the link.
        unsafe { (&raw const (*node.as_ptr()).link).read() }
    }

    #[inline]
    unsafe fn set_next(node: NonNull<Self>, next: *mut Self) {
        // SAFETY: the caller's own block, which has room for a link.
        unsafe { (&raw mut (*node.as_ptr()).link).write(next) }
    }
}

impl Carrier {
    /// Returns the head of a table, whose link is not set yet.
    pub(crate) const fn table_head() -> Self {
        Self { link: std::ptr::null_mut(), count: TABLE }
    }

    /// Returns the number of blocks that `node` brings, itself included, or `None` if it is the
    /// head of a table.
    ///
    /// # Safety
    ///
    /// `node` is a loaded carrier or the head of a table, and is the caller's alone.
    #[inline]
    pub(crate) unsafe fn blocks(node: NonNull<Self>) -> Option<usize> {
        // SAFETY: the caller's own node, whose count was written.
        let count = unsafe { (&raw const (*node.as_ptr()).count).read() };
        if count == TABLE { None } else { Some(count + 1) }
    }

    /// Makes a carrier of `block`, and loads the others.
    ///
    /// # Safety
    ///
    /// All blocks are the caller's alone, who gives them away. `block` has [`LEAST_BLOCK`] bytes
    /// and as many words as there are others.
    unsafe fn load(block: NonNull<u8>, others: &[NonNull<u8>]) -> NonNull<Self> {
        let carrier = block.cast::<Self>();
        // SAFETY: the caller's own block, which has room for the count.
        unsafe { (&raw mut (*carrier.as_ptr()).count).write(others.len()) };
        // SAFETY: it has room for the others behind that.
        let addresses = unsafe { carrier.add(1).cast::<NonNull<u8>>() };
        let from = NonNull::from(others).cast::<NonNull<u8>>();
        // SAFETY: as above; a block given away is no place of a slice that is borrowed.
        unsafe { addresses.copy_from_nonoverlapping(from, others.len()) };
        carrier
    }

    /// Calls `visit` with every block that `carrier` brings, itself last.
    ///
    /// # Safety
    ///
    /// The carrier was loaded, and is the caller's alone, as what it carries.
    #[inline]
    pub(crate) unsafe fn unload(carrier: NonNull<Self>, mut visit: impl FnMut(NonNull<u8>)) {
        // SAFETY: the caller's own carrier, which was loaded.
        let count = unsafe { (&raw const (*carrier.as_ptr()).count).read() };
        // SAFETY: so many addresses are behind it.
        let addresses = unsafe { carrier.add(1).cast::<NonNull<u8>>() };
        for nth in 0..count {
            // SAFETY: as above. It is not visited yet, so nobody has written to it.
            visit(unsafe { addresses.add(nth).read() });
        }
        visit(carrier.cast());
    }
}

/// Freed blocks that are sent together, and about how many bytes they have.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) chain: Chain<Carrier>,
    /// Each block counts as large as the one that carries it. The exact size of each would take a
    /// look at its pool, whose cache line the owner writes to.
    pub(crate) bytes: usize,
}

/// Returns a batch of one block of `size` bytes.
///
/// # Safety
///
/// The block is the caller's alone, who gives it away, and has [`LEAST_BLOCK`] bytes.
pub(crate) unsafe fn alone(block: NonNull<u8>, size: usize) -> Batch {
    // SAFETY: the caller's promise.
    let carrier = unsafe { Carrier::load(block, &[]) };
    // SAFETY: as above.
    Batch { chain: unsafe { Chain::of(carrier) }, bytes: size }
}

/// Makes carriers of as few of `blocks` as can carry the others; `None` if there are no blocks.
/// `size` tells how many bytes a block has.
///
/// # Safety
///
/// The blocks are the caller's alone, who gives them away, and each has the size told and at least
/// [`LEAST_BLOCK`] bytes.
pub(crate) unsafe fn pack(
    blocks: &[NonNull<u8>],
    size: impl Fn(NonNull<u8>) -> usize,
) -> Option<Batch> {
    let mut batch: Option<Batch> = None;
    let mut rest = blocks;
    while let Some((&block, others)) = rest.split_last() {
        let size = size(block);
        let room = (size - LEAST_BLOCK) / size_of::<NonNull<u8>>();
        let (left, load) = others.split_at(others.len().saturating_sub(room));
        // SAFETY: the caller's promise; there is room for so many.
        let carrier = unsafe { Carrier::load(block, load) };
        let bytes = size * (load.len() + 1);
        match &mut batch {
            Some(batch) => {
                // SAFETY: as above.
                unsafe { batch.chain.push(carrier) };
                batch.bytes += bytes;
            }
            // SAFETY: as above.
            None => batch = Some(Batch { chain: unsafe { Chain::of(carrier) }, bytes }),
        }
        rest = left;
    }
    batch
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends blocks of these sizes; how many carriers there were, and whether all came home.
    fn carriers_of(sizes: &[usize]) -> usize {
        let mut memory = vec![[0_usize; 64]; sizes.len()];
        let blocks: Vec<_> =
            memory.iter_mut().map(|block| NonNull::from(block).cast::<u8>()).collect();
        let size = |block| sizes[blocks.iter().position(|other| *other == block).unwrap()];
        // SAFETY: the blocks are this test's, and at least as large as is told.
        let batch = unsafe { pack(&blocks, size) }.expect("there are blocks");
        let (mut carriers, mut home) = (0, Vec::new());
        if sizes.iter().all(|size| *size == sizes[0]) {
            assert_eq!(batch.bytes, sizes.iter().sum::<usize>());
        }
        for carrier in batch.chain.into_nodes() {
            carriers += 1;
            // SAFETY: it was loaded above.
            unsafe { Carrier::unload(carrier, |block| home.push(block)) };
        }
        home.sort();
        assert_eq!(home, blocks);
        carriers
    }

    #[test]
    fn every_block_comes_home_once_and_few_carry_the_others() {
        assert_eq!(carriers_of(&[512; 32]), 1);
        assert_eq!(carriers_of(&[272; 32]), 1);
        assert_eq!(carriers_of(&[64; 32]), 5);
        assert_eq!(carriers_of(&[16; 32]), 32);
        assert_eq!(carriers_of(&[16, 512, 32, 48, 16]), 2);
        assert_eq!(carriers_of(&[512]), 1);
    }

    #[test]
    fn a_block_may_travel_alone() {
        let mut memory = [0_usize; 2];
        let block = NonNull::from(&mut memory).cast::<u8>();
        // SAFETY: the block is this test's.
        let mut carriers = unsafe { alone(block, 16) }.chain.into_nodes();
        let carrier = carriers.next().expect("it was sent");
        // SAFETY: it was loaded above.
        assert_eq!(unsafe { Carrier::blocks(carrier) }, Some(1));
        let mut home = Vec::new();
        // SAFETY: it was loaded above.
        unsafe { Carrier::unload(carrier, |block| home.push(block)) };
        assert_eq!((home, carriers.next()), (vec![block], None));
    }
}
