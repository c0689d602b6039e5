//! A trial of each operation, through CPython's public functions.

use std::{ptr::NonNull, slice};

use allocator_api::Domain;
use obmalloc::Stats;

use super::difference::Difference;
use crate::{
    abi::{CPython, DomainFunctions},
    domains::SERVED,
};

/// The sizes before and after each `realloc` of the trial, in bytes.
///
/// The sizes cover three kinds of requests. The heap serves requests of up to 512 bytes from pools,
/// and some larger requests with a span, which is a pool of one block. It passes all other requests
/// on to the allocator below it.
const SIZES: [(usize, usize); 8] = [
    (1, 40),
    (40, 512),
    (512, 513),
    (100_000, 16),
    (513, 9000),
    (9000, 200_000),
    (300_000, 100),
    (400_000, 600_000),
];

/// The number of blocks that the statistics must count.
const BLOCKS: usize = 8;

/// Checks that each operation does what it promises, and that the heap's statistics add up.
///
/// # Safety
///
/// - Our heap must be installed as CPython's allocator, but CPython must not be initialised yet.
/// - No other thread may use CPython's allocators during the call.
pub(crate) unsafe fn check(stats: impl Fn() -> Option<Stats>) -> Result<(), Difference> {
    for domain in Domain::ALL {
        let functions = CPython::functions(domain).ok_or(Difference::Functions(domain))?;
        // SAFETY: no other thread uses the allocators (contract).
        unsafe { operations(&functions) }
            .map_err(|operation| Difference::Operation { domain, operation })?;
        // SAFETY: no other thread uses the allocators (contract).
        if SERVED.contains(&domain) && !unsafe { add_up(&functions, &stats) } {
            return Err(Difference::Statistics(domain));
        }
    }
    Ok(())
}

/// Returns the first operation that fails. In this case, a block may stay allocated.
///
/// # Safety
///
/// - As for [`check`].
unsafe fn operations(functions: &DomainFunctions) -> Result<(), &'static str> {
    const ONE: u8 = 0xa5;
    const OTHER: u8 = 0x5a;
    for (before, after) in SIZES {
        // SAFETY: each block has the size for which it is used, and is used until it is freed.
        unsafe {
            let block = (functions.malloc)(before).filter(is_aligned).ok_or("malloc")?;
            block.write_bytes(ONE, before);
            let block = (functions.realloc)(Some(block), after).filter(is_aligned);
            let block = block.ok_or("realloc")?;
            if !consists_of(block, before.min(after), ONE) {
                return Err("realloc");
            }
            block.write_bytes(OTHER, after);
            let zeroed = (functions.calloc)(1, after).filter(is_aligned).ok_or("calloc")?;
            if !consists_of(zeroed, after, 0) {
                return Err("calloc");
            }
            (functions.free)(Some(zeroed));
            if !consists_of(block, after, OTHER) {
                return Err("free");
            }
            (functions.free)(Some(block));
        }
    }
    Ok(())
}

/// Allocates eight small blocks and a block of 100,000 bytes, and frees them. Reads the heap's
/// statistics before the allocations, while the blocks are live, and after the frees. Returns true
/// if these statistics are correct:
/// - The bytes in the statistics add up to the size of all arenas.
/// - The eight small blocks count as in use while they are live, and no longer when they are freed.
/// - The block of 100,000 bytes never counts, because the layer below the heap serves it.
///
/// # Safety
///
/// - The requirements of [`check`] must be met.
unsafe fn add_up(functions: &DomainFunctions, stats: impl Fn() -> Option<Stats>) -> bool {
    let in_use = || {
        let stats = stats()?;
        let is_whole = stats.bytes.total() == stats.arenas.current * stats.arenas.size;
        is_whole.then(|| stats.classes().iter().map(|class| class.in_use).sum::<usize>())
    };
    let before = in_use();
    // SAFETY: the function takes any size.
    let small: [_; BLOCKS] = std::array::from_fn(|_| unsafe { (functions.malloc)(40) });
    // SAFETY: the function takes any size.
    let large = unsafe { (functions.malloc)(100_000) };
    let during = in_use();
    for block in small.into_iter().chain([large]) {
        // SAFETY: `block` is null or live, and it is not used again.
        unsafe { (functions.free)(block) };
    }
    before.is_some() && during == before.map(|blocks| blocks + BLOCKS) && in_use() == before
}

fn is_aligned(block: &NonNull<u8>) -> bool {
    block.addr().get().is_multiple_of(16)
}

/// Returns true if each of the first `size` bytes of `block` is `byte`.
///
/// # Safety
///
/// - The bytes must be part of the block, and initialised.
unsafe fn consists_of(block: NonNull<u8>, size: usize, byte: u8) -> bool {
    // SAFETY: the bytes are initialised and part of the block (contract).
    let bytes = unsafe { slice::from_raw_parts(block.as_ptr(), size) };
    bytes.iter().all(|other| *other == byte)
}
