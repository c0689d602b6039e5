//! A CPython that was loaded after the program had started, as in one-file programs of PyInstaller.
//!
//! We install our heap before `main`, so only a CPython that is loaded by then can use the heap. A
//! CPython that the program loads later keeps its own allocators. We report this when the process
//! exits, but only if the user has set one of our environment variables.

use std::{
    ffi::{CStr, CString},
    ops::ControlFlow,
    path::PathBuf,
};

use crate::{
    abi::CPython,
    loader::{self, Code},
};

/// Finds a CPython and its path, even in a library whose symbols are not visible to other
/// libraries.
pub(crate) fn find() -> Option<(CPython, PathBuf)> {
    let python =
        CPython::find().or_else(|| loaded_libraries().iter().find_map(|name| find_in(name)))?;
    // The process is exiting, so this CPython is already loaded and gets into the list.
    loader::list_loaded();
    let path = Code::at(python.code_address()).path;
    Some((python, path))
}

fn find_in(name: &CStr) -> Option<CPython> {
    // SAFETY: `name` is a C string. `RTLD_NOLOAD` finds only loaded libraries, and runs no code.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
    if handle.is_null() {
        loader::clear_error();
        return None;
    }
    // SAFETY: the handle is open. It stays open if the library contains CPython.
    let found = unsafe { CPython::find_in(handle) };
    if found.is_none() {
        // SAFETY: the handle is open, and nothing of the library is in use.
        unsafe { libc::dlclose(handle) };
    }
    found
}

/// Returns the names of the loaded libraries. Skips the program, whose name is empty.
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
