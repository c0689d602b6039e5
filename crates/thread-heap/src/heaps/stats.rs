//! Statistics of several heaps together.

use std::{mem::ManuallyDrop, ptr};

use obmalloc::Stats;
use sync::atomic::Ordering::Relaxed;

use super::{Heaps, ThreadHeap, owner::Owner};
use crate::parts::Parts;

/// The memory that several heaps have in use together.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeapsStats {
    /// The sum of the statistics of all counted heaps. Only the owner of a heap can count it.
    pub total: Stats,
    /// The number of heaps that `total` includes.
    pub walked: usize,
    /// The number of heaps that `total` does not include, because another thread owns them.
    pub elsewhere: usize,
}

impl<P: Parts> Heaps<P> {
    /// Counts the memory in use in all abandoned heaps and in those of `owners`.
    ///
    /// O(heaps × owners + pools).
    pub fn stats(&self, owners: &[&Owner<P>]) -> HeapsStats {
        let total = Stats::empty::<P::Geometry>().with_map(self.shared.map());
        let mut stats = HeapsStats { total, walked: 0, elsewhere: 0 };
        for heap in self.list.iter() {
            let owned = owners.iter().find(|owner| ptr::eq(owner.heap(), heap));
            let of_heap = match owned {
                Some(owner) => Some(owner.stats()),
                // Dropping the temporary owner abandons the heap again.
                None => Owner::adopt(heap).map(|owner| owner.stats()),
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

    /// Counts the memory that the heaps of all [`OwnedHeap`](crate::OwnedHeap)s retain.
    ///
    /// Returns the number of retained empty arenas, and the number of large mappings that the
    /// source allows these heaps to retain.
    ///
    /// # Safety
    ///
    /// - No other thread may use such a heap during the call. A forked child has no other threads.
    pub(crate) unsafe fn retained_without_threads(&self) -> (usize, usize) {
        let survivors = self.list.iter().filter(|heap| heap.outlives_threads.load(Relaxed));
        let retained = |heap: &'static ThreadHeap<P>| {
            // SAFETY: no other thread uses the heap (contract). The owner is not dropped.
            let owner = ManuallyDrop::new(unsafe { Owner::new(heap) });
            (owner.retained_arenas(), owner.granted_large())
        };
        survivors.map(retained).fold((0, 0), |sum, of_heap| (sum.0 + of_heap.0, sum.1 + of_heap.1))
    }
}
