//! A CPython that was loaded after the program had started.
//!
//! A program that opens libpython with `dlopen`, such as a one-file program of PyInstaller, has no
//! CPython when our constructor runs. To serve it, we would have to intercept `dlopen` in every
//! process, or replace the allocators of a CPython that may already have allocated blocks. We do
//! neither. Instead we report it at exit, so that nobody mistakes CPython's own allocator for ours.

use std::{
    ffi::{CStr, CString, c_int, c_void},
    path::{Path, PathBuf},
};

use crate::{
    abi::{self, CPython},
    in_force::Code,
};

/// Looks for a CPython in every library that is loaded now, including those whose symbols are not
/// visible to other libraries. Returns the CPython and the file that it is in.
pub(crate) fn find() -> Option<(CPython, PathBuf)> {
    let python = CPython::find().or_else(|| loaded_libraries().iter().find_map(|it| within(it)))?;
    let path = Code::at(python.code_address()).path;
    Some((python, path))
}

/// Looks for a CPython in the library that was loaded as `name`.
fn within(name: &CStr) -> Option<CPython> {
    // SAFETY: `name` is a C string. With `RTLD_NOLOAD` the call runs no code of the library.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
    if handle.is_null() {
        abi::forget_failed_look_up();
        return None;
    }
    // SAFETY: the handle is open. If it is CPython's, it stays open, so the library stays loaded.
    let found = unsafe { CPython::find_in(handle) };
    if found.is_none() {
        // SAFETY: the handle is open, and nothing refers to what it found.
        unsafe { libc::dlclose(handle) };
    }
    found
}

/// The names under which the loader knows the libraries of this process. The program itself, whose
/// name is empty, is not among them.
fn loaded_libraries() -> Vec<CString> {
    let mut names = Vec::new();
    // SAFETY: `collect` expects a pointer to such a vector, which lives until the call returns.
    unsafe { libc::dl_iterate_phdr(Some(collect), (&raw mut names).cast()) };
    names
}

/// Adds the name of one library to the `Vec<CString>` at `names`.
unsafe extern "C" fn collect(
    info: *mut libc::dl_phdr_info,
    _size: usize,
    names: *mut c_void,
) -> c_int {
    // SAFETY: the loader passes a valid description, and `names` as `loaded_libraries` gave it.
    let (name, names) = unsafe { ((*info).dlpi_name, &mut *names.cast::<Vec<CString>>()) };
    if !name.is_null() {
        // SAFETY: the loader's name is a C string.
        let name = unsafe { CStr::from_ptr(name) };
        if !name.is_empty() {
            names.push(name.to_owned());
        }
    }
    0
}

/// The reason that is given for a CPython from the file at `path`.
pub(crate) fn reason(path: &Path) -> String {
    let name = path.file_name().unwrap_or("CPython".as_ref());
    format!(
        "{} was loaded after the program had started, which is too late (link the program to it, \
         or list it after this library in LD_PRELOAD)",
        name.display()
    )
}
