//! Strings: a head and the characters in one block, which never change.

use core::{cell::Cell, fmt, marker::PhantomData, ops::Deref, ptr::NonNull};

use raw_mem::MemAlloc;

use crate::Layers;

struct TextHead {
    count: Cell<usize>,
    len: usize,
    /// 0 where it is not known yet.
    hash: Cell<u64>,
}

/// A counted string. Dereferences to `str`.
///
/// CPython has cached no strings since 3.3, and neither do we: they come from below.
pub struct Text<L: Layers> {
    /// # Invariant
    ///
    /// A live head with `len` bytes of UTF-8 behind it, in a block from below. Its count is the
    /// number of texts that point at it.
    head: NonNull<TextHead>,
    layers: PhantomData<L>,
}

impl<L: Layers> Text<L> {
    /// A string of these parts, one after the other.
    ///
    /// # Panics
    ///
    /// Panics when there is no memory.
    pub fn concat(parts: &[&str]) -> Self {
        let len = parts.iter().map(|part| part.len()).sum();
        let block = L::store().below.malloc(size_of::<TextHead>() + len);
        let head: NonNull<TextHead> = block.expect("memory for a string").cast();
        // SAFETY: the block has room for a head, and is ours.
        unsafe { head.write(TextHead { count: Cell::new(1), len, hash: Cell::new(0) }) };
        // SAFETY: the block goes on behind the head.
        let mut end = unsafe { head.add(1) }.cast::<u8>();
        for part in parts {
            // SAFETY: `len` counts every part, and a new block overlaps none of them.
            unsafe { end.copy_from_nonoverlapping(NonNull::from(*part).cast(), part.len()) };
            // SAFETY: as above.
            end = unsafe { end.add(part.len()) };
        }
        // INVARIANT: strings in a row are a string.
        Self { head, layers: PhantomData }
    }

    fn head(&self) -> &TextHead {
        // SAFETY: `head`'s invariant.
        unsafe { self.head.as_ref() }
    }

    /// The hash of the characters, computed once.
    pub fn hash(&self) -> u64 {
        let hash = &self.head().hash;
        if hash.get() == 0 {
            // FNV-1a.
            let step =
                |hash: u64, &byte: &u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
            hash.set(self.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, step).max(1));
        }
        hash.get()
    }
}

impl<L: Layers> From<&str> for Text<L> {
    fn from(text: &str) -> Self {
        Self::concat(&[text])
    }
}

impl<L: Layers> Deref for Text<L> {
    type Target = str;

    #[inline]
    fn deref(&self) -> &str {
        // SAFETY: `head`'s invariant.
        let bytes = unsafe {
            NonNull::slice_from_raw_parts(self.head.add(1).cast::<u8>(), self.head().len).as_ref()
        };
        // SAFETY: `head`'s invariant.
        unsafe { core::str::from_utf8_unchecked(bytes) }
    }
}

impl<L: Layers> Clone for Text<L> {
    #[inline]
    fn clone(&self) -> Self {
        let count = &self.head().count;
        // INVARIANT: one text more. So many that the count overflows do not fit into memory, and
        // this program forgets none.
        count.set(count.get() + 1);
        Self { head: self.head, layers: PhantomData }
    }
}

impl<L: Layers> Drop for Text<L> {
    #[inline]
    fn drop(&mut self) {
        let count = &self.head().count;
        // INVARIANT: one text less.
        count.set(count.get() - 1);
        if count.get() == 0 {
            // SAFETY: this was the last one that points at the block.
            unsafe { L::store().below.free(Some(self.head.cast())) }
        }
    }
}

impl<L: Layers> PartialEq for Text<L> {
    fn eq(&self, other: &Self) -> bool {
        self.head == other.head || **self == **other
    }
}

impl<L: Layers> fmt::Debug for Text<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
