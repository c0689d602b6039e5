//! Finds the CPythons on this machine.
//!
//! The environment variable `OBMALLOC_PYTHONS` can list the Pythons to use, separated as in `PATH`.
//! If it is not set, we search the usual places, such as `PATH` and the folder of pyenv. We ask
//! each program for its version, because a file name does not show it: pyenv's scripts can run any
//! version.

pub mod brought;
mod python;
mod search;

pub(crate) use self::python::parse_version;
pub use self::{
    python::{Python, SUPPORTED, clean_command},
    search::{NAMED, Search, are_named, find, search},
};
