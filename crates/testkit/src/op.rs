//! The operations that a test applies to an allocator.
//!
//! An operation refers to a block by slot number, not by address. A test can therefore apply the
//! same operations to an allocator and to a model of it, and compare the outcomes. Each operation
//! is defined for empty and for occupied slots, so every sequence of operations is valid:
//!
//! | operation | on an empty slot | on a slot with a block |
//! | --- | --- | --- |
//! | `Malloc`, `Calloc` | allocates into the slot | frees the block, then allocates |
//! | `Realloc` | reallocates null | reallocates the block |
//! | `Free` | frees null | frees the block |

/// One operation on the block in a slot. Sizes are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the variants say what slot, size and count are")]
pub enum Op {
    /// Allocates `size` bytes into `slot`.
    Malloc { slot: usize, size: usize },
    /// Allocates `count` zeroed items of `size` bytes into `slot`.
    Calloc { slot: usize, count: usize, size: usize },
    /// Resizes the block in `slot` to `size` bytes.
    Realloc { slot: usize, size: usize },
    /// Frees the block in `slot`.
    Free { slot: usize },
}

impl Op {
    /// Returns the slot that the operation works on.
    pub fn slot(self) -> usize {
        match self {
            Self::Malloc { slot, .. }
            | Self::Calloc { slot, .. }
            | Self::Realloc { slot, .. }
            | Self::Free { slot } => slot,
        }
    }
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<B> {
    /// The request succeeded, and the slot now holds this block.
    Allocated(B),
    /// The request failed. `Realloc` keeps the old block, and `Malloc` and `Calloc` empty the slot.
    Refused,
    /// `Free` emptied the slot.
    Freed,
}

impl<B> Outcome<B> {
    /// Returns the allocated block, or `None` if the operation allocated nothing.
    pub fn block(self) -> Option<B> {
        match self {
            Self::Allocated(block) => Some(block),
            Self::Refused | Self::Freed => None,
        }
    }

    /// Returns the same outcome with the block replaced by `f(block)`.
    pub fn map<C>(self, f: impl FnOnce(B) -> C) -> Outcome<C> {
        match self {
            Self::Allocated(block) => Outcome::Allocated(f(block)),
            Self::Refused => Outcome::Refused,
            Self::Freed => Outcome::Freed,
        }
    }
}

/// An allocator, or a model of one, to which a test applies operations.
pub trait Subject {
    /// How the subject refers to a live block: an allocator by address, a model by place.
    type Block: Copy;

    /// Allocates `size` bytes. Returns `None` if the allocation fails.
    fn malloc(&mut self, size: usize) -> Option<Self::Block>;

    /// Allocates `count` zeroed items of `size` bytes. Returns `None` if the allocation fails.
    fn calloc(&mut self, count: usize, size: usize) -> Option<Self::Block>;

    /// Resizes `old`, which may be `None`. Returns `None` and keeps `old` if the allocation fails.
    fn realloc(&mut self, old: Option<Self::Block>, size: usize) -> Option<Self::Block>;

    /// Frees `old`. Does nothing if it is `None`.
    fn free(&mut self, old: Option<Self::Block>);
}
