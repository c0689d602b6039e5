//! Statistics as CPython prints them.

use core::fmt::{self, Write};

use crate::{Registry, Stats};

/// The figures of a [`Registry`]'s caches, one line for each list:
///
/// ```text
///            30 free PyFloatObjects * 24 bytes each =                  720
///    3 free 1-sized PyTupleObjects * 32 bytes each =                   96
/// ```
///
/// CPython: the lines that `sys._debugmallocstats` prints behind those of the arenas.
pub struct Report<'r> {
    registry: &'r Registry,
}

impl<'r> Report<'r> {
    pub(crate) fn new(registry: &'r Registry) -> Self {
        Self { registry }
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut outcome = Ok(());
        self.registry.each(|named| {
            named.cache.each_list(&mut |length, stats| {
                let line = Line { name: named.name, length, stats };
                outcome = outcome.and_then(|()| line.fmt(f));
            });
        });
        outcome
    }
}

/// One list.
struct Line<'a> {
    name: &'a str,
    length: Option<usize>,
    stats: Stats,
}

impl Line<'_> {
    fn write_text(&self, to: &mut dyn Write) -> fmt::Result {
        let Stats { free, object_bytes, .. } = self.stats;
        write!(to, "{free} free ")?;
        if let Some(length) = self.length {
            write!(to, "{length}-sized ")?;
        }
        write!(to, "{}s * {object_bytes} bytes each", self.name)
    }
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut width = Width(0);
        self.write_text(&mut width)?;
        write!(f, "{:1$}", "", 48_usize.saturating_sub(width.0))?;
        self.write_text(f)?;
        let product = Thousands(self.stats.free * self.stats.object_bytes);
        writeln!(f, " ={product:>21}")
    }
}

/// Counts what is written.
struct Width(usize);

impl Write for Width {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 += text.chars().count();
        Ok(())
    }
}

/// A number with a comma before every three digits.
struct Thousands(usize);

impl fmt::Display for Thousands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The largest number has 20 digits and 6 commas.
        let mut text = [b','; 26];
        let (mut rest, mut start, mut digits) = (self.0, text.len(), 0);
        loop {
            // Every fourth place stays a comma.
            start -= if digits > 0 && digits % 3 == 0 { 2 } else { 1 };
            text[start] = b'0' + (rest % 10) as u8;
            rest /= 10;
            digits += 1;
            if rest == 0 {
                break;
            }
        }
        f.pad(core::str::from_utf8(&text[start..]).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::{string::ToString, vec::Vec};

    use super::*;
    use crate::{Cache, Cleared, Named};

    /// Has lists with these figures.
    struct Lists(Vec<(Option<usize>, usize, usize)>);

    impl Cache for Lists {
        fn clear(&self) -> Cleared {
            Cleared::default()
        }

        fn each_list(&self, see: &mut dyn FnMut(Option<usize>, Stats)) {
            for &(length, free, object_bytes) in &self.0 {
                see(length, Stats { free, object_bytes, ..Stats::default() });
            }
        }
    }

    /// The expected lines were printed by CPython 3.6 and 3.13.
    #[test]
    fn a_line_is_laid_out_as_cpython_lays_it_out() {
        let registry = Registry::new();
        let dicts = Lists([(None, 10, 48)].into());
        let frames = Lists([(None, 4, 384)].into());
        let tuples = Lists([(Some(1), 3, 32), (Some(4), 0, 56)].into());
        let caches = [
            Named { name: "PyDictObject", cache: &dicts },
            Named { name: "PyFrameObject", cache: &frames },
            Named { name: "PyTupleObject", cache: &tuples },
        ];
        let text = registry.during(&caches, || registry.report().to_string());
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
        let text = |number| Thousands(number).to_string();
        assert_eq!([0, 999, 1_000].map(text), ["0", "999", "1,000"]);
        assert_eq!(text(1_234_567), "1,234,567");
        assert_eq!(text(u64::MAX as usize), "18,446,744,073,709,551,615");
    }
}
