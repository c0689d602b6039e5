//! Values that are worth keeping: a list's capacity, a table's slots.

use crate::Counted;

/// A value that can be made ready for another life, so that what it owns need not be given back
/// and asked for again.
///
/// ```
/// use object_cache::Recycle;
///
/// #[derive(Default)]
/// struct List { items: Vec<u64> }
///
/// impl Recycle for List {
///     fn fresh() -> Self { Self::default() }
///     fn recycle(&mut self) { self.items.clear() }   // the buffer stays
/// }
/// ```
pub trait Recycle {
    /// A value for a first life.
    fn fresh() -> Self;

    /// Makes a value whose life is over equal to a fresh one, but for what it keeps. What it must
    /// not keep, such as references to other objects, is dropped here.
    fn recycle(&mut self);
}

impl<T: Recycle> Recycle for Counted<T> {
    fn fresh() -> Self {
        Self::one(T::fresh())
    }

    fn recycle(&mut self) {
        self.value.recycle();
    }
}
