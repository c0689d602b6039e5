//! The bounds of CPython's caches, version by version.
//!
//! All figures are from CPython's sources. In a free-threaded build, each bound applies to the list
//! of one thread.

#![forbid(unsafe_code)]

use core::ops::RangeInclusive;

/// A version of CPython.
///
/// Sources of the bounds: `pycore_freelist.h` (3.13), `pycore_freelist_state.h` (3.14, 3.15), and
/// the files that each [`Kind`] names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 2.7, which keeps ints and floats in an unbounded [`BlockCache`](super::BlockCache).
    V2_7,
    /// 3.6.
    V3_6,
    /// 3.11, which also retains tuples of 20 items but never reuses them.
    V3_11,
    /// 3.13.
    V3_13,
    /// 3.14.
    V3_14,
    /// 3.15.
    V3_15,
}

impl Version {
    /// Returns how many free objects of `kind` one list retains.
    ///
    /// Returns `None` if this version has no such list, or if the list has no bound.
    pub const fn bound(self, kind: Kind) -> Option<u32> {
        match BOUNDS[kind as usize][self as usize] {
            0 => None,
            bound => Some(bound),
        }
    }

    /// Returns the number of items in the longest tuple that has a list (source: [`Kind::Tuple`]).
    pub const fn longest_tuple(self) -> usize {
        match self {
            Self::V2_7 | Self::V3_6 | Self::V3_11 => 19,
            Self::V3_13 | Self::V3_14 | Self::V3_15 => 20,
        }
    }

    /// Returns the range of the small ints, which CPython never frees.
    ///
    /// Source: `intobject.c` (2.7), `longobject.c` (3.6), `pycore_global_objects.h` (3.11, 3.13),
    /// and `pycore_runtime_structs.h` (3.14, 3.15).
    pub const fn small_ints(self) -> RangeInclusive<i64> {
        match self {
            Self::V3_15 => -5..=1_024,
            _ => -5..=256,
        }
    }
}

/// The bounds of each kind. A 0 means that there is no list or no bound.
macro_rules! kinds {
    ($($(#[$doc:meta])* $Kind:ident $bounds:tt,)*) => {
        /// A type of object that CPython caches.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Kind {
            $($(#[$doc])* $Kind,)*
        }

        const BOUNDS: &[[u32; 6]] = &[$($bounds),*];

        #[cfg(test)]
        const KINDS: &[Kind] = &[$(Kind::$Kind),*];
    };
}

kinds! {
    // 2.7, 3.6, 3.11, 3.13, 3.14, 3.15

    /// An int with a single digit, whose magnitude is therefore below 2^30.
    Int [0, 0, 0, 0, 100, 100],
    /// A float. Source: `Objects/floatobject.c`; in 3.11, `pycore_floatobject.h`.
    Float [0, 100, 100, 100, 100, 100],
    /// A complex number.
    Complex [0, 0, 0, 0, 0, 100],
    /// A tuple of one length. Source: `Objects/tupleobject.c`; in 3.11, also `pycore_tuple.h`.
    Tuple [2_000, 2_000, 2_000, 2_000, 2_000, 2_000],
    /// A list. Source: `Objects/listobject.c`; in 3.11, `pycore_list.h`.
    List [80, 80, 80, 80, 80, 80],
    /// A list's iterator.
    ListIterator [0, 0, 0, 0, 10, 10],
    /// A tuple's iterator.
    TupleIterator [0, 0, 0, 0, 10, 10],
    /// A dict. Source: `Objects/dictobject.c`; in 3.11, `pycore_dict.h`.
    Dict [80, 80, 80, 80, 80, 80],
    /// The table of keys of a dict of the smallest size. Source: as for [`Dict`](Self::Dict).
    DictKeys [0, 80, 80, 80, 80, 80],
    /// A set. Source: `Objects/setobject.c`.
    Set [80, 0, 0, 0, 0, 0],
    /// A frame. Source: `Objects/frameobject.c`.
    Frame [200, 200, 0, 0, 0, 0],
    /// A function written in C. Source: `Objects/methodobject.c`.
    BuiltinFunction [256, 256, 0, 0, 16, 16],
    /// A method that is written in C and knows its class.
    BuiltinMethod [0, 0, 0, 0, 16, 16],
    /// A bound method. Source: `Objects/classobject.c`.
    BoundMethod [256, 256, 0, 0, 20, 20],
    /// A Unicode string. Source: `Objects/unicodeobject.c`.
    Unicode [1_024, 0, 0, 0, 0, 0],
    /// A writer of strings.
    UnicodeWriter [0, 0, 0, 0, 1, 1],
    /// A writer of bytes.
    BytesWriter [0, 0, 0, 0, 0, 1],
    /// A slice. Source: `Objects/sliceobject.c`; in 3.11, `pycore_interp.h`.
    Slice [0, 1, 1, 1, 1, 1],
    /// A range.
    Range [0, 0, 0, 0, 6, 6],
    /// A range's iterator.
    RangeIterator [0, 0, 0, 0, 6, 6],
    /// A context. Source in 3.11: `pycore_context.h`.
    Context [0, 0, 255, 255, 255, 255],
    /// A wrapped value of an asynchronous generator. Source: as for `AsyncGenSend`.
    AsyncGenValue [0, 80, 80, 80, 80, 80],
    /// An `asend` awaitable. Source: `Objects/genobject.c`; in 3.11, `pycore_genobject.h`.
    AsyncGenSend [0, 80, 80, 80, 80, 80],
    /// An asyncio future's iterator. Source up to 3.13: `Modules/_asynciomodule.c`.
    FutureIterator [0, 255, 255, 255, 255, 255],
    /// An array of pointers that the garbage collector uses.
    ObjectStackChunk [0, 0, 0, 4, 4, 4],
    /// A block of a deque. From 3.11 on, each deque has its own list. Source in all versions:
    /// `Modules/_collectionsmodule.c`.
    DequeBlock [10, 16, 16, 16, 16, 16],
    /// A `MemoryError`. Source in all versions: `Objects/exceptions.c`.
    MemoryError [0, 16, 16, 16, 16, 16],
    /// A chunk of the stack of frames. Source in all versions: `Python/pystate.c`.
    DataStackChunk [0, 0, 0, 0, 1, 1],
}

#[cfg(test)]
mod tests;
