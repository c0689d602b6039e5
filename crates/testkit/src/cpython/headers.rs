//! Reads the state of a CPython's heap from the headers of its pools.
//!
//! The header has had the same layout from CPython 2.5 to 3.15
//! (`Include/internal/pycore_obmalloc.h`).

use std::{
    collections::{BTreeMap, VecDeque},
    iter::successors,
    ptr::with_exposed_provenance,
};

use crate::{
    place::ArenaLog,
    reference::{Arena, HEADER, Pool, Rules, State},
};

#[repr(C)]
#[derive(Clone, Copy)]
struct Header {
    live: u32,
    _padding: u32,
    free: usize,
    next: usize,
    prev: usize,
    descriptor: u32,
    class: u32,
    next_offset: u32,
    _max_next_offset: u32,
}

const _: () = assert!(size_of::<Header>() == HEADER);

impl Header {
    /// Returns true if the pool was ever used. Otherwise its header still has the zeros of a new
    /// arena.
    fn is_carved(&self) -> bool {
        self.next_offset != 0
    }

    /// Returns the offsets of the pool's free blocks. The last one is allocated first.
    fn free_blocks(&self, pool: usize) -> Vec<usize> {
        let link = |&block: &usize| {
            // SAFETY: a free block of a mapped arena begins with the next free address.
            Some(unsafe { read::<usize>(block) }).filter(|&next| next != 0)
        };
        let first = Some(self.free).filter(|&block| block != 0);
        let mut free: Vec<_> = successors(first, link).map(|block| block - pool).collect();
        free.reverse();
        free
    }
}

/// # Safety
///
/// - `address` must be the address of a `T` in a mapped arena.
unsafe fn read<T: Copy>(address: usize) -> T {
    // SAFETY: a `T` is there (contract of `read`), and the arena hook exposed its provenance.
    unsafe { with_exposed_provenance::<T>(address).read() }
}

fn headers(log: &ArenaLog, rules: &Rules) -> BTreeMap<usize, Header> {
    let pools = log
        .arenas()
        .into_values()
        .flat_map(|arena| (0..rules.pools()).map(move |pool| arena + pool * rules.pool_size));
    // SAFETY: every pool of a mapped arena begins with a header, or with zeros.
    let read = pools.map(|pool| (pool, unsafe { read::<Header>(pool) }));
    read.filter(|(_, header)| header.is_carved()).collect()
}

pub(super) fn state(log: &ArenaLog, rules: &Rules) -> State {
    let headers = headers(log, rules);
    let arena = |(number, address): (usize, usize)| {
        let pools: Vec<_> = headers.range(address..address + rules.arena_size).collect();
        let descriptor = pools.first().map_or(usize::MAX, |(_, header)| header.descriptor as usize);
        let arena = Arena {
            descriptor,
            pools: pools.iter().map(|&(&address, header)| pool(address, header)).collect(),
            free_pools: free_pools(address, &pools, rules),
        };
        (number, arena)
    };
    State {
        arenas: log.arenas().into_iter().map(arena).collect(),
        used: (0..rules.classes()).map(|class| used_pools(class, &headers, log, rules)).collect(),
    }
}

fn pool(address: usize, header: &Header) -> Pool {
    Pool {
        class: header.class as usize,
        live: header.live as usize,
        free: header.free_blocks(address),
        next_offset: header.next_offset as usize,
    }
}

/// Returns the indices of the empty pools of an arena. The last one is used first.
///
/// The first pool of CPython's list of empty pools is the one that no other pool links to.
fn free_pools(arena: usize, pools: &[(&usize, &Header)], rules: &Rules) -> Vec<usize> {
    let empty: BTreeMap<usize, usize> = pools
        .iter()
        .filter(|(_, header)| header.live == 0)
        .map(|&(&address, header)| (address, header.next))
        .collect();
    let first = empty.keys().find(|&&pool| !empty.values().any(|&next| next == pool)).copied();
    let next = |pool: &usize| empty.get(pool).copied().filter(|&next| next != 0);
    let mut free: Vec<_> =
        successors(first, next).map(|pool| (pool - arena) / rules.pool_size).collect();
    free.reverse();
    free
}

/// Returns the arena and index of each used pool of a class, in the order of CPython's list.
///
/// The first pool of the list links back to a table of CPython instead of a pool.
fn used_pools(
    class: usize,
    headers: &BTreeMap<usize, Header>,
    log: &ArenaLog,
    rules: &Rules,
) -> VecDeque<(usize, usize)> {
    let used =
        |header: &Header| header.class as usize == class && header.live > 0 && header.free != 0;
    let first =
        headers.iter().find(|(_, header)| used(header) && !headers.contains_key(&header.prev));
    let first = first.map(|(&pool, _)| pool);
    successors(first, |pool| headers.get(pool).map(|header| header.next))
        .take_while(|pool| headers.contains_key(pool))
        .filter_map(|pool| log.spot(pool, rules.arena_size, rules.pool_size))
        .map(|spot| (spot.arena, spot.pool))
        .collect()
}
