//! Programs under a seccomp filter, with limits on addresses or data, and with locked memory.
//!
//! Each test starts this program again as a child, which restricts itself.

#![cfg(all(target_os = "linux", target_arch = "x86_64", not(miri)))]

use std::{
    alloc::Layout,
    env, fs,
    hint::black_box,
    process::{Command, Output},
    time::Duration,
};

use global_alloc::{LocalHeap, ObMalloc};

#[global_allocator]
static GLOBAL: ObMalloc = ObMalloc::new();

const PROGRAM: &str = "OBMALLOC_TEST_LIMITED";

/// The last output of a successful child.
const DONE: &str = "done\n";

/// Runs the program named `program` in a child, which must succeed and print [`DONE`].
fn run(program: &str) {
    let test = env::current_exe().expect("the path of this program");
    let output: Output = Command::new(test)
        .args(["--exact", "this_program_as_a_child", "--nocapture"])
        .env(PROGRAM, program)
        // Otherwise the C library would reserve addresses for an arena of this thread.
        .env("MALLOC_ARENA_MAX", "1")
        .output()
        .expect("the child starts");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && printed.contains(DONE), "{program}: {output:?}");
}

#[test]
fn this_program_as_a_child() {
    match env::var(PROGRAM).as_deref() {
        Ok("sandbox") => in_a_sandbox(),
        Ok("large") => a_large_request_without_addresses(),
        Ok("local") => a_local_heap_without_addresses(),
        Ok("addresses") => most_of_a_limit_at_once(libc::RLIMIT_AS, "VmSize"),
        Ok("data") => most_of_a_limit_at_once(libc::RLIMIT_DATA, "VmData"),
        Ok("locked") => frees_with_locked_memory(),
        Ok("refused") => frees_whose_purges_are_refused(),
        _ => return,
    }
    // The test harness would make calls that the sandbox does not allow.
    // SAFETY: `DONE` has that many bytes. `_exit` has no requirements.
    unsafe {
        libc::write(1, DONE.as_ptr().cast(), DONE.len());
        libc::_exit(0)
    }
}

fn make_and_drop(boxes: u64) -> u64 {
    let made: Vec<Box<[u64; 8]>> = (0..boxes).map(|number| Box::new([number; 8])).collect();
    made.iter().map(|numbers| numbers[1]).sum()
}

/// Fills arenas and empties them repeatedly, so that the heaps retain some.
fn make_heaps_retain_arenas() {
    for _ in 0..3 {
        black_box(make_and_drop(1_000_000));
    }
}

/// The system calls of the C library's allocator and locks, of input and output, and of exit.
const ALLOWED: [libc::c_long; 21] = [
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    // The C library makes this call when a thread ends.
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_clock_gettime,
    libc::SYS_openat,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_lseek,
];

/// Makes the kernel kill the process if this thread makes a system call that is not in `ALLOWED`.
fn enter_sandbox() {
    let step = |code: u32, jf, k| libc::sock_filter { code: code as u16, jt: 0, jf, k };
    let answer = |answer| step(libc::BPF_RET | libc::BPF_K, 0, answer);
    let mut filter = vec![step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0)];
    for call in ALLOWED {
        filter.push(step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, call as u32));
        filter.push(answer(libc::SECCOMP_RET_ALLOW));
    }
    filter.push(answer(libc::SECCOMP_RET_KILL_PROCESS));
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the filter is valid while the kernel copies it.
    let outcome = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            | libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program)
    };
    assert_eq!(outcome, 0, "a process may restrict itself");
}

fn in_a_sandbox() {
    let before: Vec<_> = (0..1000).map(|number| Box::new([number; 8])).collect();
    enter_sandbox();
    for _ in 0..4 {
        black_box(make_and_drop(400_000));
        GLOBAL.flush();
    }
    let local = LocalHeap::new();
    for _ in 0..100_000 {
        black_box(local.alloc(Layout::new::<[u64; 8]>()));
    }
    drop((before, local));
}

/// Regression test (field report F4).
#[test]
fn boxes_can_be_allocated_and_freed_under_a_filter_that_kills() {
    run("sandbox");
}

/// Returns the value of an entry in `/proc/self/status`, in bytes.
fn status(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux has it");
    let figure = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kib = figure.and_then(|kib| kib.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.expect("a number of KiB") << 10
}

fn limit(resource: libc::__rlimit_resource_t, bytes: u64) {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the limits are valid while the kernel copies them.
    assert_eq!(unsafe { libc::setrlimit(resource, &limit) }, 0, "a process may limit itself");
}

/// Regression test (field report F5).
fn most_of_a_limit_at_once(resource: libc::__rlimit_resource_t, used: &str) {
    limit(resource, status(used) + (100 << 20));
    black_box(make_and_drop(1_000_000));
    let buffer = Vec::<u8>::with_capacity(90 << 20);
    assert!(buffer.capacity() > 0);
}

/// Regression test (field report F5).
#[test]
fn most_of_an_address_limit_can_be_one_buffer_after_small_objects() {
    run("addresses");
}

/// Regression test (field report F5).
#[test]
fn most_of_a_data_limit_can_be_one_buffer_after_small_objects() {
    run("data");
}

fn a_large_request_without_addresses() {
    make_heaps_retain_arenas();
    limit(libc::RLIMIT_AS, status("VmSize"));
    let mut buffer = Vec::<u8>::new();
    assert!(buffer.try_reserve_exact(8 << 20).is_ok(), "retained arenas are in the way");
    assert!(buffer.try_reserve_exact(1 << 40).is_err());
}

/// Regression test (field report F5).
#[test]
fn a_large_request_without_addresses_trims_the_heaps() {
    run("large");
}

fn a_local_heap_without_addresses() {
    make_heaps_retain_arenas();
    limit(libc::RLIMIT_AS, status("VmSize"));
    let local = LocalHeap::new();
    let layout = Layout::new::<[u64; 8]>();
    assert!((0..100_000).all(|_| local.alloc(layout).is_some()));
}

/// Regression test (field report F5).
#[test]
fn a_local_heap_without_addresses_trims_the_heaps_of_the_threads() {
    run("local");
}

/// `free` must not change `errno`, and unmapped arenas must not stay resident.
///
/// Regression tests (defects, "Doubtful").
fn frees_with_locked_memory() {
    // SAFETY: the call only locks pages in memory.
    if unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE) } != 0 {
        println!("SKIPPED: this process may not lock its memory");
        return;
    }
    let boxes: Vec<_> = (0..300_000_u64).map(|number| Box::new([number; 8])).collect();
    let full = status("VmRSS");
    // SAFETY: the variable belongs to this thread and always exists.
    let errno = unsafe { &mut *libc::__errno_location() };
    for number in boxes {
        *errno = libc::EDOM;
        drop(number);
        assert_eq!(*errno, libc::EDOM);
    }
    GLOBAL.flush();
    assert_eq!(*errno, libc::EDOM);
    let empty = status("VmRSS");
    assert!(full > empty + (16 << 20), "{full} bytes, then {empty}");
}

#[test]
fn locked_memory_goes_back_to_the_system_and_errno_is_preserved() {
    run("locked");
}

/// The kernel refuses to purge locked pages. The caller of `free` must not notice the refusal.
fn frees_whose_purges_are_refused() {
    // SAFETY: the call only locks pages in memory.
    if unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE) } != 0 {
        println!("SKIPPED: this process may not lock its memory");
        return;
    }
    GLOBAL.set_decay(Some(Duration::ZERO));
    let boxes: Vec<_> = (0..100_000_u64).map(|number| Box::new([number; 8])).collect();
    // SAFETY: the variable belongs to this thread and always exists.
    let errno = unsafe { &mut *libc::__errno_location() };
    let mut survivors = Vec::with_capacity(boxes.len());
    for number in boxes {
        *errno = libc::EDOM;
        if number[0].is_multiple_of(1000) {
            survivors.push(number);
        } else {
            drop(number);
        }
        assert_eq!(*errno, libc::EDOM);
    }
    GLOBAL.flush();
    assert_eq!(*errno, libc::EDOM);
    assert!(survivors.iter().all(|number| **number == [number[0]; 8]));
    let again: Vec<_> = (0..100_000_u64).map(|number| Box::new([number; 8])).collect();
    assert!(again.iter().zip(0..).all(|(number, nth)| **number == [nth; 8]));
}

#[test]
fn refused_purges_leave_errno_and_the_blocks_unchanged() {
    run("refused");
}
