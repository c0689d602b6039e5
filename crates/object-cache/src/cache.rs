//! What every cache can do, whatever it caches.

use crate::{Cleared, Stats};

/// A cache, as a registry sees it.
pub trait Cache {
    /// Gives what no object lives in to the layer below, and says how much it was.
    ///
    /// # Panics
    ///
    /// Panics when dropping a husk does, as [`HuskList::clear`](crate::HuskList::clear) says.
    fn clear(&self) -> Cleared;

    /// Calls `see` for each list of the cache with its figures, and where there is a list for
    /// each length of an object, that length.
    fn each_list(&self, see: &mut dyn FnMut(Option<usize>, Stats));
}

impl<C: Cache + ?Sized> Cache for &C {
    fn clear(&self) -> Cleared {
        (**self).clear()
    }

    fn each_list(&self, see: &mut dyn FnMut(Option<usize>, Stats)) {
        (**self).each_list(see);
    }
}
