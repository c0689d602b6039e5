//! Sets the soname of the library to `libobmalloc.so`. Programs that link to the library record
//! this name.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libobmalloc.so");
}
