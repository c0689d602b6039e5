//! Parsers for the setting about huge pages and for settings that are either on or off.

#![forbid(unsafe_code)]

use raw_mem::HugePages;

use crate::words::{OFF, ON, UnknownWord, is_one_of};

const HUGE_PAGES: &str = "off, advise, explicit";
const SWITCH: &str = "0, false, no, off, 1, true, yes, on";

/// Interprets `value`, the value of the variable `setting`, as a way to use huge pages.
///
/// # Errors
///
/// Returns an error that lists the known words if `value` is not one of them.
pub fn huge_pages<'v>(
    setting: &'static str,
    value: &'v [u8],
) -> Result<HugePages, UnknownWord<'v>> {
    if is_one_of(value, &OFF) {
        Ok(HugePages::Off)
    } else if is_one_of(value, &["advise"]) {
        Ok(HugePages::Advise)
    } else if is_one_of(value, &["explicit"]) {
        Ok(HugePages::Explicit)
    } else {
        Err(UnknownWord::new(setting, value, HUGE_PAGES))
    }
}

/// Returns true if `value`, the value of the variable `setting`, means that the setting is on.
///
/// # Errors
///
/// Returns an error that lists the known words if `value` is not one of them.
pub fn switch<'v>(setting: &'static str, value: &'v [u8]) -> Result<bool, UnknownWord<'v>> {
    match (is_one_of(value, &ON), is_one_of(value, &OFF)) {
        (false, false) => Err(UnknownWord::new(setting, value, SWITCH)),
        (is_on, _) => Ok(is_on),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn huge_pages_are_off_advised_or_explicit() {
        for (text, huge) in [
            ("", HugePages::Off),
            ("off", HugePages::Off),
            ("Advise", HugePages::Advise),
            ("explicit", HugePages::Explicit),
        ] {
            assert_eq!(huge_pages("X", text.as_bytes()), Ok(huge), "{text}");
        }
        let error = huge_pages("OBMALLOC_HUGE_PAGES", b"2M").unwrap_err().to_string();
        let expected = "OBMALLOC_HUGE_PAGES: unknown value \"2M\" (known: off, advise, explicit)";
        assert_eq!(error, expected);
    }

    #[test]
    fn a_switch_is_on_or_off() {
        assert_eq!(
            [b"1".as_slice(), b"ON", b""].map(|value| switch("X", value).unwrap()),
            [true, true, false]
        );
        assert!(switch("X", b"maybe").is_err());
    }
}
