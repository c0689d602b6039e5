//! Arenas and their table: which are unused, which have a pool to give, and in which order.

use super::{pool::Pool, rules::Rules, state::ArenaState};

/// How many descriptors the table has at first. CPython: `INITIAL_ARENA_OBJECTS`.
const FIRST_DESCRIPTORS: usize = 16;

/// A mapped arena.
#[derive(Clone, Debug)]
pub(super) struct Arena {
    /// Its number among all arenas that were ever mapped.
    pub(super) number: usize,
    /// The pools carved so far, in the order of their addresses.
    pub(super) pools: Vec<Pool>,
    /// The carved pools that are empty, the next to go last.
    free_pools: Vec<usize>,
    /// How many pools it has to give: empty ones and those never carved.
    pub(super) available: usize,
}

impl Arena {
    pub(super) fn state(&self, descriptor: usize) -> (usize, ArenaState) {
        let state = ArenaState {
            descriptor,
            pools: self.pools.clone(),
            free_pools: self.free_pools.iter().rev().copied().collect(),
        };
        (self.number, state)
    }
}

/// The table of arena descriptors, and the two lists that they are in.
#[derive(Clone, Debug, Default)]
pub(super) struct Arenas {
    descriptors: Vec<Option<Arena>>,
    /// Descriptors without an arena, the next to go last.
    unused: Vec<usize>,
    /// Descriptors with a pool to give, by ascending number of such pools.
    usable: Vec<usize>,
    /// How many arenas were ever mapped.
    pub(super) mapped_ever: usize,
    /// The most arenas that were mapped at once.
    pub(super) highwater: usize,
}

impl Arenas {
    /// The arena that the next pool comes from, the fullest usable one; `None` when there is
    /// none.
    pub(super) fn first_usable(&self) -> Option<usize> {
        self.usable.first().copied()
    }

    /// Enters a new arena, the only usable one.
    pub(super) fn map(&mut self, rules: &Rules) -> usize {
        assert!(self.usable.is_empty(), "an arena is asked for only when none is usable");
        if self.unused.is_empty() {
            self.grow();
        }
        let descriptor = self.unused.pop().expect("the table has just grown");
        self.descriptors[descriptor] = Some(Arena {
            number: self.mapped_ever,
            pools: Vec::new(),
            free_pools: Vec::new(),
            available: rules.pools(),
        });
        self.mapped_ever += 1;
        self.highwater = self.highwater.max(self.mapped());
        self.usable.push(descriptor);
        descriptor
    }

    /// Doubles the table; the new descriptors are linked in ascending order.
    fn grow(&mut self) {
        let before = self.descriptors.len();
        let after = if before == 0 { FIRST_DESCRIPTORS } else { 2 * before };
        self.descriptors.resize(after, None);
        self.unused.extend((before..after).rev());
    }

    /// Takes a pool from the arena at the head of the usable ones, and gives it `class`: an empty
    /// pool if it has one, or else the next one carved. A pool that had the class before goes on
    /// where it stopped.
    pub(super) fn take_pool(&mut self, class: usize, rules: &Rules) -> (usize, usize) {
        let descriptor = self.usable[0];
        let arena = self.arena_mut(descriptor);
        arena.available -= 1;
        let exhausted = arena.available == 0;
        let index = match arena.free_pools.pop() {
            Some(index) => {
                if arena.pools[index].class != class {
                    arena.pools[index] = Pool::fresh(class, rules);
                }
                index
            }
            None => {
                arena.pools.push(Pool::fresh(class, rules));
                arena.pools.len() - 1
            }
        };
        if exhausted {
            self.usable.remove(0);
        }
        (descriptor, index)
    }

    /// Takes an emptied pool back, and moves its arena to its new place among the usable ones, or
    /// gives it back.
    pub(super) fn put_pool(&mut self, descriptor: usize, pool: usize, rules: &Rules) {
        let arena = self.arena_mut(descriptor);
        arena.free_pools.push(pool);
        arena.available += 1;
        let available = arena.available;
        let place = self.usable.iter().position(|&usable| usable == descriptor);
        let last = place.is_some_and(|place| place + 1 == self.usable.len());
        if available == rules.pools() && !(rules.keep_last && last) {
            self.usable.remove(place.expect("it had a pool to give before"));
            self.descriptors[descriptor] = None;
            self.unused.push(descriptor);
            return;
        }
        if let Some(place) = place {
            self.usable.remove(place);
        }
        let behind =
            self.usable.partition_point(|&usable| self.arena(usable).available < available);
        self.usable.insert(behind, descriptor);
    }

    /// How many arenas are mapped now.
    pub(super) fn mapped(&self) -> usize {
        self.descriptors.iter().flatten().count()
    }

    /// The mapped arenas, by descriptor.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &Arena)> {
        self.descriptors
            .iter()
            .enumerate()
            .filter_map(|(descriptor, arena)| Some((descriptor, arena.as_ref()?)))
    }

    pub(super) fn arena(&self, descriptor: usize) -> &Arena {
        self.descriptors[descriptor].as_ref().expect("the descriptor has an arena")
    }

    fn arena_mut(&mut self, descriptor: usize) -> &mut Arena {
        self.descriptors[descriptor].as_mut().expect("the descriptor has an arena")
    }

    pub(super) fn pool_mut(&mut self, descriptor: usize, pool: usize) -> &mut Pool {
        &mut self.arena_mut(descriptor).pools[pool]
    }
}
