//! What differed between the versions of CPython, as plain numbers and switches.

/// The bytes of a pool's header, on 64-bit platforms, in every version.
pub const HEADER: usize = 48;

/// When a reallocation keeps a block of `B` bytes for `n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// While `n <= B` and `4 * n > 3 * B`: CPython.
    AboveThreeQuarters,
    /// That, and whenever `n` is of the same class.
    InClass,
}

/// Who serves a request of 0 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zero {
    /// The layer below: CPython.
    Below,
    /// The smallest size class.
    SmallestClass,
}

/// The rules of one kind of heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Bytes between size classes, and the alignment of blocks. CPython: `ALIGNMENT`.
    pub alignment: usize,
    /// The largest request that pools serve. CPython: `SMALL_REQUEST_THRESHOLD`.
    pub threshold: usize,
    /// Bytes of a pool. CPython: `POOL_SIZE`.
    pub pool_size: usize,
    /// Bytes of an arena. CPython: `ARENA_SIZE`.
    pub arena_size: usize,
    /// Whether an arena that is wholly free stays if it is the last of the usable ones.
    pub keep_last: bool,
    /// When a reallocation keeps its block.
    pub keep: Keep,
    /// Who serves 0 bytes.
    pub zero: Zero,
}

impl Rules {
    /// 8-byte classes to 256 bytes, 4 KiB pools, 256 KiB arenas: CPython 2.5.
    pub const CLASSES_8_TO_256: Self =
        Self { alignment: 8, threshold: 256, ..Self::POOLS_4K_GIVE_BACK_ALL };

    /// 8-byte classes to 512 bytes, 4 KiB pools, 256 KiB arenas: CPython 3.3 to 3.7.3.
    pub const CLASSES_8_TO_512: Self = Self { alignment: 8, ..Self::POOLS_4K_GIVE_BACK_ALL };

    /// 4 KiB pools and 256 KiB arenas, each of which goes when it is empty: CPython 3.7.4 to 3.8.
    pub const POOLS_4K_GIVE_BACK_ALL: Self = Self { keep_last: false, ..Self::POOLS_4K };

    /// 4 KiB pools and 256 KiB arenas, the last of which stays: CPython 3.9.
    pub const POOLS_4K: Self =
        Self { pool_size: 4 << 10, arena_size: 256 << 10, ..Self::POOLS_16K };

    /// 16 KiB pools and 1 MiB arenas: CPython 3.10 and later.
    pub const POOLS_16K: Self = Self {
        alignment: 16,
        threshold: 512,
        pool_size: 16 << 10,
        arena_size: 1 << 20,
        keep_last: true,
        keep: Keep::AboveThreeQuarters,
        zero: Zero::Below,
    };

    /// 16 KiB pools and 2 MiB arenas: CPython 3.15 with huge pages.
    pub const ARENAS_2M: Self = Self { arena_size: 2 << 20, ..Self::POOLS_16K };

    /// How many size classes there are.
    pub const fn classes(&self) -> usize {
        self.threshold / self.alignment
    }

    /// How many pools an arena holds.
    pub const fn pools(&self) -> usize {
        self.arena_size / self.pool_size
    }

    /// Bytes of a block of `class`.
    pub const fn block_size(&self, class: usize) -> usize {
        (class + 1) * self.alignment
    }

    /// How many blocks of `class` a pool holds.
    pub const fn capacity(&self, class: usize) -> usize {
        (self.pool_size - HEADER) / self.block_size(class)
    }

    /// The class that serves `size` bytes; `None` when the layer below does.
    pub const fn class(&self, size: usize) -> Option<usize> {
        match (size, self.zero) {
            (0, Zero::Below) => None,
            (0, Zero::SmallestClass) => Some(0),
            _ if size > self.threshold => None,
            _ => Some((size - 1) / self.alignment),
        }
    }

    /// Whether a reallocation to `size` bytes keeps a block of `class`.
    pub fn keeps(&self, class: usize, size: usize) -> bool {
        let block = self.block_size(class);
        let filled = size <= block && 4 * size > 3 * block;
        filled || (self.keep == Keep::InClass && self.class(size) == Some(class))
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
        assert_eq!(
            [narrow.classes(), small.classes(), Rules::CLASSES_8_TO_256.classes()],
            [64, 32, 32]
        );
        assert_eq!([narrow.pools(), large.pools(), Rules::ARENAS_2M.pools()], [64, 64, 128]);
    }

    #[test]
    fn a_reallocation_to_the_same_size_moves_only_in_the_three_smallest_classes() {
        let rules = Rules::POOLS_16K;
        let moves = |&size: &usize| !rules.keeps(rules.class(size).unwrap(), size);
        let moving: Vec<_> = (1..=512).filter(moves).collect();
        let expected: Vec<_> = (1..=12).chain(17..=24).chain(33..=36).collect();
        assert_eq!(moving, expected);
        assert!(rules.keeps(31, 385) && !rules.keeps(31, 384));
    }

    #[test]
    fn keeping_in_class_adds_to_the_three_quarters() {
        let rules = Rules { keep: Keep::InClass, ..Rules::POOLS_16K };
        assert!(rules.keeps(0, 1));
        assert!(rules.keeps(31, 385), "of another class, but above three quarters");
        assert!(!rules.keeps(31, 384));
    }
}
