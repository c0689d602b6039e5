//! Debug hooks and traces over `ObMalloc` in a Rust program. Misuse happens in a child process.

#![cfg(all(target_os = "linux", not(miri)))]

use std::{
    alloc::{GlobalAlloc, Layout},
    env,
    hint::black_box,
    os::unix::process::ExitStatusExt,
    process::Command,
    ptr, thread,
};

use allocator_api::{
    Domain, Global,
    hooks::{Amount, Debug, Trace, Traces},
};
use global_alloc::ObMalloc;

static TRACES: Traces = Traces::new();

#[global_allocator]
static GLOBAL: Global<Trace<Debug<ObMalloc>>> = Global::new(Trace::new(
    Debug::new(ObMalloc::new(), Domain::Raw).with_host(&TRACES),
    Domain::Raw,
    &TRACES,
));

/// A second allocator of the program. Its blocks must not be freed by the first allocator.
static SPECIAL: Global<Debug<ObMalloc>> =
    Global::new(Debug::new(ObMalloc::new(), Domain::Mem).with_host(&TRACES));

const CASE: &str = "OBMALLOC_TEST_MISUSE";

#[inline(never)]
fn make_a_block(size: usize, align: usize) -> (*mut u8, Layout) {
    let layout = Layout::from_size_align(size, align).unwrap();
    // SAFETY: the layout is not empty.
    (black_box(unsafe { GLOBAL.alloc(layout) }), layout)
}

/// Maps two pages, makes the first one unreadable, and returns the second one.
fn page_after_a_hole() -> *mut u8 {
    let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANON);
    // SAFETY: the mapping is new, and nothing refers to its first page.
    unsafe {
        let start = libc::mmap(ptr::null_mut(), 8192, access, flags, -1, 0);
        assert!(start != libc::MAP_FAILED && libc::mprotect(start, 4096, libc::PROT_NONE) == 0);
        start.cast::<u8>().add(4096)
    }
}

fn misuse(case: &str) {
    TRACES.start(8);
    let (block, layout) = make_a_block(24, 8);
    // SAFETY: each case breaks the rules of the allocator, and the hook must end the process.
    unsafe {
        match case {
            "overflow" => block.add(24).write(1),
            "underflow" => block.sub(1).write(1),
            "aligned overflow" | "aligned underflow" => {
                let (block, layout) = make_a_block(24, 64);
                let wrong = if case == "aligned overflow" { block.add(24) } else { block.sub(1) };
                wrong.write(1);
                return GLOBAL.dealloc(block, layout);
            }
            "double free" => GLOBAL.dealloc(block, layout),
            "use after free" => {
                GLOBAL.dealloc(block, layout);
                GLOBAL.realloc(block, layout, 48);
            }
            "wrong domain" => return SPECIAL.dealloc(block, layout),
            "wrong domain at realloc" => _ = SPECIAL.realloc(block, layout, 48),
            "aligned wrong domain" => {
                let (block, layout) = make_a_block(24, 64);
                return SPECIAL.dealloc(block, layout);
            }
            "unaligned" => return GLOBAL.dealloc(block.add(1), layout),
            "foreign" => {
                let mut memory = [u64::from_ne_bytes(*b"????????"); 8];
                return GLOBAL.dealloc(black_box(&raw mut memory[4]).cast(), layout);
            }
            "no memory" => return GLOBAL.dealloc(ptr::without_provenance_mut(0x1230), layout),
            "aligned no memory" => {
                let layout = Layout::from_size_align_unchecked(24, 16);
                GLOBAL.realloc(ptr::without_provenance_mut(0x1230), layout, 48);
                return;
            }
            "page after a hole" => return GLOBAL.dealloc(page_after_a_hole(), layout),
            "large double free" => {
                let (block, layout) = make_a_block(3_000_000, 8);
                GLOBAL.dealloc(block, layout);
                return GLOBAL.dealloc(block, layout);
            }
            "large use after free" => {
                let (block, layout) = make_a_block(3_000_000, 64);
                GLOBAL.dealloc(block, layout);
                GLOBAL.realloc(block, layout, 100);
                return;
            }
            "aligned double free" => {
                let (block, layout) = make_a_block(100, 64);
                GLOBAL.dealloc(block, layout);
                GLOBAL.dealloc(block, layout);
            }
            _ if case.starts_with("aligned use after free") => {
                let numbers: Vec<usize> = case.split(' ').filter_map(|n| n.parse().ok()).collect();
                let (block, layout) = make_a_block(numbers[1], numbers[0]);
                GLOBAL.dealloc(block, layout);
                GLOBAL.realloc(block, layout, numbers[1]);
                return;
            }
            "leak" => {
                let before = TRACES.total().current.bytes;
                TRACES.print();
                // Looking up the names of the calls loads many MiB of debug information.
                let more = TRACES.total().current.bytes.saturating_sub(before);
                assert!(more < 100_000, "a report must not count {more} bytes of its own");
                return;
            }
            _ => panic!("there is no case {case}"),
        }
        GLOBAL.dealloc(block, layout);
    }
}

#[test]
fn child() {
    if let Ok(case) = env::var(CASE) {
        misuse(&case);
    }
}

fn run(case: &str, signal: Option<i32>) -> String {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture", "--test-threads=1"]).env(CASE, case);
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.signal(), signal, "{case}: {stderr}");
    stderr
}

/// Runs `case`, asserts that it ends with the line `why`, and returns the report.
fn report(case: &str, why: &str) -> String {
    let report = run(case, Some(6));
    assert!(report.starts_with("Debug memory block at address p=0x"), "{case}: {report}");
    assert!(report.ends_with(&format!("\nobmalloc: debug {why}\n")), "{case}: {report}");
    report
}

#[test]
fn a_report_names_the_function_that_allocated_the_block() {
    for (case, why) in [
        ("overflow", "free: bad trailing pad byte"),
        ("underflow", "free: bad leading pad byte"),
        ("aligned overflow", "free: bad trailing pad byte"),
        ("aligned underflow", "free: bad leading pad byte"),
        ("wrong domain", "free: bad ID: Allocated using API 'r', verified using API 'm'"),
        ("aligned wrong domain", "free: bad ID: Allocated using API 'R', verified using API 'm'"),
        (
            "wrong domain at realloc",
            "realloc: bad ID: Allocated using API 'r', verified using API 'm'",
        ),
    ] {
        let report = report(case, why);
        let letter = if case.starts_with("aligned") { 'R' } else { 'r' };
        let size = format!(": API '{letter}'\n    24 bytes originally requested\n");
        assert!(report.contains(&size), "{report}");
        let place = report.split("(most recent call first):\n").nth(1).unwrap_or_default();
        let first = place.lines().next().unwrap_or_default();
        assert!(first.contains("make_a_block") && first.contains("hooks.rs:"), "{report}");
    }
}

const UNREADABLE: &str = "the memory before the address cannot be read, \
                          so no block begins there, or it was freed before";

#[test]
fn every_misuse_of_a_pointer_that_is_not_a_block_is_reported() {
    let freed = "the block was freed before (double free, or use after free)";
    let cases = [
        ("double free", format!("free: {freed}")),
        ("use after free", format!("realloc: {freed}")),
        ("aligned double free", format!("free: {freed}")),
        ("no memory", format!("free: {UNREADABLE}")),
        ("aligned no memory", format!("realloc: {UNREADABLE}")),
        ("page after a hole", format!("free: {UNREADABLE}")),
        ("large double free", format!("free: {UNREADABLE}")),
        ("large use after free", format!("realloc: {UNREADABLE}")),
        ("unaligned", "free: no block begins at an address that is not aligned".to_owned()),
        ("foreign", "free: bad ID: Allocated using API '?', verified using API 'r'".to_owned()),
    ];
    for (case, why) in cases {
        report(case, &why);
    }
}

#[test]
fn a_use_after_free_is_reported_at_realloc_whatever_the_alignment() {
    let freed = "realloc: the block was freed before (double free, or use after free)";
    for align in [16, 64, 4096] {
        for size in [1, 24, 100, 5000, 100_000] {
            report(&format!("aligned use after free {align} {size}"), freed);
        }
    }
}

#[test]
fn a_reallocated_block_keeps_its_alignment_and_contents() {
    for align in [16, 64, 4096] {
        for size in [1, 100, 5000, 1_000_000] {
            let (block, layout) = make_a_block(size, align);
            // SAFETY: the block has that many bytes. Only what replaces it is used.
            unsafe {
                block.write_bytes(7, size);
                let grown = GLOBAL.realloc(block, layout, 2 * size);
                assert!(grown.addr().is_multiple_of(align));
                assert!((0..size).all(|at| grown.add(at).read() == 7));
                let grown_layout = Layout::from_size_align_unchecked(2 * size, align);
                let shrunk = GLOBAL.realloc(grown, grown_layout, 1);
                assert!(shrunk.addr().is_multiple_of(align) && shrunk.read() == 7);
                GLOBAL.dealloc(shrunk, Layout::from_size_align_unchecked(1, align));
            }
        }
    }
}

#[test]
fn a_program_can_print_what_it_has_not_freed() {
    let text = run("leak", None);
    assert!(text.contains("  domain raw: ") && text.contains("  blocks of up to 32 bytes: "));
    assert!(text.contains("make_a_block"), "{text}");
    assert!(!text.contains("a report must not count"), "{text}");
}

#[test]
fn programs_with_threads_run_on_both_hooks() {
    TRACES.start(0);
    let work = || {
        let words: Vec<String> = (0..2000).map(|length| "x".repeat(length % 700)).collect();
        words.concat().len()
    };
    let before = TRACES.domain(Domain::Raw).current;
    let threads = [0; 4].map(|_| thread::spawn(work));
    let kept = vec![0_u8; 100_000];
    assert!(threads.into_iter().all(|thread| thread.join().unwrap() == work()));
    let after = TRACES.domain(Domain::Raw);
    let Amount { bytes, .. } = after.current;
    // Other tests of this process allocate a little.
    assert!((100_000..200_000).contains(&(bytes - before.bytes)), "{after:?}, before {before:?}");
    assert!(after.peak_bytes > bytes, "{after:?}");
    drop(black_box(kept));
}
