//! The allocator before `main` and at exit, in signal handlers, in thread destructors and in forked
//! children.

#![cfg(all(target_os = "linux", not(miri)))]

use std::{
    alloc::{GlobalAlloc, Layout},
    cell::RefCell,
    ffi::c_void,
    mem::MaybeUninit,
    ptr,
    sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering::Relaxed},
    thread,
};

#[global_allocator]
static GLOBAL: global_alloc::ObMalloc = global_alloc::ObMalloc::new();

/// Allocates, resizes and frees blocks. Returns [`WORKED`] if all of them kept their contents.
fn work() -> usize {
    let mut words: Vec<String> = Vec::new();
    for number in 0..500 {
        words.push("x".repeat(number));
        if number % 3 == 0 {
            words.swap_remove(number / 3);
        }
    }
    let kept: usize = words.iter().map(String::len).sum();
    assert_eq!(words.concat().len(), kept);
    kept
}

const WORKED: usize = 103_834;

/// A vector that was allocated before `main`.
static BEFORE_MAIN: AtomicPtr<Vec<String>> = AtomicPtr::new(ptr::null_mut());

#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = construct;

extern "C" fn construct() {
    let words = (0..1000).map(|number| number.to_string()).collect();
    BEFORE_MAIN.store(Box::into_raw(Box::new(words)), Relaxed);
}

#[test]
fn memory_that_was_allocated_before_main_is_intact_and_can_be_freed() {
    let words = BEFORE_MAIN.swap(ptr::null_mut(), Relaxed);
    // SAFETY: the pointer came from `Box::into_raw`, and is converted back once.
    let words = unsafe { Box::from_raw(words) };
    assert!(words.iter().enumerate().all(|(number, word)| *word == number.to_string()));
}

/// The sum of the values that the destructors of a thread computed.
static IN_DESTRUCTORS: AtomicUsize = AtomicUsize::new(0);

/// Allocates and frees while its thread ends, and frees blocks that the thread allocated earlier.
struct Worker(Vec<String>);

impl Drop for Worker {
    fn drop(&mut self) {
        let before: usize = self.0.drain(..).map(|word| word.len()).sum();
        IN_DESTRUCTORS.fetch_add(before + work(), Relaxed);
    }
}

thread_local! {
    static WORKER: RefCell<Worker> = const { RefCell::new(Worker(Vec::new())) };
}

unsafe extern "C" fn at_the_very_end(word: *mut c_void) {
    // SAFETY: the value of the key came from `Box::into_raw`.
    let word = unsafe { Box::from_raw(word.cast::<String>()) };
    IN_DESTRUCTORS.fetch_add(word.len() + work(), Relaxed);
}

#[test]
fn destructors_of_a_thread_can_allocate_and_free_after_its_heap_was_closed() {
    let mut key = 0;
    // SAFETY: the key is never deleted, and the destructor is never unloaded.
    assert_eq!(unsafe { libc::pthread_key_create(&mut key, Some(at_the_very_end)) }, 0);
    let thread = thread::spawn(move || {
        WORKER.with_borrow_mut(|worker| worker.0 = vec!["abc".to_owned(); 100]);
        let word = Box::into_raw(Box::new("at the end".to_owned()));
        // The allocator created its own pthread key earlier, so the key's destructor has already
        // closed the thread's heap.
        // SAFETY: the key exists.
        assert_eq!(unsafe { libc::pthread_setspecific(key, word.cast()) }, 0);
    });
    thread.join().expect("no destructor panics");
    assert_eq!(IN_DESTRUCTORS.load(Relaxed), 300 + WORKED + 10 + WORKED);
}

static IN_HANDLER: AtomicUsize = AtomicUsize::new(0);

extern "C" fn handle(_signal: i32) {
    IN_HANDLER.fetch_add(work(), Relaxed);
}

#[test]
fn a_signal_handler_that_does_not_interrupt_the_allocator_can_allocate() {
    // SAFETY: the handler has the type that the call expects.
    unsafe { libc::signal(libc::SIGUSR1, handle as *const () as libc::sighandler_t) };
    // SAFETY: the signal has a handler, and this thread is not inside the allocator.
    assert_eq!(unsafe { libc::raise(libc::SIGUSR1) }, 0);
    assert_eq!(IN_HANDLER.load(Relaxed), WORKED);
}

extern "C" fn work_in_a_thread(_: *mut c_void) -> *mut c_void {
    work();
    ptr::null_mut()
}

/// Forks a child that runs only `body`, and returns the child's status.
///
/// # Safety
///
/// - `body` must not need a lock that another thread may hold.
unsafe fn in_a_child(body: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child only runs `body`, which needs no lock of another thread (contract).
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: both calls have no requirements. The alarm ends a child that hangs.
        unsafe {
            libc::alarm(60);
            libc::_exit(body())
        }
    }
    let mut status = -1;
    // SAFETY: `status` is a valid place.
    unsafe { libc::waitpid(pid, &mut status, 0) };
    status
}

/// Limits the address space of this process to `limit` bytes. Returns the previous limit.
fn limit_addresses(limit: libc::rlim_t) -> libc::rlim_t {
    let mut now = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `now` and `limits` are valid places.
    let outcome = unsafe {
        let read = libc::getrlimit(libc::RLIMIT_AS, &mut now);
        let limits = libc::rlimit { rlim_cur: limit, ..now };
        read | libc::setrlimit(libc::RLIMIT_AS, &limits)
    };
    assert_eq!(outcome, 0, "a process may limit itself");
    now.rlim_cur
}

#[repr(C)]
struct Numbered(*mut Numbered, [usize; 5]);

/// Allocates until `limit` is reached. Returns 0 if all blocks kept their contents.
fn run_out_of_memory(limit: libc::rlim_t) -> i32 {
    let layout = Layout::new::<Numbered>();
    let contents = |number: usize| [number, !number, number, !number, number];
    let before = limit_addresses(limit);
    let (mut last, mut count) = (ptr::null_mut(), 0);
    loop {
        // SAFETY: the layout is not empty.
        let block = unsafe { GLOBAL.alloc(layout) }.cast::<Numbered>();
        if block.is_null() {
            break;
        }
        // SAFETY: the block is new and has the size of a `Numbered`.
        unsafe { block.write(Numbered(last, contents(count))) };
        (last, count) = (block, count + 1);
    }
    let many = count > 10_000;
    while !last.is_null() {
        count -= 1;
        // SAFETY: the block is in use and initialised.
        let Numbered(next, found) = unsafe { last.read() };
        if found != contents(count) {
            return 1;
        }
        // SAFETY: the block came from `GLOBAL` for `layout` and is not used again.
        unsafe { GLOBAL.dealloc(last.cast(), layout) };
        last = next;
    }
    limit_addresses(before);
    i32::from(!(many && count == 0 && work() == WORKED))
}

#[test]
fn a_small_request_without_memory_returns_null_and_changes_no_block() {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:"));
    let kib = size.and_then(|size| size.trim().trim_end_matches(" kB").parse().ok());
    let limit = kib.map(|kib: libc::rlim_t| (kib << 10) + (32 << 20)).expect("a number of KiB");
    // SAFETY: the child only calls the allocator and the C library, whose locks survive a fork.
    assert_eq!(unsafe { in_a_child(|| run_out_of_memory(limit)) }, 0);
}

/// Returns 0 if a forked child can allocate, free and start a thread.
///
/// The thread is started through the C library, because a lock of the standard library might stay
/// locked after a fork.
fn live_as_a_child(inherited: Vec<String>) -> i32 {
    let words = inherited.concat().len();
    drop(inherited);
    let mut thread = MaybeUninit::uninit();
    // SAFETY: `thread` is a valid place. The thread is joined once, if it was started.
    let joined = unsafe {
        let main = work_in_a_thread;
        libc::pthread_create(thread.as_mut_ptr(), ptr::null(), main, ptr::null_mut()) == 0
            && libc::pthread_join(thread.assume_init(), ptr::null_mut()) == 0
    };
    i32::from(!(joined && words == 1000 && work() == WORKED))
}

#[test]
fn the_child_of_a_fork_beside_busy_threads_allocates_frees_and_starts_a_thread() {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let busy = || {
            while !done.load(Relaxed) {
                work();
            }
        };
        scope.spawn(busy);
        scope.spawn(busy);
        let statuses: Vec<_> = (0..50)
            .map(|_| {
                let inherited = vec!["x".to_owned(); 1000];
                // SAFETY: the locks of the allocator and of the C library survive a fork.
                unsafe { in_a_child(|| live_as_a_child(inherited)) }
            })
            .collect();
        done.store(true, Relaxed);
        assert_eq!(statuses, [0; 50]);
    });
}

/// Set in the child process of the exit test.
const CHILD: &str = "OBMALLOC_TEST_EXIT";

extern "C" fn at_exit() {
    println!("worked at exit: {}", work());
}

#[test]
fn a_function_that_runs_at_exit_can_allocate() {
    if std::env::var_os(CHILD).is_some() {
        // SAFETY: the function has the type that the call expects, and is never unloaded.
        unsafe { libc::atexit(at_exit) };
        std::process::exit(0);
    }
    let program = std::env::current_exe().expect("the path of this program");
    let output = std::process::Command::new(program)
        .args(["--exact", "a_function_that_runs_at_exit_can_allocate", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .expect("the child starts");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}: {printed}", output.status);
    assert!(printed.contains(&format!("worked at exit: {WORKED}")), "{printed}");
}
