#![forbid(unsafe_code)]

use core::ops::AddAssign;

/// The figures of one list of free objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// The number of free objects in the list.
    pub free: usize,
    /// The number of bytes that the cache requests from the allocator below it for one object.
    pub object_bytes: usize,
    /// The maximum number of free objects that the list retains.
    pub bound: usize,
    /// The number of calls of `take` for which the list had a free object.
    pub hits: u64,
    /// The number of calls of `take` that requested storage from the allocator below.
    pub misses: u64,
    /// The number of calls of `put` that found the list full.
    pub overflows: u64,
}

impl CacheStats {
    /// Returns the share of calls of `take` that were hits, or 0 before the first call.
    ///
    /// ```
    /// # use object_cache::CacheStats;
    /// let stats = CacheStats { hits: 3, misses: 1, ..CacheStats::default() };
    /// assert_eq!(stats.hit_rate(), 0.75);
    /// ```
    pub fn hit_rate(&self) -> f64 {
        let takes = self.hits + self.misses;
        if takes == 0 { 0.0 } else { self.hits as f64 / takes as f64 }
    }
}

/// The amount of storage that a cache has returned to the allocator below it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "says whether there was any storage to return"]
pub struct Cleared {
    /// The number of objects whose storage was returned.
    pub objects: usize,
    /// The number of bytes of that storage.
    pub bytes: usize,
}

impl Cleared {
    pub(crate) const fn new(objects: usize, object_bytes: usize) -> Self {
        Self { objects, bytes: objects * object_bytes }
    }
}

impl AddAssign for Cleared {
    fn add_assign(&mut self, other: Self) {
        self.objects += other.objects;
        self.bytes += other.bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hit_rate_is_the_share_of_hits_and_0_before_the_first_take() {
        assert_eq!(CacheStats::default().hit_rate(), 0.0);
        let stats = CacheStats { hits: 3, misses: 1, ..CacheStats::default() };
        assert_eq!(stats.hit_rate(), 0.75);
    }

    #[test]
    fn the_storage_returned_by_several_caches_adds_up() {
        let mut sum = Cleared::new(2, 24);
        sum += Cleared::new(1, 40);
        sum += Cleared::new(1, 1);
        assert_eq!(sum, Cleared { objects: 4, bytes: 89 });
    }
}
