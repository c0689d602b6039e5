//! Output to stdout.

#![forbid(unsafe_code)]

use std::io::{self, Write};

use crate::failure::{Attempt, NO, Result};

/// Prints `text` to stdout.
///
/// # Errors
///
/// Fails with the code [`NO`] if stdout cannot be written to, for example because a disk is full.
pub(crate) fn print(text: impl AsRef<[u8]>) -> Result<()> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_ref()).and_then(|()| stdout.flush());
    written.attempt(|| "cannot write to stdout").map_err(|failure| failure.code(NO))
}
