//! Sets two properties of the library.
//!
//! - The soname of the library is `libobmalloc.so`. A program that is linked to the library stores
//!   this name.
//! - `dlclose` does not unload the library, because the system may still call its signal handlers,
//!   its `quick_exit` handlers and its destructors for the data of threads.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libobmalloc.so");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
