//! Errors that say what failed, why, and what to try.

#![forbid(unsafe_code)]

use std::{fmt, io};

/// The exit code of a command that answers a question with no, such as `obmalloc doctor`.
pub const NO: u8 = 1;
/// The exit code if the command line is wrong.
pub const USAGE: u8 = 2;
/// The exit code if `obmalloc` itself fails. The commands `env` and `timeout` use the same code.
pub const FAILED: u8 = 125;
/// The exit code if the program exists but cannot be run.
pub const CANNOT_RUN: u8 = 126;
/// The exit code if the program does not exist.
pub const NOT_FOUND: u8 = 127;

/// An error of `obmalloc`. Its text has up to three lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    what: String,
    because: Option<String>,
    remedy: Option<String>,
    code: u8,
}

/// The result of an operation that can fail.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    /// Creates an error with the exit code [`FAILED`]. `what` says what was attempted.
    pub fn new(what: impl fmt::Display) -> Self {
        Self { what: what.to_string(), because: None, remedy: None, code: FAILED }
    }

    /// Adds the reason.
    #[must_use]
    pub fn because(self, reason: impl fmt::Display) -> Self {
        Self { because: Some(reason.to_string()), ..self }
    }

    /// Adds one thing that the user can try.
    #[must_use]
    pub fn remedy(self, remedy: impl fmt::Display) -> Self {
        Self { remedy: Some(remedy.to_string()), ..self }
    }

    /// Replaces the exit code.
    #[must_use]
    pub fn code(self, code: u8) -> Self {
        Self { code, ..self }
    }

    /// Returns the exit code.
    pub fn exit_code(&self) -> u8 {
        self.code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        for (word, text) in [("because", &self.because), ("try", &self.remedy)] {
            if let Some(text) = text {
                write!(f, "\n  {word}: {text}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

/// Adds a description of the attempted operation to an error of the system.
pub trait Attempt<T> {
    /// Converts an error to a [`Failure`] with the text of `what` and the system's reason.
    ///
    /// # Errors
    ///
    /// Fails if `self` is an error.
    fn attempt<W: fmt::Display>(self, what: impl FnOnce() -> W) -> Result<T>;
}

impl<T> Attempt<T> for io::Result<T> {
    fn attempt<W: fmt::Display>(self, what: impl FnOnce() -> W) -> Result<T> {
        self.map_err(|error| Failure::new(what()).because(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_one_line_for_each_part() {
        let failure = Failure::new("cannot run x").because("it is gone").code(NOT_FOUND);
        assert_eq!(failure.to_string(), "cannot run x\n  because: it is gone");
        let failure = failure.remedy("obmalloc run y");
        assert!(failure.to_string().ends_with("\n  try: obmalloc run y"));
        assert_eq!(failure.exit_code(), 127);
    }
}
