//! The arenas of the model, and the lists that determine which arena is used next.

use std::collections::BTreeMap;

use super::{pool::Pool, rules::Rules};

/// The number of arena descriptors in the first table of descriptors. In CPython, this constant is
/// `INITIAL_ARENA_OBJECTS`.
const FIRST_DESCRIPTORS: usize = 16;

/// An arena of the model that is currently mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arena {
    /// The index of the arena's descriptor in the table of descriptors.
    pub descriptor: usize,
    /// The pools of this arena that were divided into blocks at least once, in the order of their
    /// addresses.
    pub pools: Vec<Pool>,
    /// The indices in `pools` of the pools that are empty. The pool at the last index is used
    /// first.
    pub free_pools: Vec<usize>,
}

impl Arena {
    /// Returns the number of pools that are available to any class: the empty pools, and the pools
    /// that were never divided into blocks.
    pub(super) fn available(&self, rules: &Rules) -> usize {
        rules.pools() - self.pools.len() + self.free_pools.len()
    }
}

/// The arenas of the model. They are numbered in the order in which they were mapped.
#[derive(Clone, Debug, Default)]
pub(super) struct Arenas {
    /// The currently mapped arenas, by number.
    pub(super) mapped: BTreeMap<usize, Arena>,
    /// The numbers of the arenas that have an available pool, sorted by their number of available
    /// pools. The arena with the fewest available pools comes first, and new pools are taken from
    /// it.
    usable: Vec<usize>,
    /// The number of descriptors in the table of arena descriptors.
    descriptors: usize,
    /// The indices of the descriptors that no mapped arena uses. The descriptor at the last index
    /// is used first.
    unused: Vec<usize>,
    /// The number of arenas that were ever mapped.
    pub(super) mapped_ever: usize,
    /// The largest number of arenas that were ever mapped at the same time.
    pub(super) highwater: usize,
}

impl Arenas {
    /// Returns true if at least one arena has an available pool.
    pub(super) fn has_usable(&self) -> bool {
        !self.usable.is_empty()
    }

    /// Maps an arena. The caller must call this only if no arena is usable, so the new arena
    /// becomes the only usable one.
    pub(super) fn map(&mut self) {
        assert!(self.usable.is_empty(), "an arena is mapped only if none is usable");
        if self.unused.is_empty() {
            self.grow();
        }
        let descriptor = self.unused.pop().expect("the table has just grown");
        let arena = Arena { descriptor, pools: Vec::new(), free_pools: Vec::new() };
        self.mapped.insert(self.mapped_ever, arena);
        self.usable.push(self.mapped_ever);
        self.mapped_ever += 1;
        self.highwater = self.highwater.max(self.mapped.len());
    }

    /// Doubles the number of descriptors in the table. The new descriptors will be used in
    /// ascending order of their indices.
    fn grow(&mut self) {
        let before = self.descriptors;
        self.descriptors = if before == 0 { FIRST_DESCRIPTORS } else { 2 * before };
        self.unused.extend((before..self.descriptors).rev());
    }

    /// Takes a pool for `class` from the first usable arena. Returns the number of the arena and
    /// the index of the pool.
    ///
    /// If the arena has an empty pool, that pool is taken. If its previous class was `class`, too,
    /// it keeps its free list. If the arena has no empty pool, the next pool that was never used is
    /// taken.
    pub(super) fn take_pool(&mut self, class: usize, rules: &Rules) -> (usize, usize) {
        let number = self.usable[0];
        let arena = self.arena_mut(number);
        let pool = match arena.free_pools.pop() {
            Some(pool) => {
                if arena.pools[pool].class != class {
                    arena.pools[pool] = Pool::fresh(class, rules);
                }
                pool
            }
            None => {
                arena.pools.push(Pool::fresh(class, rules));
                arena.pools.len() - 1
            }
        };
        if arena.available(rules) == 0 {
            self.usable.remove(0);
        }
        (number, pool)
    }

    /// Takes back a pool that has become empty. If all pools of its arena are now available, the
    /// arena is unmapped, except if it is the last usable arena and the rules say that this arena
    /// is retained. Otherwise the arena moves to its new position in the list of usable arenas.
    pub(super) fn put_pool(&mut self, number: usize, pool: usize, rules: &Rules) {
        let arena = self.arena_mut(number);
        arena.free_pools.push(pool);
        let available = arena.available(rules);
        let place = self.usable.iter().position(|&usable| usable == number);
        let is_last = place.is_some_and(|place| place + 1 == self.usable.len());
        if let Some(place) = place {
            self.usable.remove(place);
        }
        if available == rules.pools() && !(rules.retain_last_arena && is_last) {
            let arena = self.mapped.remove(&number).expect("the arena is mapped");
            self.unused.push(arena.descriptor);
            return;
        }
        let behind =
            self.usable.partition_point(|usable| self.mapped[usable].available(rules) < available);
        self.usable.insert(behind, number);
    }

    fn arena_mut(&mut self, number: usize) -> &mut Arena {
        self.mapped.get_mut(&number).expect("the arena is mapped")
    }

    pub(super) fn pool_mut(&mut self, number: usize, pool: usize) -> &mut Pool {
        &mut self.arena_mut(number).pools[pool]
    }
}
