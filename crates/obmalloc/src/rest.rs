//! An emptied pool that stays in its class's list.
//!
//! A program that allocates and frees one block in turn would otherwise move the block's pool to
//! its arena and back each time. A resting pool stays the only one of its class's list and counts
//! no event, until something happens that it might have a part in; then it is *settled*: it wakes,
//! and if it has no block in use, it goes to its arena after all.
//!
//! Under [`RestRule::Unseen`] a pool rests only if the next pool that anybody takes would be this
//! very one, and it is settled before any pool or arena moves. So no request, and no figure,
//! can tell that it did not move.

use raw_mem::{ArenaSource, MemAlloc};

use crate::{
    geometry::{Geometry, MOST_CLASSES, RestRule},
    heap::Heap,
    pool::PoolPtr,
    size_class::SizeClass,
};

/// The classes whose only pool is resting.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Resting(u64);

const _: () = assert!(MOST_CLASSES <= u64::BITS as usize);

impl Resting {
    pub(crate) const NONE: Self = Self(0);

    fn has<G: Geometry>(self, class: SizeClass<G>) -> bool {
        self.0 & 1 << class.index() != 0
    }

    fn add<G: Geometry>(&mut self, class: SizeClass<G>) {
        self.0 |= 1 << class.index();
    }

    fn remove<G: Geometry>(&mut self, class: SizeClass<G>) {
        self.0 &= !(1 << class.index());
    }

    fn any<G: Geometry>(self) -> Option<SizeClass<G>> {
        SizeClass::from_index(self.0.trailing_zeros() as usize)
    }

    /// How many classes have a resting pool.
    pub(crate) fn count(self) -> usize {
        self.0.count_ones() as usize
    }
}

impl<S: ArenaSource, A: MemAlloc, G: Geometry> Heap<S, A, G> {
    /// The last block of `pool` came back: it rests, if the geometry's rule allows it, or goes to
    /// its arena.
    pub(crate) fn pool_emptied(&mut self, class: SizeClass<G>, pool: PoolPtr) {
        let arena = pool.header().arena();
        let may_rest = match G::REST {
            RestRule::Unseen => self.arenas.would_give_next::<G>(arena),
            RestRule::EachClass => !self.arenas.could_go::<G>(arena, self.resting.count() + 1),
        };
        let alone = pool.header().next.get().is_none() && pool.header().prev.get().is_none();
        if may_rest && alone {
            pool.header().become_resting();
            self.resting.add(class);
            return;
        }
        if !may_rest {
            // Resting pools may be all that keeps the arena.
            self.settle_all();
        }
        self.retire_empty(class, pool);
    }

    /// Settles what an event in `class` has to do with: its own pool, or under
    /// [`RestRule::Unseen`] any.
    #[inline]
    pub(crate) fn settle_for(&mut self, class: SizeClass<G>) {
        match G::REST {
            RestRule::Unseen => self.settle_all(),
            RestRule::EachClass => {
                if self.resting.has(class) {
                    self.settle(class);
                }
            }
        }
    }

    /// Settles every resting pool.
    pub(crate) fn settle_all(&mut self) {
        while let Some(class) = self.resting.any() {
            self.settle(class);
        }
    }

    fn settle(&mut self, class: SizeClass<G>) {
        self.resting.remove(class);
        let pool = self.used.first(class);
        if pool.header().wake() {
            self.retire_empty(class, pool);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use raw_mem::{Malloc, MmapArenas};

    use super::*;
    use crate::{BlockPtr, Pools4K, RestEachClass};

    type TestHeap<G> = Heap<MmapArenas, Malloc, G>;

    fn alloc<G: Geometry>(heap: &mut TestHeap<G>, size: usize) -> BlockPtr {
        heap.alloc(SizeClass::of(size).unwrap()).unwrap()
    }

    fn free<G: Geometry>(heap: &mut TestHeap<G>, block: BlockPtr) {
        // SAFETY: the tests free what they took from this heap, once.
        unsafe { heap.free(block) };
        heap.check_invariants();
    }

    #[test]
    fn a_pool_that_is_emptied_and_used_in_turn_does_not_move() {
        let mut heap = TestHeap::<Pools4K>::new(MmapArenas::new(), Malloc);
        let block = alloc(&mut heap, 64);
        let start = block.start();
        free(&mut heap, block);
        assert_eq!(heap.resting.count(), 1);
        assert_eq!(heap.stats().classes()[3].pools, 0);
        let again = alloc(&mut heap, 64);
        assert_eq!((again.start(), heap.stats().classes()[3].pools), (start, 1));
        free(&mut heap, again);
        let other = alloc(&mut heap, 128);
        assert_eq!((other.start(), heap.resting.count()), (start, 0));
    }

    #[test]
    fn one_pool_of_each_class_may_rest() {
        let mut heap = TestHeap::<RestEachClass<Pools4K>>::new(MmapArenas::new(), Malloc);
        for size in [16, 32, 48, 64] {
            let block = alloc(&mut heap, size);
            free(&mut heap, block);
        }
        assert_eq!(heap.resting.count(), 4);
        let block = alloc(&mut heap, 32);
        assert_eq!((heap.resting.count(), heap.stats().bytes.in_use), (4, 32));
        free(&mut heap, block);
        heap.give_back_empty_arena();
        assert_eq!(heap.stats().arenas.current, 0);
    }

    #[test]
    fn resting_pools_keep_no_arena_that_could_go_and_serve_before_a_new_one_is_mapped() {
        let mut heap = TestHeap::<RestEachClass<Pools4K>>::new(MmapArenas::new(), Malloc);
        let mut blocks = Vec::new();
        for size in (16..=512).step_by(16).cycle() {
            blocks.push(alloc(&mut heap, size));
            if heap.stats().arenas.current == 3 {
                break;
            }
        }
        blocks.into_iter().for_each(|block| free(&mut heap, block));
        assert_eq!(heap.stats().arenas.current, 1);
        let pools = (0..64 * 7).map(|_| alloc(&mut heap, 512)).collect::<Vec<_>>();
        assert_eq!((heap.stats().arenas.current, heap.resting.count()), (1, 0));
        pools.into_iter().for_each(|block| free(&mut heap, block));
    }
}
