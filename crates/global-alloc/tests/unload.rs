//! A thread that has used the allocator of a library must not call the library's code after the
//! library is unloaded.

#![cfg(all(target_os = "linux", not(miri)))]

use std::{
    ffi::{CString, c_void},
    mem,
    os::unix::ffi::OsStrExt,
    process::Command,
    sync::mpsc::channel,
    thread,
};

fn library() -> CString {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    cargo.args(["build", "--quiet", "--offline", "--example", "plugin"]);
    if cfg!(feature = "dynamic-tls") {
        cargo.args(["--features", "dynamic-tls"]);
    }
    let program = std::env::current_exe().expect("the path of this program");
    let target_dir = program.ancestors().nth(3).expect("cargo's folders");
    cargo.env("CARGO_TARGET_DIR", target_dir);
    assert!(cargo.status().expect("cargo starts").success(), "the library does not build");
    let path = target_dir.join("debug/examples/libplugin.so");
    CString::new(path.as_os_str().as_bytes()).expect("a path without zeros")
}

#[test]
fn a_thread_may_outlive_the_library_whose_allocator_it_used() {
    let name = library();
    // SAFETY: the initialisers of the library have no requirements.
    let library = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) };
    assert!(!library.is_null(), "the library cannot be loaded");
    // SAFETY: the library is loaded.
    let work = unsafe { libc::dlsym(library, c"work".as_ptr()) };
    assert!(!work.is_null());
    // SAFETY: the example `plugin` defines `work` with this type.
    let work = unsafe { mem::transmute::<*mut c_void, extern "C" fn(usize) -> usize>(work) };
    let (used_to, used) = channel();
    let (unloaded_to, unloaded) = channel();
    let thread = thread::spawn(move || {
        used_to.send(work(1000)).expect("the other thread waits");
        unloaded.recv().expect("the other thread unloads the library");
    });
    assert_eq!(used.recv(), Ok(2890));
    // SAFETY: the library was loaded once, and nothing uses it any more.
    assert_eq!(unsafe { libc::dlclose(library) }, 0);
    // SAFETY: `RTLD_NOLOAD` only looks the library up.
    let still = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_NOLOAD) };
    assert!(still.is_null(), "the library is still loaded, so the test shows nothing");
    unloaded_to.send(()).expect("the thread waits");
    thread.join().expect("the thread ends without a panic");
}
