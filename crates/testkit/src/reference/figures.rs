//! The figures of CPython's `sys._debugmallocstats`, counted by a walk or parsed from its text.

use std::collections::BTreeMap;

use super::{
    arena::Arenas,
    rules::{HEADER, Rules},
};

/// The figures of one size class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassFigures {
    /// The size of a block in bytes.
    pub block_size: usize,
    /// The pools that have live blocks.
    pub pools: usize,
    /// The live blocks.
    pub in_use: usize,
    /// The other blocks of those pools, carved or not.
    pub available: usize,
}

/// The figures of a heap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// The size classes with at least one pool.
    pub classes: BTreeMap<usize, ClassFigures>,
    /// The arenas that were ever mapped.
    pub arenas_ever: usize,
    /// The arenas that were unmapped.
    pub arenas_reclaimed: usize,
    /// The highest number of arenas that were mapped at once.
    pub arenas_highwater: usize,
    /// The mapped arenas.
    pub arenas: usize,
    /// The size of an arena in bytes.
    pub arena_size: usize,
    /// The bytes of live blocks.
    pub allocated: usize,
    /// The bytes of the other blocks in the same pools.
    pub available: usize,
    /// The pools that are empty or were never carved.
    pub unused_pools: usize,
    /// The size of a pool in bytes.
    pub pool_size: usize,
    /// The bytes of the headers of used and full pools.
    pub headers: usize,
    /// The bytes at the ends of those pools that are too few for a block.
    pub quantization: usize,
    /// The bytes of pools that are lost because an arena is not aligned.
    pub alignment: usize,
    /// The sum of all bytes above.
    pub total: usize,
}

impl Figures {
    /// Counts the figures of a heap.
    pub(super) fn of(rules: &Rules, arenas: &Arenas) -> Self {
        let mut figures = Self {
            arenas_ever: arenas.mapped_ever,
            arenas_reclaimed: arenas.mapped_ever - arenas.mapped.len(),
            arenas_highwater: arenas.highwater,
            arenas: arenas.mapped.len(),
            arena_size: rules.arena_size,
            pool_size: rules.pool_size,
            ..Self::default()
        };
        for arena in arenas.mapped.values() {
            figures.unused_pools += arena.available(rules);
            for pool in arena.pools.iter().filter(|pool| !pool.is_empty()) {
                let class = figures.classes.entry(pool.class).or_default();
                class.block_size = rules.block_size(pool.class);
                class.pools += 1;
                class.in_use += pool.live;
                class.available += rules.capacity(pool.class) - pool.live;
            }
        }
        for class in figures.classes.values() {
            figures.allocated += class.in_use * class.block_size;
            figures.available += class.available * class.block_size;
            figures.headers += class.pools * HEADER;
            figures.quantization += class.pools * ((rules.pool_size - HEADER) % class.block_size);
        }
        figures.total = figures.bytes();
        figures
    }

    /// Returns the sum of the six figures that account for every byte of the arenas.
    pub fn bytes(&self) -> usize {
        self.allocated
            + self.available
            + self.unused_pools * self.pool_size
            + self.headers
            + self.quantization
            + self.alignment
    }

    /// Parses the text of `_PyObject_DebugMallocStats`, or text in its format.
    ///
    /// # Panics
    ///
    /// Panics if a figure is missing.
    pub fn parse(text: &str) -> Self {
        let classes = text.lines().filter_map(class_line).collect();
        let lines: BTreeMap<_, _> = text.lines().filter_map(figure_line).collect();
        let figure = |label: &str| {
            *lines.get(label).unwrap_or_else(|| panic!("no line \"{label}\" in:\n{text}"))
        };
        let (arenas, arena_size) = product_line(text, "arenas", "bytes/arena");
        let (unused_pools, pool_size) = product_line(text, "unused pools", "bytes");
        assert_eq!(arenas, figure("# arenas allocated current"));
        Self {
            classes,
            arenas_ever: figure("# arenas allocated total"),
            arenas_reclaimed: figure("# arenas reclaimed"),
            arenas_highwater: figure("# arenas highwater mark"),
            arenas,
            arena_size,
            allocated: figure("# bytes in allocated blocks"),
            available: figure("# bytes in available blocks"),
            unused_pools,
            pool_size,
            headers: figure("# bytes lost to pool headers"),
            quantization: figure("# bytes lost to quantization"),
            alignment: figure("# bytes lost to arena alignment"),
            total: first_total(text),
        }
    }
}

/// Parses a line of the table of classes, which consists of five numbers.
fn class_line(line: &str) -> Option<(usize, ClassFigures)> {
    let numbers: Vec<usize> =
        line.split_whitespace().map(|word| word.parse().ok()).collect::<Option<_>>()?;
    let [class, block_size, pools, in_use, available] = numbers.try_into().ok()?;
    Some((class, ClassFigures { block_size, pools, in_use, available }))
}

/// Parses a line `label = 1,234`.
fn figure_line(line: &str) -> Option<(&str, usize)> {
    let (label, number) = line.split_once('=')?;
    Some((label.trim(), number.trim().replace(',', "").parse().ok()?))
}

/// Finds the line `3 things * 4 units = 12` and returns its two factors.
///
/// # Panics
///
/// Panics if there is no such line or its product is wrong.
fn product_line(text: &str, things: &str, units: &str) -> (usize, usize) {
    let factors = text.lines().find_map(|line| {
        let (label, product) = figure_line(line)?;
        let (count, rest) = label.strip_suffix(units)?.split_once('*')?;
        let count: usize = count.trim().strip_suffix(things)?.trim().parse().ok()?;
        let size: usize = rest.trim().parse().ok()?;
        assert_eq!(count * size, product, "in: {line}");
        Some((count, size))
    });
    factors.unwrap_or_else(|| panic!("no line of {things} times {units} in:\n{text}"))
}

/// Returns the first `Total`. A second one belongs to the arena map.
fn first_total(text: &str) -> usize {
    let total = text.lines().filter_map(figure_line).find(|&(label, _)| label == "Total");
    total.unwrap_or_else(|| panic!("no line \"Total\" in:\n{text}")).1
}
