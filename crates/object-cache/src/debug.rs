//! What a cache shows of itself: its figures.

use core::fmt;

use raw_mem::MemAlloc;

use crate::{
    BlockCache, Cache, FreeList, HuskList, KeyedFreeList, Recycle, Registry, SharedCache,
    ThreadCache,
};

fn show(name: &str, cache: &dyn Cache, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut shown = f.debug_struct(name);
    cache.each_list(&mut |length, stats| {
        match length {
            Some(length) => shown.field("length", &length).field("stats", &stats),
            None => shown.field("stats", &stats),
        };
    });
    shown.finish_non_exhaustive()
}

impl<T, A: MemAlloc> fmt::Debug for FreeList<T, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show("FreeList", self, f)
    }
}

impl<T: Recycle, A: MemAlloc> fmt::Debug for HuskList<T, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show("HuskList", self, f)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show("Registry", self, f)
    }
}

impl<T, A: MemAlloc, const BLOCK: usize> fmt::Debug for BlockCache<T, A, BLOCK> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show("BlockCache", self, f)
    }
}

impl<H, E, A: MemAlloc, const LENGTHS: usize> fmt::Debug for KeyedFreeList<H, E, A, LENGTHS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show("KeyedFreeList", self, f)
    }
}

impl<T, A: MemAlloc, const SLOTS: usize> fmt::Debug for SharedCache<T, A, SLOTS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show("SharedCache", self, f)
    }
}

impl<T, A: MemAlloc, const SLOTS: usize> fmt::Debug for ThreadCache<'_, T, A, SLOTS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show("ThreadCache", self, f)
    }
}

#[cfg(test)]
mod tests {
    use std::format;

    use raw_mem::Malloc;

    use super::*;
    use crate::Cached;

    #[test]
    fn a_cache_shows_its_figures() {
        let cache = FreeList::new(10, Malloc);
        drop(Cached::new_in(1_u64, &cache));
        let text = format!("{cache:?}");
        assert!(text.starts_with("FreeList { stats: Stats { free: 1, "), "{text}");
        let tuples = KeyedFreeList::<(), u64, _, 2>::new(10, Malloc);
        assert_eq!(format!("{tuples:?}").matches("length: ").count(), 2);
    }
}
