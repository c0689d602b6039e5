//! What `sys._debugmallocstats` prints, as numbers: counted by walking, or read from its text.

use std::collections::BTreeMap;

use super::{
    arena::Arenas,
    rules::{HEADER, Rules},
};

/// The figures of one size class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassFigures {
    /// Bytes of a block.
    pub block_size: usize,
    /// Pools that have live blocks.
    pub pools: usize,
    /// Live blocks.
    pub in_use: usize,
    /// Blocks of those pools that are not live, carved or not.
    pub available: usize,
}

/// The figures of a heap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// By size class, those with at least one pool.
    pub classes: BTreeMap<usize, ClassFigures>,
    /// Arenas that were ever mapped.
    pub arenas_ever: usize,
    /// Arenas that were given back.
    pub arenas_reclaimed: usize,
    /// The most arenas at once.
    pub arenas_highwater: usize,
    /// Arenas now.
    pub arenas: usize,
    /// Bytes of an arena.
    pub arena_size: usize,
    /// Bytes of live blocks.
    pub allocated: usize,
    /// Bytes of the other blocks in the same pools.
    pub available: usize,
    /// Pools that are empty or were never carved.
    pub unused_pools: usize,
    /// Bytes of a pool.
    pub pool_size: usize,
    /// Bytes of the headers of pools in use.
    pub headers: usize,
    /// Bytes at the ends of pools in use that are too few for a block.
    pub quantization: usize,
    /// Bytes of pools lost because an arena was not aligned.
    pub alignment: usize,
    /// The sum of all bytes above.
    pub total: usize,
}

impl Figures {
    pub(super) fn of(rules: &Rules, arenas: &Arenas) -> Self {
        let mut figures = Self {
            arenas_ever: arenas.mapped_ever,
            arenas_reclaimed: arenas.mapped_ever - arenas.mapped(),
            arenas_highwater: arenas.highwater,
            arenas: arenas.mapped(),
            arena_size: rules.arena_size,
            pool_size: rules.pool_size,
            ..Self::default()
        };
        for (_, arena) in arenas.iter() {
            figures.unused_pools += arena.available;
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

    /// The sum of the bytes that every byte of every arena is one of.
    pub fn bytes(&self) -> usize {
        self.allocated
            + self.available
            + self.unused_pools * self.pool_size
            + self.headers
            + self.quantization
            + self.alignment
    }

    /// Reads the text that `_PyObject_DebugMallocStats` writes, or one in its form.
    ///
    /// # Panics
    ///
    /// Panics when a figure is missing.
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

/// A line of the table of classes: five numbers and nothing else.
fn class_line(line: &str) -> Option<(usize, ClassFigures)> {
    let numbers: Vec<usize> =
        line.split_whitespace().map(|word| word.parse().ok()).collect::<Option<_>>()?;
    let [class, block_size, pools, in_use, available] = numbers.try_into().ok()?;
    Some((class, ClassFigures { block_size, pools, in_use, available }))
}

/// A line `label = 1,234`.
fn figure_line(line: &str) -> Option<(&str, usize)> {
    let (label, number) = line.split_once('=')?;
    Some((label.trim(), number.trim().replace(',', "").parse().ok()?))
}

/// The two factors of a line `3 things * 4 units = 12`, whose product is checked.
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

/// The first `Total`; a second one is of the arena map.
fn first_total(text: &str) -> usize {
    let total = text.lines().filter_map(figure_line).find(|&(label, _)| label == "Total");
    total.unwrap_or_else(|| panic!("no line \"Total\" in:\n{text}")).1
}
