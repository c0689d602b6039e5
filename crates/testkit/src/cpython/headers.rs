//! Reads the state of a CPython's heap from the headers of the pools in its arenas.
//!
//! ```text
//!   0      4      8          16         24         32      36     40       44        48
//!   │ live │      │ freelist │ nextpool │ prevpool │ arena │ class│ nextoff│ maxnext │ blocks …
//! ```
//!
//! The diagram shows the header at the start of a pool, with the offset of each field in bytes. The
//! layout is the same from CPython 2.5 to 3.15 (`Include/internal/pycore_obmalloc.h`).

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
    /// Returns true if the pool was ever divided into blocks. The arena's memory is zero when the
    /// arena is mapped, so the header of a pool that was never used is still zero.
    fn is_carved(&self) -> bool {
        self.next_offset != 0
    }

    /// Returns the offsets of the pool's free blocks. CPython allocates the block at the last
    /// offset in the result first.
    fn free_blocks(&self, pool: usize) -> Vec<usize> {
        let link = |&block: &usize| {
            // SAFETY: `block` is a free block in a mapped arena. CPython keeps a linked list of a
            // pool's free blocks, and each free block begins with the address of the next one.
            Some(unsafe { read::<usize>(block) }).filter(|&next| next != 0)
        };
        let first = Some(self.free).filter(|&block| block != 0);
        let mut free: Vec<_> = successors(first, link).map(|block| block - pool).collect();
        free.reverse();
        free
    }
}

/// Reads the `T` at `address`.
///
/// # Safety
///
/// - `address` must be the address of a `T` in a mapped arena.
unsafe fn read<T: Copy>(address: usize) -> T {
    // SAFETY: there is a `T` at `address` (contract of `read`). The arena hook exposed the
    // provenance of the arena's memory when it allocated the arena.
    unsafe { with_exposed_provenance::<T>(address).read() }
}

/// Returns the headers of all pools that were ever divided into blocks, by the address of the pool.
fn headers(log: &ArenaLog, rules: &Rules) -> BTreeMap<usize, Header> {
    let pools = log
        .arenas()
        .into_values()
        .flat_map(|arena| (0..rules.pools()).map(move |pool| arena + pool * rules.pool_size));
    // SAFETY: every pool of a mapped arena begins with a header, or with zeros if it was never
    // used.
    let read = pools.map(|pool| (pool, unsafe { read::<Header>(pool) }));
    read.filter(|(_, header)| header.is_carved()).collect()
}

/// Returns the state of the heap whose mapped arenas are recorded in `log`.
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

/// Returns the indices of the empty pools of an arena. CPython uses the pool at the last index in
/// the result first.
///
/// CPython links the empty pools of an arena into a list, and always uses the pool at the head of
/// the list next. No other pool links to the head, so we find the head by searching for an empty
/// pool that no other empty pool links to.
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

/// Returns the used pools of a class, beginning at the front of their list. Each pool is identified
/// by the number of its arena and its index in that arena.
///
/// CPython keeps the used pools of a class in a doubly linked list. In the front pool of the list,
/// the link to the previous pool points to a table of CPython instead of a pool. We find the front
/// pool by this property.
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
