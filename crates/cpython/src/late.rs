//! A CPython that was loaded after the program had started.
//!
//! Some programs open libpython with `dlopen`, such as the one-file programs of PyInstaller. The
//! process of such a program contains no CPython yet when our constructor runs. To install the heap
//! later, we would have to intercept `dlopen` in every process, or replace the allocators of a
//! CPython that may already have allocated blocks. We do neither. Instead, we report at exit that
//! the heap was not installed, so that nobody mistakes CPython's own allocator for ours.

use std::{
    ffi::{CStr, CString},
    ops::ControlFlow,
    path::PathBuf,
};

use crate::{
    abi::CPython,
    loader::{self, Code},
};

/// Looks for a CPython in every loaded library, including libraries whose symbols are not visible
/// to the others. Returns the CPython and the path of the file that contains it.
pub(crate) fn find() -> Option<(CPython, PathBuf)> {
    let python =
        CPython::find().or_else(|| loaded_libraries().iter().find_map(|name| find_in(name)))?;
    let path = Code::at(python.code_address()).path;
    Some((python, path))
}

/// Looks for a CPython in the library that was loaded as `name`.
fn find_in(name: &CStr) -> Option<CPython> {
    // SAFETY: `name` is a C string. With `RTLD_NOLOAD`, the call only finds a library that is
    // already loaded, so it runs no code of that library.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
    if handle.is_null() {
        loader::clear_error();
        return None;
    }
    // SAFETY: the handle is open. If the library contains CPython, we never close the handle, so
    // the library stays loaded.
    let found = unsafe { CPython::find_in(handle) };
    if found.is_none() {
        // SAFETY: the handle is open, and nothing of the library is in use.
        unsafe { libc::dlclose(handle) };
    }
    found
}

/// Returns the names by which the dynamic loader knows the libraries of this process. The loader
/// gives the program itself an empty name, so the program is left out.
fn loaded_libraries() -> Vec<CString> {
    let mut names = Vec::new();
    loader::visit_loaded(|info| {
        if !info.dlpi_name.is_null() {
            // SAFETY: the loader's name is a C string.
            let name = unsafe { CStr::from_ptr(info.dlpi_name) };
            names.extend((!name.is_empty()).then(|| name.to_owned()));
        }
        ControlFlow::Continue(())
    });
    names
}
