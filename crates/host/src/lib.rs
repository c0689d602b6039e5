//! Code that the two shared libraries have in common. It parses their settings, and determines
//! where and when they write reports.
//!
//! | module | content |
//! | --- | --- |
//! | `words` | parsers for settings. An unknown word is an error that lists the known ones |
//! | `place` | where a report goes |
//! | `moments` | when a report is written |
//! | `triggers` | signals, a timer, forks and `_exit`, which cause reports |
//! | `memory` | the settings for huge pages and for switches |
//! | `output` | lines on stderr |
//!
//! This crate never allocates memory, because the library that uses it may be the allocator of the
//! process.

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
compile_error!("the shared libraries need Linux with glibc");

mod memory;
mod moments;
mod output;
mod place;
mod triggers;
mod words;

pub use memory::{huge_pages, switch};
pub use moments::{Moment, Moments, signal};
pub use output::{errno, say};
pub use place::{Path, Place};
pub use raw_mem::{Output, abort_with as abort};
pub use triggers::{Trigger, look_up, watch};
pub use words::{Decay, PythonMalloc, Switch, UnknownWord, bytes, limits};
