//! CPython's layer 2 once more: in safe code, as plainly as it can be said.
//!
//! ```text
//!   usable:  [ arena 3 ]──[ arena 0 ]──[ arena 5 ]     ascending by pools to give
//!   used:    class 0: [ pool ]──[ pool ]               the front serves until it is full
//!            class 1: [ ]
//!   pool:    free: [ 80, 48 ]   next_offset: 112       offsets, the next to go last
//! ```
//!
//! No memory is behind it: pools and blocks are numbers in vectors, lists are vectors, and
//! nothing is clever. It shares no code with the heap that it is the measure of, and it is itself
//! held against real CPythons, state by state (`tests/reference_is_cpython.rs`).
//!
//! The rules it follows, with the names that CPython's `Objects/obmalloc.c` gives them:
//!
//! 1. A class is served by the pool at the front of its list (`usedpools`), last freed first out.
//! 2. A pool is carved one block ahead, and leaves its list at once when its last block goes
//!    (`pymalloc_pool_extend`); with its first free after that it comes back to the front.
//! 3. An emptied pool goes to its arena (`freepools`) and remembers its class and its free list.
//! 4. A pool for a class comes from the first usable arena: an empty one, or else the next carved.
//! 5. Usable arenas stand in ascending order of pools to give, and equals in the order in which
//!    they became so from above (`nfp2lasta`).
//! 6. An arena with every pool to give goes, unless it is kept as the last one of them.

mod arena;
mod figures;
mod pool;
mod rules;
mod state;

use std::collections::VecDeque;

use self::arena::Arenas;
pub use self::{
    figures::{ClassFigures, Figures},
    pool::Pool,
    rules::{HEADER, Keep, Rules, Zero},
    state::{ArenaState, State},
};
use crate::{failing::Faults, op::Subject, place::Spot};

/// A pool, by its arena's descriptor and its index in that arena.
type PoolId = (usize, usize);

/// A block of the reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// One of our own.
    Pooled {
        /// Where it lies.
        spot: Spot,
        /// The descriptor of its arena.
        descriptor: usize,
    },
    /// One of the layer below, which is malloc and never fails.
    Below,
}

impl Block {
    /// Where the block lies; `None` when it is of the layer below.
    pub fn spot(self) -> Option<Spot> {
        match self {
            Self::Pooled { spot, .. } => Some(spot),
            Self::Below => None,
        }
    }
}

/// A heap without memory.
#[derive(Clone, Debug)]
pub struct Reference {
    rules: Rules,
    arenas: Arenas,
    /// For each class the pools with live and free blocks, front first.
    used: Vec<VecDeque<PoolId>>,
    faults: Faults,
}

impl Reference {
    /// A heap that has served nothing; its requests for arenas fail as `faults` says.
    pub fn new(rules: Rules, faults: Faults) -> Self {
        let used = vec![VecDeque::new(); rules.classes()];
        Self { rules, arenas: Arenas::default(), used, faults }
    }

    /// The rules that it follows.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// How many arenas it has now.
    pub fn mapped(&self) -> usize {
        self.arenas.mapped()
    }

    /// Everything that it knows and that can be read out of a CPython.
    pub fn state(&self) -> State {
        let number = |&(descriptor, pool): &PoolId| (self.arenas.arena(descriptor).number, pool);
        State {
            arenas: self.arenas.iter().map(|(index, arena)| arena.state(index)).collect(),
            used: self.used.iter().map(|list| list.iter().map(number).collect()).collect(),
        }
    }

    /// What a walk over the pools counts.
    pub fn figures(&self) -> Figures {
        Figures::of(&self.rules, &self.arenas)
    }

    fn take(&mut self, class: usize) -> Option<Block> {
        let (descriptor, index) = match self.used[class].front() {
            Some(&pool) => pool,
            None => self.new_pool(class)?,
        };
        let pool = self.arenas.pool_mut(descriptor, index);
        let offset = pool.take(&self.rules);
        if pool.is_full() {
            self.used[class].pop_front();
        }
        let arena = self.arenas.arena(descriptor).number;
        Some(Block::Pooled { spot: Spot { arena, pool: index, offset }, descriptor })
    }

    /// Puts a pool at the front of `class`; `None` when that takes an arena and none is to be had.
    fn new_pool(&mut self, class: usize) -> Option<PoolId> {
        if self.arenas.first_usable().is_none() {
            if self.faults.strike() {
                return None;
            }
            self.arenas.map(&self.rules);
        }
        let pool = self.arenas.take_pool(class, &self.rules);
        self.used[class].push_front(pool);
        Some(pool)
    }

    fn put(&mut self, descriptor: usize, spot: Spot) {
        let id = (descriptor, spot.pool);
        let pool = self.arenas.pool_mut(descriptor, spot.pool);
        let was_full = pool.is_full();
        pool.put(spot.offset);
        let list = &mut self.used[pool.class];
        if was_full {
            list.push_front(id);
        } else if pool.is_empty() {
            let place = list.iter().position(|&other| other == id);
            list.remove(place.expect("a pool with free blocks is in its class's list"));
            self.arenas.put_pool(descriptor, spot.pool, &self.rules);
        }
    }
}

impl Subject for Reference {
    type Block = Block;

    fn malloc(&mut self, size: usize) -> Option<Block> {
        let pooled = self.rules.class(size).and_then(|class| self.take(class));
        Some(pooled.unwrap_or(Block::Below))
    }

    fn calloc(&mut self, count: usize, size: usize) -> Option<Block> {
        self.malloc(count * size)
    }

    fn realloc(&mut self, old: Option<Block>, size: usize) -> Option<Block> {
        let Some(Block::Pooled { spot, descriptor }) = old else {
            return if old.is_some() { old } else { self.malloc(size) };
        };
        let class = self.arenas.arena(descriptor).pools[spot.pool].class;
        if self.rules.keeps(class, size) {
            return old;
        }
        let new = self.malloc(size);
        self.put(descriptor, spot);
        new
    }

    fn free(&mut self, old: Option<Block>) {
        if let Some(Block::Pooled { spot, descriptor }) = old {
            self.put(descriptor, spot);
        }
    }
}

#[cfg(test)]
mod tests;
