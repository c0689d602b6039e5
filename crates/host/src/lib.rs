//! What the shared libraries have in common: settings by name, places for reports, and the moments
//! at which reports are written.
//!
//! | module | content |
//! | --- | --- |
//! | `words` | the parser of every setting. An unknown word is an error that lists the known ones |
//! | `place` | where a report goes |
//! | `moments` | when a report is written |
//! | `triggers` | signals, a timer, forks and `_exit`, which cause reports |
//! | `memory` | when memory goes back to the system |
//! | `output` | lines on stderr |
//!
//! Nothing here allocates memory, because the libraries may be the allocator.

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
compile_error!("the shared libraries need Linux with glibc");

mod memory;
mod moments;
mod output;
mod place;
mod triggers;
mod words;

pub use memory::{huge_pages, switch};
pub use moments::{Moment, Moments};
pub use output::{errno, say};
pub use place::{Path, Place};
pub use raw_mem::{Output, abort_with as abort};
pub use triggers::{Trigger, watch};
pub use words::{Decay, PythonMalloc, Switch, UnknownWord, bytes, limits};
