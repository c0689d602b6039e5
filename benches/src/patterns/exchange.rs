//! Places where threads leave blocks for each other.

use std::sync::{Mutex, PoisonError};

use super::room;
use crate::{contender::Held, contenders::Global};

/// A few blocks that belong together.
pub(super) type Structure = Vec<Held>;

/// Places for structures, each behind a lock of its own.
pub(super) struct Exchange(Vec<Mutex<Structure>>);

impl Exchange {
    /// So many empty places; what is taken from one has room for as many blocks as `most`.
    pub(super) fn new(places: usize, most: usize) -> Self {
        Self((0..places).map(|_| Mutex::new(room(most))).collect())
    }

    /// Leaves `structure` at a place, and takes what was there.
    pub(super) fn swap(&self, place: usize, structure: &mut Structure) {
        let place = &self.0[place % self.0.len()];
        std::mem::swap(&mut *place.lock().unwrap_or_else(PoisonError::into_inner), structure);
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        for place in &self.0 {
            let structure =
                std::mem::take(&mut *place.lock().unwrap_or_else(PoisonError::into_inner));
            structure.into_iter().for_each(|held| held.free(&mut Global));
        }
    }
}
