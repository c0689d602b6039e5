//! The bounds of CPython's caches, version by version.
//!
//! All figures are from CPython's sources. Those of 2.7.18 and 3.6.15 that are the length of an
//! array were also read from the built library. In free-threaded builds, each bound is for one
//! thread.

#![forbid(unsafe_code)]

use core::ops::RangeInclusive;

/// A version of CPython.
///
/// The bounds of [`bound`](Self::bound) are set in `Include/internal/pycore_freelist.h` of 3.13 and
/// `Include/internal/pycore_freelist_state.h` of 3.14 and 3.15, unless [`Kind`] names another file
/// for all versions. [`Kind`] names the files of earlier versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 2.7, where ints and floats live in a [`BlockCache`](super::BlockCache) without a bound.
    V2_7,
    /// 3.6.
    V3_6,
    /// 3.11, which also retains tuples of 20 items, but never uses them again.
    V3_11,
    /// 3.13.
    V3_13,
    /// 3.14.
    V3_14,
    /// 3.15.
    V3_15,
}

impl Version {
    /// Returns the most free objects of `kind` that one list retains. Returns `None` if this
    /// version has no such list, or none with a bound.
    pub const fn bound(self, kind: Kind) -> Option<u32> {
        match BOUNDS[kind as usize][self as usize] {
            0 => None,
            bound => Some(bound),
        }
    }

    /// Returns the number of items of the longest tuples that are cached. Each length from 1 on has
    /// a list of its own.
    ///
    /// Source: as for [`Kind::Tuple`].
    pub const fn longest_tuple(self) -> usize {
        match self {
            Self::V2_7 | Self::V3_6 | Self::V3_11 => 19,
            Self::V3_13 | Self::V3_14 | Self::V3_15 => 20,
        }
    }

    /// Returns the ints that are never freed.
    ///
    /// Source: `Objects/intobject.c` of 2.7, `Objects/longobject.c` of 3.6, and in
    /// `Include/internal`, `pycore_global_objects.h` of 3.11 and 3.13 and
    /// `pycore_runtime_structs.h` of 3.14 and 3.15.
    pub const fn small_ints(self) -> RangeInclusive<i64> {
        match self {
            Self::V3_15 => -5..=1_024,
            _ => -5..=256,
        }
    }
}

/// Defines [`Kind`], and the bound of each kind in each version. 0 stands for none.
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

    /// An int of one digit, whose magnitude is below 2^30.
    Int [0, 0, 0, 0, 100, 100],
    /// `Objects/floatobject.c`; 3.11: `pycore_floatobject.h`.
    Float [0, 100, 100, 100, 100, 100],
    /// A complex number.
    Complex [0, 0, 0, 0, 0, 100],
    /// A tuple of one length. `Objects/tupleobject.c`; 3.11: also `pycore_tuple.h`.
    Tuple [2_000, 2_000, 2_000, 2_000, 2_000, 2_000],
    /// `Objects/listobject.c`; 3.11: `pycore_list.h`.
    List [80, 80, 80, 80, 80, 80],
    /// A list's iterator.
    ListIterator [0, 0, 0, 0, 10, 10],
    /// A tuple's iterator.
    TupleIterator [0, 0, 0, 0, 10, 10],
    /// `Objects/dictobject.c`; 3.11: `pycore_dict.h`.
    Dict [80, 80, 80, 80, 80, 80],
    /// The keys of a dict of the smallest size. As for [`Dict`](Self::Dict).
    DictKeys [0, 80, 80, 80, 80, 80],
    /// `Objects/setobject.c`.
    Set [80, 0, 0, 0, 0, 0],
    /// `Objects/frameobject.c`.
    Frame [200, 200, 0, 0, 0, 0],
    /// A function written in C. `Objects/methodobject.c`.
    BuiltinFunction [256, 256, 0, 0, 16, 16],
    /// A method written in C that knows its class.
    BuiltinMethod [0, 0, 0, 0, 16, 16],
    /// `Objects/classobject.c`.
    BoundMethod [256, 256, 0, 0, 20, 20],
    /// `Objects/unicodeobject.c`.
    Unicode [1_024, 0, 0, 0, 0, 0],
    /// A writer of strings.
    UnicodeWriter [0, 0, 0, 0, 1, 1],
    /// A writer of bytes.
    BytesWriter [0, 0, 0, 0, 0, 1],
    /// `Objects/sliceobject.c`; 3.11: `pycore_interp.h`.
    Slice [0, 1, 1, 1, 1, 1],
    /// A range.
    Range [0, 0, 0, 0, 6, 6],
    /// A range's iterator.
    RangeIterator [0, 0, 0, 0, 6, 6],
    /// 3.11: `pycore_context.h`.
    Context [0, 0, 255, 255, 255, 255],
    /// A wrapped value of an asynchronous generator. `Objects/genobject.c`; 3.11:
    /// `pycore_genobject.h`.
    AsyncGenValue [0, 80, 80, 80, 80, 80],
    /// As for [`AsyncGenValue`](Self::AsyncGenValue).
    AsyncGenSend [0, 80, 80, 80, 80, 80],
    /// An asyncio future's iterator. `Modules/_asynciomodule.c`, up to 3.13.
    FutureIterator [0, 255, 255, 255, 255, 255],
    /// An array of pointers that the garbage collector uses.
    ObjectStackChunk [0, 0, 0, 4, 4, 4],
    /// A part of a deque. From 3.11 on, each deque has its own list. All versions:
    /// `Modules/_collectionsmodule.c`.
    DequeBlock [10, 16, 16, 16, 16, 16],
    /// Made in advance, so that raising one needs no memory. All versions: `Objects/exceptions.c`.
    MemoryError [0, 16, 16, 16, 16, 16],
    /// A popped part of the stack of frames. All versions: `Python/pystate.c`.
    DataStackChunk [0, 0, 0, 0, 1, 1],
}

#[cfg(test)]
mod tests;
