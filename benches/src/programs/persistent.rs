//! A program that edits a table of persistent maps and keeps old versions of it.
//!
//! An edit replaces only the nodes on a path, and old versions share the others. Nodes therefore
//! die one by one in random places, and most pools of the allocator stay nearly full.

use std::{collections::VecDeque, hint::black_box};

use rpds::{HashTrieMap, RedBlackTreeMap, Vector};

use crate::{contenders::Global, random::Random, workload::Taken};

const KEYS: usize = 20_000;

const EDITS: usize = 40_000;

/// The number of edits between two versions that are kept.
const KEPT_EVERY: usize = 20;

const VERSIONS: usize = 100;

/// A version of the table, which shares most of its nodes with other versions.
#[derive(Clone)]
struct Version {
    titles: RedBlackTreeMap<usize, String>,
    counts: HashTrieMap<usize, [usize; 2]>,
    journal: Vector<usize>,
}

/// Edits the table. An operation is one edit.
pub(super) fn edit(_: &mut Global) -> Taken {
    let mut random = Random::new(6);
    let mut version = Version::new();
    for key in 0..KEYS {
        version = version.with(key);
    }
    Taken::by(EDITS, || {
        let mut versions = VecDeque::with_capacity(VERSIONS);
        for number in 0..EDITS {
            version = version.edited(&mut random);
            if number % KEPT_EVERY == 0 {
                if versions.len() == VERSIONS {
                    versions.pop_front();
                }
                versions.push_back(version.clone());
            }
        }
        black_box(versions);
    })
}

impl Version {
    fn new() -> Self {
        Self { titles: RedBlackTreeMap::new(), counts: HashTrieMap::new(), journal: Vector::new() }
    }

    /// Returns this version with a random key added, replaced or removed.
    fn edited(&self, random: &mut Random) -> Self {
        let key = random.below(KEYS);
        if random.below(4) == 0 { self.without(key) } else { self.with(key) }
    }

    fn with(&self, key: usize) -> Self {
        let count = self.counts.get(&key).map_or(0, |[_, count]| count + 1);
        Self {
            titles: self.titles.insert(key, format!("title {count} of {key}")),
            counts: self.counts.insert(key, [key, count]),
            journal: self.journal.push_back(key),
        }
    }

    fn without(&self, key: usize) -> Self {
        Self {
            titles: self.titles.remove(&key),
            counts: self.counts.remove(&key),
            journal: self.journal.push_back(key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_leaves_the_older_version_as_it_was() {
        let first = Version::new().with(7);
        let second = first.without(7).with(8);
        assert_eq!((first.titles.size(), first.counts.size()), (1, 1));
        assert_eq!(first.titles.get(&7).map(String::as_str), Some("title 0 of 7"));
        assert!(second.titles.get(&7).is_none() && second.counts.contains_key(&8));
        assert_eq!(second.journal.len(), 3);
    }
}
