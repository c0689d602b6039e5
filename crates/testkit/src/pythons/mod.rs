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
//! The environment variable `$OBMALLOC_PYTHONS` is a list of paths in the same format as `PATH`. If
//! it is set, only the Pythons in this list are used. Otherwise we search the usual places for
//! Pythons. `cargo xtask pythons` downloads Pythons that are newer than the installed ones; see
//! [`brought`].
//!
//! We run each program that we find and ask it which Python it is. The file alone cannot tell us,
//! because it may be a shim of pyenv: a script that starts the actual Python, whose version depends
//! on pyenv's configuration.

pub mod brought;
mod python;
mod search;

pub(crate) use self::python::parse_version;
pub use self::{
    python::{Python, SUPPORTED, clean_command},
    search::{NAMED, Search, are_named, find, search},
};
