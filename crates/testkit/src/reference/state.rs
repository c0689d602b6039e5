//! All that the headers and links in a heap's arenas say, without addresses.

use std::collections::BTreeMap;

use super::Pool;

/// The state of a heap: what must be equal in two heaps that were asked the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The mapped arenas, by number.
    pub arenas: BTreeMap<usize, ArenaState>,
    /// For each class its used pools, front first, as the arena's number and the pool's index.
    pub used: Vec<Vec<(usize, usize)>>,
}

/// The state of an arena.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArenaState {
    /// The index of its descriptor in the table.
    pub descriptor: usize,
    /// The pools carved so far, in the order of their addresses.
    pub pools: Vec<Pool>,
    /// The empty ones of them, the next to be taken first.
    pub free_pools: Vec<usize>,
}
