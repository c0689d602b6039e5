//! A large block grows by what the program asks for if the limit leaves no room for more.

#![cfg(not(miri))]

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use global_alloc::{Limits, ObMalloc};

#[global_allocator]
static GLOBAL: ObMalloc = ObMalloc::new();

const MIB: usize = 1 << 20;

static CALLS: AtomicUsize = AtomicUsize::new(0);

#[test]
fn a_block_grows_within_the_limit_even_if_there_is_no_room_for_an_eighth_more() {
    GLOBAL.before_refusal(|_| {
        CALLS.fetch_add(1, Relaxed);
        false
    });
    let mut vector = Vec::<u8>::with_capacity(90 * MIB);
    vector.resize(90 * MIB, 7);
    GLOBAL.set_limits(Limits::hard(100 * MIB));
    let little = vector.try_reserve_exact(MIB);
    let calls = CALLS.load(Relaxed);
    let much = vector.try_reserve_exact(20 * MIB);
    // A failed assertion needs memory to be reported.
    GLOBAL.set_limits(Limits::NONE);
    assert_eq!((little, calls), (Ok(()), 0));
    assert!(much.is_err() && CALLS.load(Relaxed) > 0);
    assert!(vector.iter().all(|byte| *byte == 7));
}
