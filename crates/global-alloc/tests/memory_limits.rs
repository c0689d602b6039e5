//! Limits on the memory of the process. Each test starts this program again as a child.

use std::{
    env,
    process::{Command, Output},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use global_alloc::{LimitReached, Limits, ObMalloc};

#[global_allocator]
static GLOBAL: ObMalloc = ObMalloc::new();

const PROGRAM: &str = "OBMALLOC_TEST_MEMORY_LIMIT";

const MIB: usize = 1 << 20;

/// Runs the program with this name in a child, which must succeed.
fn run(program: &str) -> Output {
    let test = env::current_exe().expect("the path of this program");
    let mut command = Command::new(test);
    command.args(["--exact", "this_program_as_a_child", "--nocapture"]).env(PROGRAM, program);
    let output = command.output().expect("the child starts");
    assert!(output.status.success(), "{program}: {output:?}");
    output
}

#[test]
fn this_program_as_a_child() {
    match env::var(PROGRAM).as_deref() {
        Ok("hard") => hard(),
        Ok("small") => small(),
        Ok("soft") => soft(),
        _ => {}
    }
}

static CACHE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());
static CALLS: AtomicUsize = AtomicUsize::new(0);

/// Empties the cache. Returns true if there was something in it.
fn empty_cache(reached: LimitReached) -> bool {
    CALLS.fetch_add(1, Relaxed);
    assert!(reached.used + reached.requested > reached.limit, "{reached:?}");
    // The callback may allocate.
    assert_eq!(format!("{}", reached.limit).parse(), Ok(reached.limit));
    !std::mem::take(&mut *CACHE.lock().unwrap()).is_empty()
}

fn hard() {
    let used = GLOBAL.stats().mapped();
    GLOBAL.set_limits(Limits::hard(used + 16 * MIB));
    GLOBAL.before_refusal(empty_cache);
    assert_eq!(GLOBAL.stats().limits.hard, used + 16 * MIB);
    CACHE.lock().unwrap().push(vec![1; 10 * MIB]);
    let mut one = Vec::<u8>::new();
    one.try_reserve_exact(10 * MIB).expect("the callback makes room");
    assert_eq!((CALLS.load(Relaxed), CACHE.lock().unwrap().len()), (1, 0));
    let mut other = Vec::<u8>::new();
    other.try_reserve_exact(10 * MIB).expect_err("the limit is reached");
    assert_eq!(CALLS.load(Relaxed), 2);
    // If a block cannot grow because of the limit, it remains unchanged.
    one.resize(10 * MIB, 7);
    one.try_reserve_exact(10 * MIB).expect_err("the limit is reached");
    assert!(one.iter().all(|byte| *byte == 7));
    drop(one);
    other.try_reserve_exact(10 * MIB).expect("there is room again");
    GLOBAL.set_limits(Limits::NONE);
    other.try_reserve_exact(100 * MIB).expect("there is no limit");
}

#[test]
fn a_request_beyond_the_limit_fails_after_the_callback_ran() {
    run("hard");
}

/// Allocates small blocks, which fill arenas, until a request is refused.
fn small() {
    let mut blocks: Vec<Vec<u8>> = Vec::with_capacity(MIB / 8);
    let used = GLOBAL.stats().mapped();
    GLOBAL.set_limits(Limits::hard(used + 8 * MIB));
    let refused = loop {
        let mut block = Vec::new();
        if block.try_reserve_exact(400).is_err() {
            break blocks.len();
        }
        blocks.push(block);
    };
    blocks.truncate(refused / 2);
    let again = blocks[0].try_reserve_exact(450);
    // We remove the limit first, because a panic needs memory.
    GLOBAL.set_limits(Limits::NONE);
    again.expect("freed blocks serve requests");
    assert!((5 * MIB / 400..9 * MIB / 400).contains(&refused), "{refused} blocks");
}

#[test]
fn small_blocks_are_refused_when_their_heap_gets_no_arena() {
    run("small");
}

fn soft() {
    GLOBAL.set_limits(Limits::soft(GLOBAL.stats().mapped() + MIB));
    for _ in 0..3 {
        drop(vec![1_u8; 4 * MIB]);
    }
}

#[test]
fn a_soft_limit_is_reported_once() {
    let output = run("soft");
    let printed = String::from_utf8_lossy(&output.stderr);
    assert_eq!(printed.matches("which exceeds the soft limit of ").count(), 1, "{printed}");
}
