//! A model of CPython's layer 2 (the allocator of small blocks) that manages no memory. It is plain
//! safe code.
//!
//! ```text
//!   usable:  [ arena 3 ]──[ arena 0 ]──[ arena 5 ]     ascending by available pools
//!   used:    class 0: [ pool ]──[ pool ]               the front serves until it is full
//!            class 1: [ ]
//!   pool:    free: [ 80, 48 ]   next_offset: 112       offsets; the last one is taken first
//! ```
//!
//! The model represents a block by its offset in a pool, and a pool by its index in an arena. Lists
//! are vectors of such numbers. The model shares no code with the heap that is tested against it.
//! Another test compares each state of the model with that of a real CPython
//! (`tests/reference_is_cpython.rs`).
//!
//! The model follows these rules. The names in parentheses are those of CPython's
//! `Objects/obmalloc.c`.
//!
//! 1. A request for a class gets a block from the pool at the front of the list of that class
//!    (`usedpools`). The block of this pool that was freed last is reused first.
//! 2. A pool is carved one block ahead of the requests (`pymalloc_pool_extend`). It leaves its list
//!    when its last block is handed out, and returns to the front of the list when one of its
//!    blocks is freed.
//! 3. A pool whose last live block is freed goes to the list of empty pools of its arena
//!    (`freepools`). It keeps its class and its free list.
//! 4. A class that needs a pool takes it from the first usable arena. It takes an empty pool if
//!    there is one, and otherwise the next pool that was never carved.
//! 5. The usable arenas are sorted by their number of available pools, lowest first. An arena that
//!    gains a pool is placed before other arenas with the same number (`nfp2lasta`).
//! 6. An arena is unmapped when all of its pools are available. The exception is the last usable
//!    arena, which is kept if the rules say so.

mod arena;
mod figures;
mod pool;
mod rules;

use std::collections::{BTreeMap, VecDeque};

use self::arena::Arenas;
pub use self::{
    arena::Arena,
    figures::Figures,
    pool::Pool,
    rules::{HEADER, Realloc, Rules},
};
use crate::{failing::Faults, op::Subject, place::Spot};

/// A pool, identified by the number of its arena and its index in that arena.
type PoolId = (usize, usize);

/// The state of a heap, without addresses. The states of two heaps are equal if both heaps have
/// handled the same requests in the same way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The arenas that are mapped now, by number.
    pub arenas: BTreeMap<usize, Arena>,
    /// The used pools of each class, beginning at the front of their list.
    pub used: Vec<VecDeque<PoolId>>,
}

/// A model of a heap, which manages no memory.
///
/// The model represents each block by its place. `None` stands for a block that comes from the
/// layer below, and that layer never fails.
#[derive(Clone, Debug)]
pub struct Reference {
    rules: Rules,
    arenas: Arenas,
    /// The list of each class, beginning at the front. It contains the pools that have both live
    /// and free blocks.
    used: Vec<VecDeque<PoolId>>,
    faults: Faults,
}

impl Reference {
    /// Creates an empty heap. `faults` decides which of its requests for arenas fail.
    pub fn new(rules: Rules, faults: Faults) -> Self {
        let used = vec![VecDeque::new(); rules.classes()];
        Self { rules, arenas: Arenas::default(), used, faults }
    }

    /// Returns the number of arenas that are mapped now.
    pub fn mapped(&self) -> usize {
        self.arenas.mapped.len()
    }

    /// Returns the state of the heap, in the form in which it can also be read from a CPython.
    pub fn state(&self) -> State {
        State { arenas: self.arenas.mapped.clone(), used: self.used.clone() }
    }

    /// Returns the figures that CPython would count by a walk over all pools.
    pub fn figures(&self) -> Figures {
        Figures::of(&self.rules, &self.arenas)
    }

    /// Allocates a block of `class`. Returns `None` if an arena is needed and the request for it
    /// fails.
    fn take(&mut self, class: usize) -> Option<Spot> {
        let (arena, pool) = match self.used[class].front() {
            Some(&pool) => pool,
            None => self.new_pool(class)?,
        };
        let header = self.arenas.pool_mut(arena, pool);
        let offset = header.take(&self.rules);
        if header.is_full() {
            self.used[class].pop_front();
        }
        Some(Spot { arena, pool, offset })
    }

    /// Puts a pool at the front of the list of `class`. Returns `None` if an arena is needed and
    /// the request for it fails.
    fn new_pool(&mut self, class: usize) -> Option<PoolId> {
        if !self.arenas.has_usable() {
            if self.faults.call_fails() {
                return None;
            }
            self.arenas.map();
        }
        let pool = self.arenas.take_pool(class, &self.rules);
        self.used[class].push_front(pool);
        Some(pool)
    }

    fn put(&mut self, Spot { arena, pool, offset }: Spot) {
        let header = self.arenas.pool_mut(arena, pool);
        let was_full = header.is_full();
        header.put(offset);
        let list = &mut self.used[header.class];
        if was_full {
            list.push_front((arena, pool));
        } else if header.is_empty() {
            let place = list.iter().position(|&other| other == (arena, pool));
            list.remove(place.expect("a pool with free blocks is in the list of its class"));
            self.arenas.put_pool(arena, pool, &self.rules);
        }
    }
}

impl Subject for Reference {
    type Block = Option<Spot>;

    fn malloc(&mut self, size: usize) -> Option<Option<Spot>> {
        Some(self.rules.class(size).and_then(|class| self.take(class)))
    }

    fn calloc(&mut self, count: usize, size: usize) -> Option<Option<Spot>> {
        self.malloc(count * size)
    }

    fn realloc(&mut self, old: Option<Option<Spot>>, size: usize) -> Option<Option<Spot>> {
        let spot = match old {
            None => return self.malloc(size),
            Some(None) => return old,
            Some(Some(spot)) => spot,
        };
        let class = self.arenas.pool_mut(spot.arena, spot.pool).class;
        if self.rules.stays(class, size) {
            return old;
        }
        let new = self.malloc(size);
        self.put(spot);
        new
    }

    fn free(&mut self, old: Option<Option<Spot>>) {
        if let Some(spot) = old.flatten() {
            self.put(spot);
        }
    }
}

#[cfg(test)]
mod tests;
