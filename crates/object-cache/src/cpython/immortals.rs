#![forbid(unsafe_code)]

/// A table of `N` values, one for each of `N` consecutive numbers.
///
/// CPython: `small_ints`, whose range [`Version::small_ints`](super::Version::small_ints) returns.
///
/// ```
/// use object_cache::cpython::Immortals;
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
    /// Creates a table of `values` for the numbers from `first` on.
    ///
    /// ```
    /// # use object_cache::cpython::Immortals;
    /// static DIGITS: Immortals<&str, 3> = Immortals::new(0, ["zero", "one", "two"]);
    /// assert_eq!(DIGITS.get(2), Some(&"two"));
    /// ```
    pub const fn new(first: i64, values: [T; N]) -> Self {
        Self { first, values }
    }

    /// Creates a table with the results of `make` for the numbers from `first` on.
    ///
    /// # Panics
    ///
    /// Panics if `make` does.
    pub fn build(first: i64, mut make: impl FnMut(i64) -> T) -> Self {
        Self::new(first, core::array::from_fn(|index| make(first.wrapping_add(index as i64))))
    }

    /// Returns the value for `number`, or `None` if the table has no value for it.
    #[inline]
    pub fn get(&self, number: i64) -> Option<&T> {
        // A number below `first` wraps to an index beyond the end of the table.
        self.values.get(usize::try_from(number.wrapping_sub(self.first) as u64).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_numbers_of_the_table_have_a_value() {
        let table = Immortals::<i64, 262>::build(-5, |number| number);
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
