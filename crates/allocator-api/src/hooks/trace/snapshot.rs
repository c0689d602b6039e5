//! The blocks in use at one moment, and the differences between two moments.

#![forbid(unsafe_code)]

use std::{cmp::Reverse, collections::BTreeMap, fmt};

use super::place::Place;
use crate::Domain;

/// The number of places that `Display` shows for a [`Snapshot`].
const SHOWN: usize = 10;

/// Memory in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// The number of requested bytes.
    pub bytes: usize,
    /// The number of blocks.
    pub blocks: usize,
}

/// The memory in use now, and its peak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// The memory in use now.
    pub current: Amount,
    /// The largest number of requested bytes in use since the start or the last reset.
    pub peak_bytes: usize,
}

impl Figures {
    pub(super) const NONE: Self = Self { current: Amount { bytes: 0, blocks: 0 }, peak_bytes: 0 };
}

/// A block in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traced {
    /// The address of the block.
    pub address: usize,
    /// The requested size in bytes.
    pub size: usize,
    /// The domain that the block belongs to.
    pub domain: Domain,
    /// Where the block was allocated.
    pub place: Place,
}

/// The blocks that were in use at one moment. `Display` writes a summary of them.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    blocks: Vec<Traced>,
}

/// What changed at one place between two snapshots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The place.
    pub place: Place,
    /// The bytes in use in the newer snapshot, less those in the older one.
    pub bytes: isize,
    /// The blocks in use in the newer snapshot, less those in the older one.
    pub blocks: isize,
}

impl Snapshot {
    pub(super) fn new(blocks: Vec<Traced>) -> Self {
        Self { blocks }
    }

    /// Returns the blocks, in no particular order.
    pub fn blocks(&self) -> &[Traced] {
        &self.blocks
    }

    /// Groups the blocks by `key`, and returns the sum of each group.
    pub fn by<K: Ord>(&self, key: impl Fn(&Traced) -> K) -> BTreeMap<K, Amount> {
        let mut sums: BTreeMap<K, Amount> = BTreeMap::new();
        for block in &self.blocks {
            let sum = sums.entry(key(block)).or_default();
            sum.bytes += block.size;
            sum.blocks += 1;
        }
        sums
    }

    /// Returns the memory in use of each place. The place with the most bytes comes first.
    pub fn by_place(&self) -> Vec<(Place, Amount)> {
        let mut places: Vec<_> = self.by(|block| block.place.clone()).into_iter().collect();
        places.sort_by_key(|(_, amount)| Reverse(amount.bytes));
        places
    }

    /// Returns what changed at each place since `older`. The largest change in bytes comes first.
    pub fn since(&self, older: &Self) -> Vec<Difference> {
        let mut changes: BTreeMap<Place, [Amount; 2]> = BTreeMap::new();
        for (at, snapshot) in [older, self].into_iter().enumerate() {
            for (place, amount) in snapshot.by(|block| block.place.clone()) {
                changes.entry(place).or_default()[at] = amount;
            }
        }
        let less = |new: usize, old: usize| new.wrapping_sub(old).cast_signed();
        let difference = |(place, [old, new]): (Place, [Amount; 2])| Difference {
            place,
            bytes: less(new.bytes, old.bytes),
            blocks: less(new.blocks, old.blocks),
        };
        let mut differences: Vec<_> = changes
            .into_iter()
            .map(difference)
            .filter(|change| (change.bytes, change.blocks) != (0, 0))
            .collect();
        differences.sort_by_key(|change| Reverse(change.bytes.unsigned_abs()));
        differences
    }
}

/// Rounds `size` up to a multiple of 16, or above 512 bytes to a power of two.
fn class(size: usize) -> usize {
    match size {
        ..=512 => size.next_multiple_of(16).max(16),
        _ => size.checked_next_power_of_two().unwrap_or(size),
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes in {} blocks", self.bytes, self.blocks)
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.by(|_| ()).remove(&()).unwrap_or_default();
        writeln!(f, "in use: {all}")?;
        for (domain, amount) in self.by(|block| block.domain.name()) {
            writeln!(f, "  domain {domain}: {amount}")?;
        }
        for (class, amount) in self.by(|block| class(block.size)) {
            writeln!(f, "  blocks of up to {class} bytes: {amount}")?;
        }
        let places = self.by_place();
        if places.iter().all(|(place, _)| place.calls().is_empty()) {
            return Ok(());
        }
        for (place, amount) in places.iter().take(SHOWN) {
            write!(f, "  {amount} from\n{place}")?;
        }
        match places.len().checked_sub(SHOWN) {
            None | Some(0) => Ok(()),
            Some(more) => writeln!(f, "  and from {more} more places"),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:+} bytes in {:+} blocks from\n{}", self.bytes, self.blocks, self.place)
    }
}
