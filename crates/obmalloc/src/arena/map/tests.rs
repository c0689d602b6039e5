//! Unit tests and models of the arena map.

mod narrow {
    use raw_mem::Malloc;

    use crate::{
        arena::map::*,
        geometry::{Sizes, eras::Tiny},
    };

    /// A geometry whose map has a root of 4 items and leaves of 4 entries.
    #[derive(Clone, Copy, Debug, Default)]
    pub(super) struct Narrow;

    impl Geometry for Narrow {
        const NAME: &'static str = "narrow";
        const SIZES: Sizes = Sizes { address_bits: 14, ..Tiny::SIZES };
    }

    pub(super) fn publish<G: Geometry>(map: &ArenaMap<G>, base: usize) -> bool {
        // SAFETY: all calls pass the same allocator, and the arena has no blocks.
        unsafe { map.publish(base, &Malloc) }
    }

    pub(super) fn retract<G: Geometry>(map: &ArenaMap<G>, base: usize) {
        // SAFETY: the arena does not exist, so it has no blocks.
        unsafe { map.retract(base) };
    }

    pub(super) fn release<G: Geometry>(mut map: ArenaMap<G>) {
        // SAFETY: the nodes come from malloc, and the arenas do not exist, so they have no blocks.
        unsafe { map.release(&Malloc) };
    }
}

#[cfg(not(loom))]
mod unit {
    use raw_mem::NoAlloc;

    use super::narrow::*;
    use crate::{arena::map::*, geometry::eras::Pools16K};

    #[test]
    fn an_address_one_byte_outside_of_an_arena_is_not_contained() {
        let map = ArenaMap::<Pools16K>::new();
        let base = 5 << 40;
        assert!(publish(&map, base));
        assert!(map.contains(base));
        assert!(map.contains(base + (1 << 20) - 1));
        assert!(!map.contains(base - 1));
        assert!(!map.contains(base + (1 << 20)));
        retract(&map, base);
        assert!(!map.contains(base));
        release(map);
    }

    fn reserve<G: Geometry>(map: &ArenaMap<G>, range: Range<usize>) {
        // SAFETY: nothing is mapped in the range, and a test passes one start.
        unsafe { map.reserve(range) };
    }

    #[test]
    #[cfg(target_pointer_width = "64")]
    fn every_address_in_the_reserved_range_is_contained_and_no_other() {
        let map = ArenaMap::<Pools16K>::new();
        let base = 5 << 40;
        assert!(!map.contains(base));
        reserve(&map, 0..0);
        assert!(![0, base, NO_RANGE, usize::MAX].iter().any(|at| map.contains(*at)));
        for bytes in [1 << 20, 16 << 20, 1 << 36] {
            reserve(&map, base..base + bytes);
            assert!([base, base + 1, base + bytes - 1].iter().all(|at| map.contains(*at)));
            assert!(![0, base - 1, base + bytes, usize::MAX].iter().any(|at| map.contains(*at)));
        }
        reserve(&map, 0..0);
        assert!(map.contains(base));
        release(map);
    }

    #[test]
    #[cfg(target_pointer_width = "64")]
    fn an_arena_in_the_reserved_range_needs_no_node_and_others_do() {
        let map = ArenaMap::<Pools16K>::new();
        reserve(&map, 5 << 40..(5 << 40) + (8 << 20));
        // SAFETY: the allocator always fails, so there is no node to free. The arena has no blocks.
        let publish_without_memory = |base| unsafe { map.publish(base, &NoAlloc) };
        assert!(publish_without_memory((5 << 40) + (7 << 20)));
        assert!(!publish_without_memory((5 << 40) + (8 << 20)));
        assert!(!publish_without_memory(6 << 40));
        assert_eq!(map.leaves(), 0);
        retract(&map, 5 << 40);
        assert!(map.contains(5 << 40));
        assert!(publish(&map, 6 << 40));
        assert!(map.contains(6 << 40));
        release(map);
    }

    #[test]
    fn a_released_map_has_no_range() {
        let mut map = ArenaMap::<Pools16K>::new();
        reserve(&map, 5 << 30..6 << 30);
        // SAFETY: the map has no node and no arena.
        unsafe { map.release(&NoAlloc) };
        assert!(!map.contains(5 << 30));
    }

    #[test]
    fn every_address_can_be_looked_up() {
        let map = ArenaMap::<Pools16K>::new();
        for address in [0, 1, 1 << 47, (1 << 48) - 1, 1 << 48, usize::MAX] {
            assert!(!map.contains(address));
        }
        assert!(!publish(&map, 1 << 48));
        assert!(publish(&map, (1 << 48) - (1 << 20)));
        assert!(map.contains((1 << 48) - 1));
        assert_eq!(map.leaves(), 1);
        release(map);
    }

    #[test]
    fn arenas_of_several_leaves_are_contained() {
        let map = ArenaMap::<Narrow>::new();
        let bases = [9 << 10, 1 << 10, 8 << 10, 15 << 10];
        assert!(bases.iter().all(|base| publish(&map, *base)));
        for base in (0..16).map(|nth| nth << 10) {
            assert_eq!(map.contains(base), bases.contains(&base));
        }
        assert_eq!(map.leaves(), 3);
        bases.iter().for_each(|base| retract(&map, *base));
        assert!((0..16).all(|nth| !map.contains(nth << 10)));
        release(map);
    }

    #[test]
    fn without_memory_nothing_is_published() {
        let map = ArenaMap::<Narrow>::new();
        // SAFETY: the allocator always fails, so there is no node to free. The arena has no blocks.
        assert!(!unsafe { map.publish(1 << 10, &NoAlloc) });
        assert!(!map.contains(1 << 10));
        release(map);
    }
}

mod models {
    use raw_mem::Malloc;
    use sync::atomic::AtomicBool;

    use super::narrow::*;
    use crate::arena::map::*;

    /// Publishes an arena while a reader looks up addresses. The arenas in `before` are published
    /// first.
    fn read_beside(orders: Orders, before: &[usize]) {
        let map = sync::Arc::new(ArenaMap::<Narrow>::new());
        assert!(before.iter().all(|base| publish(&map, *base)));
        let reader = {
            let map = sync::Arc::clone(&map);
            sync::thread::spawn(move || {
                // The reader may or may not find the arena, but must read only initialised memory.
                let _ = map.contains_with(orders, 1 << 10);
                assert!(!map.contains_with(orders, 2 << 10));
            })
        };
        assert!(map.publish_with(orders, 1 << 10, &Malloc).is_some());
        assert!(map.contains(1 << 10));
        reader.join().unwrap();
        release(sync::Arc::try_unwrap(map).unwrap());
    }

    /// An arena whose entry is in a different leaf from the entry of the arena at 1 KiB.
    const FAR: &[usize] = &[4 << 10];

    #[test]
    fn a_leaf_is_seen_whole_or_not_at_all() {
        sync::model(|| read_beside(Orders::SOUND, &[]));
    }

    #[test]
    fn a_later_leaf_is_seen_whole_or_not_at_all() {
        sync::model(|| read_beside(Orders::SOUND, FAR));
    }

    #[test]
    #[cfg_attr(not(loom), ignore = "only loom can reject")]
    fn a_leaf_published_relaxed_is_rejected() {
        sync::rejected(|| read_beside(Orders { publish: Relaxed, ..Orders::SOUND }, &[]));
    }

    #[test]
    #[cfg_attr(not(loom), ignore = "only loom can reject")]
    fn a_later_leaf_published_relaxed_is_rejected() {
        sync::rejected(|| read_beside(Orders { publish: Relaxed, ..Orders::SOUND }, FAR));
    }

    #[test]
    #[cfg_attr(not(loom), ignore = "only loom can reject")]
    fn a_leaf_found_relaxed_is_rejected() {
        sync::rejected(|| read_beside(Orders { find: Relaxed, ..Orders::SOUND }, &[]));
    }

    #[test]
    #[cfg_attr(not(loom), ignore = "only loom can reject")]
    fn a_later_leaf_found_relaxed_is_rejected() {
        sync::rejected(|| read_beside(Orders { find: Relaxed, ..Orders::SOUND }, FAR));
    }

    const BASE: usize = 5 << 20;

    /// Lets a thread look up a block in a range that grows to `kib` KiB at the same time.
    ///
    /// `hand_out` grows the range, and then passes the block in its last KiB to the thread.
    fn ask_about_a_block_in_the_range(
        before: usize,
        kib: usize,
        hand_out: fn(&ArenaMap<Narrow>, usize, &AtomicBool),
    ) {
        let map = sync::Arc::new(ArenaMap::<Narrow>::new());
        grow(&map, before);
        let is_passed = sync::Arc::new(AtomicBool::new(false));
        let reader = {
            let (map, is_passed) = (sync::Arc::clone(&map), sync::Arc::clone(&is_passed));
            sync::thread::spawn(move || {
                // These addresses belong to other allocators, no matter which part of the range the
                // thread sees.
                assert!(!map.contains(64) && !map.contains(BASE + kib * 1024));
                assert!(before == 0 || map.contains(BASE + 64));
                if is_passed.load(Acquire) {
                    assert!(map.contains(BASE + kib * 1024 - 64));
                }
            })
        };
        hand_out(&map, kib, &is_passed);
        reader.join().unwrap();
        release(sync::Arc::try_unwrap(map).unwrap());
    }

    fn grow(map: &ArenaMap<Narrow>, kib: usize) {
        // SAFETY: nothing is mapped in the range, which starts at the same address each time.
        unsafe { map.reserve(BASE..BASE + kib * 1024) };
    }

    fn grow_and_pass(map: &ArenaMap<Narrow>, kib: usize, is_passed: &AtomicBool) {
        grow(map, kib);
        is_passed.store(true, Release);
    }

    #[test]
    fn a_thread_that_gets_a_block_sees_the_new_range_in_which_it_lies() {
        sync::model(|| ask_about_a_block_in_the_range(0, 1, grow_and_pass));
    }

    #[test]
    fn a_thread_that_gets_a_block_sees_the_part_of_the_range_in_which_it_lies() {
        sync::model(|| ask_about_a_block_in_the_range(1, 3, grow_and_pass));
    }

    #[test]
    #[cfg_attr(not(loom), ignore = "only loom can reject")]
    fn a_block_passed_on_relaxed_is_rejected() {
        sync::rejected(|| {
            ask_about_a_block_in_the_range(0, 1, |map, kib, is_passed| {
                grow(map, kib);
                is_passed.store(true, Relaxed);
            });
        });
    }

    #[test]
    #[cfg_attr(not(loom), ignore = "only loom can reject")]
    fn a_block_passed_on_before_the_range_has_grown_is_rejected() {
        sync::rejected(|| {
            ask_about_a_block_in_the_range(1, 3, |map, kib, is_passed| {
                is_passed.store(true, Release);
                grow(map, kib);
            });
        });
    }

    #[test]
    #[cfg_attr(not(loom), ignore = "only loom can reject")]
    fn a_length_that_counts_from_zero_until_the_start_is_known_is_rejected() {
        sync::rejected(|| {
            ask_about_a_block_in_the_range(0, 1, |map, kib, is_passed| {
                map.base.store(0, Relaxed);
                grow_and_pass(map, kib, is_passed);
            });
        });
    }

    /// Checks that `leaves` loads the pointer to the root with `Acquire`.
    ///
    /// Regression test (mutant 19).
    #[test]
    fn the_leaves_are_counted_beside_a_publication() {
        sync::model(|| {
            let map = sync::Arc::new(ArenaMap::<Narrow>::new());
            let reader = {
                let map = sync::Arc::clone(&map);
                sync::thread::spawn(move || assert!(map.leaves() <= 1))
            };
            assert!(publish(&map, 1 << 10));
            assert_eq!(map.leaves(), 1);
            reader.join().unwrap();
            release(sync::Arc::try_unwrap(map).unwrap());
        });
    }

    /// Lets a thread read the map while `unmap` retracts an arena and then sets a flag.
    fn a_reader_learns_that_an_arena_is_gone(unmap: fn(&ArenaMap<Narrow>, &AtomicBool)) {
        let map = sync::Arc::new(ArenaMap::<Narrow>::new());
        assert!(publish(&map, 1 << 10));
        let unmapped = sync::Arc::new(AtomicBool::new(false));
        let reader = {
            let (map, unmapped) = (sync::Arc::clone(&map), sync::Arc::clone(&unmapped));
            sync::thread::spawn(move || {
                let learned = unmapped.load(Acquire);
                assert!(!learned || !map.contains(1 << 10));
            })
        };
        unmap(&map, &unmapped);
        reader.join().unwrap();
        release(sync::Arc::try_unwrap(map).unwrap());
    }

    #[test]
    fn a_reader_that_learns_of_an_unmapped_arena_finds_it_retracted() {
        sync::model(|| {
            a_reader_learns_that_an_arena_is_gone(|map, unmapped| {
                retract(map, 1 << 10);
                unmapped.store(true, Release);
            });
        });
    }

    #[test]
    #[cfg_attr(not(loom), ignore = "only loom can reject")]
    fn an_arena_retracted_after_it_is_announced_is_rejected() {
        sync::rejected(|| {
            a_reader_learns_that_an_arena_is_gone(|map, unmapped| {
                unmapped.store(true, Release);
                retract(map, 1 << 10);
            });
        });
    }

    /// Lets two threads publish arenas at the same time, so that both may create the same leaf.
    fn two_publish(publish: fn(&ArenaMap<Narrow>, usize)) {
        let map = sync::Arc::new(ArenaMap::<Narrow>::new());
        let other = {
            let map = sync::Arc::clone(&map);
            sync::thread::spawn(move || publish(&map, 1 << 10))
        };
        publish(&map, 2 << 10);
        other.join().unwrap();
        assert_eq!([1, 2].map(|nth| map.contains(nth << 10)), [true; 2]);
        release(sync::Arc::try_unwrap(map).unwrap());
    }

    #[test]
    fn two_threads_that_publish_into_one_leaf_lose_nothing() {
        sync::model(|| {
            two_publish(|map, base| assert!(publish(map, base)));
        });
    }

    #[test]
    #[cfg_attr(not(loom), ignore = "only loom can reject")]
    fn a_leaf_of_another_thread_found_relaxed_is_rejected() {
        sync::rejected(|| {
            two_publish(|map, base| {
                let orders = Orders { lose: Relaxed, ..Orders::SOUND };
                assert!(map.publish_with(orders, base, &Malloc).is_some());
            });
        });
    }

    #[test]
    #[cfg_attr(not(loom), ignore = "only loom can reject")]
    fn a_node_stored_where_another_may_be_is_rejected() {
        sync::rejected(|| {
            two_publish(|map, base| {
                let root =
                    new_node(ArenaMap::<Narrow>::ROOT_LEN, || Slot::new(ptr::null_mut()), &Malloc);
                if map.root.load(Acquire).is_null() {
                    map.root.store(root.unwrap().as_ptr(), Release);
                }
                assert!(publish(map, base));
            });
        });
    }
}
