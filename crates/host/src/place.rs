//! The place to which statistics are written. An environment variable selects it.
//!
//! No function in this module allocates memory.

use std::fmt::{self, Write};

use raw_mem::Output;

use crate::{
    output::{errno, say},
    words::{OFF, ON, UnknownWord, is_one_of},
};

/// The largest size of a path in bytes, including the terminating zero byte.
const LONGEST: usize = 4096;

/// The place to which statistics are written.
#[expect(
    clippy::large_enum_variant,
    reason = "a value is static or boxed, and nothing is allocated"
)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// No statistics are written.
    Nowhere,
    /// The standard error output.
    Stderr,
    /// The file with this path, in which `%p` stands for the process id.
    File(Path),
}

/// An absolute path that ends with a zero byte.
#[derive(Clone, PartialEq, Eq)]
pub struct Path {
    bytes: [u8; LONGEST],
    /// # Invariant
    ///
    /// `len < LONGEST`, and the bytes from `len` on are zero.
    len: usize,
}

const KNOWN: &str =
    "0, false, no, off, 1, true, yes, on, and a path, which has a slash, a dot or %p";

impl Place {
    /// Interprets `value`, the value of the variable `setting`.
    ///
    /// A relative path starts at the current directory. If a path is too long, the place is stderr.
    ///
    /// # Errors
    ///
    /// Returns an error that lists the known words if `value` is neither one of them nor a path.
    pub fn of<'v>(setting: &'static str, value: &'v [u8]) -> Result<Self, UnknownWord<'v>> {
        if is_one_of(value, &OFF) {
            return Ok(Self::Nowhere);
        }
        if is_one_of(value, &ON) {
            return Ok(Self::Stderr);
        }
        if !value.iter().any(|byte| b"/.%".contains(byte)) {
            return Err(UnknownWord { setting, word: value, known: KNOWN });
        }
        let mut path = Path::EMPTY;
        let is_complete = (value.starts_with(b"/") || path.push_current_folder())
            && value.iter().all(|byte| path.push(*byte));
        Ok(if is_complete { Self::File(path) } else { Self::Stderr })
    }

    /// Calls `write` with a writer for this place, and with true if the format must be JSON.
    ///
    /// If the file cannot be written, a message on stderr says so.
    pub fn write(&self, pid: u32, write: impl FnOnce(&mut Output, bool)) {
        match self {
            Self::Nowhere => {}
            Self::Stderr => {
                let mut stderr = Output::stderr();
                write(&mut stderr, false);
                stderr.finish();
            }
            Self::File(path) => match path.of_process(pid) {
                Some(file) => file.write(path.is_json(), write),
                None => say(format_args!("cannot write the statistics to {path}: it is too long")),
            },
        }
    }
}

impl Path {
    const EMPTY: Self = Self { bytes: [0; LONGEST], len: 0 };

    /// Appends a byte to the path. Returns false if the path would be too long.
    fn push(&mut self, byte: u8) -> bool {
        let has_room = self.len + 1 < LONGEST;
        if has_room {
            // INVARIANT: the buffer has room for this byte and a terminating zero byte.
            self.bytes[self.len] = byte;
            self.len += 1;
        }
        has_room
    }

    fn push_current_folder(&mut self) -> bool {
        // SAFETY: the buffer has `LONGEST` bytes.
        if unsafe { libc::getcwd(self.bytes.as_mut_ptr().cast(), LONGEST) }.is_null() {
            return false;
        }
        // INVARIANT: the C library wrote a zero byte after the path, and only zeroes were there.
        self.len = self.bytes.iter().position(|byte| *byte == 0).unwrap_or(0);
        self.push(b'/')
    }

    /// Writes the file at this path, as [`Place::write`] describes.
    fn write(&self, is_json: bool, write: impl FnOnce(&mut Output, bool)) {
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC | libc::O_CLOEXEC;
        // SAFETY: the path is a C string.
        let fd = unsafe { libc::open(self.as_c(), flags, 0o666) };
        let mut is_written = fd >= 0;
        if is_written {
            let mut file = Output::new(fd);
            write(&mut file, is_json);
            is_written = file.finish();
        }
        if !is_written {
            say(format_args!("cannot write the statistics to {self}: error {}", errno()));
        }
        if fd >= 0 {
            // SAFETY: the descriptor was opened above and is used nowhere else.
            unsafe { libc::close(fd) };
        }
    }

    /// Returns true if the name ends with `.json`.
    pub fn is_json(&self) -> bool {
        self.bytes[..self.len].ends_with(b".json")
    }

    /// Returns the path with each `%p` replaced by `pid`, or `None` if it would be too long.
    pub fn of_process(&self, pid: u32) -> Option<Self> {
        let mut path = Self::EMPTY;
        let mut left = &self.bytes[..self.len];
        while let Some((byte, rest)) = left.split_first() {
            if let Some(rest) = left.strip_prefix(b"%p") {
                write!(path, "{pid}").ok()?;
                left = rest;
            } else if path.push(*byte) {
                left = rest;
            } else {
                return None;
            }
        }
        Some(path)
    }

    /// Returns the path as a C string.
    pub fn as_c(&self) -> *const libc::c_char {
        self.bytes.as_ptr().cast()
    }
}

impl Write for Path {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text.bytes().all(|byte| self.push(byte)) { Ok(()) } else { Err(fmt::Error) }
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Path({self})")
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bytes[..self.len].utf8_chunks().try_for_each(|chunk| f.write_str(chunk.valid()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: &str) -> Place {
        Place::of("X", value.as_bytes()).unwrap()
    }

    fn path(value: &str) -> Path {
        match of(value) {
            Place::File(path) => path,
            other => panic!("{value} is {other:?}"),
        }
    }

    #[test]
    fn words_switch_the_statistics_in_upper_or_lower_case() {
        for word in ["1", "true", "yes", "on", "TRUE", "Yes", "oN"] {
            assert_eq!(of(word), Place::Stderr, "{word}");
        }
        for word in ["", "0", "false", "no", "off", "FALSE", "No", "oFF"] {
            assert_eq!(of(word), Place::Nowhere, "{word}");
        }
        for word in ["truely", "2"] {
            let error = Place::of("X", word.as_bytes()).unwrap_err().to_string();
            assert!(error.contains("(known: 0, false, "), "{error}");
        }
    }

    #[test]
    fn a_path_can_contain_the_process_id_and_determines_the_format() {
        let place = path("/tmp/a%p-%p%.json");
        assert_eq!(place.of_process(12).unwrap().to_string(), "/tmp/a12-12%.json");
        assert!(place.is_json() && !path("out.txt").is_json());
    }

    #[test]
    fn a_path_that_the_process_id_makes_too_long_is_not_used() {
        let place = path(&format!("{}/%p", "/x".repeat(LONGEST / 2 - 3)));
        assert_eq!(place.of_process(1).unwrap().len, LONGEST - 4);
        assert!(place.of_process(1_000_000).is_none());
    }

    #[test]
    fn a_relative_path_begins_at_the_current_directory() {
        let here = std::env::current_dir().unwrap();
        for name in ["out.txt", "./on", "%p"] {
            let expected = format!("{}/{name}", here.display());
            assert_eq!(path(name).to_string(), expected);
        }
    }

    #[test]
    fn statistics_with_a_path_that_is_too_long_go_to_stderr() {
        assert_eq!(of(&"/x".repeat(LONGEST / 2)), Place::Stderr);
        assert_eq!(path(&"/x".repeat(LONGEST / 2 - 1)).len, LONGEST - 2);
    }
}
