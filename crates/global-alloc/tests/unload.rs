//! A library that has obmalloc as its allocator is loaded, used by a thread, and unloaded while the
//! thread still runs. The thread must not call code of the library when it ends.

#![cfg(all(target_os = "linux", not(miri)))]

use std::{
    ffi::{CString, c_void},
    mem,
    os::unix::ffi::OsStrExt,
    process::Command,
    sync::mpsc::channel,
    thread,
};

/// Builds the library, which is the example `plugin`, and returns its path.
fn library() -> CString {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    cargo.args(["build", "--quiet", "--offline", "--example", "plugin"]);
    if cfg!(feature = "dynamic-tls") {
        cargo.args(["--features", "dynamic-tls"]);
    }
    let program = std::env::current_exe().expect("it runs");
    let target_dir = program.ancestors().nth(3).expect("cargo's folders");
    cargo.env("CARGO_TARGET_DIR", target_dir);
    assert!(cargo.status().expect("cargo starts").success(), "the library does not build");
    let path = target_dir.join("debug/examples/libplugin.so");
    CString::new(path.as_os_str().as_bytes()).expect("it has no zero")
}

#[test]
fn a_thread_may_outlive_the_library_whose_allocator_it_used() {
    let name = library();
    // SAFETY: the library's initialisers may run at any time.
    let library = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) };
    assert!(!library.is_null(), "it cannot be loaded");
    // SAFETY: the library is loaded.
    let work = unsafe { libc::dlsym(library, c"work".as_ptr()) };
    assert!(!work.is_null());
    // SAFETY: this is the function's type.
    let work = unsafe { mem::transmute::<*mut c_void, extern "C" fn(usize) -> usize>(work) };
    let (used_to, used) = channel();
    let (unloaded_to, unloaded) = channel();
    let thread = thread::spawn(move || {
        used_to.send(work(1000)).expect("somebody waits");
        unloaded.recv().expect("the other thread unloads the library");
    });
    assert_eq!(used.recv(), Ok(2890));
    // SAFETY: the library was loaded once, and nobody calls it any more.
    assert_eq!(unsafe { libc::dlclose(library) }, 0);
    // SAFETY: it asks whether the library is still loaded.
    let still = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_NOLOAD) };
    assert!(still.is_null(), "the library is still loaded, so the test shows nothing");
    unloaded_to.send(()).expect("the thread waits");
    thread.join().expect("it ends well");
}
