//! The size class that each unit of an arena served last.
//!
//! A class that needs a pool prefers a unit that it used before, because the blocks of this unit may
//! still be in the processor's cache (decision 0008). This table takes one byte for each unit, so a
//! search reads at most one or two cache lines. The headers of the units also contain the class,
//! but they take 3 KiB in each arena.

#![forbid(unsafe_code)]

/// The number of units in a word of the table.
const PER_WORD: usize = 8;

const WORDS: usize = 64 / PER_WORD;

/// A word with the number 1 in each byte.
const ONES: u64 = u64::MAX / 0xff;

/// The class that each unit served last, for pools of one unit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LastServed([u64; WORDS]);

impl LastServed {
    /// The table of an arena without pools. No class has the number 255.
    pub(crate) const NONE: Self = Self([u64::MAX; WORDS]);

    /// Records that `unit` serves the class with the number `class`.
    #[inline]
    pub(crate) fn note(&mut self, unit: usize, class: u8) {
        let (word, shift) = (unit / PER_WORD % WORDS, unit % PER_WORD * 8);
        self.0[word] = self.0[word] & !(0xff << shift) | u64::from(class) << shift;
    }

    /// Returns the lowest unit of `units` that last served the class with the number `class`.
    ///
    /// `units` has a bit for each unit.
    #[inline]
    pub(crate) fn lowest(&self, class: u8, units: u64) -> Option<usize> {
        let wanted = u64::from(class) * ONES;
        self.0.iter().enumerate().find_map(|(nth, word)| {
            let first = nth * PER_WORD;
            let found = zero_bytes(word ^ wanted) & (units >> first);
            (found != 0).then(|| first + found.trailing_zeros() as usize)
        })
    }
}

/// Returns a bit for each byte of `word`, which is set if the byte is zero.
#[inline]
fn zero_bytes(word: u64) -> u64 {
    /// Moves bit `8 * n` to bit `56 + n`, for each `n` from 0 to 7.
    const GATHER: u64 = 0x0102_0408_1020_4080;
    let low = ONES * 0x7f;
    // The highest bit of each byte is set here unless the whole byte is zero.
    let nonzero = ((word & low) + low) | word;
    (!nonzero >> 7 & ONES).wrapping_mul(GATHER) >> 56
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bits_of_zero_bytes_are_found() {
        for pattern in 0..=0xff_u64 {
            for other in [1, 0x7f, 0x80, 0x81, 0xff] {
                let byte = |nth: u64| if pattern >> nth & 1 != 0 { 0 } else { other << (8 * nth) };
                assert_eq!(zero_bytes((0..8).map(byte).sum()), pattern, "{other:x}");
            }
        }
    }

    #[test]
    fn the_lowest_unit_that_served_the_class_is_found() {
        let mut table = LastServed::NONE;
        assert_eq!(table.lowest(3, u64::MAX), None);
        for (unit, class) in [(5, 3), (6, 4), (17, 3), (63, 0), (40, 4), (17, 5), (18, 3)] {
            table.note(unit, class);
        }
        let found = [0, 3, 4, 5].map(|class| table.lowest(class, u64::MAX));
        assert_eq!(found, [Some(63), Some(5), Some(6), Some(17)]);
        assert_eq!(table.lowest(3, !(1 << 5)), Some(18));
        assert_eq!(table.lowest(3, !(1 << 5 | 1 << 18)), None);
    }
}
