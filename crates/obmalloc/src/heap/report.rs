//! Formats statistics as text and as JSON, without allocating memory.
//!
//! The text follows `_PyObject_DebugMallocStats` in CPython's `Objects/obmalloc.c`.

#![forbid(unsafe_code)]

use core::fmt;

use crate::heap::stats::{ClassStats, MapStats, Stats};

impl Stats {
    /// Writes the statistics as one JSON object.
    ///
    /// # Errors
    ///
    /// Returns an error if `out` returns one.
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
            "\"large\":{{\"blocks\":{},\"bytes\":{}}},",
            self.large.blocks, self.large.bytes
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
                "{}{{\"block_size\":{},\"pools\":{},\"in_use\":{},\"available\":{},\"uncarved\":{}}}",
                if index == 0 { "" } else { "," },
                class.block_size,
                class.pools,
                class.in_use,
                class.available,
                class.uncarved
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

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Small block threshold = {}, in {} size classes.\n",
            self.small_threshold,
            self.classes().iter().filter(|class| class.block_size <= self.small_threshold).count()
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
        if self.large.blocks > 0 {
            writeln!(f)?;
            line(f, format_args!("# large blocks, outside of arenas"), self.large.blocks)?;
            line(f, format_args!("# bytes in large blocks"), self.large.bytes)?;
        }
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

/// Writes the text padded to 35 columns, `=`, and the number with commas in 21 columns.
fn line(f: &mut fmt::Formatter<'_>, text: fmt::Arguments<'_>, number: usize) -> fmt::Result {
    let mut column = Column { out: f, width: 0 };
    fmt::Write::write_fmt(&mut column, text)?;
    let left = 35_usize.saturating_sub(column.width);
    writeln!(f, "{:left$}={:>21}", "", Commas::of(number).text())
}

/// A writer that counts the characters that it forwards, so that a caller can pad them.
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

/// The decimal digits of a number, with a comma before every third digit from the right.
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
    use crate::{geometry::size_class::SizeClass, heap::Heap};

    fn stats() -> Stats {
        let mut heap = Heap::new(MmapArenas::new(), Malloc);
        for size in [40, 48, 512] {
            let _ = heap.alloc(SizeClass::of(size).unwrap()).unwrap();
        }
        heap.stats()
    }

    #[test]
    fn the_text_has_the_columns_of_cpythons_report() {
        let text = format!("{}", stats());
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
        stats().write_json(&mut text).unwrap();
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
