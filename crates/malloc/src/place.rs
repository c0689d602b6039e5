//! Where the statistics go, as the environment variable says. Nothing here allocates.

use std::fmt::{self, Write};

/// The longest path, with its final zero byte.
const LONGEST: usize = 4096;

/// Where the statistics go.
#[expect(clippy::large_enum_variant, reason = "the only value is static, and must not be boxed")]
pub(crate) enum Place {
    Nowhere,
    Stderr,
    /// A path, in which `%p` stands for the process id.
    File(Path),
}

/// An absolute path that ends with a zero byte.
pub(crate) struct Path {
    bytes: [u8; LONGEST],
    /// # Invariant
    ///
    /// `len < LONGEST`, and the bytes from `len` on are zero.
    len: usize,
}

impl Place {
    /// Interprets the value of the variable. A relative path begins at the current directory.
    pub(crate) fn of(value: &[u8]) -> Self {
        let is =
            |words: &[&str]| words.iter().any(|word| value.eq_ignore_ascii_case(word.as_bytes()));
        if is(&["", "0", "false", "no", "off"]) {
            return Self::Nowhere;
        }
        if is(&["1", "true", "yes", "on"]) {
            return Self::Stderr;
        }
        let mut path = Path::EMPTY;
        let is_complete = (value.starts_with(b"/") || path.push_current_folder())
            && value.iter().all(|byte| path.push(*byte));
        if is_complete { Self::File(path) } else { Self::Stderr }
    }
}

impl Path {
    const EMPTY: Self = Self { bytes: [0; LONGEST], len: 0 };

    /// Returns false if the path is too long.
    fn push(&mut self, byte: u8) -> bool {
        let has_room = self.len + 1 < LONGEST;
        if has_room {
            // INVARIANT: there is room for the byte and a zero byte.
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

    pub(crate) fn is_json(&self) -> bool {
        self.bytes[..self.len].ends_with(b".json")
    }

    /// Returns the path for the process `pid`, or as much of it as fits.
    pub(crate) fn of_process(&self, pid: u32) -> Self {
        let mut path = Self::EMPTY;
        let mut left = &self.bytes[..self.len];
        while let Some((byte, rest)) = left.split_first() {
            if let Some(rest) = left.strip_prefix(b"%p") {
                // A path that is too long is cut off, and opening it fails.
                let _ = write!(path, "{pid}");
                left = rest;
            } else {
                path.push(*byte);
                left = rest;
            }
        }
        path
    }

    /// Returns the path for the C library, with its final zero byte.
    pub(crate) fn as_c(&self) -> *const libc::c_char {
        self.bytes.as_ptr().cast()
    }
}

impl Write for Path {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text.bytes().all(|byte| self.push(byte)) { Ok(()) } else { Err(fmt::Error) }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bytes[..self.len].utf8_chunks().try_for_each(|chunk| f.write_str(chunk.valid()))
    }
}
