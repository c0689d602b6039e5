//! Values that live forever, handed out by number.

use core::ops::RangeInclusive;

/// A table of `N` values for the numbers from `first` on, built once and never freed.
///
/// The table is plain data: in a `static` it costs no memory at run time and lives as long as
/// the program. Its values may be owning pointers, such as [`CachedRc`](crate::CachedRc): the
/// reference that the table holds keeps their counts from reaching 0.
///
/// CPython: `small_ints`, the integers from −5 to 256 (to 1,024 in 3.15);
/// [`presets`](crate::presets) has the ranges.
///
/// ```
/// use object_cache::Immortals;
///
/// struct Int(i64);
/// let small = Immortals::<Int, 262>::build(-5, Int);
/// assert_eq!(small.get(256).unwrap().0, 256);
/// assert!(small.get(257).is_none());
/// ```
#[derive(Debug)]
pub struct Immortals<T, const N: usize> {
    first: i64,
    values: [T; N],
}

impl<T, const N: usize> Immortals<T, N> {
    /// A table of `values` for the numbers from `first` on.
    ///
    /// ```
    /// # use object_cache::Immortals;
    /// static DIGITS: Immortals<&str, 3> = Immortals::new(0, ["zero", "one", "two"]);
    /// assert_eq!(DIGITS.get(2), Some(&"two"));
    /// ```
    pub const fn new(first: i64, values: [T; N]) -> Self {
        Self { first, values }
    }

    /// Makes the value of every number. If `make` panics the values made so far are dropped.
    pub fn build(first: i64, mut make: impl FnMut(i64) -> T) -> Self {
        Self::new(first, core::array::from_fn(|index| make(first.wrapping_add(index as i64))))
    }

    /// The value of `number`; `None` when the table has none.
    #[inline]
    pub fn get(&self, number: i64) -> Option<&T> {
        // Numbers below `first` wrap to indices far behind the end.
        self.values.get(usize::try_from(number.wrapping_sub(self.first) as u64).ok()?)
    }

    /// The numbers that have a value.
    pub const fn numbers(&self) -> RangeInclusive<i64> {
        self.first..=self.first.wrapping_add(N as i64 - 1)
    }

    /// Every value, in the order of its number.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.values.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_numbers_of_the_table_have_a_value() {
        let table = Immortals::<i64, 262>::build(-5, |number| number);
        assert_eq!(table.numbers(), -5..=256);
        for number in [-5, 0, 256] {
            assert_eq!(table.get(number), Some(&number));
        }
        for number in [-6, 257, i64::MIN, i64::MAX] {
            assert_eq!(table.get(number), None);
        }
    }

    #[test]
    fn a_number_has_the_same_value_every_time() {
        let table = Immortals::<u8, 2>::new(7, [0, 0]);
        assert!(core::ptr::eq(table.get(8).unwrap(), table.get(8).unwrap()));
        assert!(!core::ptr::eq(table.get(7).unwrap(), table.get(8).unwrap()));
    }

    #[test]
    fn a_table_may_begin_at_the_smallest_number() {
        let table = Immortals::<i64, 2>::build(i64::MIN, |number| number);
        assert_eq!(table.get(i64::MIN + 1), Some(&(i64::MIN + 1)));
        assert_eq!(table.get(i64::MAX), None);
    }
}
