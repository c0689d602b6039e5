//! Finds the CPythons on this machine.
//!
//! ```text
//!   $OBMALLOC_PYTHONS, or else      asked what they are
//!   python3 on the PATH ─────┐
//!   pyenv's versions ────────┼──► an answer ──► Python       one for each program
//!   /usr/bin/python3* ───────┤    none      ──► silent
//!   those from Debian sid ───┘
//! ```
//!
//! `$OBMALLOC_PYTHONS` is a list of paths in the same format as `PATH`. If it is set, only the
//! Pythons in this list are used. `cargo xtask pythons` downloads newer Pythons than those that are
//! installed on this machine; see [`brought`].
//!
//! We run each program that we find and ask it which Python it is. We cannot tell this from the
//! file alone, because the file may be a shim of pyenv, which is a script that starts another
//! program.

pub mod brought;
mod python;
mod search;

pub(crate) use self::python::parse_version;
pub use self::{
    python::{Python, SUPPORTED, clean_command},
    search::{NAMED, Search, are_named, find, search},
};
