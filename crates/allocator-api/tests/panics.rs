//! A panic below `Global`, in a callback or in a `Host` ends the process, because an allocator must
//! not unwind. Each case runs in a child process.

#![cfg(all(unix, not(miri), not(loom)))]

use std::{
    alloc::{GlobalAlloc, Layout},
    env,
    os::unix::process::ExitStatusExt,
    panic::{AssertUnwindSafe, catch_unwind},
    process::Command,
    ptr::NonNull,
};

use allocator_api::{
    Domain, Global, Limited,
    hooks::{Debug, Host, Misuse, Operation},
    raw_mem::{Limits, Malloc, MemAlloc, Output},
};

const CASE: &str = "OBMALLOC_TEST_PANIC";

/// An allocator whose method with this name panics in every call.
struct Panicking(&'static str);

impl Panicking {
    fn call(&self, method: &str) {
        assert!(self.0 != method, "{method} panics");
    }
}

// SAFETY: a call that does not panic is passed to `Malloc`.
unsafe impl MemAlloc for Panicking {
    fn malloc(&self, size: usize) -> Option<NonNull<u8>> {
        self.call("malloc");
        Malloc.malloc(size)
    }

    fn calloc(&self, count: usize, size: usize) -> Option<NonNull<u8>> {
        self.call("calloc");
        Malloc.calloc(count, size)
    }

    unsafe fn realloc(&self, ptr: Option<NonNull<u8>>, size: usize) -> Option<NonNull<u8>> {
        self.call("realloc");
        // SAFETY: the contract is the same.
        unsafe { Malloc.realloc(ptr, size) }
    }

    unsafe fn free(&self, ptr: Option<NonNull<u8>>) {
        self.call("free");
        // SAFETY: the contract is the same.
        unsafe { Malloc.free(ptr) }
    }
}

/// The methods of [`Panicking`] that can panic.
const METHODS: [&str; 4] = ["malloc", "calloc", "realloc", "free"];

/// A host whose method with this name panics in every call.
struct PanickingHost(&'static str);

impl PanickingHost {
    fn call(&self, method: &str) {
        assert!(self.0 != method, "{method} panics");
    }
}

impl Host for PanickingHost {
    fn may_call(&self) -> bool {
        self.call("may_call");
        true
    }

    fn write_place(&self, _: &mut Output, _: *const u8) {
        self.call("write_place");
    }

    fn end(&self, _: Operation, _: Misuse) -> ! {
        self.call("end");
        // The test expects an abort instead.
        std::process::exit(0)
    }
}

static HOSTS: [PanickingHost; 3] =
    [PanickingHost("may_call"), PanickingHost("write_place"), PanickingHost("end")];

fn run(case: &str) {
    if let Some(host) = HOSTS.iter().find(|host| host.0 == case) {
        let hook = Debug::new(Malloc, Domain::Raw).with_host(host);
        let block = hook.malloc(8).unwrap();
        // SAFETY: the block is live, and the byte after it belongs to the hook, which reports that
        // it was overwritten.
        unsafe {
            block.add(8).write(1);
            hook.free(Some(block));
        }
        return;
    }
    if case == "callback" {
        let limited = Limited::new(Malloc, Limits::hard(10), |_| panic!("the callback panics"));
        limited.malloc(100);
        return;
    }
    let method = METHODS.into_iter().find(|method| *method == case).expect("a case");
    let global = Global::new(Panicking(method));
    for align in [8, 64] {
        let layout = Layout::from_size_align(100, align).unwrap();
        // SAFETY: the layout is not empty, and each block is freed once.
        unsafe {
            let zeroed = global.alloc_zeroed(layout);
            let block = global.alloc(layout);
            let block = global.realloc(block, layout, 200);
            global.dealloc(block, Layout::from_size_align(200, align).unwrap());
            global.dealloc(zeroed, layout);
        }
    }
}

#[test]
fn child() {
    if let Ok(case) = env::var(CASE) {
        let _ = catch_unwind(AssertUnwindSafe(|| run(&case)));
    }
}

fn aborts(case: &str) -> bool {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture", "--test-threads=1"]).env(CASE, case);
    command.output().unwrap().status.signal() == Some(6)
}

/// Regression test: the panic unwound through `GlobalAlloc`, which is undefined behaviour.
#[test]
fn a_panic_below_a_global_allocator_ends_the_process() {
    let unwinding: Vec<_> = METHODS.into_iter().filter(|method| !aborts(method)).collect();
    assert_eq!(unwinding, [""; 0]);
}

/// Regression test: the panic unwound out of the hook. A second debug hook erases the ends of a
/// block while it calls the hook below it, and would not have restored them after such a panic.
#[test]
fn a_panic_in_the_host_of_a_debug_hook_ends_the_process() {
    let unwinding: Vec<_> = HOSTS.iter().map(|host| host.0).filter(|case| !aborts(case)).collect();
    assert_eq!(unwinding, [""; 0]);
}

/// Regression test: after a panic, the callback was never called again.
#[test]
fn a_panic_in_the_callback_of_a_limit_ends_the_process() {
    assert!(aborts("callback"));
}
