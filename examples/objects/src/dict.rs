//! Dicts: entries in the order in which they came, and an index that finds them.
//!
//! ```text
//!   index:    [ ∅ | 1 | ∅ | gone | 0 | ∅ | ∅ | ∅ ]      by hash, then the next place
//!   entries:  [ (hash, key, value), (hash, key, value) ]
//! ```
//!
//! CPython: the compact dict of 3.6 and later.

use core::cell::{Ref, RefCell};

use crate::{Buffer, Layers, Value};

const EMPTY: i32 = -1;
const GONE: i32 = -2;

/// A dict. Only the dict itself is cached, not its tables.
#[derive(Debug)]
pub struct Dict<L: Layers> {
    table: RefCell<Table<L>>,
}

/// An entry; without a key where it was taken out.
#[derive(Debug)]
struct Entry<L: Layers> {
    hash: u64,
    key: Option<Value<L>>,
    value: Value<L>,
}

#[derive(Debug)]
struct Table<L: Layers> {
    /// A power of two of places, two thirds of which at most are not empty; or none at all.
    index: Buffer<i32, L>,
    entries: Buffer<Entry<L>, L>,
    live: usize,
}

impl<L: Layers> Default for Dict<L> {
    fn default() -> Self {
        let table = Table { index: Buffer::default(), entries: Buffer::default(), live: 0 };
        Self { table: RefCell::new(table) }
    }
}

impl<L: Layers> Table<L> {
    /// The place in the index that leads to `key`, and the entry.
    fn find(&self, key: &Value<L>, hash: u64) -> Option<(usize, usize)> {
        let mut place = self.first_place(hash)?;
        loop {
            match self.index[place] {
                EMPTY => return None,
                GONE => {}
                entry => {
                    let found = &self.entries[entry as usize];
                    if found.hash == hash && found.key.as_ref() == Some(key) {
                        return Some((place, entry as usize));
                    }
                }
            }
            place = (place + 1) & (self.index.len() - 1);
        }
    }

    /// Where a search for `hash` begins; `None` when there is no index.
    fn first_place(&self, hash: u64) -> Option<usize> {
        // Neighbouring ints would make one long run.
        let spread = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        Some(spread as usize & self.index.len().checked_sub(1)?)
    }

    fn insert(&mut self, hash: u64, key: Value<L>, value: Value<L>) {
        if (self.entries.len() + 1) * 3 > self.index.len() * 2 {
            self.rebuild();
        }
        self.point_to(self.entries.len(), hash);
        self.entries.push(Entry { hash, key: Some(key), value });
        self.live += 1;
    }

    fn point_to(&mut self, entry: usize, hash: u64) {
        let mut place = self.first_place(hash).expect("an index with room");
        while self.index[place] >= 0 {
            place = (place + 1) & (self.index.len() - 1);
        }
        self.index[place] = entry as i32;
    }

    /// Makes new tables with room for as many again, without what is gone.
    fn rebuild(&mut self) {
        let places = (self.live * 3).next_power_of_two().max(8);
        let mut index = Buffer::default();
        index.extend(core::iter::repeat_n(EMPTY, places));
        self.index = index;
        let mut old = core::mem::take(&mut self.entries);
        let live = old.iter_mut().map(core::mem::take).filter(|entry| entry.key.is_some());
        let mut entries = Buffer::default();
        entries.extend(live);
        self.entries = entries;
        for entry in 0..self.entries.len() {
            self.point_to(entry, self.entries[entry].hash);
        }
    }
}

impl<L: Layers> Default for Entry<L> {
    fn default() -> Self {
        Self { hash: 0, key: None, value: Value::None }
    }
}

impl<L: Layers> Dict<L> {
    /// The value of `key`, as another pointer to it.
    ///
    /// # Panics
    ///
    /// Panics when `key` cannot be one.
    pub fn get(&self, key: &Value<L>) -> Option<Value<L>> {
        let table = self.table.borrow();
        let (_, entry) = table.find(key, key.hash())?;
        Some(table.entries[entry].value.clone())
    }

    /// Sets the value of `key`.
    ///
    /// # Panics
    ///
    /// Panics when `key` cannot be one, and when there is no memory.
    pub fn set(&self, key: Value<L>, value: Value<L>) {
        let hash = key.hash();
        let mut table = self.table.borrow_mut();
        match table.find(&key, hash) {
            Some((_, entry)) => {
                let old = core::mem::replace(&mut table.entries[entry].value, value);
                drop(table);
                drop(old);
            }
            None => table.insert(hash, key, value),
        }
    }

    /// Takes `key` out.
    ///
    /// # Panics
    ///
    /// Panics when `key` cannot be one.
    pub fn remove(&self, key: &Value<L>) -> Option<Value<L>> {
        let mut table = self.table.borrow_mut();
        let (place, entry) = table.find(key, key.hash())?;
        table.index[place] = GONE;
        table.live -= 1;
        let gone = core::mem::take(&mut table.entries[entry]);
        drop(table);
        Some(gone.value)
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.table.borrow().live
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Calls `see` with each entry, in the order in which the keys came.
    pub fn each(&self, mut see: impl FnMut(&Value<L>, &Value<L>)) {
        let table: Ref<'_, Table<L>> = self.table.borrow();
        for entry in table.entries.iter() {
            if let Some(key) = &entry.key {
                see(key, &entry.value);
            }
        }
    }
}

impl<L: Layers> PartialEq for Dict<L> {
    fn eq(&self, other: &Self) -> bool {
        let mut equal = self.len() == other.len();
        self.each(|key, value| equal = equal && other.get(key).as_ref() == Some(value));
        equal
    }
}
