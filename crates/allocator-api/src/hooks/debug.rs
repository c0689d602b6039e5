//! CPython's debug hooks, which find misuse of an allocator. CPython: `PyMem_SetupDebugHooks`.

mod block;
mod host;
mod readable;
mod report;
mod style;

use core::{
    fmt,
    hint::black_box,
    ptr::NonNull,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use raw_mem::{MAX_REQUEST, MemAlloc, calloc_size, without_unwinding};

use self::{
    block::{ALIGNED_HEADER, Block, HEADER, of_aligned},
    style::WORD,
};
pub use self::{
    host::{Host, Misuse, Operation, Standalone},
    style::Style,
};
use crate::Domain;

/// How many bytes at each end of a block are saved and overwritten while the block is reallocated.
const ERASED: usize = 64;

/// The number of blocks that the debug hooks of this process have allocated.
static SERIAL: AtomicUsize = AtomicUsize::new(0);

/// A hook that checks how a program uses the allocator below it, as CPython's debug hooks do.
///
/// | misuse | how it is found when the block is freed, reallocated or measured |
/// | --- | --- |
/// | another domain allocated the block | the letter before the block differs |
/// | a write before the block | one of the 7 guard bytes before it differs |
/// | a write after the block | one of the 8 guard bytes after it differs |
/// | a double free, or a use after free | the letter and the guards have been overwritten |
/// | a double free, or a use after free, of unmapped memory | the memory cannot be read |
/// | a pointer that no allocator returned | it is not aligned, or no valid header precedes it |
///
/// If a check fails, the hook writes a description of the block to stderr and ends the process. The
/// description has the same wording as in CPython, and writing it allocates no memory.
///
/// The hook cannot report these kinds of misuse:
///
/// - reads, and writes to other places than the guards,
/// - a second use of a block after the allocator has reused its memory for another block at the
///   same address, which looks like a use of the new block,
/// - a second use of a block below 64 KiB after the allocator has unmapped its memory. The process
///   may then end with a signal such as `SIGSEGV`, because the hook asks the system whether a page
///   can be read only if it does not remember the page. On systems other than Unix, it never asks.
///
/// When the hook frees a block, it fills the block and its header with the byte `0xDD`. Later, it
/// recognises the freed block by these bytes. However, the allocator may overwrite or purge them.
/// The hook then no longer recognises the freed block. The header contains a letter that names the
/// block's domain, and this letter has also changed. If the program frees or uses the block again,
/// the hook may therefore report that the block belongs to another domain.
///
/// The hook fills each new block with the byte `0xCD`, unless a zeroed block was requested, and
/// each freed block with the byte `0xDD`. With these bytes, a program that uses uninitialised or
/// freed memory is likely to fail. While a block is being reallocated, the hook fills the first and
/// the last 64 bytes of the old block with the byte `0xDD`. It leaves the bytes in between
/// unchanged, so it has to save and restore only a few bytes.
///
/// On a 64-bit machine, the hook adds 24 bytes to each block, or 32 bytes with serial numbers. Of
/// these bytes, 16 precede the block, so the block is aligned as in the wrapped allocator, but to
/// at most 16 bytes. If a block is requested from [`malloc_aligned`](MemAlloc::malloc_aligned) with
/// an alignment of `align` bytes, which is more than a word, the hook adds another `16 + align`
/// bytes. Such a block keeps its alignment when it is reallocated.
///
/// ```
/// use allocator_api::{Domain, hooks::Debug, raw_mem::{Malloc, MemAlloc}};
///
/// let hook = Debug::new(Malloc, Domain::Mem);
/// let block = hook.malloc(16).ok_or("out of memory")?;
/// // SAFETY: the block has 16 bytes, and is not used after it is freed.
/// unsafe {
///     assert_eq!(block.read(), 0xCD);
///     hook.free(Some(block));
/// }
/// # Ok::<(), &str>(())
/// ```
#[derive(Clone, Copy)]
pub struct Debug<A> {
    below: A,
    letter: u8,
    style: Style,
    host: &'static dyn Host,
}

impl<A: fmt::Debug> fmt::Debug for Debug<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = char::from(self.letter);
        f.debug_struct("Debug").field("below", &self.below).field("letter", &letter).finish()
    }
}

impl<A> Debug<A> {
    /// Wraps `below`, which serves `domain`. The style is that of CPython from 3.8.
    pub const fn new(below: A, domain: Domain) -> Self {
        Self::with_style(below, domain, Style::CPYTHON_3_8)
    }

    /// Wraps `below`, which serves `domain`. `style` sets the filling bytes and the layout of the
    /// blocks.
    ///
    /// The style of a hook cannot change, because it determines how many bytes the hook adds after
    /// each block. With a style that adds more bytes, the hook would write past the end of its
    /// older blocks:
    ///
    /// ```
    /// # use allocator_api::{Domain, hooks::{Debug, Style}, raw_mem::Malloc};
    /// let hook = Debug::with_style(Malloc, Domain::Mem, Style::CPYTHON_3_7);
    /// ```
    ///
    /// ```compile_fail
    /// # use allocator_api::{Domain, hooks::{Debug, Style}, raw_mem::Malloc};
    /// let hook = Debug::new(Malloc, Domain::Mem);
    /// let hook = hook.with_style(Style::CPYTHON_3_7);
    /// ```
    pub const fn with_style(below: A, domain: Domain, style: Style) -> Self {
        Self { below, letter: domain.letter(), style, host: &Standalone }
    }

    /// Sets the [`Host`] through which the hook interacts with the program.
    ///
    /// The hook calls methods of its host, for example [`Host::end`] to report an error and end the
    /// process. If such a method panics, the process is aborted.
    #[must_use]
    pub const fn with_host(mut self, host: &'static dyn Host) -> Self {
        self.host = host;
        self
    }

    /// Returns the allocator below.
    pub const fn below(&self) -> &A {
        &self.below
    }

    fn check_caller(&self, operation: Operation) {
        if !without_unwinding(|| self.host.may_call()) {
            without_unwinding(|| self.host.end(operation, Misuse::Caller));
        }
    }

    /// Checks `block`, and returns its size in bytes and its letter.
    ///
    /// # Safety
    ///
    /// - `block` must be a pointer that the program uses as a block of this hook.
    unsafe fn check(&self, operation: Operation, block: Block) -> (usize, u8) {
        // SAFETY: the program uses the pointer as a block (contract).
        let checked = unsafe { block.check(self.letter, self.style) };
        match checked {
            // SAFETY: the check found a block, which has a header.
            Ok(size) => (size, unsafe { block.letter() }),
            Err(misuse) => self.report(operation, block, misuse),
        }
    }

    #[cold]
    #[inline(never)]
    fn report(&self, operation: Operation, block: Block, misuse: Misuse) -> ! {
        without_unwinding(|| {
            report::describe(block, self.style, self.host);
            self.host.end(operation, misuse)
        })
    }
}

/// Returns the serial number of a new block.
fn next_serial() -> usize {
    // `Relaxed` is enough, because no other memory access is ordered by the number.
    SERIAL.fetch_add(1, Relaxed).wrapping_add(1)
}

impl<A: MemAlloc> Debug<A> {
    fn allocate(&self, size: usize, below: impl Fn(usize) -> Option<NonNull<u8>>) -> Option<Block> {
        if size > MAX_REQUEST - self.style.overhead() {
            return None;
        }
        let base = below(size + self.style.overhead())?;
        // SAFETY: the new block has a header.
        let block = Block::at(unsafe { base.add(HEADER) });
        // SAFETY: the new block has the size and the overhead.
        unsafe { block.write_around(size, self.letter, next_serial(), self.style) };
        Some(block)
    }

    /// Returns the size in bytes that was requested for the block at `ptr`.
    ///
    /// # Safety
    ///
    /// - `ptr` must be a live block that was allocated by this hook.
    pub unsafe fn size(&self, ptr: NonNull<u8>) -> usize {
        // SAFETY: the program uses the pointer as a block (contract).
        unsafe { self.check(Operation::UsableSize, Block::at(ptr)) }.0
    }

    /// Returns how many bytes to request from the allocator below for a block of `size` bytes at a
    /// multiple of `align` bytes. Returns `None` if the result would overflow.
    fn room_of_aligned(&self, size: usize, align: usize) -> Option<usize> {
        size.checked_add(align)?.checked_add(ALIGNED_HEADER + self.style.trailer())
    }

    fn allocate_aligned(&self, size: usize, align: usize) -> Option<NonNull<u8>> {
        let base = self.below.malloc(self.room_of_aligned(size, align)?)?;
        let above = base.addr().get() + ALIGNED_HEADER;
        let distance = ALIGNED_HEADER + (above.wrapping_neg() & (align - 1));
        // SAFETY: the distance is less than `ALIGNED_HEADER + align`, so the size and the trailer
        // fit.
        let block = Block::at(unsafe { base.add(distance) });
        // SAFETY: as above. There is room for the alignment and the header before the block.
        unsafe {
            block.write_alignment(align, distance);
            block.write_around(size, of_aligned(self.letter), next_serial(), self.style);
            block.start().write_bytes(self.style.clean, size);
        }
        Some(block.start())
    }

    /// Overwrites a block that was checked, and frees it.
    ///
    /// # Safety
    ///
    /// - `block` must be a live block of `size` bytes that this debug hook allocated.
    /// - The program must not use the block after this call.
    /// - `letter` must be the letter in the block's header. This is `self.letter`, the letter of
    ///   the hook's memory domain, or the same letter in upper case if the block was requested with
    ///   an alignment of more than a word.
    unsafe fn release(&self, block: Block, size: usize, letter: u8) {
        let all = size + self.style.overhead();
        let (distance, room) = if letter == self.letter {
            (HEADER, all)
        } else {
            // SAFETY: the letter is that of an aligned block (contract).
            let [align, distance] = unsafe { block.alignment() };
            (distance, self.room_of_aligned(size, align).unwrap_or(all))
        };
        // SAFETY: the base is that far before the block.
        let base = unsafe { block.start().sub(distance) };
        // SAFETY: the block has these bytes, a header and a trailer, and is not used again.
        unsafe { block.header().write_bytes(self.style.dead, all) };
        // The allocator below may unmap its block.
        readable::forget(base.as_ptr(), room);
        // `black_box` stops the compiler from removing the writes of dead bytes as dead stores.
        // SAFETY: the base is a live block of the allocator below, and is not used again.
        unsafe { self.below.free(Some(black_box(base))) };
    }

    /// Reallocates a block that has `old` bytes and the letter of this hook.
    ///
    /// # Safety
    ///
    /// - `block` must be a live block of `old` bytes that this debug hook allocated.
    /// - The header of `block` must contain the lower-case letter `self.letter`. An upper-case
    ///   letter would mean that the block was requested with an alignment of more than a word,
    ///   which this function does not preserve.
    unsafe fn resize(&self, block: Block, old: usize, new: usize) -> Option<NonNull<u8>> {
        // The allocator below may unmap the old block.
        readable::forget(block.header(), old + self.style.overhead());
        // SAFETY: the block is live, and has this size (contract).
        let serial = if self.style.has_serials { unsafe { block.serial(old) } } else { 0 };
        // SAFETY: as above. Nothing uses the block until it is written again at the end of this
        // function, which is always reached: the allocator below does not unwind (contract of
        // `MemAlloc`).
        let ends = unsafe { Ends::erase(block, old, self.style) };
        // SAFETY: the block begins there.
        let base = unsafe { block.start().sub(HEADER) };
        // `black_box` stops the compiler from removing the writes of dead bytes as dead stores.
        let base = black_box(base);
        // SAFETY: the base is a live block of the allocator below.
        let moved = unsafe { self.below.realloc(Some(base), new + self.style.overhead()) };
        let (base, size, serial) = match moved {
            Some(base) => (base, new, next_serial()),
            None => (base, old, serial),
        };
        // SAFETY: the block has a header.
        let block = Block::at(unsafe { base.add(HEADER) });
        // SAFETY: the block was moved or is unchanged, so it has `size` bytes and the overhead.
        unsafe {
            block.write_around(size, self.letter, serial, self.style);
            ends.restore(block, old, size);
        }
        moved?;
        if size > old {
            // SAFETY: the block has that many bytes.
            unsafe { block.start().add(old).write_bytes(self.style.clean, size - old) };
        }
        Some(block.start())
    }
}

/// The bytes at both ends of a block that is being reallocated.
struct Ends {
    bytes: [u8; 2 * ERASED],
}

impl Ends {
    /// Saves the ends of `block`, then overwrites the ends, the header and the trailer with dead
    /// bytes.
    ///
    /// # Safety
    ///
    /// - `block` must be a live block with `size` bytes, and not be used until it is written again.
    unsafe fn erase(block: Block, size: usize, style: Style) -> Self {
        let mut ends = Self { bytes: [0; 2 * ERASED] };
        let (start, header) = (block.start().as_ptr(), block.header());
        let (tail, to) = (block.tail(size), ends.bytes.as_mut_ptr());
        // SAFETY: the block has these bytes, a header and a trailer (contract). The buffer has room
        // for both ends.
        unsafe {
            if size <= 2 * ERASED {
                to.copy_from_nonoverlapping(start, size);
                header.write_bytes(style.dead, size + style.overhead());
            } else {
                to.copy_from_nonoverlapping(start, ERASED);
                to.add(ERASED).copy_from_nonoverlapping(tail.sub(ERASED), ERASED);
                header.write_bytes(style.dead, HEADER + ERASED);
                tail.sub(ERASED).write_bytes(style.dead, ERASED + style.trailer());
            }
        }
        ends
    }

    /// Restores the saved ends of a block that had `old` bytes, as far as they fit into `new`
    /// bytes.
    ///
    /// # Safety
    ///
    /// - `block` must have `new` bytes.
    unsafe fn restore(&self, block: Block, old: usize, new: usize) {
        let (start, from) = (block.start().as_ptr(), self.bytes.as_ptr());
        // SAFETY: at most `new` bytes are written (contract), and the buffer has these bytes.
        unsafe {
            if old <= 2 * ERASED {
                start.copy_from_nonoverlapping(from, old.min(new));
                return;
            }
            start.copy_from_nonoverlapping(from, new.min(ERASED));
            let second = old - ERASED;
            if new > second {
                let len = (new - second).min(ERASED);
                start.add(second).copy_from_nonoverlapping(from.add(ERASED), len);
            }
        }
    }
}

// SAFETY: each block lies inside a block of `below` and has the requested size. A block begins 16
// bytes after its base, so it has the same alignment, up to 16 bytes.
unsafe impl<A: MemAlloc> MemAlloc for Debug<A> {
    fn malloc(&self, size: usize) -> Option<NonNull<u8>> {
        self.check_caller(Operation::Malloc);
        let block = self.allocate(size, |size| self.below.malloc(size))?;
        // SAFETY: the block has that many bytes.
        unsafe { block.start().write_bytes(self.style.clean, size) };
        Some(block.start())
    }

    fn calloc(&self, count: usize, size: usize) -> Option<NonNull<u8>> {
        self.check_caller(Operation::Calloc);
        let bytes = calloc_size(count, size)?;
        self.allocate(bytes, |size| self.below.calloc(1, size)).map(Block::start)
    }

    unsafe fn realloc(&self, ptr: Option<NonNull<u8>>, size: usize) -> Option<NonNull<u8>> {
        let Some(ptr) = ptr else { return self.malloc(size) };
        self.check_caller(Operation::Realloc);
        let block = Block::at(ptr);
        // SAFETY: the program uses the pointer as a block of this hook (contract of `realloc`).
        let (old, letter) = unsafe { self.check(Operation::Realloc, block) };
        if size > MAX_REQUEST - self.style.overhead() {
            return None;
        }
        if letter == self.letter {
            // SAFETY: the block is live, and has this size.
            return unsafe { self.resize(block, old, size) };
        }
        // SAFETY: the block is live, and has the letter of an aligned block.
        let [align, _] = unsafe { block.alignment() };
        let new = self.allocate_aligned(size, align)?;
        // SAFETY: both blocks are live, have these bytes, and do not overlap.
        unsafe { new.copy_from_nonoverlapping(ptr, old.min(size)) };
        // SAFETY: the block is live, and the caller uses only the result (contract).
        unsafe { self.release(block, old, letter) };
        Some(new)
    }

    unsafe fn free(&self, ptr: Option<NonNull<u8>>) {
        self.check_caller(Operation::Free);
        let Some(ptr) = ptr else { return };
        let block = Block::at(ptr);
        // SAFETY: the program uses the pointer as a block of this hook (contract of `free`).
        let (size, letter) = unsafe { self.check(Operation::Free, block) };
        // SAFETY: the block is live, has this size and letter, and is not used again (contract).
        unsafe { self.release(block, size, letter) };
    }

    /// Returns the requested size and not a larger one, because the hook checks the bytes after the
    /// requested size.
    unsafe fn usable_size(&self, ptr: NonNull<u8>) -> Option<usize> {
        // SAFETY: the contract is the same.
        Some(unsafe { self.size(ptr) })
    }

    fn supports_alignment(&self) -> bool {
        true
    }

    fn malloc_aligned(&self, size: usize, align: usize) -> Option<NonNull<u8>> {
        if align <= WORD {
            return self.malloc(size);
        }
        self.check_caller(Operation::Malloc);
        self.allocate_aligned(size, align)
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
