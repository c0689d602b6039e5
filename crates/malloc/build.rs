//! Sets two properties of the library.
//!
//! - The soname of the library is `libobmalloc.so`. A program that is linked to the library stores
//!   this name.
//! - `dlclose` does not unload the library, because signal handlers, handlers of `quick_exit` and
//!   destructors of threads may still point to its code.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libobmalloc.so");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
