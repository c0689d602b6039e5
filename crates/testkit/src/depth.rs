//! How long the tests may take.

use std::env;

/// By how much the tests run deeper than by default: `OBMALLOC_TEST_DEPTH`, or 1.
///
/// # Panics
///
/// Panics when the variable is not a number.
pub fn depth() -> u32 {
    match env::var("OBMALLOC_TEST_DEPTH") {
        Ok(depth) => depth.parse().expect("OBMALLOC_TEST_DEPTH is a number"),
        Err(_) => 1,
    }
}
