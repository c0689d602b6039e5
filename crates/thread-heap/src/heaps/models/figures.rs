//! Models of threads that count the memory of all heaps while others work.
//!
//! A thread that counts memory holds the lock of the arena source that all heaps share. Other
//! threads can then neither map nor unmap memory. The arenas in the list of arenas stay mapped, and
//! the numbers of arenas and large mappings agree with what is mapped.
//!
//! Owners change the headers of pools without the lock. The models of these changes are in
//! `obmalloc::pool::watched`.

use raw_mem::LargeMapping;

use super::{above_small::Tall, *};

/// A source with one arena and any number of large mappings, whose memory is never accessed.
///
/// It reports the mapped bytes where other sources report the bytes that they retain.
struct Telling {
    source: MmapArenas,
    /// The only arena, while it is not mapped.
    ///
    /// Its memory stays readable, so a model with a bug reports a wrong count instead of crashing.
    free: Option<NonNull<u8>>,
    large: usize,
    mapped: usize,
}

// SAFETY: the source is used by one thread at a time, and is not tied to a thread.
unsafe impl Send for Telling {}

impl Telling {
    fn new() -> Self {
        let mut source = MmapArenas::new();
        let free = source.map(TALL_ARENA).ok();
        Self { source, free, large: 0, mapped: 0 }
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        if let Some(arena) = self.free.take() {
            // SAFETY: the arena came from this source, and no heap uses it.
            unsafe { self.source.unmap(arena, TALL_ARENA) };
        }
    }
}

// SAFETY: `map` returns the arena again only after `unmap`. Nobody accesses the large mappings.
unsafe impl ArenaSource for Telling {
    fn map(&mut self, size: ArenaSize) -> Result<NonNull<u8>, MapError> {
        let arena = self.free.take().ok_or(MapError::Exhausted { size })?;
        self.mapped += size.bytes();
        Ok(arena)
    }

    unsafe fn unmap(&mut self, arena: NonNull<u8>, size: ArenaSize) {
        self.mapped -= size.bytes();
        self.free = Some(arena);
    }

    fn map_large(&mut self, bytes: usize, align: ArenaSize) -> Result<LargeMapping, MapError> {
        self.large += 1;
        self.mapped += bytes;
        let address = self.large * align.bytes();
        let start = NonNull::new(ptr::without_provenance_mut(address));
        let start = start.ok_or(MapError::LargeExhausted { bytes })?;
        Ok(LargeMapping { start, bytes, is_zeroed: false })
    }

    unsafe fn unmap_large(&mut self, _start: NonNull<u8>, bytes: usize, _align: ArenaSize) {
        self.mapped -= bytes;
    }

    fn retained_bytes(&mut self) -> usize {
        self.mapped
    }
}

const TALL_ARENA: ArenaSize = obmalloc::Shape::<Tall>::ARENA;

type TellingParts = (Telling, Malloc, Tall);
type TellingHeaps = Heaps<TellingParts>;

fn count_while_an_arena_is_unmapped(unmap: fn(&'static TellingHeaps, NonNull<u8>)) {
    let stage = Stage::<TellingParts>::new(Telling::new());
    let heaps = stage.heaps;
    let arena = SharedArenas::of(&heaps.shared).map(TALL_ARENA).unwrap();
    let counter = thread::spawn(move || {
        let figures = heaps.figures();
        assert_eq!(figures.arenas() * TALL_ARENA.bytes(), figures.retained_by_source);
    });
    unmap(heaps, arena);
    // The arena is mapped again, perhaps while the other thread counts it.
    let arena = SharedArenas::of(&heaps.shared).map(TALL_ARENA).unwrap();
    counter.join().unwrap();
    // SAFETY: the arena was mapped above, and nothing uses it.
    unsafe { SharedArenas::of(&heaps.shared).unmap(arena, TALL_ARENA) };
    assert_eq!(heaps.figures().arenas(), 0);
}

#[test]
fn arenas_that_are_counted_are_mapped() {
    sync::model(|| {
        count_while_an_arena_is_unmapped(|heaps, arena| {
            // SAFETY: the arena was mapped by these heaps, and nothing uses it.
            unsafe { SharedArenas::of(&heaps.shared).unmap(arena, TALL_ARENA) };
        });
    });
}

#[test]
#[cfg_attr(not(loom), ignore = "only loom can reject")]
fn an_arena_that_leaves_the_list_after_it_was_unmapped_is_rejected() {
    sync::rejected(|| {
        count_while_an_arena_is_unmapped(|heaps, arena| {
            // SAFETY: nothing uses the arena. Its memory stays readable.
            unsafe {
                heaps.shared.map().retract(arena.addr().get());
                heaps.shared.lock().source.unmap(arena, TALL_ARENA);
                heaps.shared.lock().arenas.remove::<Tall>(arena);
            }
        });
    });
}

/// The size of a large mapping of the models.
const LARGE: usize = 1 << 20;

fn count_large_blocks(count: fn(&TellingHeaps) -> (usize, usize), free: FreeLarge) {
    let stage = Stage::<TellingParts>::new(Telling::new());
    let heaps = stage.heaps;
    let map = || SharedArenas::of(&heaps.shared).map_large(LARGE, TALL_ARENA).unwrap();
    let (mine, others) = (SentLarge(map()), SentLarge(map()));
    let counter = thread::spawn(move || {
        let SentLarge(others) = { others };
        let (blocks, bytes) = count(heaps);
        assert!(blocks >= 1 && bytes == blocks * LARGE, "{blocks} blocks, {bytes} bytes");
        free(heaps, others);
    });
    free(heaps, mine.0);
    counter.join().unwrap();
    assert_eq!(heaps.large_blocks(), (0, 0));
}

type FreeLarge = fn(&'static TellingHeaps, LargeMapping);

struct SentLarge(LargeMapping);

// SAFETY: a mapping belongs to whoever holds it, and may be unmapped by any thread.
unsafe impl Send for SentLarge {}

fn free_large(heaps: &'static TellingHeaps, LargeMapping { start, bytes, .. }: LargeMapping) {
    // SAFETY: the mapping came from these heaps, and nothing uses it.
    unsafe { SharedArenas::of(&heaps.shared).unmap_large(start, bytes, TALL_ARENA) };
}

fn large_in_figures(heaps: &TellingHeaps) -> (usize, usize) {
    let figures = heaps.figures();
    let large = figures.of_kind(obmalloc::Kind::Large);
    assert_eq!(large.active, figures.retained_by_source, "as much as is mapped");
    (large.blocks, large.active)
}

#[test]
fn every_large_block_is_counted_once() {
    sync::model(|| count_large_blocks(large_in_figures, free_large));
}

#[test]
#[cfg_attr(not(loom), ignore = "only loom can reject")]
fn large_blocks_that_are_counted_without_the_lock_are_rejected() {
    sync::rejected(|| count_large_blocks(|heaps| heaps.large_blocks(), free_large));
}

#[test]
#[cfg_attr(not(loom), ignore = "only loom can reject")]
fn a_large_block_that_is_subtracted_without_the_lock_is_rejected() {
    sync::rejected(|| {
        count_large_blocks(large_in_figures, |heaps, LargeMapping { start, bytes, .. }| {
            // SAFETY: the mapping came from these heaps, and nothing uses it.
            unsafe { heaps.shared.lock().source.unmap_large(start, bytes, TALL_ARENA) };
            heaps.shared.large.add(usize::MAX, bytes.wrapping_neg());
        });
    });
}

/// Counts the bytes of the blocks in use while the owner of the blocks works.
fn count_while_an_owner_works(count: fn(&TellingHeaps) -> usize) {
    let stage = Stage::<TellingParts>::new(Telling::new());
    let heaps = stage.heaps;
    let mut owner = heaps.open().unwrap();
    let kept = owner.alloc(SizeClass::of(above_small::SPAN).unwrap()).unwrap();
    // SAFETY: the block is in use.
    let size = unsafe { ThreadHeap::<TellingParts>::size_of_block(kept.start()) };
    let counter = thread::spawn(move || {
        let counted = count(heaps);
        assert!(counted == size || counted == 2 * size, "{counted} of {size}");
    });
    let block = owner.alloc(SizeClass::of(above_small::SPAN).unwrap()).unwrap();
    // SAFETY: the block came from this heap, and is not used again.
    unsafe { owner.free(block) };
    owner.flush();
    counter.join().unwrap();
    // SAFETY: as above.
    unsafe { owner.free(kept) };
    owner.flush();
    assert_eq!(heaps.figures().allocated(), 0);
    drop(owner);
}

#[test]
fn a_block_is_counted_while_its_owner_works() {
    sync::model(|| count_while_an_owner_works(|heaps| heaps.figures().allocated()));
}
