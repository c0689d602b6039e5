//! The operations that a test plays into an allocator, and the outcomes of an operation.
//!
//! An operation refers to its block by a *slot* instead of an address. The same sequence of
//! operations can therefore be played into any allocator, into a model of an allocator, or into
//! several of them at once. Each operation is defined both for an empty slot and for a slot with a
//! block, so every sequence of operations is valid. A fuzzer may therefore generate any sequence,
//! and a property test may remove any operation from a sequence:
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
    /// The request failed because memory is exhausted. After a failed reallocation, the slot still
    /// holds the old block. After a failed `Malloc` or `Calloc`, the slot is empty.
    Refused,
    /// The slot was emptied by a `Free`.
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

/// An allocator or a model of an allocator, into which a test plays operations.
pub trait Subject {
    /// The type by which the subject refers to a live block. An allocator refers to a block by its
    /// address, and a model by its place.
    type Block: Copy;

    /// Allocates `size` bytes. Returns `None` if the allocation fails.
    fn malloc(&mut self, size: usize) -> Option<Self::Block>;

    /// Allocates `count` zeroed items of `size` bytes. Returns `None` if the allocation fails.
    fn calloc(&mut self, count: usize, size: usize) -> Option<Self::Block>;

    /// Resizes the block `old` to `size` bytes. If `old` is `None`, allocates a new block. If the
    /// allocation fails, returns `None`, and `old` stays live.
    fn realloc(&mut self, old: Option<Self::Block>, size: usize) -> Option<Self::Block>;

    /// Frees the block `old`. Does nothing if `old` is `None`.
    fn free(&mut self, old: Option<Self::Block>);
}
