//! The table of the blocks in use, and of the places that allocated them.

#![forbid(unsafe_code)]

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, DefaultHasher},
    sync::Arc,
};

use super::{
    place::Place,
    snapshot::{Amount, Figures, Traced},
};
use crate::Domain;

type Map<K, V> = HashMap<K, V, BuildHasherDefault<DefaultHasher>>;

/// A block in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) size: usize,
    pub(super) domain: Domain,
    place: usize,
}

#[derive(Debug)]
pub(super) struct Table {
    blocks: Map<usize, Block>,
    places: Vec<(Arc<[usize]>, Figures)>,
    ids: Map<Arc<[usize]>, usize>,
    domains: [Figures; 3],
    total: Figures,
    untraced: u64,
}

impl Table {
    pub(super) const fn new() -> Self {
        Self {
            blocks: HashMap::with_hasher(BuildHasherDefault::new()),
            places: Vec::new(),
            ids: HashMap::with_hasher(BuildHasherDefault::new()),
            domains: [Figures::NONE; 3],
            total: Figures::NONE,
            untraced: 0,
        }
    }

    /// Adds a block and the calls that allocated it.
    ///
    /// If there is no memory for an entry, only counts the block as untraced.
    pub(super) fn add(&mut self, address: usize, size: usize, domain: Domain, calls: &[usize]) {
        match self.place_of(calls) {
            Some(place) => self.insert(address, Block { size, domain, place }),
            None => self.untraced += 1,
        }
    }

    /// Adds a block with its place.
    pub(super) fn insert(&mut self, address: usize, block: Block) {
        if block.place >= self.places.len() {
            // The table has been cleared since this block was removed, so the block's place no
            // longer exists.
            return;
        }
        if self.blocks.try_reserve(1).is_err() {
            self.untraced += 1;
            return;
        }
        // An old entry for this address can remain if the program freed its block directly through
        // the wrapped allocator.
        self.remove(address);
        self.blocks.insert(address, block);
        for figures in self.figures_of(block) {
            figures.add(block.size);
        }
    }

    pub(super) fn remove(&mut self, address: usize) -> Option<Block> {
        let block = self.blocks.remove(&address)?;
        for figures in self.figures_of(block) {
            figures.remove(block.size);
        }
        Some(block)
    }

    fn figures_of(&mut self, block: Block) -> [&mut Figures; 3] {
        let place = &mut self.places[block.place].1;
        [&mut self.total, &mut self.domains[block.domain.index()], place]
    }

    /// Returns the index of the place of `calls`, or `None` if there is no memory for a new place.
    fn place_of(&mut self, calls: &[usize]) -> Option<usize> {
        if let Some(id) = self.ids.get(calls) {
            return Some(*id);
        }
        self.places.try_reserve(1).ok()?;
        self.ids.try_reserve(1).ok()?;
        let calls: Arc<[usize]> = calls.into();
        self.ids.insert(Arc::clone(&calls), self.places.len());
        self.places.push((calls, Figures::NONE));
        Some(self.places.len() - 1)
    }

    pub(super) fn clear(&mut self) {
        *self = Self::new();
    }

    pub(super) fn reset_peaks(&mut self) {
        let places = self.places.iter_mut().map(|(_, figures)| figures);
        for figures in places.chain(&mut self.domains).chain([&mut self.total]) {
            figures.peak_bytes = figures.current.bytes;
        }
    }

    pub(super) fn total(&self) -> Figures {
        self.total
    }

    pub(super) fn domain(&self, domain: Domain) -> Figures {
        self.domains[domain.index()]
    }

    pub(super) fn untraced(&self) -> u64 {
        self.untraced
    }

    pub(super) fn places(&self) -> Vec<(Place, Figures)> {
        self.places.iter().map(|(calls, figures)| (Place(Arc::clone(calls)), *figures)).collect()
    }

    /// Returns the place that allocated `block`, which may have been removed since.
    pub(super) fn place(&self, block: Block) -> Place {
        let place = self.places.get(block.place);
        place.map_or_else(Place::default, |(calls, _)| Place(Arc::clone(calls)))
    }

    pub(super) fn place_of_block(&self, address: usize) -> Option<Place> {
        self.blocks.get(&address).map(|block| self.place(*block))
    }

    pub(super) fn blocks(&self) -> Vec<Traced> {
        let traced = |(address, block): (&usize, &Block)| Traced {
            address: *address,
            size: block.size,
            domain: block.domain,
            place: self.place(*block),
        };
        self.blocks.iter().map(traced).collect()
    }
}

impl Figures {
    fn add(&mut self, size: usize) {
        let Amount { bytes, blocks } = &mut self.current;
        (*bytes, *blocks) = (*bytes + size, *blocks + 1);
        self.peak_bytes = self.peak_bytes.max(*bytes);
    }

    fn remove(&mut self, size: usize) {
        let Amount { bytes, blocks } = &mut self.current;
        (*bytes, *blocks) = (*bytes - size, *blocks - 1);
    }
}
