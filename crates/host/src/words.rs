//! Parsers for the values of settings.

#![forbid(unsafe_code)]

use std::{
    fmt::{self, Write},
    str::FromStr,
    time::Duration,
};

use raw_mem::Limits;

/// The error for a value that a setting does not accept.
///
/// Its message names the setting, the value and all known values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownWord<'v> {
    /// The name of the environment variable.
    pub setting: &'static str,
    /// What is wrong with the value, such as `unknown value`.
    pub fault: &'static str,
    /// The value, or the part of it that is wrong.
    pub word: &'v [u8],
    /// The values that the setting accepts.
    pub known: &'static str,
}

impl<'v> UnknownWord<'v> {
    /// Creates the error for a word that is not among the known ones.
    pub(crate) const fn new(setting: &'static str, word: &'v [u8], known: &'static str) -> Self {
        Self { setting, fault: "unknown value", word, known }
    }
}

impl fmt::Display for UnknownWord<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} \"", self.setting, self.fault)?;
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

/// The value of the variable `OBMALLOC`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// The library is active. An empty value means the same.
    On,
    /// The library is active. If a CPython cannot use the heap, the library ends the process.
    Strict,
    /// The library is active. If it cannot be, it prints no message.
    Quiet,
    /// The library is active. Every block has guards, which are checked.
    Debug,
    /// The library does nothing.
    Off,
}

/// The allocators that CPython's variable `PYTHONMALLOC` can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PythonMalloc {
    /// CPython's default.
    Default,
    /// The default with debug hooks.
    Debug,
    /// The allocator of the C library for everything.
    Malloc,
    /// The allocator of the C library with debug hooks.
    MallocDebug,
    /// CPython's allocator of small objects.
    Pymalloc,
    /// CPython's allocator of small objects with debug hooks.
    PymallocDebug,
    /// The allocator of the free-threaded builds.
    Mimalloc,
    /// The allocator of the free-threaded builds with debug hooks.
    MimallocDebug,
}

/// A setting whose values must match exactly, and the text that lists these values.
struct Names<T: 'static> {
    setting: &'static str,
    names: &'static [(&'static str, T)],
    known: &'static str,
}

impl<T: Copy> Names<T> {
    fn find<'v>(&self, value: &'v [u8]) -> Result<T, UnknownWord<'v>> {
        let found = self.names.iter().find(|(name, _)| value == name.as_bytes());
        let Self { setting, known, .. } = *self;
        found.map(|(_, meaning)| *meaning).ok_or(UnknownWord::new(setting, value, known))
    }
}

const SWITCHES: Names<Switch> = Names {
    setting: "OBMALLOC",
    names: &[
        ("on", Switch::On),
        ("strict", Switch::Strict),
        ("quiet", Switch::Quiet),
        ("debug", Switch::Debug),
        ("off", Switch::Off),
    ],
    known: "on, strict, quiet, debug, off",
};

const PYTHON_MALLOCS: Names<PythonMalloc> = Names {
    setting: "PYTHONMALLOC",
    names: &[
        ("default", PythonMalloc::Default),
        ("debug", PythonMalloc::Debug),
        ("malloc", PythonMalloc::Malloc),
        ("malloc_debug", PythonMalloc::MallocDebug),
        ("pymalloc", PythonMalloc::Pymalloc),
        ("pymalloc_debug", PythonMalloc::PymallocDebug),
        ("mimalloc", PythonMalloc::Mimalloc),
        ("mimalloc_debug", PythonMalloc::MimallocDebug),
    ],
    known: "default, debug, malloc, malloc_debug, pymalloc, pymalloc_debug, mimalloc, \
            mimalloc_debug",
};

impl Switch {
    /// Interprets the value of the variable `OBMALLOC`. The words must be in lower case.
    ///
    /// # Errors
    ///
    /// Returns an error that lists the known words if `value` is not one of them.
    pub fn of(value: &[u8]) -> Result<Self, UnknownWord<'_>> {
        if value.is_empty() { Ok(Self::On) } else { SWITCHES.find(value) }
    }
}

impl PythonMalloc {
    /// Interprets the value of CPython's variable `PYTHONMALLOC`, which must not be empty.
    ///
    /// # Errors
    ///
    /// Returns an error that lists the names of CPython's allocators if `value` is not one of them.
    pub fn of(value: &[u8]) -> Result<Self, UnknownWord<'_>> {
        PYTHON_MALLOCS.find(value)
    }
}

/// The time after which free memory is returned to the system automatically.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decay {
    /// The default time of the library.
    Default,
    /// This time.
    After(Duration),
    /// No time: free memory is returned only if the program asks for it.
    Never,
}

impl Decay {
    /// Interprets the value of the variable `OBMALLOC_DECAY`.
    ///
    /// # Errors
    ///
    /// Returns an error if `value` is neither a number of milliseconds nor the word `never`.
    pub fn of(value: &[u8]) -> Result<Self, UnknownWord<'_>> {
        if value.is_empty() {
            return Ok(Self::Default);
        }
        if value == b"never" {
            return Ok(Self::Never);
        }
        let known = "never, or a number of milliseconds such as 500";
        let milliseconds = plain_number(value).map(|number: u64| Duration::from_millis(number));
        let unknown = UnknownWord::new("OBMALLOC_DECAY", value, known);
        milliseconds.map(Self::After).ok_or(unknown)
    }
}

/// Returns the number that `digits` represents, or `None` if it contains anything but digits.
pub(crate) fn plain_number<N: FromStr>(digits: &[u8]) -> Option<N> {
    let is_plain = digits.iter().all(u8::is_ascii_digit);
    str::from_utf8(digits).ok()?.parse().ok().filter(|_| is_plain)
}

const SIZES: &str = "off, or a number of bytes such as 1000000, 512K, 64M and 2G";

/// Returns the number of bytes that `value` specifies, or `None` if the setting is off.
///
/// # Errors
///
/// Returns an error if `value` is neither a number with an optional `K`, `M` or `G` nor off.
pub fn bytes<'v>(setting: &'static str, value: &'v [u8]) -> Result<Option<usize>, UnknownWord<'v>> {
    if is_one_of(value, &OFF) {
        return Ok(None);
    }
    let number = |digits, shift: u32| plain_number::<usize>(digits)?.checked_mul(1 << shift);
    let size = match value {
        [digits @ .., b'k' | b'K'] => number(digits, 10),
        [digits @ .., b'm' | b'M'] => number(digits, 20),
        [digits @ .., b'g' | b'G'] => number(digits, 30),
        digits => number(digits, 0),
    };
    size.map(Some).ok_or(UnknownWord::new(setting, value, SIZES))
}

/// Returns the memory limits that the settings `hard` and `soft` specify.
///
/// Each of the two parameters is a pair: the name of an environment variable, and its value.
///
/// If a value is not a valid size (see [`bytes`]), this function calls `report` with the error, and
/// does not set this limit. The other limit is not affected.
pub fn limits<'v>(
    hard: (&'static str, &'v [u8]),
    soft: (&'static str, &'v [u8]),
    mut report: impl FnMut(UnknownWord<'v>),
) -> Limits {
    let mut limit = |(setting, value)| {
        bytes(setting, value).unwrap_or_else(|unknown| {
            report(unknown);
            None
        })
    };
    let (hard, soft) = (limit(hard), limit(soft));
    Limits { hard: hard.unwrap_or(usize::MAX), soft: soft.unwrap_or(usize::MAX) }
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
    fn an_unknown_value_of_one_limit_does_not_affect_the_other() {
        let known = ("A", &b"64M"[..]);
        let unknown = ("B", &b"50MB"[..]);
        for (hard, soft, expected) in
            [(known, unknown, Limits::hard(64 << 20)), (unknown, known, Limits::soft(64 << 20))]
        {
            let mut reported = Vec::new();
            let limits = limits(hard, soft, |word| reported.push(word.to_string()));
            assert_eq!((limits, reported.len()), (expected, 1));
            assert!(reported[0].starts_with("B: unknown value"), "{reported:?}");
        }
    }

    #[test]
    fn an_error_lists_every_name_of_the_setting() {
        fn lists<T: Copy + PartialEq>(names: &Names<T>) {
            let all: Vec<_> = names.names.iter().map(|(name, _)| *name).collect();
            assert_eq!(names.known, all.join(", "));
            for (name, meaning) in names.names {
                assert!(names.find(name.as_bytes()).is_ok_and(|found| found == *meaning));
                let upper = name.to_ascii_uppercase();
                assert!(names.find(upper.as_bytes()).is_err(), "CPython's names match exactly");
            }
        }
        lists(&SWITCHES);
        lists(&PYTHON_MALLOCS);
    }

    #[test]
    fn an_empty_value_counts_as_unset() {
        assert_eq!(Switch::of(b""), Ok(Switch::On));
        assert_eq!(Decay::of(b""), Ok(Decay::Default));
        assert!(PythonMalloc::of(b"").is_err(), "CPython treats an empty value as unset itself");
    }

    #[test]
    fn the_decay_time_is_a_number_of_milliseconds_or_never() {
        let after = |milliseconds| Decay::After(Duration::from_millis(milliseconds));
        assert_eq!(Decay::of(b"250"), Ok(after(250)));
        assert_eq!(Decay::of(b"0"), Ok(after(0)));
        assert_eq!(Decay::of(b"never"), Ok(Decay::Never));
        for value in ["soon", "-1", "+1", "1s", "Never", "99999999999999999999"] {
            assert!(Decay::of(value.as_bytes()).is_err(), "{value}");
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
