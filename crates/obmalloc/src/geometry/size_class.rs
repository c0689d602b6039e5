//! Size classes: each request is rounded up to the block size of its class.

#![forbid(unsafe_code)]

use core::{fmt, marker::PhantomData};

use crate::geometry::{Geometry, shape::Shape};

/// A size class of the geometry `G`. Class `i` has blocks of `(i + 1) * alignment` bytes.
pub struct SizeClass<G> {
    /// # Invariant
    ///
    /// The index is less than `Shape::<G>::CLASSES`.
    index: u8,
    geometry: PhantomData<G>,
}

impl<G: Geometry> SizeClass<G> {
    /// Returns the smallest class that fits `size`. Returns `None` for 0 and above the threshold.
    ///
    /// ```
    /// use obmalloc::{Pools16K, SizeClass};
    ///
    /// assert_eq!(SizeClass::<Pools16K>::of(33).map(|class| class.block_size()), Some(48));
    /// assert!(SizeClass::<Pools16K>::of(513).is_none());
    /// ```
    #[inline]
    #[must_use]
    pub const fn of(size: usize) -> Option<Self> {
        let last = size.wrapping_sub(1);
        if last < G::SIZES.small_threshold {
            // INVARIANT: `last` is less than CLASSES times the alignment, so the index is valid.
            Some(Self { index: (last >> Shape::<G>::SHIFT) as u8, geometry: PhantomData })
        } else {
            None
        }
    }

    /// Returns the class with the number `index`, if there is one.
    #[inline]
    pub const fn from_index(index: usize) -> Option<Self> {
        if index < Shape::<G>::CLASSES {
            Some(Self { index: index as u8, geometry: PhantomData })
        } else {
            None
        }
    }

    /// Returns the number of the class, counted from 0.
    #[inline]
    pub const fn index(self) -> usize {
        self.index as usize
    }

    /// Returns the size of the blocks of this class, in bytes.
    #[inline]
    pub const fn block_size(self) -> usize {
        (self.index as usize + 1) << Shape::<G>::SHIFT
    }

    /// Returns the number of blocks in a pool of this class.
    ///
    /// The first pool of an arena has fewer blocks if it also holds the headers of the other pools. So
    /// may all pools of a heap with [`BlockStart::AsInCPython`](crate::BlockStart::AsInCPython).
    #[inline]
    pub const fn capacity(self) -> usize {
        (G::SIZES.pool_size - Shape::<G>::BEFORE_POOL) / self.block_size()
    }

    /// Iterates over all classes, smallest first.
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
    use crate::geometry::eras::{Classes8To256, Classes8To512, Pools4K, Pools16K};

    fn sizes_fit<G: Geometry>() {
        for size in 1..=G::SIZES.small_threshold {
            let class = SizeClass::<G>::of(size).unwrap();
            assert!(class.block_size() >= size && class.block_size() < size + G::SIZES.alignment);
        }
        assert!(SizeClass::<G>::of(0).is_none());
        assert!(SizeClass::<G>::of(G::SIZES.small_threshold + 1).is_none());
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
