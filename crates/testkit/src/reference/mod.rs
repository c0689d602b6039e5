//! A model of CPython's layer 2, which is the allocator of small blocks. The model is plain safe
//! code: it only predicts which blocks that allocator would return, and manages no memory itself.
//!
//! ```text
//!   usable:  [ arena 3 ]──[ arena 0 ]──[ arena 5 ]     ascending by available pools
//!   used:    class 0: [ pool ]──[ pool ]               the front serves until it is full
//!            class 1: [ ]
//!   pool:    free: [ 80, 48 ]   next_offset: 112       offsets; the last one is taken first
//! ```
//!
//! The model represents a block by its offset in a pool, and a pool by its index in an arena.
//! CPython's linked lists of blocks, pools and arenas become vectors of these numbers. The model
//! shares no code with the heap that is tested against it, so a mistake in the heap cannot also be
//! in the model through shared code. The test `tests/reference_is_cpython.rs` checks the model
//! itself: it compares each state of the model with the state of a real CPython.
//!
//! The model follows these rules. The names in parentheses are those in CPython's source file
//! `Objects/obmalloc.c`.
//!
//! 1. A request for a size class gets a block from the pool at the front of the list of that class
//!    (`usedpools`). The block of this pool that was freed last is reused first.
//! 2. A pool is divided into blocks on demand. One block is always carved ahead of the requests
//!    (`pymalloc_pool_extend`). The pool leaves the list of its class when its last block is
//!    allocated, and returns to the front of the list when one of its blocks is freed.
//! 3. When the last live block of a pool is freed, the pool moves to the list of empty pools of its
//!    arena (`freepools`). The empty pool keeps its class and its free list.
//! 4. A class that needs another pool takes it from the first usable arena. It takes an empty pool
//!    if the arena has one, and otherwise the next pool that was never carved.
//! 5. The usable arenas are sorted by their number of available pools, lowest first. An arena that
//!    gains an available pool is placed before the other arenas with the same number (`nfp2lasta`).
//! 6. An arena is unmapped when all of its pools are available. The exception is the last usable
//!    arena, which is retained if [`Rules::retain_last_arena`] is true.
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

/// The state of a heap, described without addresses. Two heaps that follow the same rules and have
/// handled the same requests have equal states.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The currently mapped arenas, by number.
    pub arenas: BTreeMap<usize, Arena>,
    /// The used pools of each class, beginning at the front of the list of the class.
    pub used: Vec<VecDeque<PoolId>>,
}

/// A model of a heap, which manages no memory.
///
/// The model represents each block by its place. The place is `None` for a block that comes from
/// the layer below. Requests to the layer below never fail.
#[derive(Clone, Debug)]
pub struct Reference {
    rules: Rules,
    arenas: Arenas,
    /// The list of used pools of each class, beginning at the front. A used pool has both live and
    /// free blocks.
    used: Vec<VecDeque<PoolId>>,
    faults: Faults,
}

impl Reference {
    /// Creates an empty heap that follows `rules`. `faults` decides which of the heap's requests
    /// for arenas fail.
    pub fn new(rules: Rules, faults: Faults) -> Self {
        let used = vec![VecDeque::new(); rules.classes()];
        Self { rules, arenas: Arenas::default(), used, faults }
    }

    /// Returns the number of arenas that are currently mapped.
    pub fn mapped(&self) -> usize {
        self.arenas.mapped.len()
    }

    /// Returns the state of the heap. The same form of state can be read from a real CPython, so
    /// that the two can be compared.
    pub fn state(&self) -> State {
        State { arenas: self.arenas.mapped.clone(), used: self.used.clone() }
    }

    /// Returns the statistics that CPython would print about this heap.
    pub fn figures(&self) -> Figures {
        Figures::of(&self.rules, &self.arenas)
    }

    /// Allocates a block of `class`. Returns `None` if a new arena is needed and the request for
    /// the arena fails.
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

    /// Puts another pool at the front of the list of `class`. Returns `None` if a new arena is
    /// needed and the request for the arena fails.
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
