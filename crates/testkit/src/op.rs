//! The operations of a test, and how one can end.
//!
//! An operation names a *slot* instead of an address. One sequence can therefore be played into any
//! allocator, into a model of one, or into several at once. Every sequence is legal, so a fuzzer
//! may write any sequence, and a property test may drop any operation from one:
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
    /// Changes the block in `slot` to `size` bytes.
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
    /// The slot now holds this block.
    Allocated(B),
    /// There was no memory. The slot is empty, or still holds the old block if the operation was a
    /// reallocation.
    Refused,
    /// The slot was emptied by a `Free`.
    Freed,
}

impl<B> Outcome<B> {
    /// Returns the allocated block, if there is one.
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

/// An allocator that operations are played into, or a model of one.
pub trait Subject {
    /// How the subject names a live block.
    type Block: Copy;

    /// Allocates `size` bytes.
    fn malloc(&mut self, size: usize) -> Option<Self::Block>;

    /// Allocates `count` zeroed items of `size` bytes.
    fn calloc(&mut self, count: usize, size: usize) -> Option<Self::Block>;

    /// Changes `old` to `size` bytes. If the result is `None`, `old` stays live.
    fn realloc(&mut self, old: Option<Self::Block>, size: usize) -> Option<Self::Block>;

    /// Frees `old`.
    fn free(&mut self, old: Option<Self::Block>);
}
