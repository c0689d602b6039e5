//! The first and the last instructions of a process, and what comes between them at odd times.

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

/// Allocates, reallocates and frees blocks of many sizes; what it returns shows that all of them
/// had their contents.
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

/// What [`work`] returns.
const WORKED: usize = 103_834;

/// What was allocated before `main`.
static BEFORE_MAIN: AtomicPtr<Vec<String>> = AtomicPtr::new(ptr::null_mut());

#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = construct;

extern "C" fn construct() {
    let words = (0..1000).map(|number| number.to_string()).collect();
    BEFORE_MAIN.store(Box::into_raw(Box::new(words)), Relaxed);
}

#[test]
fn what_was_allocated_before_main_stands_and_can_be_freed() {
    let words = BEFORE_MAIN.swap(ptr::null_mut(), Relaxed);
    // SAFETY: the constructor made it of a box, and it is taken once.
    let words = unsafe { Box::from_raw(words) };
    assert!(words.iter().enumerate().all(|(number, word)| *word == number.to_string()));
}

/// What the destructors of a thread came to.
static IN_DESTRUCTORS: AtomicUsize = AtomicUsize::new(0);

/// Allocates and frees while its thread ends, and frees what was allocated when it lived.
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
    // SAFETY: the thread gave a boxed string to the key.
    let word = unsafe { Box::from_raw(word.cast::<String>()) };
    IN_DESTRUCTORS.fetch_add(word.len() + work(), Relaxed);
}

#[test]
fn destructors_of_a_thread_allocate_and_free_after_its_heap_is_gone() {
    let mut key = 0;
    // SAFETY: the key lives as long as the process, and so does the destructor.
    assert_eq!(unsafe { libc::pthread_key_create(&mut key, Some(at_the_very_end)) }, 0);
    let thread = thread::spawn(move || {
        WORKER.with_borrow_mut(|worker| worker.0 = vec!["abc".to_owned(); 100]);
        let word = Box::into_raw(Box::new("at the end".to_owned()));
        // SAFETY: the key was made above. That was after the allocator made its own key, so the
        // destructor runs after the one that closes the thread's heap.
        assert_eq!(unsafe { libc::pthread_setspecific(key, word.cast()) }, 0);
    });
    thread.join().expect("its destructors run");
    assert_eq!(IN_DESTRUCTORS.load(Relaxed), 300 + WORKED + 10 + WORKED);
}

static IN_HANDLER: AtomicUsize = AtomicUsize::new(0);

extern "C" fn handle(_signal: i32) {
    IN_HANDLER.fetch_add(work(), Relaxed);
}

#[test]
fn a_signal_handler_that_interrupts_nothing_of_ours_allocates() {
    // SAFETY: the handler is a function of a signal's number.
    unsafe { libc::signal(libc::SIGUSR1, handle as *const () as libc::sighandler_t) };
    // SAFETY: the signal is handled, in this thread, which is not allocating.
    assert_eq!(unsafe { libc::raise(libc::SIGUSR1) }, 0);
    assert_eq!(IN_HANDLER.load(Relaxed), WORKED);
}

extern "C" fn work_in_a_thread(_: *mut c_void) -> *mut c_void {
    work();
    ptr::null_mut()
}

/// Forks a child that does `body` and leaves with what that returns, without running what is
/// registered for an exit. Returns the child's status.
///
/// # Safety
///
/// `body` calls nothing that another thread may have been inside of.
unsafe fn in_a_child(body: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the caller's promise.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: the alarm ends a child that hangs.
        unsafe {
            libc::alarm(60);
            libc::_exit(body())
        }
    }
    let mut status = -1;
    // SAFETY: it waits for the child of this thread.
    unsafe { libc::waitpid(pid, &mut status, 0) };
    status
}

/// A limit on this process's addresses; returns the one before.
fn limit_addresses(limit: libc::rlim_t) -> libc::rlim_t {
    let mut now = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the place for the limits is ours.
    let outcome = unsafe {
        let read = libc::getrlimit(libc::RLIMIT_AS, &mut now);
        let limits = libc::rlimit { rlim_cur: limit, ..now };
        read | libc::setrlimit(libc::RLIMIT_AS, &limits)
    };
    assert_eq!(outcome, 0, "a process may limit itself");
    now.rlim_cur
}

/// A block that knows the one before it, and has its number and what it is not.
#[repr(C)]
struct Numbered(*mut Numbered, [usize; 5]);

/// Takes blocks until there is none within `limit`; 0 if all of them have their contents then, and
/// serve again.
fn run_out_of_memory(limit: libc::rlim_t) -> i32 {
    let layout = Layout::new::<Numbered>();
    let contents = |number: usize| [number, !number, number, !number, number];
    let before = limit_addresses(limit);
    let (mut last, mut count) = (ptr::null_mut(), 0);
    loop {
        // SAFETY: the layout has a size.
        let block = unsafe { GLOBAL.alloc(layout) }.cast::<Numbered>();
        if block.is_null() {
            break;
        }
        // SAFETY: the block is new, and has that size.
        unsafe { block.write(Numbered(last, contents(count))) };
        (last, count) = (block, count + 1);
    }
    let many = count > 10_000;
    while !last.is_null() {
        count -= 1;
        // SAFETY: the block is in use, and was written.
        let Numbered(next, found) = unsafe { last.read() };
        if found != contents(count) {
            return 1;
        }
        // SAFETY: the block is given up.
        unsafe { GLOBAL.dealloc(last.cast(), layout) };
        last = next;
    }
    limit_addresses(before);
    i32::from(!(many && count == 0 && work() == WORKED))
}

#[test]
fn a_small_request_without_memory_gets_null_and_leaves_every_block_as_it_was() {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:"));
    let kib = size.and_then(|size| size.trim().trim_end_matches(" kB").parse().ok());
    let limit = kib.map(|kib: libc::rlim_t| (kib << 10) + (32 << 20)).expect("a number of KiB");
    // SAFETY: it calls nothing but the allocator and the C library.
    assert_eq!(unsafe { in_a_child(|| run_out_of_memory(limit)) }, 0);
}

/// What a forked child does; 0 if it could. Its thread is the C library's: a lock of the standard
/// library may have been another thread's when the process forked.
fn live_as_a_child(inherited: Vec<String>) -> i32 {
    let words = inherited.concat().len();
    drop(inherited);
    let mut thread = MaybeUninit::uninit();
    // SAFETY: the place for the thread's name is ours; if it is started it is joined, once.
    let joined = unsafe {
        let main = work_in_a_thread;
        libc::pthread_create(thread.as_mut_ptr(), ptr::null(), main, ptr::null_mut()) == 0
            && libc::pthread_join(thread.assume_init(), ptr::null_mut()) == 0
    };
    i32::from(!(joined && words == 1000 && work() == WORKED))
}

#[test]
fn a_forked_child_of_busy_threads_allocates_frees_and_starts_a_thread() {
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
                // SAFETY: it calls nothing but the allocator and the C library.
                unsafe { in_a_child(|| live_as_a_child(inherited)) }
            })
            .collect();
        done.store(true, Relaxed);
        assert_eq!(statuses, [0; 50]);
    });
}

/// Set in the child process that the test below starts.
const CHILD: &str = "OBMALLOC_TEST_EXIT";

extern "C" fn at_exit() {
    println!("worked at exit: {}", work());
}

#[test]
fn a_function_that_runs_at_exit_allocates() {
    if std::env::var_os(CHILD).is_some() {
        // SAFETY: the function takes and returns nothing, and stays.
        unsafe { libc::atexit(at_exit) };
        std::process::exit(0);
    }
    let program = std::env::current_exe().expect("it runs");
    let output = std::process::Command::new(program)
        .args(["--exact", "a_function_that_runs_at_exit_allocates", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .expect("it starts");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}: {printed}", output.status);
    assert!(printed.contains(&format!("worked at exit: {WORKED}")), "{printed}");
}
