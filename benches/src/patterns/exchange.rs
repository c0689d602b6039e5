//! Shared places at which threads exchange blocks.

use std::sync::{Mutex, PoisonError};

use super::threads::room;
use crate::{contender::Held, contenders::Global};

/// Blocks that belong together, like the nodes of a data structure.
pub(super) type Structure = Vec<Held>;

pub(super) struct Exchange(Vec<Mutex<Structure>>);

impl Exchange {
    pub(super) fn new(places: usize, most: usize) -> Self {
        Self((0..places).map(|_| Mutex::new(room(most))).collect())
    }

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
