//! Groups the library's code, so that a process keeps little of it in memory.
//!
//! A page fault maps up to 64 KiB of the library's file. We therefore place the code of the heaps
//! together, and elsewhere the code that runs only at the start, or only to format a panic or a
//! report. See `layout.ld`.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=layout.ld");
    println!("cargo::rustc-check-cfg=cfg(grouped_code)");
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|is| is == value);
    let is_release = is("PROFILE", "release");
    if is_release && is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu") {
        let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        println!("cargo::rustc-cdylib-link-arg=-Wl,-T,{folder}/layout.ld");
        println!("cargo::rustc-cfg=grouped_code");
    }
}
