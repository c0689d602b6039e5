//! What a cache can say about itself.

use core::ops::{Add, AddAssign};

/// The figures of one list of dead objects.
///
/// None of them costs the fast path more than one addition: the number of hits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Dead objects in the list now.
    pub free: usize,
    /// The bytes that one object's storage takes below the cache.
    pub object_bytes: usize,
    /// The most objects that the list keeps.
    pub bound: usize,
    /// Takes that a dead object served.
    pub hits: u64,
    /// Takes that went to the layer below.
    pub misses: u64,
    /// Puts that found the list full and went to the layer below.
    pub overflows: u64,
    /// The most dead objects that were ever in the list at once.
    pub high_water: usize,
}

impl Stats {
    /// The share of takes that were hits, from 0 to 1; 0 before the first take.
    ///
    /// ```
    /// # use object_cache::Stats;
    /// let stats = Stats { hits: 3, misses: 1, ..Stats::default() };
    /// assert_eq!(stats.hit_rate(), 0.75);
    /// ```
    pub fn hit_rate(&self) -> f64 {
        let takes = self.hits + self.misses;
        if takes == 0 { 0.0 } else { self.hits as f64 / takes as f64 }
    }
}

/// What a cache gave down to the layer below.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "says whether anything was there to give"]
pub struct Cleared {
    /// Dead objects given down.
    pub objects: usize,
    /// The bytes of their storage.
    pub bytes: usize,
}

impl Cleared {
    /// `objects` of `object_bytes` each.
    pub(crate) const fn of(objects: usize, object_bytes: usize) -> Self {
        Self { objects, bytes: objects * object_bytes }
    }
}

impl Add for Cleared {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { objects: self.objects + other.objects, bytes: self.bytes + other.bytes }
    }
}

impl AddAssign for Cleared {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hit_rate_is_the_share_of_hits_and_0_before_the_first_take() {
        assert_eq!(Stats::default().hit_rate(), 0.0);
        let stats = Stats { hits: 3, misses: 1, ..Stats::default() };
        assert_eq!(stats.hit_rate(), 0.75);
    }

    #[test]
    fn what_several_caches_gave_down_adds_up() {
        let mut sum = Cleared::of(2, 24) + Cleared::of(1, 40);
        sum += Cleared::of(1, 1);
        assert_eq!(sum, Cleared { objects: 4, bytes: 89 });
    }
}
