//! Threads whose first request comes late, or that end in an unusual way.
//!
//! Each test runs threads in a forked child, and counts the heaps that they leave open. These are
//! regression tests (defect D5).

#![cfg(all(target_os = "linux", not(miri)))]

use std::{
    alloc::{GlobalAlloc, Layout},
    cell::Cell,
    ffi::{CStr, c_void},
    hint::black_box,
    mem::MaybeUninit,
    process::Command,
    ptr,
    sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering::SeqCst},
    thread,
};

use thread_heap::PerThread;

#[global_allocator]
static GLOBAL: global_alloc::ObMalloc = global_alloc::ObMalloc::new();

/// The number of threads that a test runs, one after the other.
const THREADS: usize = 2000;

/// The number of bytes by which a process may grow while its threads run.
const GROWTH: usize = 4 << 20;

/// The number of rounds in which the C library calls the destructors of pthread keys
/// (`PTHREAD_DESTRUCTOR_ITERATIONS`).
const ROUNDS: usize = 4;

/// A pthread key that is older than the allocator's own key, so its destructor runs first in each
/// round.
static EARLY_KEY: AtomicU32 = AtomicU32::new(0);

/// The environment variable with the number of pthread keys to create before the first request of
/// the process.
const MORE_KEYS: &CStr = c"OBMALLOC_TEST_MORE_KEYS";

#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = create_early_keys;

extern "C" fn create_early_keys() {
    // We let all threads share one arena of the C library, so that one thread can exhaust it.
    // SAFETY: the call only sets a number.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    EARLY_KEY.store(new_key(), SeqCst);
    // SAFETY: the name is a C string, and no other thread can change the environment yet.
    let more = unsafe { libc::getenv(MORE_KEYS.as_ptr()) };
    if !more.is_null() {
        // SAFETY: the C library returned a C string.
        let more = unsafe { libc::atoi(more) };
        (0..more).for_each(|_| _ = new_key());
    }
}

fn new_key() -> libc::pthread_key_t {
    let mut key = 0;
    // SAFETY: `key` is a valid place, and the destructor is never unloaded.
    assert_eq!(unsafe { libc::pthread_key_create(&mut key, Some(at_thread_exit)) }, 0);
    key
}

thread_local! {
    /// The thread's pthread key, and the number of rounds that its destructor must still wait for.
    static WAITING: Cell<(libc::pthread_key_t, usize)> = const { Cell::new((0, 0)) };
}

/// Makes the thread's first request after the chosen number of rounds.
unsafe extern "C" fn at_thread_exit(value: *mut c_void) {
    let (key, rounds) = WAITING.get();
    if rounds == 0 {
        request();
    } else {
        WAITING.set((key, rounds - 1));
        // SAFETY: the key exists.
        assert_eq!(unsafe { libc::pthread_setspecific(key, value) }, 0);
    }
}

/// Makes the thread's first request happen in round `round` of the calls of key destructors. The
/// first round is 1.
fn request_in_round(key: libc::pthread_key_t, round: usize) {
    WAITING.set((key, round - 1));
    // SAFETY: the key exists. The value only has to be different from null.
    assert_eq!(unsafe { libc::pthread_setspecific(key, ptr::from_ref(&EARLY_KEY).cast()) }, 0);
}

fn request() {
    drop(black_box(Box::new([1_u64; 4])));
}

/// The function that the threads of this process run.
static BODY: AtomicPtr<fn()> = AtomicPtr::new(ptr::null_mut());

extern "C" fn run_body(_: *mut c_void) -> *mut c_void {
    // SAFETY: `run_threads` stored a reference to a function that lives as long as the threads.
    unsafe { (*BODY.load(SeqCst))() };
    ptr::null_mut()
}

/// Starts a thread through the C library. The thread makes no request before it runs `BODY`.
fn start() -> libc::pthread_t {
    let mut thread = MaybeUninit::uninit();
    // SAFETY: `thread` is a valid place.
    let outcome = unsafe {
        libc::pthread_create(thread.as_mut_ptr(), ptr::null(), run_body, ptr::null_mut())
    };
    assert_eq!(outcome, 0, "cannot start a thread");
    // SAFETY: the thread was started.
    unsafe { thread.assume_init() }
}

fn join(thread: libc::pthread_t) {
    // SAFETY: the thread is joined once.
    assert_eq!(unsafe { libc::pthread_join(thread, ptr::null_mut()) }, 0);
}

fn run_threads(mut body: fn(), count: usize) {
    BODY.store(&mut body, SeqCst);
    (0..count).for_each(|_| join(start()));
}

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a figure");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number of KiB") << 10
}

/// Runs `body` in a forked child, and panics unless `body` returns there.
fn in_a_child(body: impl FnOnce()) {
    // SAFETY: no other thread of this process holds a lock that the child could need.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        // SAFETY: the call has no requirements.
        unsafe { libc::_exit(i32::from(outcome.is_err())) }
    }
    let mut status = -1;
    // SAFETY: `status` is a valid place.
    unsafe { libc::waitpid(pid, &mut status, 0) };
    assert_eq!(status, 0, "the child failed");
}

/// Runs `body` in many threads, one after the other, and asserts that at most `left_open` more
/// heaps stay open.
fn leaves_heaps_open(left_open: usize, body: fn()) {
    in_a_child(|| {
        run_threads(body, 10);
        let heaps = |()| {
            let stats = PerThread.stats_of_all();
            (stats.elsewhere, stats.elsewhere + stats.walked)
        };
        let ((open, all), before) = (heaps(()), resident());
        run_threads(body, THREADS);
        let ((open_after, all_after), after) = (heaps(()), resident());
        assert!(open_after <= open + left_open, "{open} heaps were open, then {open_after}");
        assert!(all_after <= all + 1, "there were {all} heaps, then {all_after}");
        assert!(after < before + GROWTH, "the process grew from {before} to {after} bytes");
    });
}

fn leaves_nothing(body: fn()) {
    leaves_heaps_open(0, body);
}

#[test]
fn a_thread_that_makes_requests_in_its_body_leaves_nothing() {
    leaves_nothing(request);
}

#[test]
fn a_thread_whose_first_request_is_in_a_keys_destructor_leaves_nothing() {
    leaves_nothing(|| request_in_round(late_key(), 1));
}

#[test]
fn a_thread_whose_first_request_is_in_the_destructor_of_an_earlier_key_leaves_nothing() {
    leaves_nothing(|| request_in_round(EARLY_KEY.load(SeqCst), 1));
}

#[test]
fn a_thread_whose_first_request_is_in_the_second_round_leaves_nothing() {
    leaves_nothing(|| request_in_round(late_key(), 2));
}

#[test]
fn a_thread_whose_first_request_is_in_the_last_round_but_one_leaves_nothing() {
    leaves_nothing(|| request_in_round(late_key(), ROUNDS - 1));
}

/// The next thread takes over the heap, because its thread-locals are at the same address.
#[test]
fn heaps_of_threads_whose_first_request_is_in_the_last_round_are_reused() {
    leaves_heaps_open(1, || request_in_round(late_key(), ROUNDS));
}

#[test]
fn a_heap_left_open_by_a_thread_of_the_parent_is_not_used_in_a_forked_child() {
    in_a_child(|| {
        let heaps = || PerThread.stats_of_all().elsewhere;
        run_threads(|| request_in_round(late_key(), ROUNDS), 1);
        let left_open = heaps();
        in_a_child(|| {
            // The C library gives this thread the stack of the thread that ended in the parent.
            run_threads(request, 1);
            assert_eq!(heaps(), left_open, "the child took a heap over");
        });
        run_threads(request, 1);
        assert_eq!(heaps(), left_open - 1, "the parent did not");
    });
}

/// A pthread key that is created after the first request of the process.
fn late_key() -> libc::pthread_key_t {
    static KEY: AtomicU32 = AtomicU32::new(u32::MAX);
    if KEY.load(SeqCst) == u32::MAX {
        KEY.store(new_key(), SeqCst);
    }
    KEY.load(SeqCst)
}

/// Makes a request when its thread ends.
struct Late;

impl Drop for Late {
    fn drop(&mut self) {
        request();
    }
}

thread_local! {
    static LATE: Late = const { Late };
}

#[test]
fn a_thread_whose_first_request_is_in_a_thread_locals_destructor_leaves_nothing() {
    leaves_nothing(|| LATE.with(|_| ()));
}

#[test]
fn a_thread_that_makes_requests_in_every_destructor_leaves_nothing() {
    leaves_nothing(|| {
        request();
        LATE.with(|_| ());
        request_in_round(EARLY_KEY.load(SeqCst), 1);
        request_in_round(late_key(), ROUNDS);
    });
}

#[test]
fn a_thread_that_ends_by_pthread_exit_leaves_nothing() {
    leaves_nothing(|| {
        request();
        // SAFETY: no frame below has anything to drop.
        unsafe { libc::pthread_exit(ptr::null_mut()) }
    });
}

const KEYS: &str = "40";

/// The C library allocates memory to set the value of a pthread key, unless the key is one of the
/// first 31.
#[test]
fn threads_leave_nothing_where_the_allocators_key_is_not_one_of_the_first() {
    let program = std::env::current_exe().expect("the path of this program");
    let output = Command::new(program)
        .args(["leaves_nothing", "without_memory", "are_reused"])
        .env(MORE_KEYS.to_str().expect("an ASCII name"), KEYS)
        .output()
        .expect("the child starts");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}: {printed}", output.status);
    assert!(printed.contains(" passed; 0 failed") && !printed.contains(" 0 passed"), "{printed}");
}

/// `GO` lets the thread below make its first request. `GOT` receives the address of the block.
static GO: AtomicBool = AtomicBool::new(false);
static GOT: AtomicUsize = AtomicUsize::new(usize::MAX);

fn request_on_signal() {
    while !GO.load(SeqCst) {
        thread::yield_now();
    }
    // SAFETY: the layout is not empty.
    let block = unsafe { GLOBAL.alloc(Layout::new::<u64>()) };
    GOT.store(block.addr(), SeqCst);
}

/// Allocates all memory that the C library can still provide.
fn exhaust_the_c_library() {
    let no_more = libc::rlimit { rlim_cur: 1 << 20, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: `no_more` is a valid place. The blocks are never used and never freed.
    unsafe {
        assert_eq!(libc::setrlimit(libc::RLIMIT_AS, &no_more), 0);
        for size in (4..=24).rev().map(|shift| 1 << shift) {
            while !black_box(libc::malloc(size)).is_null() {}
        }
    }
}

/// A thread-local with a destructor would need memory, so the allocator must not use one.
#[test]
fn the_first_request_of_a_thread_is_served_without_memory_for_a_destructor() {
    in_a_child(|| {
        // The ended thread leaves a heap with many free blocks and one block in use.
        run_threads(
            || {
                let blocks: Vec<_> = (0..1000).map(Box::new).collect();
                let mut blocks = blocks.into_iter();
                std::mem::forget(blocks.next());
                blocks.for_each(drop);
            },
            1,
        );
        static FIRST: fn() = request_on_signal;
        BODY.store((&raw const FIRST).cast_mut(), SeqCst);
        let waiting = start();
        exhaust_the_c_library();
        GO.store(true, SeqCst);
        join(waiting);
        assert_ne!(GOT.load(SeqCst), 0, "the heap had a free block");
    });
}
