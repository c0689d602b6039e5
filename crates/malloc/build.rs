//! Sets the soname `libobmalloc.so`, which programs that link to the library record.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libobmalloc.so");
}
