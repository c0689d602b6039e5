//! The parser of every setting.

#![forbid(unsafe_code)]

use std::fmt::{self, Write};

use raw_mem::Limits;

/// A value that a setting does not have.
///
/// The text names the setting, the value and all known values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownWord<'v> {
    /// The name of the environment variable.
    pub setting: &'static str,
    /// The value, or the part of it that is unknown.
    pub word: &'v [u8],
    /// What the setting may be.
    pub known: &'static str,
}

impl fmt::Display for UnknownWord<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: unknown value \"", self.setting)?;
        for chunk in self.word.utf8_chunks() {
            f.write_str(chunk.valid())?;
            if !chunk.invalid().is_empty() {
                f.write_char(char::REPLACEMENT_CHARACTER)?;
            }
        }
        write!(f, "\" (known: {})", self.known)
    }
}

/// Returns true if `value` is one of `words`, in upper or lower case.
pub(crate) fn is_one_of(value: &[u8], words: &[&str]) -> bool {
    words.iter().any(|word| value.eq_ignore_ascii_case(word.as_bytes()))
}

/// The words that switch a setting off. An empty value counts as unset.
pub(crate) const OFF: [&str; 5] = ["", "0", "false", "no", "off"];

/// The words that switch a setting on.
pub(crate) const ON: [&str; 4] = ["1", "true", "yes", "on"];

const SIZES: &str = "off, or a number of bytes such as 1000000, 512K, 64M and 2G";

/// Returns the number of bytes that `value` means, or `None` if the setting is off.
///
/// # Errors
///
/// Returns an error if `value` is neither a number with an optional `K`, `M` or `G` nor off.
pub fn bytes<'v>(setting: &'static str, value: &'v [u8]) -> Result<Option<usize>, UnknownWord<'v>> {
    if is_one_of(value, &OFF) {
        return Ok(None);
    }
    let number = |digits: &[u8], shift: u32| {
        let digits = str::from_utf8(digits).ok()?;
        let is_plain = digits.bytes().all(|digit| digit.is_ascii_digit());
        digits.parse::<usize>().ok().filter(|_| is_plain)?.checked_mul(1 << shift)
    };
    let size = match value {
        [digits @ .., b'k' | b'K'] => number(digits, 10),
        [digits @ .., b'm' | b'M'] => number(digits, 20),
        [digits @ .., b'g' | b'G'] => number(digits, 30),
        digits => number(digits, 0),
    };
    size.map(Some).ok_or(UnknownWord { setting, word: value, known: SIZES })
}

/// Returns the limits that two settings mean. The first one is the hard limit.
///
/// # Errors
///
/// Returns an error if one of the values is not a number of bytes. See [`bytes`].
pub fn limits<'v>(
    hard: (&'static str, &'v [u8]),
    soft: (&'static str, &'v [u8]),
) -> Result<Limits, UnknownWord<'v>> {
    let limit = |(setting, value)| Ok(bytes(setting, value)?.unwrap_or(usize::MAX));
    Ok(Limits { hard: limit(hard)?, soft: limit(soft)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_a_number_with_an_optional_unit() {
        for (text, size) in [("4096", 4096), ("3k", 3 << 10), ("64M", 64 << 20), ("2g", 2 << 30)] {
            assert_eq!(bytes("X", text.as_bytes()), Ok(Some(size)), "{text}");
        }
        for text in ["", "0", "off", "NO"] {
            assert_eq!(bytes("X", text.as_bytes()), Ok(None), "{text}");
        }
        for text in ["64MB", "-1", "+1", "M", "1.5G", "99999999999999999999", "lots"] {
            assert!(bytes("X", text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn an_error_names_the_setting_the_value_and_what_is_known() {
        let error = bytes("OBMALLOC_LIMIT", b"lots\xff").unwrap_err().to_string();
        assert_eq!(
            error,
            "OBMALLOC_LIMIT: unknown value \"lots\u{fffd}\" (known: off, or a number of bytes such as \
             1000000, 512K, 64M and 2G)"
        );
    }
}
