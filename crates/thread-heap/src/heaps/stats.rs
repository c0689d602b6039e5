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
    /// The sum of the statistics of all heaps whose pools could be walked. Only the owner of a heap
    /// can walk its pools.
    pub total: Stats,
    /// How many heaps were walked and are included in `total`.
    pub walked: usize,
    /// How many heaps are not included in `total`, because they are owned by someone else and could
    /// therefore not be walked.
    pub elsewhere: usize,
}

impl<P: Parts> Heaps<P> {
    /// Counts the memory in use in the heaps that `owners` own and in all abandoned heaps. O(heaps
    /// × owners + pools).
    pub fn stats(&self, owners: &[&Owner<P>]) -> HeapsStats {
        let total = Stats::empty::<P::Geometry>().with_map(self.shared.map());
        let mut stats = HeapsStats { total, walked: 0, elsewhere: 0 };
        for heap in self.list.iter() {
            let owned = owners.iter().find(|owner| ptr::eq(owner.heap(), heap));
            let of_heap = match owned {
                Some(owner) => Some(owner.stats()),
                // We own the abandoned heap only while we walk its pools. Dropping the owner
                // abandons the heap again.
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

    /// Counts the empty arenas that are retained by heaps whose owner is a value instead of a
    /// thread.
    ///
    /// # Safety
    ///
    /// - During the call, no other thread may use a heap whose owner is a value. In the child of a
    ///   fork this is always true, because the child has only one thread.
    pub(crate) unsafe fn retained_without_threads(&self) -> usize {
        let survivors = self.list.iter().filter(|heap| heap.outlives_threads.load(Relaxed));
        let retained = |heap: &'static ThreadHeap<P>| {
            // SAFETY: nobody else uses the heap (contract). The owner is not dropped.
            let owner = ManuallyDrop::new(unsafe { Owner::new(heap) });
            owner.retained_arenas()
        };
        survivors.map(retained).sum()
    }
}
