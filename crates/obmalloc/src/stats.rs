//! What a heap has in use, found by walking it: nothing is counted that a walk can derive.
//!
//! As text it is the report of CPython's `sys._debugmallocstats()` (`_PyObject_DebugMallocStats`
//! in `Objects/obmalloc.c`), as JSON the same figures by name. Neither asks for memory.

use core::{fmt, ops::AddAssign};

use raw_mem::{ArenaSource, MemAlloc};

use crate::{
    arena_map::ArenaMap,
    geometry::{Geometry, MOST_CLASSES, Shape},
    heap::Heap,
    pool::{PoolPtr, State},
    size_class::SizeClass,
};

/// What one size class has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClassStats {
    /// Bytes of each block.
    pub block_size: usize,
    /// Pools with a block in use.
    pub pools: usize,
    /// Blocks in use.
    pub in_use: usize,
    /// Blocks of those pools that are free, carved or not.
    pub available: usize,
    /// Those of the available blocks that were never given out.
    pub virgin: usize,
}

/// The arenas, by number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ArenaStats {
    /// Mapped, ever.
    pub allocated: usize,
    /// Given back, ever.
    pub reclaimed: usize,
    /// Mapped at the same time, at most.
    pub highwater: usize,
    /// Mapped now.
    pub current: usize,
    /// Bytes of each.
    pub size: usize,
}

/// Where the bytes of the mapped arenas are. They add up to all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ByteStats {
    /// In blocks in use.
    pub in_use: usize,
    /// In free blocks of pools that have a block in use.
    pub available: usize,
    /// In pools without a block in use, carved or not.
    pub unused_pools: usize,
    /// In what is before the first block of those pools: headers.
    pub pool_headers: usize,
    /// Behind the last block of those pools.
    pub quantization: usize,
}

impl ByteStats {
    /// The bytes of all mapped arenas.
    pub const fn total(&self) -> usize {
        self.in_use + self.available + self.unused_pools + self.pool_headers + self.quantization
    }
}

/// The nodes of an arena map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct MapStats {
    root_bytes: usize,
    leaf_bytes: usize,
    leaves: usize,
}

/// A heap's figures at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// The geometry's name.
    pub geometry: &'static str,
    /// The largest request that a pool serves, in bytes.
    pub small_threshold: usize,
    /// Bytes of a pool.
    pub pool_size: usize,
    /// The arenas, by number.
    pub arenas: ArenaStats,
    /// Where their bytes are.
    pub bytes: ByteStats,
    /// Pools without a block in use, carved or not.
    pub unused_pools: usize,
    /// Requests that no arena could be had for, ever.
    pub refused: usize,
    map: Option<MapStats>,
    classes: [ClassStats; MOST_CLASSES],
    class_count: usize,
}

impl<S: ArenaSource, A: MemAlloc, G: Geometry> Heap<S, A, G> {
    /// Counts what is in use. O(pools).
    pub fn stats(&self) -> Stats {
        let counts = self.arenas.counts();
        let mut stats = Stats::empty::<G>();
        stats.arenas.allocated = counts.allocated;
        stats.arenas.highwater = counts.highwater;
        stats.arenas.current = counts.current;
        stats.arenas.reclaimed = counts.allocated - counts.current;
        stats.refused = self.refused();
        for (_, arena) in self.arenas.arenas() {
            stats.unused_pools += arena.free_pools();
            arena.pools::<G>().for_each(|pool| stats.count_pool::<G>(pool));
        }
        stats.bytes.unused_pools = stats.unused_pools * G::POOL_SIZE;
        stats
    }
}

impl Stats {
    /// The figures of a heap that never had an arena.
    pub fn empty<G: Geometry>() -> Self {
        let mut classes = [ClassStats::default(); MOST_CLASSES];
        for class in SizeClass::<G>::all() {
            classes[class.index()].block_size = class.block_size();
        }
        Self {
            geometry: G::NAME,
            small_threshold: G::SMALL_THRESHOLD,
            pool_size: G::POOL_SIZE,
            arenas: ArenaStats { size: G::ARENA_SIZE, ..ArenaStats::default() },
            bytes: ByteStats::default(),
            unused_pools: 0,
            refused: 0,
            map: None,
            classes,
            class_count: Shape::<G>::CLASSES,
        }
    }

    fn count_pool<G: Geometry>(&mut self, pool: PoolPtr) {
        let header = pool.header();
        let Some(class) = header.class::<G>().filter(|_| header.state() != State::Empty) else {
            return;
        };
        let (size, in_use) = (class.block_size(), header.in_use::<G>());
        if in_use == 0 {
            // It is resting or idle: on its way to its arena.
            self.unused_pools += 1;
            return;
        }
        let (first, capacity) = (header.first_offset(), header.capacity(class));
        let available = capacity - in_use;
        let stats = &mut self.classes[class.index()];
        stats.pools += 1;
        stats.in_use += in_use;
        stats.available += available;
        stats.virgin += header.virgin::<G>();
        self.bytes.in_use += in_use * size;
        self.bytes.available += available * size;
        self.bytes.pool_headers += first;
        self.bytes.quantization += G::POOL_SIZE - first - capacity * size;
    }

    /// Adds the nodes of `map`, which the arenas are in.
    pub fn with_map<G: Geometry>(mut self, map: &ArenaMap<G>) -> Self {
        let (root_bytes, leaf_bytes) = map.node_sizes();
        self.map = Some(MapStats { root_bytes, leaf_bytes, leaves: map.leaves() });
        self
    }

    /// What each size class has, by number.
    pub fn classes(&self) -> &[ClassStats] {
        &self.classes[..self.class_count]
    }

    /// Writes the figures as one JSON object.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn write_json(&self, out: &mut impl fmt::Write) -> fmt::Result {
        let Self { arenas, bytes, .. } = self;
        write!(
            out,
            "{{\"geometry\":\"{}\",\"small_threshold\":{},\"pool_size\":{},\"arena_size\":{},",
            self.geometry, self.small_threshold, self.pool_size, arenas.size
        )?;
        write!(
            out,
            "\"arenas\":{{\"allocated\":{},\"reclaimed\":{},\"highwater\":{},\"current\":{}}},",
            arenas.allocated, arenas.reclaimed, arenas.highwater, arenas.current
        )?;
        write!(
            out,
            "\"bytes\":{{\"in_use\":{},\"available\":{},\"unused_pools\":{},\
             \"pool_headers\":{},\"quantization\":{},\"total\":{}}},\
             \"unused_pools\":{},\"refused\":{},\"classes\":[",
            bytes.in_use,
            bytes.available,
            bytes.unused_pools,
            bytes.pool_headers,
            bytes.quantization,
            bytes.total(),
            self.unused_pools,
            self.refused
        )?;
        for (index, class) in self.classes().iter().enumerate() {
            write!(
                out,
                "{}{{\"block_size\":{},\"pools\":{},\"in_use\":{},\"available\":{},\"virgin\":{}}}",
                if index == 0 { "" } else { "," },
                class.block_size,
                class.pools,
                class.in_use,
                class.available,
                class.virgin
            )?;
        }
        out.write_str("]")?;
        if let Some(map) = self.map {
            write!(
                out,
                ",\"arena_map\":{{\"root_bytes\":{},\"leaf_bytes\":{},\"leaves\":{}}}",
                map.root_bytes, map.leaf_bytes, map.leaves
            )?;
        }
        out.write_str("}")
    }
}

/// The figures of several heaps of one geometry, together. The high waters were not at the same
/// time, so their sum is the most that it can have been.
impl AddAssign<&Self> for Stats {
    fn add_assign(&mut self, other: &Self) {
        let (arenas, bytes) = (&mut self.arenas, &mut self.bytes);
        arenas.allocated += other.arenas.allocated;
        arenas.reclaimed += other.arenas.reclaimed;
        arenas.highwater += other.arenas.highwater;
        arenas.current += other.arenas.current;
        bytes.in_use += other.bytes.in_use;
        bytes.available += other.bytes.available;
        bytes.unused_pools += other.bytes.unused_pools;
        bytes.pool_headers += other.bytes.pool_headers;
        bytes.quantization += other.bytes.quantization;
        self.unused_pools += other.unused_pools;
        self.refused += other.refused;
        self.map = self.map.or(other.map);
        for (class, other) in self.classes.iter_mut().zip(other.classes()) {
            class.pools += other.pools;
            class.in_use += other.in_use;
            class.available += other.available;
            class.virgin += other.virgin;
        }
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Small block threshold = {}, in {} size classes.\n",
            self.small_threshold, self.class_count
        )?;
        writeln!(f, "class   size   num pools   blocks in use  avail blocks")?;
        writeln!(f, "-----   ----   ---------   -------------  ------------")?;
        for (index, class) in self.classes().iter().enumerate() {
            if class.pools > 0 {
                let ClassStats { block_size, pools, in_use, available, .. } = class;
                writeln!(f, "{index:5} {block_size:6} {pools:11} {in_use:15} {available:13}")?;
            }
        }
        self.fmt_arenas(f)?;
        self.fmt_bytes(f)?;
        self.map.map_or(Ok(()), |map| fmt_map(f, map))
    }
}

impl Stats {
    fn fmt_arenas(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arenas = self.arenas;
        writeln!(f)?;
        line(f, format_args!("# arenas allocated total"), arenas.allocated)?;
        line(f, format_args!("# arenas reclaimed"), arenas.reclaimed)?;
        line(f, format_args!("# arenas highwater mark"), arenas.highwater)?;
        line(f, format_args!("# arenas allocated current"), arenas.current)?;
        line(
            f,
            format_args!("{} arenas * {} bytes/arena", arenas.current, arenas.size),
            arenas.current * arenas.size,
        )?;
        writeln!(f)
    }

    fn fmt_bytes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.bytes;
        line(f, format_args!("# bytes in allocated blocks"), bytes.in_use)?;
        line(f, format_args!("# bytes in available blocks"), bytes.available)?;
        line(
            f,
            format_args!("{} unused pools * {} bytes", self.unused_pools, self.pool_size),
            bytes.unused_pools,
        )?;
        line(f, format_args!("# bytes lost to pool headers"), bytes.pool_headers)?;
        line(f, format_args!("# bytes lost to quantization"), bytes.quantization)?;
        line(f, format_args!("# bytes lost to arena alignment"), 0)?;
        line(f, format_args!("Total"), bytes.total())
    }
}

fn fmt_map(f: &mut fmt::Formatter<'_>, map: MapStats) -> fmt::Result {
    let leaf_bytes = map.leaves * map.leaf_bytes;
    writeln!(f, "\narena map counts")?;
    line(f, format_args!("# arena map leaf nodes"), map.leaves)?;
    writeln!(f)?;
    line(f, format_args!("# bytes lost to arena map root"), map.root_bytes)?;
    line(f, format_args!("# bytes lost to arena map leaves"), leaf_bytes)?;
    line(f, format_args!("Total"), map.root_bytes + leaf_bytes)
}

/// One line: the text in 35 columns, `=`, the number with commas in 21.
fn line(f: &mut fmt::Formatter<'_>, text: fmt::Arguments<'_>, number: usize) -> fmt::Result {
    let mut column = Column { out: f, width: 0 };
    fmt::Write::write_fmt(&mut column, text)?;
    let left = 35_usize.saturating_sub(column.width);
    writeln!(f, "{:left$}={:>21}", "", Commas::of(number).text())
}

/// Counts the characters that pass.
struct Column<'a, 'b> {
    out: &'a mut fmt::Formatter<'b>,
    width: usize,
}

impl fmt::Write for Column<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.width += text.len();
        self.out.write_str(text)
    }
}

/// A number with a comma before every third digit from the right.
struct Commas {
    digits: [u8; 27],
    start: usize,
}

impl Commas {
    fn of(mut number: usize) -> Self {
        let mut commas = Self { digits: [b'0'; 27], start: 27 };
        for place in 0.. {
            if place > 0 && place % 3 == 0 {
                commas.put(b',');
            }
            commas.put(b'0' + (number % 10) as u8);
            number /= 10;
            if number == 0 {
                break;
            }
        }
        commas
    }

    fn put(&mut self, digit: u8) {
        self.start -= 1;
        self.digits[self.start] = digit;
    }

    fn text(&self) -> &str {
        core::str::from_utf8(&self.digits[self.start..]).unwrap_or("?")
    }
}

#[cfg(test)]
mod tests {
    use std::{format, string::String};

    use raw_mem::{Malloc, MmapArenas};

    use super::*;
    use crate::Pools16K;

    fn heap_with_three_blocks() -> Heap<MmapArenas, Malloc, Pools16K> {
        let mut heap = Heap::new(MmapArenas::new(), Malloc);
        for size in [40, 48, 512] {
            heap.alloc(SizeClass::of(size).unwrap()).unwrap();
        }
        heap
    }

    #[test]
    fn the_bytes_add_up_to_the_arenas() {
        let stats = heap_with_three_blocks().stats();
        assert_eq!(stats.bytes.total(), stats.arenas.current * stats.arenas.size);
        assert_eq!(stats.bytes.in_use, 48 + 48 + 512);
        assert_eq!((stats.classes()[2].in_use, stats.classes()[2].available), (2, 338));
        assert_eq!(stats.unused_pools, 62);
    }

    #[test]
    fn the_figures_of_two_heaps_are_added() {
        let one = heap_with_three_blocks().stats();
        let mut both = Stats::empty::<crate::Pools16K>();
        both += &one;
        assert_eq!(both, one);
        both += &one;
        assert_eq!(both.classes()[2].in_use, 4);
        assert_eq!((both.arenas.current, both.bytes.total()), (2, 2 << 20));
    }

    #[test]
    fn the_text_has_the_columns_of_cpythons_report() {
        let text = format!("{}", heap_with_three_blocks().stats());
        let expected = [
            "Small block threshold = 512, in 32 size classes.",
            "    2     48           1               2           338",
            "   31    512           1               1            30",
            "# arenas allocated total           =                    1",
            "1 arenas * 1048576 bytes/arena     =            1,048,576",
            "62 unused pools * 16384 bytes      =            1,015,808",
            "Total                              =            1,048,576",
        ];
        for line in expected {
            assert!(text.lines().any(|other| other == line), "no line {line:?} in\n{text}");
        }
    }

    #[test]
    fn the_json_is_json_and_has_the_figures() {
        let mut text = String::new();
        heap_with_three_blocks().stats().write_json(&mut text).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["bytes"]["total"], 1 << 20);
        assert_eq!(json["classes"][2]["in_use"], 2);
    }

    #[test]
    fn numbers_have_a_comma_before_every_third_digit() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(Commas::of(number).text(), text);
        }
        assert_eq!(Commas::of(usize::MAX).text(), "18,446,744,073,709,551,615");
    }
}
