//! Sets two properties of the library.
//!
//! - Its soname, which programs that link to the library record, is `libobmalloc.so`.
//! - `dlclose` does not unload the library. If it did, signal handlers, handlers of `quick_exit`
//!   and destructors of threads could point to code that no longer exists.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libobmalloc.so");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
