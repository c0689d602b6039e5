//! The arenas of the model, and the order in which they are used.

use std::collections::BTreeMap;

use super::{pool::Pool, rules::Rules};

/// The initial length of the table of descriptors. CPython: `INITIAL_ARENA_OBJECTS`.
const FIRST_DESCRIPTORS: usize = 16;

/// A mapped arena of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arena {
    /// The index of the arena in CPython's table of arena descriptors.
    pub descriptor: usize,
    /// The pools that were ever used, in the order of their addresses.
    pub pools: Vec<Pool>,
    /// The indices of the empty pools. The last one is used first.
    pub free_pools: Vec<usize>,
}

impl Arena {
    /// Returns how many pools are empty or were never used.
    pub(super) fn available(&self, rules: &Rules) -> usize {
        rules.pools() - self.pools.len() + self.free_pools.len()
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Arenas {
    pub(super) mapped: BTreeMap<usize, Arena>,
    /// The arenas with available pools, fewest first. The first arena gives the next pool.
    usable: Vec<usize>,
    descriptors: usize,
    /// The unused indices of the table of descriptors. The last one is used first.
    unused: Vec<usize>,
    pub(super) mapped_ever: usize,
    pub(super) highwater: usize,
}

impl Arenas {
    pub(super) fn has_usable(&self) -> bool {
        !self.usable.is_empty()
    }

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

    /// Doubles the table of descriptors. The new ones are used in ascending order.
    fn grow(&mut self) {
        let before = self.descriptors;
        self.descriptors = if before == 0 { FIRST_DESCRIPTORS } else { 2 * before };
        self.unused.extend((before..self.descriptors).rev());
    }

    /// Takes a pool for `class`. Prefers an empty pool, which keeps its free list if its last class
    /// was the same.
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

    /// Returns an empty pool to its arena.
    ///
    /// Unmaps the arena if all of its pools are then available, unless the rules retain the arena.
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
