//! Objects in a static buffer, cached: no standard library, no `alloc`, no allocator of the
//! system. Exits with 0 if the caches work.

#![no_std]
#![no_main]

use core::{cell::Cell, ffi::c_int, panic::PanicInfo, ptr::NonNull};

use object_cache::{Cached, CachedRc, Counted, FreeList, Immortals, MemAlloc};

#[link(name = "c")]
unsafe extern "C" {
    fn abort() -> !;
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    // SAFETY: abort may be called at any time.
    unsafe { abort() }
}

/// Hands out a buffer from front to end, and takes nothing back.
struct Bump {
    buffer: [Cell<u128>; 64],
    used: Cell<usize>,
}

// SAFETY: each block is a part of the buffer that was not handed out before, aligned to 16 bytes;
// the buffer stays where it is while it is borrowed.
unsafe impl MemAlloc for &'static Bump {
    fn malloc(&self, size: usize) -> Option<NonNull<u8>> {
        let cells = size.div_ceil(16).max(1);
        let free = self.buffer.get(self.used.get()..)?;
        let block = free.get(..cells)?;
        self.used.set(self.used.get() + cells);
        Some(NonNull::from(block).cast())
    }

    fn calloc(&self, _: usize, _: usize) -> Option<NonNull<u8>> {
        None
    }

    unsafe fn realloc(&self, _: Option<NonNull<u8>>, _: usize) -> Option<NonNull<u8>> {
        None
    }

    unsafe fn free(&self, _: Option<NonNull<u8>>) {}
}

struct Shared(Bump);

// SAFETY: the program has one thread.
unsafe impl Sync for Shared {}

static MEMORY: Shared =
    Shared(Bump { buffer: [const { Cell::new(0) }; 64], used: Cell::new(0) });

static DIGITS: Immortals<u8, 10> = Immortals::new(0, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);

/// Makes and ends many more objects than the buffer has room for.
fn run() -> Option<bool> {
    let floats = FreeList::new(10, &MEMORY.0);
    let shared = FreeList::<Counted<u64>, _>::new(10, &MEMORY.0);
    let mut sum = 0.0;
    for number in 0..1000 {
        let float = Cached::new_in(number as f64, &floats)?;
        let counted = CachedRc::new_in(number, &shared)?;
        sum += *float + *counted.clone() as f64;
    }
    let hits = floats.stats().hits + shared.stats().hits;
    Some(sum == 999_000.0 && hits == 1998 && DIGITS.get(7) == Some(&7))
}

#[unsafe(no_mangle)]
extern "C" fn main() -> c_int {
    c_int::from(run() != Some(true))
}
