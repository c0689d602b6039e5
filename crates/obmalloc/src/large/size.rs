//! The sizes of mappings that a heap retains for later requests.
//!
//! The size of a mapping above 512 KiB is rounded up, so that requests of similar sizes can reuse
//! the same mapping. There are eight rounded sizes for each doubling, up to 8 MiB. At most a ninth
//! of a mapping is unused. The unused part takes up addresses, but no memory.

#![forbid(unsafe_code)]

/// Mappings of more than this many bytes have one of the rounded sizes.
const ABOVE: usize = 512 << 10;

/// The largest rounded size in bytes.
const MOST: usize = ABOVE << DOUBLINGS;

const DOUBLINGS: usize = 4;

const STEPS: usize = 8;

/// The number of rounded sizes.
pub(super) const SIZES: usize = STEPS * DOUBLINGS;

/// Returns the smallest rounded size of at least `bytes` bytes, or `bytes` if no rounded size is
/// large enough.
pub(super) fn rounded(bytes: usize) -> usize {
    match is_covered(bytes) {
        true => (steps(bytes) + 1) << step_bits(bytes),
        false => bytes,
    }
}

/// Returns the index of the smallest rounded size of at least `bytes` bytes.
///
/// The index is less than [`SIZES`]. Returns `None` if `bytes` exceeds every rounded size, or is
/// too small to be rounded.
#[inline]
pub(super) fn index(bytes: usize) -> Option<usize> {
    let doubling = || (step_bits(bytes) - step_bits(ABOVE + 1)) as usize;
    is_covered(bytes).then(|| STEPS * doubling() + steps(bytes) - STEPS)
}

#[inline]
fn is_covered(bytes: usize) -> bool {
    bytes > ABOVE && bytes <= MOST
}

/// Returns the number of whole steps below `bytes`. It is at least [`STEPS`] and less than twice
/// that.
#[inline]
fn steps(bytes: usize) -> usize {
    (bytes - 1) >> step_bits(bytes)
}

/// Returns the binary logarithm of the distance between the rounded sizes around `bytes`.
#[inline]
fn step_bits(bytes: usize) -> u32 {
    (bytes - 1).ilog2() - STEPS.ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rounded_size_has_a_number_of_its_own_in_ascending_order() {
        let mut bytes = ABOVE;
        for number in 0..SIZES {
            bytes = rounded(bytes + 1);
            assert_eq!((index(bytes), index(bytes - 1)), (Some(number), Some(number)), "{bytes}");
        }
        assert_eq!((bytes, index(bytes + 1)), (MOST, None));
        assert_eq!(rounded(MOST + 1), MOST + 1);
    }

    #[test]
    fn rounding_adds_at_most_an_eighth() {
        for bytes in (1..3 * MOST).step_by(4093) {
            let size = rounded(bytes);
            assert!(size >= bytes && size - bytes <= bytes / 8, "{bytes}: {size}");
            assert_eq!(rounded(size), size);
        }
    }

    #[test]
    fn other_sizes_have_no_number() {
        for bytes in [0, 1, ABOVE, MOST + 1, usize::MAX] {
            assert_eq!(index(bytes), None, "{bytes}");
        }
    }
}
