//! The sizes and rules that differ between the versions of CPython.

/// The size of a pool's header in bytes, in every 64-bit CPython.
pub const HEADER: usize = 48;

/// The condition under which a block of `B` bytes stays in place when it is resized to `n` bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Realloc {
    /// The block stays if `n <= B` and `4 * n > 3 * B`, as in CPython.
    ThreeQuarters,
    /// Like [`ThreeQuarters`](Self::ThreeQuarters), but a block also stays within its size class.
    WithinClass,
}

/// The sizes and rules of one kind of heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The alignment of blocks, and the step between size classes. CPython: `ALIGNMENT`.
    pub alignment: usize,
    /// The largest request for a pool, in bytes. CPython: `SMALL_REQUEST_THRESHOLD`.
    pub threshold: usize,
    /// The size of a pool in bytes. CPython: `POOL_SIZE`.
    pub pool_size: usize,
    /// The size of an arena in bytes. CPython: `ARENA_SIZE`.
    pub arena_size: usize,
    /// True if the last usable arena stays mapped even when all of its pools are available.
    pub retain_last_arena: bool,
    /// The condition under which a resized block stays in place.
    pub realloc: Realloc,
    /// True if requests for 0 bytes get a block from a pool.
    pub zero_in_pools: bool,
}

impl Rules {
    /// CPython 3.3 to 3.7.3: classes in steps of 8 bytes, 4 KiB pools, 256 KiB arenas.
    pub const CLASSES_8_TO_512: Self = Self { alignment: 8, ..Self::POOLS_4K_GIVE_BACK_ALL };

    /// CPython 3.7.4 to 3.8: 4 KiB pools, 256 KiB arenas. Every free arena is unmapped.
    pub const POOLS_4K_GIVE_BACK_ALL: Self = Self { retain_last_arena: false, ..Self::POOLS_4K };

    /// CPython 3.9: 4 KiB pools, 256 KiB arenas. The last usable arena is retained.
    pub const POOLS_4K: Self =
        Self { pool_size: 4 << 10, arena_size: 256 << 10, ..Self::POOLS_16K };

    /// CPython 3.10 and later: 16 KiB pools and 1 MiB arenas.
    pub const POOLS_16K: Self = Self {
        alignment: 16,
        threshold: 512,
        pool_size: 16 << 10,
        arena_size: 1 << 20,
        retain_last_arena: true,
        realloc: Realloc::ThreeQuarters,
        zero_in_pools: false,
    };

    /// Returns the rules of a version of CPython, or `None` if they are not known.
    pub const fn of_cpython((major, minor, patch): (u8, u8, u8)) -> Option<Self> {
        match (major, minor, patch) {
            (3, 7, 0..=3) => Some(Self::CLASSES_8_TO_512),
            (3, 7 | 8, _) => Some(Self::POOLS_4K_GIVE_BACK_ALL),
            (3, 9, _) => Some(Self::POOLS_4K),
            (3, 10..=15, _) => Some(Self::POOLS_16K),
            _ => None,
        }
    }

    /// Returns the number of size classes.
    pub const fn classes(&self) -> usize {
        self.threshold / self.alignment
    }

    /// Returns the number of pools in an arena.
    pub const fn pools(&self) -> usize {
        self.arena_size / self.pool_size
    }

    /// Returns the size of a block of `class` in bytes.
    pub const fn block_size(&self, class: usize) -> usize {
        (class + 1) * self.alignment
    }

    /// Returns the number of blocks in a pool of `class`.
    pub const fn capacity(&self, class: usize) -> usize {
        (self.pool_size - HEADER) / self.block_size(class)
    }

    /// Returns the size class of a request, or `None` if no pool serves it.
    pub const fn class(&self, size: usize) -> Option<usize> {
        match size {
            0 if self.zero_in_pools => Some(0),
            0 => None,
            _ if size > self.threshold => None,
            _ => Some((size - 1) / self.alignment),
        }
    }

    /// Returns true if a block of `class` stays in place when it is reallocated to `size` bytes.
    pub fn stays(&self, class: usize, size: usize) -> bool {
        let block = self.block_size(class);
        let filled = size <= block && 4 * size > 3 * block;
        filled || (self.realloc == Realloc::WithinClass && self.class(size) == Some(class))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_hold_as_many_blocks_as_in_cpython() {
        let large = Rules::POOLS_16K;
        let blocks = [16, 32, 48, 64, 80, 128, 256, 512]
            .map(|size| large.capacity(large.class(size).unwrap()));
        assert_eq!(blocks, [1021, 510, 340, 255, 204, 127, 63, 31]);
        let small = Rules::POOLS_4K;
        let blocks = [16, 32, 64, 256, 512].map(|size| small.capacity(small.class(size).unwrap()));
        assert_eq!(blocks, [253, 126, 63, 15, 7]);
        let narrow = Rules::CLASSES_8_TO_512;
        assert_eq!([narrow.capacity(0), narrow.capacity(2)], [506, 168]);
        assert_eq!([narrow.classes(), small.classes()], [64, 32]);
        assert_eq!([narrow.pools(), large.pools()], [64, 64]);
    }

    #[test]
    fn a_reallocation_to_the_same_size_moves_only_in_the_three_smallest_classes() {
        let rules = Rules::POOLS_16K;
        let moves = |&size: &usize| !rules.stays(rules.class(size).unwrap(), size);
        let moving: Vec<_> = (1..=512).filter(moves).collect();
        let expected: Vec<_> = (1..=12).chain(17..=24).chain(33..=36).collect();
        assert_eq!(moving, expected);
        assert!(rules.stays(31, 385) && !rules.stays(31, 384));
    }

    #[test]
    fn staying_within_the_class_adds_to_the_three_quarters() {
        let rules = Rules { realloc: Realloc::WithinClass, ..Rules::POOLS_16K };
        assert!(rules.stays(0, 1));
        assert!(rules.stays(31, 385), "of another class, but above three quarters");
        assert!(!rules.stays(31, 384));
    }
    #[test]
    fn a_version_with_untested_rules_has_none() {
        assert_eq!(Rules::of_cpython((3, 6, 9)), None);
        assert_eq!(Rules::of_cpython((3, 8, 9)), Some(Rules::POOLS_4K_GIVE_BACK_ALL));
        assert_eq!(Rules::of_cpython((3, 15, 9)), Some(Rules::POOLS_16K));
        assert_eq!(Rules::of_cpython((3, 16, 9)), None);
    }
}
