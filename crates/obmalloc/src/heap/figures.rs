//! The memory of arenas in use, by size class and by kind. Any thread may count it.

#![forbid(unsafe_code)]

use crate::geometry::{Geometry, MAX_CLASSES, shape::Shape, size_class::SizeClass};

/// A kind of memory. It depends on the size of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// Blocks of up to 512 bytes.
    Small,
    /// Larger blocks that share a pool.
    Medium,
    /// Spans, which are pools of one block.
    Span,
    /// Blocks with their own mappings.
    Large,
}

impl Kind {
    /// All kinds, in ascending order of block size.
    pub const ALL: [Self; 4] = [Self::Small, Self::Medium, Self::Span, Self::Large];

    pub(crate) fn of<G: Geometry>(class: SizeClass<G>) -> Self {
        if class.is_small() {
            Self::Small
        } else if class.is_span() {
            Self::Span
        } else {
            Self::Medium
        }
    }

    /// Returns the name of the kind: `small`, `medium`, `span` or `large`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Medium => "medium",
            Self::Span => "span",
            Self::Large => "large",
        }
    }
}

/// The blocks in use of one kind or of one size class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct InUse {
    /// The number of blocks in use.
    pub blocks: usize,
    /// The total size of the blocks in use, in bytes. A block can be larger than requested, because
    /// the size of a request is rounded up to the size of its class or mapping.
    pub allocated: usize,
    /// The bytes of the pools or mappings that contain these blocks, including purged pages.
    pub active: usize,
}

impl InUse {
    /// Creates a value with these numbers.
    pub const fn new(blocks: usize, allocated: usize, active: usize) -> Self {
        Self { blocks, allocated, active }
    }
}

/// The blocks in use of one size class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClassInUse {
    /// The size of a block, in bytes.
    pub block_size: usize,
    /// The kind of memory that serves the class, which is never [`Kind::Large`].
    pub kind: Kind,
    /// The blocks in use, and their pools.
    pub in_use: InUse,
}

/// A breakdown of the memory of arenas. Each byte is active, retained or purged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArenaTotals {
    /// The blocks in use of the kinds small, medium and span.
    kinds: [InUse; 3],
    arenas: usize,
    arena_size: usize,
    active: usize,
    purged: usize,
}

impl ArenaTotals {
    /// Returns the totals of a heap without arenas.
    pub fn empty<G: Geometry>() -> Self {
        Self {
            kinds: [InUse::default(); 3],
            arenas: 0,
            arena_size: G::SIZES.arena_size,
            active: 0,
            purged: 0,
        }
    }

    /// Returns the number of arenas.
    pub fn arenas(&self) -> usize {
        self.arenas
    }

    /// Returns the size of all arenas, in bytes.
    pub fn mapped(&self) -> usize {
        self.arenas * self.arena_size
    }

    /// Returns the bytes of all pools that have a block in use, except for purged pages.
    pub fn active(&self) -> usize {
        self.active
    }

    /// Returns the bytes that are not backed by memory: free units that were never used, and purged
    /// pages.
    pub fn purged(&self) -> usize {
        self.purged
    }

    /// Returns the bytes of free units that may still be backed by memory.
    pub fn retained(&self) -> usize {
        self.mapped().saturating_sub(self.active() + self.purged())
    }

    /// Returns the blocks in use of one kind of memory. No block in an arena is large.
    pub fn of_kind(&self, kind: Kind) -> InUse {
        self.kinds.get(kind as usize).copied().unwrap_or_default()
    }
}

/// The memory of arenas, as [`ArenaTotals`] and by size class.
///
/// A value of this type takes about 5 KiB, which is much for the stack of some threads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArenaFigures {
    totals: ArenaTotals,
    classes: [ClassInUse; MAX_CLASSES],
    class_count: usize,
}

impl ArenaFigures {
    /// Returns the figures of a heap without arenas.
    pub fn empty<G: Geometry>() -> Self {
        let none = ClassInUse { block_size: 0, kind: Kind::Small, in_use: InUse::default() };
        let mut classes = [none; MAX_CLASSES];
        for class in SizeClass::<G>::all() {
            classes[class.index()].block_size = class.block_size();
            classes[class.index()].kind = Kind::of(class);
        }
        Self { totals: ArenaTotals::empty::<G>(), classes, class_count: Shape::<G>::CLASSES }
    }

    /// Returns the totals of all size classes.
    pub fn totals(&self) -> &ArenaTotals {
        &self.totals
    }

    /// Returns the blocks in use of each size class, in ascending order of size.
    pub fn classes(&self) -> &[ClassInUse] {
        &self.classes[..self.class_count]
    }
}

impl AsRef<ArenaTotals> for ArenaTotals {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl AsRef<ArenaTotals> for ArenaFigures {
    fn as_ref(&self) -> &ArenaTotals {
        &self.totals
    }
}

/// A value that adds up the memory of arenas.
pub(crate) trait Count {
    /// Adds a pool with `blocks` blocks in use.
    fn add_pool<G: Geometry>(&mut self, class: SizeClass<G>, blocks: usize);

    /// Adds an arena with `active` bytes in used pools, and with `purged` bytes that are not backed
    /// by memory.
    fn add_arena(&mut self, active: usize, purged: usize);
}

impl InUse {
    fn add_pool<G: Geometry>(&mut self, class: SizeClass<G>, blocks: usize) {
        self.blocks += blocks;
        self.allocated += blocks * class.block_size();
        self.active += class.pool_bytes();
    }
}

impl Count for ArenaTotals {
    fn add_pool<G: Geometry>(&mut self, class: SizeClass<G>, blocks: usize) {
        if let Some(in_use) = self.kinds.get_mut(Kind::of(class) as usize) {
            in_use.add_pool(class, blocks);
        }
    }

    fn add_arena(&mut self, active: usize, purged: usize) {
        self.arenas += 1;
        self.active += active;
        self.purged += purged.min(self.arena_size - active);
    }
}

impl Count for ArenaFigures {
    fn add_pool<G: Geometry>(&mut self, class: SizeClass<G>, blocks: usize) {
        self.totals.add_pool(class, blocks);
        self.classes[class.index()].in_use.add_pool(class, blocks);
    }

    fn add_arena(&mut self, active: usize, purged: usize) {
        self.totals.add_arena(active, purged);
    }
}
