//! The CPythons of this machine.
//!
//! ```text
//!   $OBMALLOC_PYTHONS, or else      asked what they are
//!   python3 on the PATH ─────┐
//!   pyenv's versions ────────┼──► an answer ──► Python       one for each program
//!   /usr/bin/python3* ───────┤    none      ──► silent
//!   those from Debian sid ───┘
//! ```
//!
//! `$OBMALLOC_PYTHONS` is a list of paths in the form of `PATH`. `cargo xtask pythons` downloads
//! Pythons that are newer than those of this machine, see [`brought`].
//!
//! A Python is identified by its own answer, not by its file, because a pyenv shim is a script that
//! starts another program.

pub mod brought;
mod python;
mod search;

pub(crate) use self::python::parse_version;
pub use self::{
    python::{Python, SUPPORTED, clean_command},
    search::{NAMED, Search, are_named, find, search},
};
