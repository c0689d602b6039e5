//! Reads the state of a CPython's heap out of the headers of its pools.
//!
//! ```text
//!   0      4      8          16         24         32      36     40       44        48
//!   │ live │      │ freelist │ nextpool │ prevpool │ arena │ class│ nextoff│ maxnext │ blocks …
//! ```
//!
//! The 48 bytes are the same from 2.5 to 3.15 (`Include/internal/pycore_obmalloc.h`).

use std::{collections::BTreeMap, ptr::with_exposed_provenance};

use crate::{
    place::ArenaLog,
    reference::{ArenaState, HEADER, Pool, Rules, State},
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
    /// A pool of zeroed memory was never given a class.
    fn is_carved(&self) -> bool {
        self.next_offset != 0
    }

    /// Offsets of the free blocks, the next to go last.
    fn free_blocks(&self, pool: usize) -> Vec<usize> {
        let link = |&block: &usize| {
            // SAFETY: `block` is free and so begins with the address of the next one.
            Some(unsafe { read::<usize>(block) }).filter(|&next| next != 0)
        };
        let first = Some(self.free).filter(|&block| block != 0);
        let mut free: Vec<_> =
            std::iter::successors(first, link).map(|block| block - pool).collect();
        free.reverse();
        free
    }
}

/// Reads a `T` at `address`.
///
/// # Safety
///
/// `address` holds a `T`, in an arena that is mapped.
unsafe fn read<T: Copy>(address: usize) -> T {
    // SAFETY: the caller's promise; the arena's provenance was exposed when it was handed out.
    unsafe { with_exposed_provenance::<T>(address).read() }
}

/// The headers of all pools that were ever carved, by address.
fn headers(log: &ArenaLog, rules: &Rules) -> BTreeMap<usize, Header> {
    let pools = log
        .arenas()
        .into_values()
        .flat_map(|arena| (0..rules.pools()).map(move |pool| arena + pool * rules.pool_size));
    // SAFETY: every pool of a mapped arena begins with a header, or with zeros.
    let read = pools.map(|pool| (pool, unsafe { read::<Header>(pool) }));
    read.filter(|(_, header)| header.is_carved()).collect()
}

/// The state of the heap whose arenas `log` knows.
pub(super) fn state(log: &ArenaLog, rules: &Rules) -> State {
    let headers = headers(log, rules);
    let arena_state = |(number, arena): (usize, usize)| {
        let end = arena + rules.arena_size;
        let pools: Vec<_> = headers.range(arena..end).collect();
        let descriptor = pools.first().map_or(usize::MAX, |(_, header)| header.descriptor as usize);
        let state = ArenaState {
            descriptor,
            pools: pools.iter().map(|&(&address, header)| pool_state(address, header)).collect(),
            free_pools: free_pools(arena, &pools, rules),
        };
        (number, state)
    };
    State {
        arenas: log.arenas().into_iter().map(arena_state).collect(),
        used: (0..rules.classes()).map(|class| used_pools(class, &headers, log, rules)).collect(),
    }
}

fn pool_state(address: usize, header: &Header) -> Pool {
    Pool {
        class: header.class as usize,
        live: header.live as usize,
        free: header.free_blocks(address),
        next_offset: header.next_offset as usize,
    }
}

/// The empty pools of an arena: the first is the one that no other links to.
fn free_pools(arena: usize, pools: &[(&usize, &Header)], rules: &Rules) -> Vec<usize> {
    let empty: BTreeMap<usize, usize> = pools
        .iter()
        .filter(|(_, header)| header.live == 0)
        .map(|&(&address, header)| (address, header.next))
        .collect();
    let first = empty.keys().find(|&&pool| !empty.values().any(|&next| next == pool)).copied();
    std::iter::successors(first, |pool| empty.get(pool).copied().filter(|&next| next != 0))
        .map(|pool| (pool - arena) / rules.pool_size)
        .collect()
}

/// The used pools of a class: the first is the one before which there is no pool, but the table.
fn used_pools(
    class: usize,
    headers: &BTreeMap<usize, Header>,
    log: &ArenaLog,
    rules: &Rules,
) -> Vec<(usize, usize)> {
    let used =
        |header: &Header| header.class as usize == class && header.live > 0 && header.free != 0;
    let first =
        headers.iter().find(|(_, header)| used(header) && !headers.contains_key(&header.prev));
    let first = first.map(|(&pool, _)| pool);
    let next = |pool: &usize| headers.get(pool).map(|header| header.next);
    std::iter::successors(first, next)
        .take_while(|pool| headers.contains_key(pool))
        .filter_map(|pool| log.spot(pool, rules.arena_size, rules.pool_size))
        .map(|spot| (spot.arena, spot.pool))
        .collect()
}
