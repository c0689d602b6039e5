//! Queries to the dynamic loader.
//!
//! A thread that holds the GIL must not call `dlsym`, `dladdr` or `dlopen`, because these functions
//! wait for a lock of the loader. Another thread may hold this lock while it runs the constructors
//! of a library in `dlopen`. If such a constructor waits for the GIL, the two threads wait for each
//! other forever.
//!
//! We look up symbols only when the loader calls us: in our constructor, and at exit in our
//! destructor, which uses the module `late`.
//!
//! The function `dl_iterate_phdr`, which lists the loaded libraries, takes a different lock.
//! `dlopen` and `dlclose` hold this lock only while they change the list. However, glibc does not
//! reset the lock in a forked child. If another thread held the lock during the fork,
//! `dl_iterate_phdr` never returns in the child.
//!
//! In our constructor, we list the loaded libraries once. Later, we use this list to determine
//! which library contains a function. We call `dl_iterate_phdr` again only when the main
//! interpreter starts, and in the module `late` at exit.

use std::{
    env,
    ffi::{CStr, OsStr, c_int, c_void},
    mem,
    ops::{ControlFlow, Range},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    ptr::NonNull,
    slice,
    sync::OnceLock,
};

#[cfg(target_pointer_width = "64")]
pub(crate) type ProgramHeader = libc::Elf64_Phdr;
#[cfg(target_pointer_width = "32")]
pub(crate) type ProgramHeader = libc::Elf32_Phdr;

/// Looks up the symbol `name` in the libraries that `handle` refers to.
///
/// # Safety
///
/// - `handle` must be an open handle that `dlopen` returned, or a pseudo-handle such as
///   `RTLD_DEFAULT`.
/// - `T` must be a pointer or function pointer type that matches the definition of the symbol.
pub(crate) unsafe fn symbol<T: Copy>(handle: *mut c_void, name: &CStr) -> Option<T> {
    const { assert!(size_of::<T>() == size_of::<*mut c_void>()) };
    // SAFETY: the name is a C string, and the handle is valid (contract of `symbol`).
    let address = NonNull::new(unsafe { libc::dlsym(handle, name.as_ptr()) })?;
    // SAFETY: `T` is a pointer type that fits the symbol (contract of `symbol`).
    Some(unsafe { mem::transmute_copy(&address) })
}

/// Clears the error of a failed look-up, so that the program does not take it for an error of its
/// own.
///
/// The first `dlerror` returns the message, and the second one frees it.
pub(crate) fn clear_error() {
    for _ in 0..2 {
        // SAFETY: the call has no requirements, and the message is not read.
        unsafe { libc::dlerror() };
    }
}

pub(crate) fn visit_loaded<V>(mut visit: V)
where
    V: FnMut(&libc::dl_phdr_info) -> ControlFlow<()>,
{
    unsafe extern "C" fn call<V>(
        info: *mut libc::dl_phdr_info,
        _size: usize,
        visit: *mut c_void,
    ) -> c_int
    where
        V: FnMut(&libc::dl_phdr_info) -> ControlFlow<()>,
    {
        // SAFETY: the loader passes a valid description, and the pointer to `visit` from below.
        let (info, visit) = unsafe { (&*info, &mut *visit.cast::<V>()) };
        c_int::from(visit(info).is_break())
    }
    // SAFETY: `call` expects a pointer to a `V`, and `visit` outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(call::<V>), (&raw mut visit).cast()) };
}

/// Passes the program or library that contains `address` to `look`, if there is one.
pub(crate) fn look_at_object<R>(
    address: *const c_void,
    look: impl Fn(&libc::dl_phdr_info, &[ProgramHeader]) -> R,
) -> Option<R> {
    let mut found = None;
    visit_loaded(|info| {
        // SAFETY: the loader describes a table of that many headers.
        let headers =
            unsafe { slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
        if !segments(info, headers).any(|segment| segment.contains(&address.addr())) {
            return ControlFlow::Continue(());
        }
        found = Some(look(info, headers));
        ControlFlow::Break(())
    });
    found
}

/// Returns the addresses of the loaded segments of a program or library.
pub(crate) fn segments(
    info: &libc::dl_phdr_info,
    headers: &[ProgramHeader],
) -> impl Iterator<Item = Range<usize>> {
    let loaded = headers.iter().filter(|header| header.p_type == libc::PT_LOAD);
    loaded.map(|header| {
        let start = info.dlpi_addr.wrapping_add(header.p_vaddr) as usize;
        start..start.wrapping_add(header.p_memsz as usize)
    })
}

/// The program and the libraries that were loaded when [`list_loaded`] was first called.
static LOADED: OnceLock<Vec<Code>> = OnceLock::new();

/// Lists the loaded libraries, in which [`Code::at`] searches from then on.
pub(crate) fn list_loaded() {
    LOADED.get_or_init(|| {
        let mut loaded = Vec::new();
        visit_loaded(|info| {
            // SAFETY: the loader describes a table of that many headers.
            let headers =
                unsafe { slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
            // One range is enough for a library, because the loader reserves all addresses between
            // its segments.
            let addresses = segments(info, headers)
                .reduce(|all, next| all.start.min(next.start)..all.end.max(next.end));
            loaded.extend(addresses.map(|addresses| Code { addresses, path: path(info) }));
            ControlFlow::Continue(())
        });
        loaded
    });
}

/// A program or library from [`LOADED`], or any other code.
#[derive(Clone, Debug)]
pub(crate) struct Code {
    /// The addresses of all segments. Empty for other code.
    addresses: Range<usize>,
    pub(crate) path: PathBuf,
}

impl Code {
    /// Returns the program or library that contains `address`.
    ///
    /// The function calls no function of the loader, so it may be called at any time after
    /// [`list_loaded`].
    pub(crate) fn at(address: *const c_void) -> Self {
        let mut loaded = LOADED.get().into_iter().flatten();
        loaded.find(|code| code.addresses.contains(&address.addr())).cloned().unwrap_or_else(|| {
            Self { addresses: 0..0, path: PathBuf::from("code that was loaded later") }
        })
    }

    pub(crate) fn is(&self, other: &Self) -> bool {
        self.addresses == other.addresses
    }
}

/// Returns the path of a library. For the program, whose name is empty, returns its `argv[0]`.
fn path(info: &libc::dl_phdr_info) -> PathBuf {
    if info.dlpi_name.is_null() {
        return PathBuf::new();
    }
    // SAFETY: the loader's name is a C string that lives as long as the library is loaded.
    let name = unsafe { CStr::from_ptr(info.dlpi_name) };
    match name.to_bytes() {
        b"" => env::args_os().next().unwrap_or_default().into(),
        name => Path::new(OsStr::from_bytes(name)).to_owned(),
    }
}
