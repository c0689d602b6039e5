//! A source that limits how much memory its user has mapped.

use core::ptr::NonNull;

use crate::{
    ArenaSize, ArenaSource, Contents, LargeMapping, Limits, MapError, Usage,
    warning::warn_of_soft_limit,
};

/// A source that wraps another one and limits how much memory its user has mapped.
///
/// ```
/// use raw_mem::{ArenaSize, ArenaSource, LimitedArenas, Limits, MmapArenas};
///
/// let size = ArenaSize::new(1 << 20).unwrap();
/// let mut source = LimitedArenas::new(MmapArenas::new(), Limits::hard(1 << 20));
/// let arena = source.map(size)?;
/// assert!(source.map(size).is_err());
/// // SAFETY: the arena came from this source, and nothing uses it.
/// unsafe { source.unmap(arena, size) };
/// assert!(source.map(size).is_ok());
/// # Ok::<(), raw_mem::MapError>(())
/// ```
#[derive(Debug)]
pub struct LimitedArenas<S> {
    source: S,
    usage: Usage,
}

impl<S> LimitedArenas<S> {
    /// Wraps `source`. No memory that `source` has mapped may be in use yet.
    pub const fn new(source: S, limits: Limits) -> Self {
        Self { source, usage: Usage::new(limits) }
    }

    /// Returns how much memory the user has mapped, and the limits.
    pub const fn usage(&self) -> &Usage {
        &self.usage
    }

    /// Maps memory with `map`, unless `more` bytes would exceed the limit.
    fn within_limit<T>(
        &mut self,
        more: usize,
        refused: MapError,
        map: impl FnOnce(&mut S) -> Result<(T, usize), MapError>,
    ) -> Result<T, MapError> {
        if !self.usage.allows(more) {
            return Err(refused);
        }
        let (mapped, bytes) = map(&mut self.source)?;
        if self.usage.add(bytes) {
            warn_of_soft_limit(&self.usage);
        }
        Ok(mapped)
    }
}

// SAFETY: all memory comes from the wrapped source, which meets the contract.
unsafe impl<S: ArenaSource> ArenaSource for LimitedArenas<S> {
    fn map(&mut self, size: ArenaSize) -> Result<NonNull<u8>, MapError> {
        Ok(self.map_with_contents(size)?.0)
    }

    fn map_with_contents(&mut self, size: ArenaSize) -> Result<(NonNull<u8>, Contents), MapError> {
        let bytes = size.bytes();
        let refused = MapError::Exhausted { size };
        self.within_limit(bytes, refused, |source| Ok((source.map_with_contents(size)?, bytes)))
    }

    unsafe fn unmap(&mut self, arena: NonNull<u8>, size: ArenaSize) {
        self.usage.remove(size.bytes());
        // SAFETY: the wrapped source mapped the arena; the caller upholds the rest.
        unsafe { self.source.unmap(arena, size) };
    }

    fn map_large(&mut self, bytes: usize, align: ArenaSize) -> Result<LargeMapping, MapError> {
        let refused = MapError::LargeExhausted { bytes };
        self.within_limit(bytes, refused, |source| {
            let mapping = source.map_large(bytes, align)?;
            Ok((mapping, mapping.bytes))
        })
    }

    unsafe fn unmap_large(&mut self, start: NonNull<u8>, bytes: usize, align: ArenaSize) {
        self.usage.remove(bytes);
        // SAFETY: the wrapped source mapped the memory; the caller upholds the rest.
        unsafe { self.source.unmap_large(start, bytes, align) };
    }

    unsafe fn resize_large(
        &mut self,
        start: NonNull<u8>,
        old: usize,
        new: usize,
        align: ArenaSize,
    ) -> Result<LargeMapping, MapError> {
        let refused = MapError::LargeExhausted { bytes: new };
        let mapping = self.within_limit(new.saturating_sub(old), refused, |source| {
            // SAFETY: the wrapped source mapped the memory; the caller upholds the rest.
            let mapping = unsafe { source.resize_large(start, old, new, align) }?;
            Ok((mapping, mapping.bytes.saturating_sub(old)))
        })?;
        self.usage.remove(old.saturating_sub(mapping.bytes));
        Ok(mapping)
    }

    fn below(&mut self) -> Option<&mut dyn ArenaSource> {
        Some(&mut self.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MmapArenas;

    const SIZE: ArenaSize = ArenaSize::new(1 << 20).unwrap();

    #[test]
    fn arenas_and_large_mappings_count_together() {
        let mut source = LimitedArenas::new(MmapArenas::new(), Limits::hard(5 << 20));
        let arena = source.map(SIZE).unwrap();
        let large = source.map_large(2 << 20, SIZE).unwrap();
        assert!(source.map_large(3 << 20, SIZE).is_err());
        // SAFETY: the mapping came from this source. If the call fails, the mapping is unchanged.
        let resized = unsafe { source.resize_large(large.start, large.bytes, 9 << 20, SIZE) };
        assert!(resized.is_err());
        assert_eq!(source.usage().bytes(), (1 << 20) + large.bytes);
        // SAFETY: both came from this source, and nothing uses them.
        unsafe {
            source.unmap(arena, SIZE);
            source.unmap_large(large.start, large.bytes, SIZE);
        }
        assert_eq!(source.usage().bytes(), 0);
        let large = source.map_large(5 << 20, SIZE).unwrap();
        // SAFETY: as above.
        unsafe { source.unmap_large(large.start, large.bytes, SIZE) };
    }
}
