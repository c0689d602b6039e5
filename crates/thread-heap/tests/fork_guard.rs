//! Every function that locks the arena source first registers the fork handlers. Otherwise, a child
//! that is forked at that moment could never lock the source.
//!
//! Each case runs in a process of its own, because the handlers are registered once.

#![cfg(all(target_os = "linux", not(miri), not(loom)))]

use std::{
    env,
    ffi::c_int,
    process::Command,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use obmalloc::{Blocks, SizeClass};
use raw_mem::{HugePages, Limits};
use thread_heap::{OwnedHeap, PerThread};

const CASE: &str = "OBMALLOC_TEST_FORK_GUARD";

static IS_REGISTERED: AtomicBool = AtomicBool::new(false);

/// Replaces the C library's function, and records that it was called.
#[unsafe(no_mangle)]
extern "C" fn pthread_atfork(
    _prepare: Option<extern "C" fn()>,
    _parent: Option<extern "C" fn()>,
    _child: Option<extern "C" fn()>,
) -> c_int {
    IS_REGISTERED.store(true, Relaxed);
    0
}

type Case = (&'static str, fn());

/// The functions that lock the source and that a process can call first. Functions that only try to
/// lock it are left out.
const CASES: [Case; 9] = [
    ("alloc", || _ = PerThread.alloc(SizeClass::of(64).unwrap())),
    ("alloc_large", || _ = PerThread.alloc_large(1 << 20, 16)),
    ("open", || drop(OwnedHeap::open())),
    ("set_limits", || PerThread.set_limits(Limits::NONE)),
    ("use_huge_pages", || PerThread.use_huge_pages(HugePages::Off)),
    ("reserve_at_most", || PerThread.reserve_at_most(1 << 40)),
    ("flush", || _ = PerThread.flush()),
    ("figures", || _ = PerThread.figures()),
    ("totals", || _ = PerThread.totals()),
];

#[test]
fn child() {
    let Ok(case) = env::var(CASE) else { return };
    let (_, call) = CASES.iter().find(|(name, _)| *name == case).unwrap();
    assert!(!IS_REGISTERED.load(Relaxed));
    call();
    assert!(IS_REGISTERED.load(Relaxed), "the handlers are not registered");
}

#[test]
fn the_fork_handlers_are_registered_before_the_source_is_locked() {
    let fails = |name: &str| {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "child", "--test-threads=1"]).env(CASE, name);
        !command.output().unwrap().status.success()
    };
    let failing: Vec<_> = CASES.iter().map(|(name, _)| *name).filter(|name| fails(name)).collect();
    assert_eq!(failing, [""; 0]);
}
