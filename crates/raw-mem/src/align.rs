//! Functions that round addresses and sizes to multiples of a power of two.

#![forbid(unsafe_code)]

/// Rounds `value` down to a multiple of `align`, which must be a power of two.
#[inline]
pub const fn align_down(value: usize, align: usize) -> usize {
    value & !(align - 1)
}

/// Rounds `value` up to a multiple of the power of two `align`, or returns `None` on overflow.
#[inline]
pub const fn align_up(value: usize, align: usize) -> Option<usize> {
    match value.checked_add(align - 1) {
        Some(sum) => Some(align_down(sum, align)),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multiples_are_unchanged_and_others_are_rounded() {
        assert_eq!((align_down(48, 16), align_up(48, 16)), (48, Some(48)));
        assert_eq!((align_down(49, 16), align_up(49, 16)), (48, Some(64)));
    }

    #[test]
    fn rounding_up_reports_overflow() {
        assert_eq!(align_up(usize::MAX, 16), None);
    }
}
