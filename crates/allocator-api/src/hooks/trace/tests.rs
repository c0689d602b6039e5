use raw_mem::{Malloc, NoAlloc};

use super::*;

fn traces() -> &'static Traces {
    let traces: &'static Traces = Box::leak(Box::new(Traces::new()));
    traces.start(0);
    traces
}

#[test]
fn bytes_and_blocks_in_use_are_known_by_domain_with_their_peak() {
    let traces = traces();
    let [raw, obj] = [Domain::Raw, Domain::Obj].map(|domain| Trace::new(Malloc, domain, traces));
    let first = raw.malloc(100);
    let second = obj.calloc(10, 20);
    // SAFETY: the block is live, and replaced by the result.
    let second = unsafe { obj.realloc(second, 50) };
    let current = |bytes, blocks| Amount { bytes, blocks };
    let raw_figures = Figures { current: current(100, 1), peak_bytes: 100 };
    assert_eq!(traces.domain(Domain::Raw), raw_figures);
    let obj_figures = Figures { current: current(50, 1), peak_bytes: 200 };
    assert_eq!(traces.domain(Domain::Obj), obj_figures);
    assert_eq!(traces.domain(Domain::Mem), Figures::default());
    assert_eq!(traces.total(), Figures { current: current(150, 2), peak_bytes: 300 });
    traces.reset_peaks();
    assert_eq!(traces.total().peak_bytes, 150);
    // SAFETY: the blocks are live, and not used again.
    unsafe {
        raw.free(first);
        obj.free(second);
    }
    assert_eq!(traces.total().current, Amount::default());
}

#[test]
fn a_request_that_passes_two_domains_is_traced_once() {
    let traces = traces();
    let inner = Trace::new(Malloc, Domain::Raw, traces);
    let outer = Trace::new(inner, Domain::Obj, traces);
    let block = outer.malloc(1000);
    assert_eq!(traces.domain(Domain::Raw).current.blocks, 0);
    assert_eq!(traces.domain(Domain::Obj).current.blocks, 1);
    // SAFETY: the block is live, and not used again.
    unsafe { outer.free(block) };
    assert_eq!(traces.total().current.blocks, 0);
}

#[test]
fn requests_without_memory_and_without_tracing_leave_no_trace() {
    let traces = traces();
    assert!(Trace::new(NoAlloc, Domain::Raw, traces).malloc(1).is_none());
    let hook = Trace::new(Malloc, Domain::Raw, traces);
    traces.stop();
    let block = hook.malloc(10);
    traces.start(0);
    assert_eq!(traces.total(), Figures::default());
    // SAFETY: the block is live, and not used again. The trace does not know it.
    unsafe { hook.free(block) };
    assert_eq!(traces.total(), Figures::default());
}

/// An allocator whose `realloc` always fails.
struct Stubborn;

// SAFETY: every call except `realloc` is passed to `Malloc`, and `realloc` leaves the block as it
// is.
unsafe impl MemAlloc for Stubborn {
    fn malloc(&self, size: usize) -> Option<NonNull<u8>> {
        Malloc.malloc(size)
    }

    fn calloc(&self, count: usize, size: usize) -> Option<NonNull<u8>> {
        Malloc.calloc(count, size)
    }

    unsafe fn realloc(&self, _ptr: Option<NonNull<u8>>, _size: usize) -> Option<NonNull<u8>> {
        None
    }

    unsafe fn free(&self, ptr: Option<NonNull<u8>>) {
        // SAFETY: the block came from malloc (contract of `free`).
        unsafe { Malloc.free(ptr) }
    }
}

#[test]
fn a_block_that_could_not_be_resized_keeps_its_trace() {
    let traces = traces();
    let hook = Trace::new(Stubborn, Domain::Mem, traces);
    let block = hook.malloc(10);
    // SAFETY: the block is live, and stays live because `realloc` fails. It is not used after
    // `free`.
    unsafe {
        assert!(hook.realloc(block, 20).is_none());
        assert_eq!(traces.total().current, Amount { bytes: 10, blocks: 1 });
        hook.free(block);
    }
}

#[test]
fn a_snapshot_is_summed_up_and_compared_with_an_older_one() {
    let traces = traces();
    let hook = Trace::new(Malloc, Domain::Mem, traces);
    let old = hook.malloc(5000);
    let before = traces.snapshot();
    let new = [hook.malloc(30), hook.malloc(32)];
    // SAFETY: the block is live, and not used again.
    unsafe { hook.free(old) };
    let after = traces.snapshot();
    assert_eq!(after.blocks().len(), 2);
    assert_eq!(after.by(|block| block.size)[&30], Amount { bytes: 30, blocks: 1 });
    let [change] = &after.since(&before)[..] else { panic!("one place, unknown") };
    assert_eq!((change.bytes, change.blocks), (62 - 5000, 1));
    assert!(after.since(&after).is_empty());
    let text = "in use: 62 bytes in 2 blocks\n  domain mem: 62 bytes in 2 blocks\n  \
                blocks of up to 32 bytes: 62 bytes in 2 blocks\n";
    assert_eq!(after.to_string(), text);
    for block in new {
        // SAFETY: the block is live, and not used again.
        unsafe { hook.free(block) };
    }
}

#[cfg(all(feature = "backtrace", not(miri)))]
#[inline(never)]
fn a_place_with_a_name(hook: &Trace<Malloc>) -> Option<NonNull<u8>> {
    std::hint::black_box(hook.malloc(64))
}

#[test]
#[cfg(all(feature = "backtrace", not(miri)))]
fn a_place_names_the_function_that_allocated() {
    let traces = traces();
    traces.start(4);
    let hook = Trace::new(Malloc, Domain::Raw, traces);
    let count = std::hint::black_box(3);
    let blocks: Vec<_> = (0..count).map(|_| a_place_with_a_name(&hook)).collect();
    let places = traces.places();
    let figures: Vec<_> = places.iter().map(|(_, figures)| figures.current).collect();
    assert_eq!(figures, [Amount { bytes: 192, blocks: 3 }], "one place for all three");
    let known = traces.place_of(blocks[0].unwrap().addr().get()).unwrap();
    assert_eq!(known, places[0].0);
    let text = traces.snapshot().to_string();
    assert!(text.contains("a_place_with_a_name"), "{text}");
    for block in blocks {
        // SAFETY: the block is live, and not used again.
        unsafe { hook.free(block) };
    }
    assert_eq!(traces.places()[0].1, Figures { current: Amount::default(), peak_bytes: 192 });
}

/// Regression test: an error report about an address named the place of a block that had already
/// been freed or resized. The thread-local `REMOVED`, which must hold a block only while the thread
/// is freeing or resizing it, still held the block afterwards.
#[test]
#[cfg(all(unix, not(miri)))]
fn a_report_does_not_name_the_place_of_a_block_that_was_freed_before() {
    use std::{io::Read, os::fd::AsRawFd};

    let names_a_place = |traces: &Traces, block: Option<NonNull<u8>>| {
        let (mut reader, writer) = std::io::pipe().unwrap();
        // SAFETY: `writer` owns the descriptor, and is dropped later.
        let mut out = unsafe { Output::new(writer.as_raw_fd()) };
        traces.write_place(&mut out, block.unwrap().as_ptr());
        assert!(out.finish());
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        !text.is_empty()
    };
    let traces = traces();
    let hook = Trace::new(Malloc, Domain::Raw, traces);
    let first = hook.malloc(100);
    assert!(names_a_place(traces, first));
    // SAFETY: the block is live, and is replaced by the result.
    let second = unsafe { hook.realloc(first, 100_000) };
    assert!(names_a_place(traces, second));
    assert_eq!(names_a_place(traces, first), first == second);
    // SAFETY: the block is live, and is not used again.
    unsafe { hook.free(second) };
    assert!(!names_a_place(traces, second));
}
