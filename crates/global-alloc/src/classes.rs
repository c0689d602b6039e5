//! The size class of each layout.
//!
//! ```text
//!   align ≤ 16     the smallest class that fits
//!   align > 16     the smallest class that fits and whose block size is a multiple of the alignment
//!
//!     pool, aligned     128      256      384
//!     ├────────┼────────┼────────┼────────┼─ ─ ─ ─┤     blocks of 128 bytes
//!     each block starts at a multiple of 128, because no header precedes the first one
//! ```
//!
//! In Rust, a program passes the layout of a block again when it frees the block. The size class
//! depends only on this layout. To free a block of up to 1 KiB, we therefore need not look up its
//! size.

#![forbid(unsafe_code)]

use std::alloc::Layout;

use obmalloc::{Geometry, Shape, SizeClass};

pub(crate) type Pools = thread_heap::ThreadGeometry;

/// The largest alignment of the blocks of a class, in bytes.
const MAX_ALIGN: usize = Pools::SIZES.pool_size;

/// The largest block, in bytes, that shares its pool with other blocks.
const LARGEST_SHARED: usize = Pools::SIZES.pool_size / 2;

const _: () = assert!(
    Shape::<Pools>::BEFORE_POOL == 0
        && Shape::<Pools>::BEFORE_FIRST_POOL.is_multiple_of(Pools::SIZES.small_threshold)
        && Pools::SIZES.small_threshold.is_power_of_two()
);

/// Where the memory for a layout comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The layout is empty and needs no memory.
    Nowhere,
    /// Any block of the class.
    Block(SizeClass<Pools>),
    /// A block of the class that has the alignment. Not all blocks of the class have it.
    AlignedBlock(SizeClass<Pools>),
    /// A mapping that contains only this memory.
    Mapping,
}

/// Returns where the memory for `layout` comes from.
#[inline]
pub(crate) fn place(layout: Layout) -> Place {
    match SizeClass::of(rounded(layout)) {
        Some(class) if layout.align() <= MAX_ALIGN => Place::Block(class),
        Some(class) if 2 * layout.align() <= Pools::SIZES.arena_size => Place::AlignedBlock(class),
        _ if layout.size() == 0 => Place::Nowhere,
        _ => Place::Mapping,
    }
}

/// Returns the size class for `layout` if all blocks of the class are aligned for it.
#[inline]
pub(crate) fn class(layout: Layout) -> Option<SizeClass<Pools>> {
    SizeClass::of(class_size(layout))
}

/// Returns a size whose class is the one for `layout`, or a size without a class if `layout` has
/// none.
#[inline]
pub(crate) fn class_size(layout: Layout) -> usize {
    if layout.align() <= MAX_ALIGN { rounded(layout) } else { usize::MAX }
}

/// Returns true if `layout` has a size class and that class is linked.
#[inline]
pub(crate) fn is_linked(layout: Layout) -> bool {
    rounded(layout).wrapping_sub(1) < Pools::SIZES.linked_threshold
}

/// Returns true if a layout whose [`class_size`] is `size` has a class of spans.
///
/// The memory of such a layout always lies in a span, even after a resize (see [`may_lie_in`]).
#[inline]
pub(crate) fn is_span(size: usize) -> bool {
    size.wrapping_sub(LARGEST_SHARED + 1) < Pools::SIZES.arena_threshold - LARGEST_SHARED
}

/// Returns true if a layout whose [`class_size`] is `size` has a class that is neither linked nor a
/// class of spans.
#[inline]
pub(crate) fn is_medium(size: usize) -> bool {
    let least = Pools::SIZES.linked_threshold;
    size.wrapping_sub(1).wrapping_sub(least) < LARGEST_SHARED - least
}

/// Returns true if a layout whose [`class_size`] is `size` gets a mapping of its own because of its
/// size. (An alignment above that of all classes can also be the reason.)
#[inline]
pub(crate) fn is_large(size: usize) -> bool {
    size > Pools::SIZES.arena_threshold && size <= isize::MAX as usize
}

/// Returns true if a layout whose [`class_size`] is `size` has a class that is not linked.
#[inline]
pub(crate) fn is_unlinked(size: usize) -> bool {
    let least = Pools::SIZES.linked_threshold;
    size.wrapping_sub(1).wrapping_sub(least) < Pools::SIZES.arena_threshold - least
}

/// Returns the size class for `layout` if that class is small, and `None` otherwise.
#[inline]
pub(crate) fn small_class(layout: Layout) -> Option<SizeClass<Pools>> {
    SizeClass::of_small(rounded(layout))
}

/// Returns the size of `layout`, rounded up to its alignment if blocks are not always aligned to
/// it.
#[inline]
pub(crate) fn rounded(layout: Layout) -> usize {
    let mut size = layout.size();
    if layout.align() > Pools::SIZES.alignment {
        // A valid layout, rounded up to its alignment, has at most isize::MAX bytes.
        size = (size + (layout.align() - 1)) & !(layout.align() - 1);
    }
    size
}

/// Returns true if memory in a block of class `now` may stay there when it is resized to `new`.
///
/// `after` is the class that a new allocation of the layout `new` would use. If the existing block
/// has the class `after`, the memory stays in that block. If the existing block is larger, the
/// memory stays only if `new` needs more than three quarters of the block and the block is aligned
/// for `new`. With a smaller share, a move to a smaller block saves enough memory to be worthwhile.
/// CPython's `_PyObject_Realloc` (`Objects/obmalloc.c`) also draws the line at three quarters.
#[inline]
pub(crate) fn serves(now: Option<SizeClass<Pools>>, new: Layout, after: SizeClass<Pools>) -> bool {
    let size = now.map_or(0, SizeClass::block_size);
    let fits = after.block_size() <= size && size & (new.align() - 1) == 0;
    now == Some(after) || (fits && 4 * new.size() > 3 * size)
}

/// Returns true if memory whose layout has the class `after` may lie in a block of class `block`.
///
/// After a resize, memory may lie in a block whose class differs from the class of the memory's
/// layout. When the memory is freed, the layout alone selects one of three functions: one for
/// linked classes, one for classes of spans, and one for any block. The first two accept only
/// blocks of their own kind. Memory whose layout has a linked class must therefore lie in a linked
/// block, and memory whose layout has a class of spans must lie in a span.
#[inline]
pub(crate) fn may_lie_in(block: SizeClass<Pools>, after: SizeClass<Pools>) -> bool {
    (block.is_linked() || !after.is_linked()) && (block.is_span() || !after.is_span())
}

/// Returns a size class with spare room if `new` is larger than `old` by less than a quarter.
///
/// Memory that grows by less than a quarter probably grows in small steps, so it is likely to grow
/// again. The function therefore returns the class for the size of `new` plus an eighth. It returns
/// `None` in these cases:
/// - The memory shrinks, keeps its size, or grows by a quarter or more.
/// - There is no class for the size of `new` plus an eighth.
/// - Memory for `new` must not lie in a block of that class (see [`may_lie_in`]).
/// - Blocks of that class are too large for `new` (see [`serves`]). The next reallocation would
///   move the memory again, to a smaller block.
#[inline]
pub(crate) fn grown(old: Layout, new: Layout) -> Option<SizeClass<Pools>> {
    let (before, after) = (old.size(), new.size());
    let a_little = after > before && after - before < before / 4;
    // A layout has at most isize::MAX bytes, so the addition cannot overflow.
    let roomy = Layout::from_size_align(after + after / 8, new.align());
    let roomy = roomy.ok().filter(|_| a_little).and_then(class);
    let least = class(new)?;
    // If the block were too large for `new`, the next reallocation would move the memory again.
    roomy.filter(|block| may_lie_in(*block, least) && serves(roomy, new, least))
}

/// Does the same as [`grown`] for layouts with small classes, but returns a size of the class. It
/// takes fewer instructions.
///
/// A layout whose alignment exceeds that of all blocks gets no spare room.
#[inline]
pub(crate) fn small_with_room(old: Layout, new: Layout) -> Option<usize> {
    let (before, after) = (old.size(), new.size());
    let roomy = (after + after / 8).next_multiple_of(Pools::SIZES.alignment);
    let grows_a_little = after > before && after - before < before / 4;
    let is_served = roomy <= Pools::SIZES.small_threshold && 4 * after > 3 * roomy;
    let is_aligned = new.align() <= Pools::SIZES.alignment;
    (grows_a_little && is_served && is_aligned).then_some(roomy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(size: usize, align: usize) -> Option<usize> {
        class(Layout::from_size_align(size, align).unwrap()).map(SizeClass::block_size)
    }

    #[test]
    fn a_small_layout_has_the_smallest_class_that_fits() {
        assert_eq!([served(1, 1), served(16, 16), served(17, 8)].map(Option::unwrap), [16, 16, 32]);
        assert_eq!((served(512, 16), served(513, 1)), (Some(512), Some(576)));
        assert_eq!((served(480 << 10, 16), served((480 << 10) + 1, 1)), (Some(480 << 10), None));
    }

    #[test]
    fn an_aligned_layout_has_a_class_whose_blocks_are_a_multiple_of_the_alignment() {
        assert_eq!(
            [served(32, 32), served(33, 32), served(64, 64), served(130, 128)].map(Option::unwrap),
            [32, 64, 64, 256]
        );
        assert_eq!(
            [served(1, 512), served(512, 32), served(1, 1024)],
            [Some(512), Some(512), Some(1024)]
        );
        assert_eq!(served(16 << 10, 16 << 10), Some(16 << 10));
        for align in (0..=14).map(|bits| 1 << bits) {
            for size in [1, 100, 600, 5_000, 40_000, 300_000] {
                assert!(served(size, align).unwrap().is_multiple_of(align), "{size}, {align}");
            }
        }
    }

    #[test]
    fn the_size_of_a_layout_tells_which_kind_of_class_it_has() {
        for size in (0..=Pools::SIZES.arena_threshold + 2).chain([usize::MAX]) {
            let class = SizeClass::<Pools>::of(size);
            let expected = class.map(|class| (class.is_span(), !class.is_linked()));
            let (span, unlinked) = expected.unwrap_or_default();
            assert_eq!((is_span(size), is_unlinked(size)), (span, unlinked), "{size} bytes");
            assert_eq!(is_medium(size), unlinked && !span, "{size} bytes");
        }
    }

    #[test]
    fn layouts_above_the_largest_class_get_a_mapping() {
        let threshold = Pools::SIZES.arena_threshold;
        for size in [0, 1, threshold - 1, threshold, threshold + 1, 1 << 40, isize::MAX as usize] {
            for align in [1, 16, 4 << 10, 16 << 10, 32 << 10, 1 << 20] {
                let Ok(layout) = Layout::from_size_align(size, align) else { continue };
                let is_mapping = place(layout) == Place::Mapping && align <= MAX_ALIGN;
                assert_eq!(is_large(class_size(layout)), is_mapping, "{layout:?}");
            }
        }
    }

    #[test]
    fn memory_that_is_freed_in_another_way_may_not_stay_in_a_block() {
        let [linked, medium, span] =
            [1 << 10, 8 << 10, 16 << 10].map(|size| SizeClass::of(size).unwrap());
        assert!(may_lie_in(linked, medium) && may_lie_in(span, medium));
        assert!(!may_lie_in(medium, linked) && !may_lie_in(span, linked));
        assert!(!may_lie_in(medium, span) && !may_lie_in(linked, span));
    }

    #[test]
    fn great_alignments_and_sizes_need_a_place_of_their_own() {
        let at = |size, align| place(Layout::from_size_align(size, align).unwrap());
        let class = |size| SizeClass::of(size).unwrap();
        assert_eq!(at(1, 32 << 10), Place::AlignedBlock(class(32 << 10)));
        assert_eq!(at(300_000, 256 << 10), Place::Mapping);
        assert_eq!(at(1, 512 << 10), Place::Mapping);
        assert_eq!([at(0, 1), at(0, 1 << 20)], [Place::Nowhere; 2]);
        assert_eq!(at((480 << 10) + 1, 1), Place::Mapping);
    }

    fn plain(size: usize) -> Layout {
        Layout::from_size_align(size, 1).unwrap()
    }

    #[test]
    fn a_block_stays_if_more_than_three_quarters_of_it_are_needed() {
        let stays = |size, new| serves(class(plain(size)), plain(new), class(plain(new)).unwrap());
        assert_eq!([385, 384, 512].map(|new| stays(512, new)), [true, false, true]);
        assert_eq!([1, 48, 49].map(|new| stays(48, new)), [false, true, false]);
        assert!((1..=16).all(|new| stays(16, new)));
        let aligned = Layout::from_size_align(90, 32).unwrap();
        let stays = |size| serves(class(plain(size)), aligned, class(aligned).unwrap());
        assert_eq!([96, 112, 128].map(stays), [true, false, false]);
    }

    #[test]
    fn memory_that_grows_by_less_than_a_quarter_gets_room_to_grow_again() {
        let block = |old, new| grown(plain(old), plain(new)).map(SizeClass::block_size);
        assert_eq!(block(256, 272), Some(320));
        assert_eq!([block(256, 319), block(256, 320)], [Some(368), None]);
        assert_eq!([block(256, 256), block(256, 255)], [None; 2]);
        assert_eq!([block(64, 128), block(256, 240)], [None; 2]);
        assert_eq!([block(500, 508), block(4000, 4096)], [Some(576), Some(4608)]);
        assert_eq!(block(1000, 1016), None);
        assert_eq!(block(48, 58), None);
        assert_eq!([block(480 << 10, 490 << 10), block(1 << 62, 1 + (1 << 62))], [None; 2]);
    }

    #[test]
    fn small_memory_gets_the_same_room_as_other_memory() {
        for old in 1..=Pools::SIZES.small_threshold {
            for new in 1..=Pools::SIZES.small_threshold {
                let least = small_class(plain(new));
                let roomy = grown(plain(old), plain(new)).filter(|block| block.is_small());
                let size = small_with_room(plain(old), plain(new)).unwrap_or(new);
                assert_eq!(small_class(plain(size)), roomy.or(least), "{old} to {new}");
            }
        }
        let aligned = |size| Layout::from_size_align(size, 32).unwrap();
        assert_eq!(small_with_room(aligned(256), aligned(272)), None);
    }

    #[test]
    fn an_empty_layout_and_the_largest_one_have_no_class() {
        assert_eq!((served(0, 1), served(isize::MAX as usize - 31, 32)), (None, None));
        assert_eq!(served(0, 1 << 62), None);
    }
}
