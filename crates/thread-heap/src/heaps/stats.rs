//! The figures of all heaps together.

use std::ptr;

use obmalloc::Stats;

use super::Heaps;
use crate::{owner::Owner, parts::Parts};

/// What several heaps have in use together.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeapsStats {
    /// The sum over the heaps that could be walked.
    pub total: Stats,
    /// How many heaps were walked.
    pub walked: usize,
    /// How many heaps could not be walked, because another thread owns them. The total does not
    /// include them.
    pub elsewhere: usize,
}

impl<P: Parts> Heaps<P> {
    /// Counts what is in use in the heaps of `owners` and in the abandoned ones.
    /// O(heaps × owners + pools).
    pub fn stats(&'static self, owners: &[&Owner<P>]) -> HeapsStats {
        let total = Stats::empty::<P::Geometry>().with_map(self.shared.map());
        let mut stats = HeapsStats { total, walked: 0, elsewhere: 0 };
        for heap in self.list.iter() {
            let owned = owners.iter().find(|owner| ptr::eq(owner.heap(), heap));
            let of_heap = match owned {
                Some(owner) => Some(owner.stats()),
                // Dropping the owner abandons the heap again.
                None => Owner::adopt(heap, self).map(|owner| owner.stats()),
            };
            match of_heap {
                Some(of_heap) => {
                    stats.total += &of_heap;
                    stats.walked += 1;
                }
                None => stats.elsewhere += 1,
            }
        }
        stats
    }
}
