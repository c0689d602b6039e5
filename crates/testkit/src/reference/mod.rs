//! A model of CPython's allocator of small blocks, which manages no memory.
//!
//! `tests/reference_is_cpython.rs` compares the model with real CPythons. The model shares no code
//! with the heaps that are tested against it.
//!
//! The model follows these rules of CPython's `Objects/obmalloc.c`:
//!
//! 1. Requests are served by the first pool in the list of the class (`usedpools`). The block that
//!    was freed last is reused first.
//! 2. A pool is carved into blocks on demand, one block ahead (`pymalloc_pool_extend`).
//! 3. A full pool leaves the list of its class, and returns to its front after a free.
//! 4. An empty pool moves to the list of its arena (`freepools`), and keeps its class and free
//!    list.
//! 5. A class takes a pool from the first usable arena. It prefers an empty pool to one that was
//!    never used.
//! 6. The usable arenas are sorted by their number of available pools, fewest first. An arena that
//!    gains a pool is placed before others with the same number (`nfp2lasta`).
//! 7. An arena without live blocks is unmapped, unless it is the last usable one
//!    and [`Rules::retain_last_arena`] is true.

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

/// The number of an arena, and the index of a pool in it.
type PoolId = (usize, usize);

/// The state of a heap without addresses, which can be compared with that of another heap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The mapped arenas, by number.
    pub arenas: BTreeMap<usize, Arena>,
    /// The used pools of each class, in the order of the class's list.
    pub used: Vec<VecDeque<PoolId>>,
}

/// A model of a heap.
///
/// The model refers to a block by its place, or by `None` if no pool serves the request.
#[derive(Clone, Debug)]
pub struct Reference {
    rules: Rules,
    arenas: Arenas,
    used: Vec<VecDeque<PoolId>>,
    faults: Faults,
}

impl Reference {
    /// Creates an empty heap. `faults` decides which of its requests for arenas fail.
    pub fn new(rules: Rules, faults: Faults) -> Self {
        let used = vec![VecDeque::new(); rules.classes()];
        Self { rules, arenas: Arenas::default(), used, faults }
    }

    /// Returns the number of arenas that are currently mapped.
    pub fn mapped(&self) -> usize {
        self.arenas.mapped.len()
    }

    /// Returns the state of the heap, which can be compared with that of a real CPython.
    pub fn state(&self) -> State {
        State { arenas: self.arenas.mapped.clone(), used: self.used.clone() }
    }

    /// Returns the statistics that CPython would print about this heap.
    pub fn figures(&self) -> Figures {
        Figures::of(&self.rules, &self.arenas)
    }

    /// Allocates a block of `class`. Returns `None` if that requires an arena that cannot be
    /// mapped.
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
