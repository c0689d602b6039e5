//! Tests of processes and requests for which no range is reserved.

use std::{env, os::unix::process::CommandExt, process::Command};

use crate::{ArenaSize, ArenaSource, reserved::testing::*};

const VARIABLE: &str = "RAW_MEM_LIMITED";

/// Runs the test `name` of this executable again in a process with an address space of 4 GiB.
fn run_limited(name: &str) -> bool {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", name, "--test-threads", "1"]).env(VARIABLE, "1");
    let limit = || {
        let limit = libc::rlimit { rlim_cur: 4 << 30, rlim_max: 4 << 30 };
        // SAFETY: the pointer is valid, and `setrlimit` may be called between fork and exec.
        let outcome = unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) };
        if outcome == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    // SAFETY: the closure only makes a system call.
    unsafe { command.pre_exec(limit) };
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    output.status.success() && text.contains("1 passed")
}

#[test]
fn in_a_limited_address_space_the_wrapped_source_serves_every_request() {
    if env::var_os(VARIABLE).is_none() {
        let name = "reserved::range::tests::\
            in_a_limited_address_space_the_wrapped_source_serves_every_request";
        assert!(run_limited(name));
        return;
    }
    let mut source = source();
    let arena = map(&mut source);
    let large = map_large(&mut source, 3 * SLOT);
    assert_eq!(source.reserved(), None);
    fill(large.start, large.bytes, 3);
    let grown = resize(&mut source, large, 20 * SLOT);
    assert!(is_filled(grown.start, 0..large.bytes, 3));
    let small = resize(&mut source, grown, SLOT);
    assert!(is_filled(small.start, 0..small.bytes, 3));
    unmap_large(&mut source, small);
    unmap(&mut source, arena);
}

#[test]
fn if_the_system_refuses_the_reservation_it_is_not_tried_again() {
    for nth in [1, 2] {
        let mut source = source();
        refuse(Plan::Nth(nth));
        let arena = map(&mut source);
        refuse(Plan::Never);
        let large = map_large(&mut source, SLOT);
        assert_eq!(source.reserved(), None);
        unmap_large(&mut source, large);
        unmap(&mut source, arena);
    }
}

#[test]
fn arenas_that_are_smaller_than_a_slot_may_be_come_from_the_wrapped_source() {
    let mut source = source();
    let tiny = ArenaSize::new(64).unwrap();
    let arena = source.map(tiny).unwrap();
    assert_eq!(source.reserved(), None);
    // SAFETY: the arena came from this source, and nothing uses it.
    unsafe { source.unmap(arena, tiny) };
}
