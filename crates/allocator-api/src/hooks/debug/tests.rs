use core::cell::{Cell, RefCell};

use raw_mem::{Malloc, NoAlloc};

use super::*;

/// An allocator that has only one block. Tests can read the block's memory after it is freed.
#[derive(Debug)]
struct OneBlock {
    memory: RefCell<[u128; 64]>,
    is_in_use: Cell<bool>,
    may_resize: Cell<bool>,
    /// The bytes of the block when `realloc` was called.
    seen: RefCell<Vec<u8>>,
}

const SPACE: usize = 64 * 16;

impl OneBlock {
    fn new() -> Self {
        Self {
            memory: RefCell::new([u128::from_ne_bytes([7; 16]); 64]),
            is_in_use: Cell::new(false),
            may_resize: Cell::new(true),
            seen: RefCell::default(),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        self.memory.borrow().iter().flat_map(|word| word.to_ne_bytes()).collect()
    }
}

// SAFETY: the only block is all of the memory, which moves only if the allocator moves. The tests
// do not move it.
unsafe impl MemAlloc for OneBlock {
    fn malloc(&self, size: usize) -> Option<NonNull<u8>> {
        assert!(!self.is_in_use.replace(true) && size <= SPACE);
        NonNull::new(self.memory.as_ptr().cast())
    }

    fn calloc(&self, count: usize, size: usize) -> Option<NonNull<u8>> {
        self.memory.borrow_mut().fill(0);
        self.malloc(calloc_size(count, size)?)
    }

    unsafe fn realloc(&self, ptr: Option<NonNull<u8>>, size: usize) -> Option<NonNull<u8>> {
        assert!(self.is_in_use.get() && size <= SPACE);
        *self.seen.borrow_mut() = self.bytes();
        ptr.filter(|_| self.may_resize.get())
    }

    unsafe fn free(&self, ptr: Option<NonNull<u8>>) {
        assert!(ptr.is_some() && self.is_in_use.replace(false));
    }
}

fn word(value: u64) -> [u8; 8] {
    value.to_be_bytes()
}

/// Returns the bytes that CPython 3.13 writes around a block of 20 bytes in the domain obj.
fn expected(data: [u8; 20]) -> Vec<u8> {
    [&word(20)[..], &[0x6F], &[0xFD; 7], &data, &[0xFD; 8]].concat()
}

#[test]
fn a_new_block_has_the_layout_of_cpython() {
    let hook = Debug::new(OneBlock::new(), Domain::Obj);
    let block = hook.malloc(20);
    assert_eq!(hook.below().bytes()[..44], expected([0xCD; 20]));
    // SAFETY: the block is live, and not used again.
    unsafe { hook.free(block) };
    let after = hook.below().bytes();
    assert_eq!(after[..44], [0xDD; 44], "everything is dead");
    assert_eq!(after[44], 7, "nothing else was written");
    assert!(hook.calloc(4, 5).is_some());
    assert_eq!(hook.below().bytes()[..44], expected([0; 20]));
}

#[test]
fn older_versions_have_other_bytes_and_serial_numbers() {
    let hook = Debug::with_style(OneBlock::new(), Domain::Raw, Style::CPYTHON_2);
    let block = hook.malloc(3).unwrap();
    let bytes = hook.below().bytes();
    let known = [&word(3)[..], b"r", &[0xFB; 7], &[0xCB; 3], &[0xFB; 8]].concat();
    assert_eq!(bytes[..27], known);
    let serial = u64::from_be_bytes(bytes[27..35].try_into().unwrap());
    // SAFETY: the block is live, and replaced by the result.
    assert_eq!(unsafe { hook.realloc(Some(block), 2) }, Some(block));
    let later = u64::from_be_bytes(hook.below().bytes()[26..34].try_into().unwrap());
    assert!(serial > 0 && later > serial, "a new number after a realloc");
    hook.below().may_resize.set(false);
    // SAFETY: the block is live, and stays live because the request fails.
    assert_eq!(unsafe { hook.realloc(Some(block), 9) }, None);
    let same = u64::from_be_bytes(hook.below().bytes()[26..34].try_into().unwrap());
    assert_eq!(same, later, "the same number after a failed realloc");
}

fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|at| at as u8 & 0x7F).collect()
}

/// Allocates a block, fills it with a pattern, reallocates it, and returns the new contents.
fn resized(hook: &Debug<OneBlock>, old: usize, new: usize) -> Option<Vec<u8>> {
    let block = hook.malloc(old).unwrap();
    // SAFETY: the block has that many bytes, and is replaced by the result.
    unsafe {
        block.copy_from_nonoverlapping(NonNull::from(&*pattern(old)).cast(), old);
        hook.realloc(Some(block), new)?;
    }
    let bytes = hook.below().bytes();
    assert_eq!(bytes[..8], word(new as u64));
    assert_eq!(bytes[16 + new..24 + new], [0xFD; 8]);
    Some(bytes[16..16 + new].to_vec())
}

#[test]
fn a_reallocated_block_keeps_its_contents_and_new_bytes_are_clean() {
    for (old, new) in [(0, 5), (20, 30), (128, 10), (129, 200), (300, 299), (300, 240), (300, 20)] {
        let hook = Debug::new(OneBlock::new(), Domain::Mem);
        let kept = old.min(new);
        let contents = resized(&hook, old, new).unwrap();
        assert_eq!(contents[..kept], pattern(old)[..kept], "{old} to {new}");
        assert!(contents[kept..].iter().all(|byte| *byte == 0xCD), "{old} to {new}");
    }
}

#[test]
fn the_ends_of_a_block_are_dead_while_it_is_reallocated() {
    let hook = Debug::new(OneBlock::new(), Domain::Mem);
    resized(&hook, 128, 130).unwrap();
    assert_eq!(hook.below().seen.borrow()[..152], [0xDD; 152], "all of a small block");
    let hook = Debug::new(OneBlock::new(), Domain::Mem);
    resized(&hook, 300, 310).unwrap();
    let seen = hook.below().seen.borrow();
    assert_eq!(seen[..80], [0xDD; 80], "the header and 64 bytes");
    assert_eq!(seen[80..252], pattern(300)[64..236], "the middle stays");
    assert_eq!(seen[252..324], [0xDD; 72], "64 bytes and the guards");
}

#[test]
fn a_refused_request_leaves_the_block_as_it_was() {
    for size in [20, 300] {
        let hook = Debug::new(OneBlock::new(), Domain::Mem);
        hook.below().may_resize.set(false);
        assert_eq!(resized(&hook, size, 400), None);
        let bytes = hook.below().bytes();
        assert_eq!((&bytes[..8], &bytes[16..16 + size]), (&word(size as u64)[..], &*pattern(size)));
        assert_eq!(bytes[16 + size..24 + size], [0xFD; 8]);
    }
}

#[test]
fn requests_without_memory_or_above_the_largest_are_refused() {
    let hook = Debug::new(NoAlloc, Domain::Raw);
    assert_eq!((hook.malloc(1), hook.calloc(1, 1), hook.malloc_aligned(1, 64)), (None, None, None));
    let hook = Debug::new(Malloc, Domain::Raw);
    assert_eq!(hook.malloc(MAX_REQUEST - 23), None);
    assert_eq!(hook.malloc_aligned(MAX_REQUEST, 4096), None);
    let block = hook.malloc(1);
    // SAFETY: the block is live, and stays live because the request is refused. It is not used
    // again.
    unsafe {
        assert_eq!(hook.realloc(block, MAX_REQUEST - 23), None);
        hook.free(block);
    }
}

#[test]
fn an_aligned_block_can_be_freed_and_reallocated() {
    let hook = Debug::new(Malloc, Domain::Raw);
    for align in [1, 16, 32, 64, 4096] {
        let block = hook.malloc_aligned(100, align).unwrap();
        assert!(block.addr().get().is_multiple_of(align));
        // SAFETY: the block has 100 bytes. It is replaced by the result, which has 200.
        unsafe {
            assert_eq!(hook.size(block), 100);
            block.write_bytes(5, 100);
            let grown = hook.realloc(Some(block), 200).unwrap();
            assert!(grown.addr().get().is_multiple_of(align));
            assert!((0..100).all(|at| grown.add(at).read() == 5));
            assert_eq!(grown.add(100).read(), 0xCD);
            hook.free(Some(grown));
            hook.free(hook.malloc_aligned(0, align));
        }
    }
}

/// A block before an aligned block can overflow into these words.
#[test]
fn damage_to_the_alignment_or_the_distance_before_an_aligned_block_is_noticed() {
    let hook = Debug::new(Malloc, Domain::Mem);
    let start = hook.malloc_aligned(100, 64).unwrap();
    // SAFETY: the two words precede the header of the aligned block, which stays live.
    let words = unsafe { start.cast::<usize>().sub(4) };
    for (at, wrong) in [(0, 0), (0, 48), (0, 8), (0, 1 << 40), (1, 0), (1, 31), (1, usize::MAX)] {
        // SAFETY: as above.
        let checked = unsafe {
            let right = words.add(at).replace(wrong);
            let checked = Block::at(start).check(b'm', Style::CPYTHON_3_8);
            words.add(at).write(right);
            checked
        };
        assert_eq!(checked, Err(Misuse::Underflow), "word {at} is {wrong}");
    }
    // SAFETY: the block is live and not used again.
    unsafe { hook.free(Some(start)) };
}

fn check(memory: &mut [u128; 8], offset: usize) -> Result<usize, Misuse> {
    let start = NonNull::from(memory).cast::<u8>();
    // SAFETY: the memory has room for a header before the offset, and for what it describes.
    unsafe { Block::at(start.add(offset)).check(b'm', Style::CPYTHON_3_8) }
}

/// Returns memory with a block of 16 bytes at offset 16.
fn block_of_16() -> [u128; 8] {
    let mut memory = [0; 8];
    let start = NonNull::from(&mut memory).cast::<u8>();
    // SAFETY: the memory has room for the block and everything around.
    unsafe { Block::at(start.add(16)).write_around(16, b'm', 0, Style::CPYTHON_3_8) };
    memory
}

fn with_byte(at: usize, byte: u8) -> [u128; 8] {
    let mut memory = block_of_16();
    // SAFETY: the offset lies in the memory.
    unsafe { NonNull::from(&mut memory).cast::<u8>().add(at).write(byte) };
    memory
}

#[test]
fn every_guard_is_checked() {
    assert_eq!(check(&mut block_of_16(), 16), Ok(16));
    for at in 9..16 {
        assert_eq!(check(&mut with_byte(at, 0), 16), Err(Misuse::Underflow), "{at}");
    }
    for at in 32..40 {
        assert_eq!(check(&mut with_byte(at, 0), 16), Err(Misuse::Overflow), "{at}");
    }
    assert_eq!(check(&mut with_byte(40, 0), 16), Ok(16), "not a guard");
    assert_eq!(check(&mut with_byte(0, 0xFF), 16), Err(Misuse::BadSize));
}

#[test]
fn a_block_of_another_domain_or_of_none_is_recognised() {
    let wrong = |allocated| Err(Misuse::WrongApi { allocated, verified: b'm' });
    assert_eq!(check(&mut with_byte(8, b'o'), 16), wrong(b'o'));
    assert_eq!(check(&mut [0; 8], 16), wrong(0));
    assert_eq!(check(&mut block_of_16(), 20), Err(Misuse::Unaligned));
    assert_eq!(check(&mut [u128::from_ne_bytes([0xDD; 16]); 8], 16), Err(Misuse::Freed));
    // The allocator below has overwritten everything before the block.
    let mut linked = [u128::from_ne_bytes([0xDD; 16]); 8];
    linked[0] = 12345 << 64 | 6789;
    assert_eq!(check(&mut linked, 16), Err(Misuse::Freed));
    // One of the bytes that it wrote happens to be the letter of the domain.
    linked[0] = u128::from_ne_bytes(*b"????????m???????");
    assert_eq!(check(&mut linked, 16), Err(Misuse::Freed));
}

#[test]
fn errors_have_the_words_of_cpython() {
    let misuse = Misuse::WrongApi { allocated: b'm', verified: b'r' };
    let text = "bad ID: Allocated using API 'm', verified using API 'r'";
    assert_eq!(misuse.to_string(), text);
    assert_eq!(Operation::Free.cpython_function(misuse), c"_PyMem_DebugRawFree");
    assert_eq!(Operation::Realloc.cpython_function(Misuse::Caller), c"_PyMem_DebugRealloc");
    assert_eq!(Misuse::Overflow.to_string(), "bad trailing pad byte");
    let odd = Misuse::WrongApi { allocated: 0xDD, verified: b'o' }.to_string();
    assert!(odd.contains(r"API '\xdd'"), "{odd}");
}
