//! The debug hook must report each kind of misuse and end the process. Each case runs in a child
//! process.

#![cfg(unix)]

use std::{env, num::NonZero, os::unix::process::ExitStatusExt, process::Command, ptr::NonNull};

use allocator_api::{
    Domain,
    hooks::{Debug, Host, Style},
    raw_mem::{Malloc, MemAlloc, Output},
};

const CASE: &str = "OBMALLOC_TEST_MISUSE";

static MEM: Debug<Malloc> = Debug::new(Malloc, Domain::Mem);
static RAW: Debug<Malloc> = Debug::new(Malloc, Domain::Raw);
static NUMBERED: Debug<Malloc> = MEM_WITH_SERIALS;
const MEM_WITH_SERIALS: Debug<Malloc> = Debug::with_style(Malloc, Domain::Mem, Style::CPYTHON_3_7);
static PLACED: Debug<Malloc> = Debug::new(Malloc, Domain::Mem).with_host(&Placed);
static LOCKED_OUT: Debug<Malloc> = Debug::new(Malloc, Domain::Obj).with_host(&LockedOut);

struct Placed;

impl Host for Placed {
    fn write_place(&self, out: &mut Output, ptr: *const u8) {
        let _ = std::fmt::Write::write_str(out, if ptr.is_null() { "?" } else { "made here\n" });
    }
}

struct LockedOut;

impl Host for LockedOut {
    fn may_call(&self) -> bool {
        false
    }
}

fn block(size: usize) -> NonNull<u8> {
    MEM.malloc(size).unwrap()
}

/// Returns an address in memory that no process can read.
fn nowhere() -> NonNull<u8> {
    NonNull::without_provenance(NonZero::new(0x1230).unwrap())
}

fn misuse(case: &str) {
    // SAFETY: each case breaks the rules of the allocator, and the hook must end the process.
    unsafe {
        match case {
            "overflow" => {
                let block = block(16);
                block.add(16).write(b'x');
                MEM.free(Some(block));
            }
            "underflow" => {
                let block = block(16);
                block.sub(1).write(0);
                MEM.realloc(Some(block), 32);
            }
            "double free" => {
                let block = block(16);
                MEM.free(Some(block));
                MEM.free(Some(block));
            }
            "use after free" => {
                let block = block(40);
                MEM.free(Some(block));
                MEM.realloc(Some(block), 80);
            }
            "wrong domain" => RAW.free(Some(block(16))),
            "unaligned" => MEM.free(Some(block(16).add(1))),
            "foreign" => {
                let mut memory = Box::new([1_u64; 8]);
                MEM.free(Some(NonNull::from(&mut memory[4]).cast()));
            }
            "no memory" => MEM.free(Some(nowhere())),
            "no memory at realloc" => _ = MEM.realloc(Some(nowhere()), 100),
            "size of no memory" => _ = MEM.size(nowhere()),
            "size of a freed block" => {
                let block = block(40);
                MEM.free(Some(block));
                MEM.size(block);
            }
            "large double free" => {
                let block = block(3_000_000);
                MEM.free(Some(block));
                MEM.free(Some(block));
            }
            "large use after free" => {
                let block = block(3_000_000);
                MEM.free(Some(block));
                MEM.realloc(Some(block), 10);
            }
            "aligned use after free" => {
                let block = MEM.malloc_aligned(40, 64).unwrap();
                MEM.free(Some(block));
                MEM.realloc(Some(block), 40);
            }
            "unreadable" => {
                let block = block(16);
                block.sub(16).write(0x70);
                MEM.free(Some(block));
            }
            "serial" => {
                let block = NUMBERED.malloc(16).unwrap();
                block.add(17).write(0);
                NUMBERED.free(Some(block));
            }
            "place" => {
                let block = PLACED.malloc(0).unwrap();
                block.write(0);
                PLACED.free(Some(block));
            }
            "caller" => _ = LOCKED_OUT.malloc(1),
            _ => panic!("there is no case {case}"),
        }
    }
}

#[test]
fn child() {
    if let Ok(case) = env::var(CASE) {
        misuse(&case);
    }
}

/// Runs `case` in a child, asserts that the child aborts, and returns its report.
fn report(case: &str) -> String {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture", "--test-threads=1"]).env(CASE, case);
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.signal(), Some(6), "{case} must abort: {stderr}");
    stderr
}

/// Asserts that `report` contains these lines, in this order. A final `*` matches any text.
fn assert_lines(report: &str, expected: &[&str]) {
    let lines: Vec<_> = report.lines().collect();
    let matches = |line: &str, expected: &str| match expected.strip_suffix('*') {
        Some(begin) => line.starts_with(begin),
        None => line == expected,
    };
    assert_eq!(lines.len(), expected.len(), "{report}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(matches(line, expected), "{line:?} is not {expected:?} in\n{report}");
    }
}

#[test]
fn an_overflow_by_one_byte_is_reported_at_free() {
    assert_lines(
        &report("overflow"),
        &[
            "Debug memory block at address p=0x*",
            "    16 bytes originally requested",
            "    The 7 pad bytes at p-7 are FORBIDDENBYTE, as expected.",
            "    The 8 pad bytes at tail=0x*",
            "        at tail+0: 0x78 *** OUCH",
            "        at tail+1: 0xfd",
            "        at tail+2: 0xfd",
            "        at tail+3: 0xfd",
            "        at tail+4: 0xfd",
            "        at tail+5: 0xfd",
            "        at tail+6: 0xfd",
            "        at tail+7: 0xfd",
            "    Data at p: cd cd cd cd cd cd cd cd cd cd cd cd cd cd cd cd",
            "",
            "obmalloc: debug free: bad trailing pad byte",
        ],
    );
}

#[test]
fn an_underflow_by_one_byte_is_reported_at_realloc() {
    let report = report("underflow");
    assert!(report.contains("API 'm'\n    16 bytes originally requested\n"), "{report}");
    assert!(report.contains("p-7 are not all FORBIDDENBYTE (0xfd):\n        at p-7: 0xfd\n"));
    assert!(report.contains("        at p-1: 0x00 *** OUCH\n"), "{report}");
    assert!(report.ends_with("obmalloc: debug realloc: bad leading pad byte\n"), "{report}");
}

#[test]
fn a_double_free_is_reported_without_a_crash() {
    let report = report("double free");
    let end = "debug free: the block was freed before (double free, or use after free)\n";
    assert!(report.ends_with(end), "{report}");
}

#[test]
fn a_freed_block_is_recognised_at_realloc() {
    let report = report("use after free");
    let end = "debug realloc: the block was freed before (double free, or use after free)\n";
    assert!(report.ends_with(end), "{report}");
}

#[test]
fn a_freed_aligned_block_is_recognised_at_realloc() {
    let report = report("aligned use after free");
    let end = "debug realloc: the block was freed before (double free, or use after free)\n";
    assert!(report.ends_with(end), "{report}");
}

const UNREADABLE: &str = "the memory before the address cannot be read, \
                          so no block begins there, or it was freed before\n";

#[test]
fn a_pointer_to_memory_that_cannot_be_read_is_reported() {
    for (case, operation) in [
        ("no memory", "free"),
        ("no memory at realloc", "realloc"),
        ("size of no memory", "malloc_usable_size"),
    ] {
        let line = format!("obmalloc: debug {operation}: {UNREADABLE}");
        let block = "Debug memory block at address p=0x1230: cannot be read\n\n";
        assert_eq!(report(case), format!("{block}{line}"));
    }
}

#[test]
fn a_second_use_of_a_large_block_is_reported_although_its_memory_may_be_unmapped() {
    for (case, operation) in [("large double free", "free"), ("large use after free", "realloc")] {
        let report = report(case);
        let freed = "the block was freed before (double free, or use after free)\n";
        let ends = [UNREADABLE, freed].map(|why| format!("obmalloc: debug {operation}: {why}"));
        assert!(ends.iter().any(|end| report.ends_with(end)), "{case}: {report}");
    }
}

#[test]
fn the_report_of_a_query_for_the_size_names_it() {
    let report = report("size of a freed block");
    let end = "debug malloc_usable_size: the block was freed before (double free, or use after \
               free)\n";
    assert!(report.ends_with(end), "{report}");
}

#[test]
fn a_block_of_another_domain_is_reported() {
    let report = report("wrong domain");
    assert!(report.contains(": API 'm'\n    16 bytes originally requested\n"), "{report}");
    let end = "bad ID: Allocated using API 'm', verified using API 'r'\n";
    assert!(report.ends_with(end), "{report}");
}

#[test]
fn an_unaligned_pointer_is_reported() {
    let report = report("unaligned");
    let end = "debug free: no block begins at an address that is not aligned\n";
    assert!(report.ends_with(end), "{report}");
}

#[test]
fn a_pointer_of_another_allocator_is_reported() {
    let report = report("foreign");
    let letter = if cfg!(target_endian = "little") { r"\x01" } else { r"\x00" };
    let end = format!("bad ID: Allocated using API '{letter}', verified using API 'm'\n");
    assert!(report.ends_with(&end), "{report}");
}

#[test]
fn a_report_does_not_read_what_cannot_be_read() {
    let report = report("unreadable");
    assert!(report.contains("bytes at tail=0x") && report.contains(" are not readable.\n"));
    assert!(report.ends_with("debug free: bad size before the block\n"), "{report}");
}

#[test]
fn a_report_names_the_serial_number() {
    let report = report("serial");
    assert!(report.contains("        at tail+1: 0x00 *** OUCH\n"), "{report}");
    assert!(report.contains("    The block was made by call #1 to debug malloc/realloc.\n"));
}

#[test]
fn a_report_names_the_place_if_the_host_knows_it() {
    let report = report("place");
    assert!(report.ends_with("\n\nmade here\nobmalloc: debug free: bad trailing pad byte\n"));
}

#[test]
fn a_caller_that_may_not_allocate_is_reported_without_a_block() {
    let line = "obmalloc: debug malloc: Python memory allocator called without holding the GIL";
    assert_lines(&report("caller"), &[line]);
}
