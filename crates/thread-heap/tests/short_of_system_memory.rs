//! If the program has asked for it, unused memory is returned while the system is short of memory.

#![cfg(all(target_os = "linux", not(miri), not(loom)))]

use std::{env, fs, process, thread, time::Duration};

use obmalloc::{BlockPtr, Blocks, SizeClass};
use raw_mem::MemoryPressure;
use thread_heap::{PerThread, ThreadGeometry};

fn class(size: usize) -> SizeClass<ThreadGeometry> {
    SizeClass::of(size).expect("there is a class")
}

/// Allocates blocks of 64 bytes, and frees all but one of a thousand.
fn thinned(blocks: usize) -> Vec<BlockPtr> {
    let blocks: Vec<_> = (0..blocks)
        .map(|_| {
            let block = PerThread.alloc(class(64)).expect("there is memory");
            // SAFETY: the block is new and has 64 bytes.
            unsafe { block.start().write_bytes(1, 64) };
            block
        })
        .collect();
    let mut left = Vec::new();
    for (nth, block) in blocks.into_iter().enumerate() {
        match nth % 1000 {
            0 => left.push(block),
            // SAFETY: the block came from these heaps, and is not used again.
            _ => unsafe { PerThread.free(block) },
        }
    }
    left
}

fn resident() -> usize {
    let text = fs::read_to_string("/proc/self/statm").expect("Linux has it");
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.expect("a number of pages") * 4096
}

/// Makes requests for a while, like a program that is still working.
fn work() {
    for _ in 0..100 {
        let blocks = [(); 64].map(|()| PerThread.alloc(class(100_000)).expect("there is memory"));
        for block in blocks {
            // SAFETY: the block came from these heaps, and is not used again.
            unsafe { PerThread.free(block) };
        }
    }
}

#[test]
fn unused_memory_goes_back_when_the_control_group_nears_its_limit() {
    let folder = env::temp_dir().join(format!("short-{}", process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let write = |file: &str, text: &str| fs::write(folder.join(file), text).expect("a file");
    write("memory.max", "1000000000");
    write("memory.current", "1000000");
    PerThread.set_decay(None);
    PerThread.trim_when_short(MemoryPressure::of_group(folder.as_os_str().as_encoded_bytes(), b""));
    let start = resident();
    let left = thinned(200_000);
    // The heap of an ended thread has no owner.
    let ended = thread::spawn(|| thinned(200_000).len()).join().expect("it ends");
    work();
    let before = resident() - start;
    assert!(before > 20 << 20, "{before} bytes before memory is short");
    write("memory.current", "990000000");
    // The files are read at most every 100 ms.
    thread::sleep(Duration::from_millis(150));
    work();
    let after = resident().saturating_sub(start);
    println!("{before} bytes, then {after} bytes; {ended} and {} blocks are left", left.len());
    assert!(after < before / 3, "{before} bytes, then {after} bytes");
    fs::remove_dir_all(&folder).expect("the folder is there");
}
