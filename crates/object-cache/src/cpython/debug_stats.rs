#![forbid(unsafe_code)]

use core::fmt::{self, Write};

use crate::{
    cache::{Cache, CacheGroup},
    list::CacheStats,
};

/// Displays the figures of a group of caches, one line for each list:
///
/// ```text
///            30 free PyFloatObjects * 24 bytes each =                  720
///    3 free 1-sized PyTupleObjects * 32 bytes each =                   96
/// ```
///
/// CPython: the lines that `sys._debugmallocstats` prints after the lines about arenas.
///
/// ```
/// use object_cache::{CacheGroup, FreeList, cpython::DebugMallocStats};
/// use raw_mem::Malloc;
///
/// let floats = FreeList::<[u64; 3], _>::new(100, Malloc);
/// let caches = CacheGroup(&[("PyFloatObject", &floats)]);
/// let text = DebugMallocStats(caches).to_string();
/// assert!(text.contains("0 free PyFloatObjects * 24 bytes each ="));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct DebugMallocStats<'a>(pub CacheGroup<'a>);

impl fmt::Display for DebugMallocStats<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut outcome = Ok(());
        for (name, cache) in self.0.0 {
            cache.each_list(&mut |length, stats| {
                outcome = outcome.and_then(|()| write_line(f, name, length, &stats));
            });
        }
        outcome
    }
}

fn write_line(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    length: Option<usize>,
    stats: &CacheStats,
) -> fmt::Result {
    let CacheStats { free, object_bytes, .. } = stats;
    align_right(48, f, &|to| {
        write!(to, "{free} free ")?;
        if let Some(length) = length {
            write!(to, "{length}-sized ")?;
        }
        write!(to, "{name}s * {object_bytes} bytes each")
    })?;
    f.write_str(" =")?;
    align_right(21, f, &|to| write_grouped(to, free * object_bytes))?;
    writeln!(f)
}

fn align_right(
    width: usize,
    f: &mut fmt::Formatter<'_>,
    text: &dyn Fn(&mut dyn Write) -> fmt::Result,
) -> fmt::Result {
    let mut columns = Columns(0);
    text(&mut columns)?;
    write!(f, "{:1$}", "", width.saturating_sub(columns.0))?;
    text(f)
}

struct Columns(usize);

impl Write for Columns {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 += text.chars().count();
        Ok(())
    }
}

fn write_grouped(to: &mut dyn Write, number: usize) -> fmt::Result {
    if number < 1000 {
        return write!(to, "{number}");
    }
    write_grouped(to, number / 1000)?;
    write!(to, ",{:03}", number % 1000)
}

#[cfg(test)]
mod tests {
    use std::{
        string::{String, ToString},
        vec::Vec,
    };

    use super::*;
    use crate::list::Cleared;

    /// Lists with the length, the number of free objects, and the bytes of an object.
    struct Lists(Vec<(Option<usize>, usize, usize)>);

    impl Cache for Lists {
        fn clear(&self) -> Cleared {
            Cleared::default()
        }

        fn each_list(&self, visit: &mut dyn FnMut(Option<usize>, CacheStats)) {
            for &(length, free, object_bytes) in &self.0 {
                visit(length, CacheStats { free, object_bytes, ..CacheStats::default() });
            }
        }
    }

    /// CPython 3.6 and 3.13 printed the expected lines.
    #[test]
    fn a_line_has_the_layout_of_cpythons() {
        let dicts = Lists([(None, 10, 48)].into());
        let frames = Lists([(None, 4, 384)].into());
        let tuples = Lists([(Some(1), 3, 32), (Some(4), 0, 56)].into());
        let caches = CacheGroup(&[
            ("PyDictObject", &dicts),
            ("PyFrameObject", &frames),
            ("PyTupleObject", &tuples),
        ]);
        let text = DebugMallocStats(caches).to_string();
        let expected = [
            "           10 free PyDictObjects * 48 bytes each =                  480",
            "          4 free PyFrameObjects * 384 bytes each =                1,536",
            "   3 free 1-sized PyTupleObjects * 32 bytes each =                   96",
            "   0 free 4-sized PyTupleObjects * 56 bytes each =                    0",
        ];
        assert!(text.lines().eq(expected), "{text}");
    }

    #[test]
    fn a_comma_stands_before_every_three_digits() {
        let text = |number| {
            let mut text = String::new();
            write_grouped(&mut text, number).unwrap();
            text
        };
        assert_eq!([0, 999, 1_000].map(text), ["0", "999", "1,000"]);
        assert_eq!(text(1_234_567), "1,234,567");
        assert_eq!(text(usize::MAX), "18,446,744,073,709,551,615");
    }
}
