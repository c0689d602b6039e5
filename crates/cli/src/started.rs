//! What the start of a process says about the library's decision to install the heap.

#![forbid(unsafe_code)]

use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

/// The values of `PYTHONMALLOC` with which the library installs the heap.
const HEAP_NAMES: [&[u8]; 5] = [b"", b"default", b"debug", b"pymalloc", b"pymalloc_debug"];

/// The oldest minor version of Python 3 that the library serves.
const OLDEST: u32 = 8;

/// The settings with which a process was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Started {
    /// The value of `OBMALLOC`.
    switch: Option<Vec<u8>>,
    /// The value of `PYTHONMALLOC`, unless the command line makes Python ignore it.
    choice: Option<Vec<u8>>,
    /// The version in the name of the program or of the shared library, such as `3.7`.
    version: Option<String>,
}

impl Started {
    /// Reads the contents of files in `/proc`. `name` is the name of the program's file.
    pub(crate) fn new(name: &[u8], maps: &[u8], words: &[u8], variables: &[u8]) -> Self {
        let value = |name: &[u8]| {
            let mut variables = variables.split(|byte| *byte == 0);
            variables.find_map(|variable| Some(variable.strip_prefix(name)?.to_owned()))
        };
        // A program that embeds Python decides itself whether Python reads the variable.
        let reads_variable = name.starts_with(b"python") && !ignores_environment(words);
        Self {
            switch: value(b"OBMALLOC="),
            choice: value(b"PYTHONMALLOC=").filter(|_| reads_variable),
            version: name.strip_prefix(b"python").and_then(version).or_else(|| {
                let prefix = b"/libpython";
                let at = maps.windows(prefix.len()).position(|part| part == prefix)?;
                version(&maps[at + prefix.len()..])
            }),
        }
    }

    /// Returns the reason why the library has not installed the heap, if there is a certain one.
    pub(crate) fn refusal(&self) -> Option<String> {
        let shown = |value: &[u8]| OsStr::from_bytes(value).display().to_string();
        if self.switch.as_deref() == Some(b"off") {
            return Some("OBMALLOC=off".to_owned());
        }
        if let Some(version) = &self.version
            && !is_supported(version)
        {
            return Some(format!("the library does not support CPython {version}"));
        }
        let choice = self.choice.as_deref()?;
        let is_heap = HEAP_NAMES.contains(&choice);
        (!is_heap).then(|| {
            format!("PYTHONMALLOC={} makes CPython use allocators of its own", shown(choice))
        })
    }
}

/// Returns the version at the start of a text such as `3.13t` or `3.7m.so.1.0`.
fn version(text: &[u8]) -> Option<String> {
    let text: String = text.iter().map(|byte| char::from(*byte)).take(8).collect();
    let (major, rest) = text.split_once('.')?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let build = if rest[end..].starts_with('t') { "t" } else { "" };
    let is_number = |text: &str| text.parse::<u32>().is_ok();
    let minor = &rest[..end];
    (is_number(major) && is_number(minor)).then(|| format!("{major}.{minor}{build}"))
}

/// Returns false for old versions and for free-threaded builds, whose version ends with a `t`.
fn is_supported(version: &str) -> bool {
    let minor = version.strip_prefix("3.").and_then(|minor| minor.parse::<u32>().ok());
    minor.is_some_and(|minor| minor >= OLDEST)
}

/// Returns true if the options of Python in the command line contain `-E` or `-I`.
fn ignores_environment(words: &[u8]) -> bool {
    let mut words = words.split(|byte| *byte == 0).skip(1);
    while let Some(word) = words.next() {
        let Some(letters) = word.strip_prefix(b"-").filter(|rest| !rest.starts_with(b"-")) else {
            return false;
        };
        for (place, letter) in letters.iter().enumerate() {
            match letter {
                b'E' | b'I' => return true,
                b'c' | b'm' => return false,
                b'W' | b'X' => {
                    if place + 1 == letters.len() {
                        words.next();
                    }
                    break;
                }
                _ => (),
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(name: &str, words: &[u8], variables: &[u8]) -> Option<String> {
        Started::new(name.as_bytes(), b"", words, variables).refusal()
    }

    #[test]
    fn a_setting_that_leaves_python_as_it_is_is_the_reason() {
        assert_eq!(refusal("python3.12", b"p\0a.py\0", b"A=1\0"), None);
        let off = refusal("python3.12", b"p\0", b"A=1\0OBMALLOC=off\0");
        assert_eq!(off.unwrap(), "OBMALLOC=off");
        let malloc = b"PYTHONMALLOC=malloc\0";
        assert!(refusal("python3.12", b"p\0-c\0-E\0", malloc).unwrap().contains("=malloc"));
        for words in [&b"p\0-E\0"[..], b"p\0-sI\0", b"p\0-X\0dev\0-I\0", b"p\0-Xdev\0-E\0"] {
            assert_eq!(refusal("python3.12", words, malloc), None);
        }
        assert_eq!(refusal("nginx", b"p\0", malloc), None);
        assert_eq!(refusal("python3.12", b"p\0", b"PYTHONMALLOC=debug\0"), None);
    }

    #[test]
    fn a_version_that_the_library_refuses_is_the_reason() {
        for name in ["python3.7", "python2.7", "python3.13t", "python3.7m"] {
            assert!(refusal(name, b"p\0", b"").unwrap().contains("does not support"), "{name}");
        }
        assert_eq!(refusal("python3", b"p\0", b""), None);
        let maps = b"7f r--p /usr/lib/libpython3.7m.so.1.0\n";
        let started = Started::new(b"python3", maps, b"p\0", b"");
        assert!(started.refusal().unwrap().ends_with("CPython 3.7"));
    }
}
