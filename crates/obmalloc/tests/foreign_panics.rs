//! A heap must not unwind when code that the program provides panics. Each case runs in a child
//! process.

#![cfg(all(unix, not(miri), not(loom)))]

use std::{
    env, mem::ManuallyDrop, os::unix::process::ExitStatusExt, process::Command, time::Duration,
};

use obmalloc::{Heap, Native, PurgePolicy, SizeClass};
use raw_mem::{ArenaSource, Malloc, MmapArenas, RetainingArenas, coarse_now};

const CASE: &str = "OBMALLOC_TEST_PANIC";

const SECOND: Duration = Duration::from_secs(1);

fn panicking() -> Duration {
    panic!("the clock panics")
}

fn run(case: &str) {
    match case {
        "the clock of a policy" => {
            use_heap(MmapArenas::new(), PurgePolicy::after(SECOND, panicking));
        }
        "the question whether memory is short" => {
            let policy = PurgePolicy::NEVER.when_short(coarse_now, |_| panic!("it panics"));
            use_heap(MmapArenas::new(), policy);
        }
        "the clock of a source" => {
            let source = RetainingArenas::with_clock(MmapArenas::new(), SECOND, panicking);
            use_heap(source, PurgePolicy::NEVER);
        }
        _ => panic!("there is no case {case}"),
    }
}

/// Makes a heap call its policy and its source.
fn use_heap(source: impl ArenaSource, policy: PurgePolicy) {
    // The heap is never dropped, so that a panic cannot lead to a second one.
    let mut heap = ManuallyDrop::new(Heap::<_, _, Native>::with_geometry(source, Malloc));
    heap.set_purge_policy(policy);
    let _block = heap.alloc(SizeClass::of(100).unwrap());
    (0..100).for_each(|_| _ = heap.visit());
}

#[test]
fn child() {
    if let Ok(case) = env::var(CASE) {
        run(&case);
    }
}

#[track_caller]
fn assert_aborts(case: &str) {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture", "--test-threads=1"]).env(CASE, case);
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(6), "{case}: {stderr}");
}

#[test]
fn a_panic_in_the_clock_of_a_policy_ends_the_process() {
    assert_aborts("the clock of a policy");
}

#[test]
fn a_panic_in_the_question_whether_memory_is_short_ends_the_process() {
    assert_aborts("the question whether memory is short");
}

#[test]
fn a_panic_in_the_clock_of_a_source_ends_the_process() {
    assert_aborts("the clock of a source");
}
