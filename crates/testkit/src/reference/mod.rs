//! CPython's layer 2 as a model without memory, in plain safe code.
//!
//! ```text
//!   usable:  [ arena 3 ]──[ arena 0 ]──[ arena 5 ]     ascending by available pools
//!   used:    class 0: [ pool ]──[ pool ]               the front serves until it is full
//!            class 1: [ ]
//!   pool:    free: [ 80, 48 ]   next_offset: 112       offsets; the last one is taken first
//! ```
//!
//! Pools and blocks are numbers in vectors, and lists are vectors. The model shares no code with
//! the heap that is tested against it. It is itself tested against real CPythons, state by state
//! (`tests/reference_is_cpython.rs`).
//!
//! It follows these rules. The names are those of CPython's `Objects/obmalloc.c`.
//!
//! 1. The pool at the front of a class's list serves the class (`usedpools`). The block freed last
//!    is reused first.
//! 2. A pool is carved one block ahead, and leaves its list when its last block is handed out
//!    (`pymalloc_pool_extend`). When a block of it is freed, it returns to the front.
//! 3. An emptied pool goes to its arena (`freepools`), and remembers its class and free list.
//! 4. A class takes its pools from the first usable arena: an empty pool if there is one, otherwise
//!    the next one to carve.
//! 5. Usable arenas are sorted by their number of available pools, lowest first. An arena that
//!    gains a pool is placed before the others with the same number (`nfp2lasta`).
//! 6. An arena is unmapped when all of its pools are available, unless it is the last usable arena
//!    and the rules retain that one.

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

/// A pool, as the number of its arena and its index in that arena.
type PoolId = (usize, usize);

/// The state of a heap, without addresses. Two heaps that served the same requests are equal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The mapped arenas by number.
    pub arenas: BTreeMap<usize, Arena>,
    /// The used pools of each class, front first, as the number of the arena and the index in it.
    pub used: Vec<VecDeque<PoolId>>,
}

/// A heap without memory.
///
/// Its blocks are places. `None` stands for a block of the layer below, which never fails.
#[derive(Clone, Debug)]
pub struct Reference {
    rules: Rules,
    arenas: Arenas,
    /// For each class, the pools with both live and free blocks, front first.
    used: Vec<VecDeque<PoolId>>,
    faults: Faults,
}

impl Reference {
    /// Creates an empty heap. Its requests for arenas follow `faults`.
    pub fn new(rules: Rules, faults: Faults) -> Self {
        let used = vec![VecDeque::new(); rules.classes()];
        Self { rules, arenas: Arenas::default(), used, faults }
    }

    /// Returns the number of mapped arenas.
    pub fn mapped(&self) -> usize {
        self.arenas.mapped.len()
    }

    /// Returns the state that can also be read from a CPython.
    pub fn state(&self) -> State {
        State { arenas: self.arenas.mapped.clone(), used: self.used.clone() }
    }

    /// Returns the figures that a walk over all pools counts.
    pub fn figures(&self) -> Figures {
        Figures::of(&self.rules, &self.arenas)
    }

    /// Takes a block of `class`, or returns `None` if that needs an arena and none can be had.
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

    /// Puts a pool at the front of `class`, or returns `None` if that needs an arena and none can
    /// be had.
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
