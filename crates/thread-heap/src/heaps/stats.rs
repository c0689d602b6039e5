//! The figures of all heaps together.

use std::{mem::ManuallyDrop, ptr};

use obmalloc::Stats;
use sync::atomic::Ordering::Relaxed;

use super::{Heaps, ThreadHeap, owner::Owner};
use crate::parts::Parts;

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
    pub fn stats(&self, owners: &[&Owner<P>]) -> HeapsStats {
        let total = Stats::empty::<P::Geometry>().with_map(self.shared.map());
        let mut stats = HeapsStats { total, walked: 0, elsewhere: 0 };
        for heap in self.list.iter() {
            let owned = owners.iter().find(|owner| ptr::eq(owner.heap(), heap));
            let of_heap = match owned {
                Some(owner) => Some(owner.stats()),
                // Dropping the owner abandons the heap again.
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

    /// Counts the arenas that are retained by heaps whose owner is not a thread.
    ///
    /// # Safety
    ///
    /// No other thread may use such a heap, as in the child of a fork.
    pub(crate) unsafe fn retained_without_threads(&self) -> usize {
        let survivors = self.list.iter().filter(|heap| heap.outlives_threads.load(Relaxed));
        let retained = |heap: &'static ThreadHeap<P>| {
            // SAFETY: nobody else uses the heap (contract). The value is not dropped.
            let owner = ManuallyDrop::new(unsafe { Owner::new(heap) });
            owner.retained_arenas()
        };
        survivors.map(retained).sum()
    }
}
