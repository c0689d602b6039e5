use std::format;

use raw_mem::Malloc;

use super::*;
use crate::{Cached, FreeList, cpython::TupleLists};

#[test]
fn debug_output_shows_the_figures_of_each_list() {
    let cache = FreeList::new(10, Malloc);
    drop(Cached::new_in(1_u64, &cache));
    let text = format!("{cache:?}");
    assert!(text.starts_with("FreeList { stats: CacheStats { free: 1, "), "{text}");
    let tuples = TupleLists::<(), u64, _, 2>::new(10, Malloc);
    assert_eq!(format!("{tuples:?}").matches("length: ").count(), 2);
}

#[test]
fn clearing_a_group_clears_every_cache() {
    let caches = [(); 3].map(|()| FreeList::new(10, Malloc));
    caches.iter().for_each(|cache| drop(Cached::new_in(1_u64, cache)));
    let [a, b, c] = &caches;
    let outer = CacheGroup(&[("a", a), ("b", &CacheGroup(&[("b", b), ("c", c)]))]);
    assert_eq!(format!("{outer:?}").matches("free: 1").count(), 3);
    assert_eq!(outer.clear(), Cleared { objects: 3, bytes: 24 });
    assert_eq!([a, b, c].map(|cache| cache.stats().free), [0; 3]);
}
