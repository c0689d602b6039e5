//! Which class serves a layout: one answer, for allocating and for freeing.
//!
//! ```text
//!   align ≤ 16     the smallest class that fits
//!   align > 16     the smallest that fits, of those whose blocks are a multiple of the alignment:
//!
//!     pool, aligned     128      256      384
//!     ├────────┼────────┼────────┼────────┼─ ─ ─ ─┤     blocks of 128 bytes
//!     each of them begins at a multiple of 128, because no header comes before the first
//! ```
//!
//! The layout alone tells the class, so a block that comes back needs no look at its pool.

use std::alloc::Layout;

use obmalloc::{Geometry, Shape, SizeClass};

/// The geometry of the pools.
pub(crate) type Pools = thread_heap::ThreadGeometry;

/// A block is aligned to every power of two up to this that divides its size: the first block of
/// each pool is aligned to all of them.
const MOST_ALIGNMENT: usize = Pools::SMALL_THRESHOLD.next_power_of_two();

const _: () = assert!(
    Shape::<Pools>::BEFORE_POOL == 0
        && Shape::<Pools>::BEFORE_FIRST_POOL.is_multiple_of(MOST_ALIGNMENT)
        && Pools::POOL_SIZE.is_multiple_of(MOST_ALIGNMENT)
);

/// The class that serves `layout`, or `None` if it is too large for the pools, or asks for
/// nothing.
#[inline]
pub(crate) fn class(layout: Layout) -> Option<SizeClass<Pools>> {
    let mut size = layout.size();
    if layout.align() > Pools::ALIGNMENT {
        // No sum overflows: a size, rounded up to its alignment, is at most isize::MAX.
        size = (size + (layout.align() - 1)) & !(layout.align() - 1);
    }
    SizeClass::of(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(size: usize, align: usize) -> Option<usize> {
        class(Layout::from_size_align(size, align).unwrap()).map(SizeClass::block_size)
    }

    #[test]
    fn small_layouts_have_the_smallest_class_that_fits() {
        assert_eq!([served(1, 1), served(16, 16), served(17, 8)].map(Option::unwrap), [16, 16, 32]);
        assert_eq!((served(512, 16), served(513, 1)), (Some(512), None));
    }

    #[test]
    fn an_aligned_layout_has_a_class_whose_blocks_are_a_multiple_of_the_alignment() {
        assert_eq!(
            [served(32, 32), served(33, 32), served(64, 64), served(130, 128)].map(Option::unwrap),
            [32, 64, 64, 256]
        );
        assert_eq!(
            [served(1, 512), served(512, 32), served(1, 1024)],
            [Some(512), Some(512), None]
        );
    }

    #[test]
    fn a_layout_of_no_bytes_or_of_all_there_can_be_is_not_the_pools() {
        assert_eq!((served(0, 1), served(isize::MAX as usize - 31, 32)), (None, None));
        assert_eq!(served(0, 1 << 62), None);
    }
}
