//! The class of a request, in range by construction.

use core::{fmt, marker::PhantomData, ptr::NonNull};

use crate::{
    geometry::{Geometry, Shape},
    pool::PoolPtr,
};

/// A size class of the geometry `G`: class i has blocks of `(i + 1) * ALIGNMENT` bytes.
pub struct SizeClass<G> {
    /// # Invariant
    ///
    /// Below `Shape::<G>::CLASSES`.
    index: u8,
    geometry: PhantomData<G>,
}

impl<G: Geometry> SizeClass<G> {
    /// The class that serves `size` bytes; `None` for 0 bytes and for more than the threshold.
    ///
    /// ```
    /// use obmalloc::{Pools16K, SizeClass};
    ///
    /// assert_eq!(SizeClass::<Pools16K>::of(33).map(|class| class.block_size()), Some(48));
    /// assert!(SizeClass::<Pools16K>::of(513).is_none());
    /// ```
    #[inline]
    pub const fn of(size: usize) -> Option<Self> {
        // 0 wraps to the largest number, which is in no class.
        let highest = size.wrapping_sub(1);
        if highest < G::SMALL_THRESHOLD {
            // INVARIANT: the highest byte of a small request is below CLASSES alignments.
            Some(Self { index: (highest >> Shape::<G>::SHIFT) as u8, geometry: PhantomData })
        } else {
            None
        }
    }

    /// The class of number `index`, where there is one.
    #[inline]
    pub const fn from_index(index: usize) -> Option<Self> {
        if index < Shape::<G>::CLASSES {
            Some(Self { index: index as u8, geometry: PhantomData })
        } else {
            None
        }
    }

    /// The class of the block that holds `start`.
    ///
    /// This may be asked by a thread that is not the heap's owner: a block's class does not change
    /// while it is in use.
    ///
    /// # Safety
    ///
    /// `start` lies in a block in use of a heap with the geometry `G`.
    #[inline]
    pub unsafe fn at(start: NonNull<u8>) -> Option<Self> {
        // SAFETY: the caller's promise.
        unsafe { PoolPtr::class_at::<G>(start) }
    }

    /// The class's number, from 0.
    #[inline]
    pub const fn index(self) -> usize {
        self.index as usize
    }

    /// The bytes of each of its blocks.
    #[inline]
    pub const fn block_size(self) -> usize {
        (self.index as usize + 1) << Shape::<G>::SHIFT
    }

    /// The blocks in a pool of this class. Where an arena begins with the headers of its pools
    /// ([`HeaderRule::InArena`](crate::HeaderRule::InArena)), its first pool has fewer.
    #[inline]
    pub const fn capacity(self) -> usize {
        (G::POOL_SIZE - Shape::<G>::BEFORE_POOL) / self.block_size()
    }

    /// Every class, smallest first.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..Shape::<G>::CLASSES).filter_map(Self::from_index)
    }
}

impl<G> Clone for SizeClass<G> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}

impl<G> Copy for SizeClass<G> {}

impl<G> PartialEq for SizeClass<G> {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.index == other.index
    }
}

impl<G> Eq for SizeClass<G> {}

impl<G: Geometry> fmt::Debug for SizeClass<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SizeClass({}: {} bytes)", self.index, self.block_size())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Classes8To256, Classes8To512, Pools4K, Pools16K};

    fn sizes_fit<G: Geometry>() {
        for size in 1..=G::SMALL_THRESHOLD {
            let class = SizeClass::<G>::of(size).unwrap();
            assert!(class.block_size() >= size && class.block_size() < size + G::ALIGNMENT);
        }
        assert!(SizeClass::<G>::of(0).is_none());
        assert!(SizeClass::<G>::of(G::SMALL_THRESHOLD + 1).is_none());
        assert!(SizeClass::<G>::of(usize::MAX).is_none());
    }

    #[test]
    fn the_smallest_fitting_class_serves_a_request() {
        sizes_fit::<Classes8To256>();
        sizes_fit::<Classes8To512>();
        sizes_fit::<Pools16K>();
    }

    fn capacity<G: Geometry>(size: usize) -> usize {
        SizeClass::<G>::of(size).unwrap().capacity()
    }

    #[test]
    fn pools_hold_as_many_blocks_as_in_cpython() {
        let large = [16, 32, 48, 64, 80, 128, 256, 512].map(capacity::<Pools16K>);
        assert_eq!(large, [1021, 510, 340, 255, 204, 127, 63, 31]);
        let small = [16, 32, 64, 256, 512].map(capacity::<Pools4K>);
        assert_eq!(small, [253, 126, 63, 15, 7]);
        assert_eq!([8, 24].map(capacity::<Classes8To512>), [506, 168]);
    }
}
