//! Memory checkers report the use of memory that was purged while its owner was idle.

#![cfg(all(target_os = "linux", not(miri), not(loom)))]

use std::{
    env,
    process::{Command, Output},
    ptr::{self, NonNull},
    sync::mpsc::sync_channel,
    thread,
};

use raw_mem::MemAlloc;
use thread_heap::{PerThread, ThreadMalloc};

/// Says which stale block a child process uses: the size of the block, or 0 for none.
const VARIABLE: &str = "OBMALLOC_TEST_STALE";

/// A block of a medium pool, a span that fits a table of waiting blocks, and a span that does not.
const SIZES: [usize; 3] = [3000, 60_000, 300_000];

const BLOCKS: usize = 40;

/// Returns the address of a new block, which can be sent to another thread.
fn new_block(size: usize) -> usize {
    let start = ThreadMalloc.malloc(size).unwrap();
    // SAFETY: the block is new, and has this many bytes.
    unsafe { start.write_bytes(1, size) };
    start.as_ptr().expose_provenance()
}

fn free(address: usize) {
    // SAFETY: the block is live, and its address was given to this function alone.
    unsafe { ThreadMalloc.free(NonNull::new(ptr::with_exposed_provenance_mut(address))) };
}

/// Frees all blocks of an idle thread, purges their pages, and uses a stale block of `stale` bytes.
/// Then lets the thread use the memory again.
fn use_memory_of_an_idle_owner(stale: usize) {
    let (send, receive) = sync_channel(0);
    let (done, wait) = sync_channel::<()>(0);
    let owner = thread::spawn(move || {
        let all = || SIZES.into_iter().flat_map(|size| [size; BLOCKS]);
        all().for_each(|size| send.send((size, new_block(size))).unwrap());
        wait.recv().unwrap_err();
        let again: Vec<_> = all().map(new_block).collect();
        again.into_iter().for_each(free);
    });
    let blocks: Vec<_> = (0..SIZES.len() * BLOCKS).map(|_| receive.recv().unwrap()).collect();
    for (_, block) in &blocks {
        free(*block);
    }
    PerThread.flush();
    let mut of_size = blocks.iter().filter(|(size, _)| *size == stale);
    // The first and the last blocks may share their pages with blocks that are not purged.
    if let Some((size, block)) = of_size.nth(BLOCKS / 2) {
        let middle = ptr::with_exposed_provenance::<u8>(block + size / 2);
        // SAFETY: the memory is still mapped. A checker must report this access.
        println!("{}", unsafe { middle.read() });
    }
    drop(done);
    owner.join().unwrap();
    println!("everything was used again");
}

/// Runs `test` in a child process under `checker`.
fn run(mut checker: Command, test: &str, stale: usize) -> Output {
    checker.args(["--exact", test, "--nocapture"]).env(VARIABLE, stale.to_string());
    checker.output().unwrap()
}

/// Asserts that `checker` reports `error` for stale memory only.
fn is_reported(checker: impl Fn() -> Command, test: &str, error: &str) {
    if let Ok(stale) = env::var(VARIABLE) {
        return use_memory_of_an_idle_owner(stale.parse().unwrap());
    }
    for size in SIZES {
        let stale = run(checker(), test, size);
        let stderr = String::from_utf8_lossy(&stale.stderr);
        assert!(!stale.status.success() && stderr.contains(error), "{size}: {stale:?}");
    }
    let again = run(checker(), test, 0);
    let stdout = String::from_utf8_lossy(&again.stdout);
    assert!(again.status.success() && stdout.contains("everything was used again"), "{again:?}");
}

#[test]
#[cfg(all(target_arch = "x86_64", not(asan)))]
fn memcheck_reports_the_use_of_memory_purged_for_an_idle_owner() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        return eprintln!("SKIPPED: valgrind is not installed");
    }
    let checker = || {
        let mut valgrind = Command::new("valgrind");
        valgrind.args(["--quiet", "--error-exitcode=9"]).arg(env::current_exe().unwrap());
        valgrind
    };
    let test = "memcheck_reports_the_use_of_memory_purged_for_an_idle_owner";
    is_reported(checker, test, "Invalid read of size 1");
}

#[test]
#[cfg(asan)]
fn address_sanitizer_reports_the_use_of_memory_purged_for_an_idle_owner() {
    let checker = || Command::new(env::current_exe().unwrap());
    let test = "address_sanitizer_reports_the_use_of_memory_purged_for_an_idle_owner";
    is_reported(checker, test, "use-after-poison");
}
