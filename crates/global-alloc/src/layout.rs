//! Which block serves a layout: one answer, for allocating and for freeing.
//!
//! ```text
//!   align ≤ 16     the smallest class that fits
//!
//!   align > 16     a class whose blocks are a multiple of the alignment, and all begin as far
//!                  before a multiple of it as the first does: the shift
//!
//!     pool, aligned   48       64                 128+48   128+64
//!     ├── header ─────┼─ shift ┼─ 64-aligned ─ ─ ─┼─ shift ┼─ 64-aligned ─ ─ ─┤
//!                     └── block of 128 bytes ─────┴── block of 128 bytes ─────┘
//! ```
//!
//! The layout alone tells the shift, so a block finds its start without asking its pool.

use std::alloc::Layout;

use obmalloc::{Geometry, SizeClass};

/// The geometry of the pools.
pub(crate) type Pools = thread_heap::ThreadGeometry;

/// Where the first block of a pool begins. Blocks of the smallest class leave no tail, because
/// pool and header are multiples of it.
const FIRST_BLOCK: usize = match SizeClass::<Pools>::from_index(0) {
    Some(class) => Pools::POOL_SIZE - class.capacity() * class.block_size(),
    None => panic!("there is a smallest class"),
};

/// Who serves a layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The pools: a block of `class`, used from its byte `shift` on.
    Block { class: SizeClass<Pools>, shift: usize },
    /// The layer below.
    Large,
}

impl Place {
    /// Who serves `layout`.
    pub(crate) fn of(layout: Layout) -> Self {
        let beyond = layout.align() - 1;
        let (class, shift) = if is_plain(layout) {
            (SizeClass::of(layout.size()), 0)
        } else {
            // A pool is aligned to more than any block is long, so this is how far before a
            // multiple of the alignment the first block begins.
            let shift = FIRST_BLOCK.wrapping_neg() & beyond;
            // No sum overflows: a size, rounded up to its alignment, is at most isize::MAX.
            (SizeClass::of((layout.size() + shift + beyond) & !beyond), shift)
        };
        class.map_or(Self::Large, |class| Self::Block { class, shift })
    }
}

/// Every block is aligned enough for `layout`.
#[inline]
fn is_plain(layout: Layout) -> bool {
    layout.align() <= Pools::ALIGNMENT
}

/// The class that serves `layout` without a shift, as it is most of the time.
#[inline]
pub(crate) fn plain_class(layout: Layout) -> Option<SizeClass<Pools>> {
    if is_plain(layout) { SizeClass::of(layout.size()) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(size: usize, align: usize) -> Option<(usize, usize)> {
        match Place::of(Layout::from_size_align(size, align).unwrap()) {
            Place::Block { class, shift } => Some((class.block_size(), shift)),
            Place::Large => None,
        }
    }

    #[test]
    fn small_layouts_have_the_smallest_class_that_fits() {
        assert_eq!(
            [place(1, 1), place(16, 16), place(17, 8)].map(Option::unwrap),
            [(16, 0), (16, 0), (32, 0)]
        );
        assert_eq!((place(512, 16), place(513, 1)), (Some((512, 0)), None));
    }

    #[test]
    fn an_aligned_layout_has_a_class_whose_blocks_are_all_aligned_behind_the_shift() {
        assert_eq!(
            [place(32, 32), place(64, 64), place(128, 128)].map(Option::unwrap),
            [(64, 16), (128, 16), (256, 80)]
        );
        assert_eq!([place(496, 32), place(497, 32), place(1, 1024)], [Some((512, 16)), None, None]);
    }

    #[test]
    fn a_layout_of_no_bytes_or_of_all_there_can_be_is_not_the_pools() {
        assert_eq!((place(0, 1), place(isize::MAX as usize - 31, 32)), (None, None));
        assert_eq!(place(0, 1 << 62), None);
    }
}
