//! Keeps the library in memory, and groups its code.
//!
//! `dlclose` does not unload the library, because CPython's allocators and signal handlers point to
//! its code.
//!
//! We group the code so that a process keeps little of it in memory. When a process first runs a
//! piece of the library's code, a page fault maps up to 64 KiB of the library's file around that
//! code. We therefore keep the code of the heaps together, apart from code that most processes run
//! once or never, such as the start-up code and the code that formats a panic or a report. The
//! linker script `layout.ld` does this.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=layout.ld");
    println!("cargo::rustc-check-cfg=cfg(grouped_code)");
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|is| is == value);
    let is_release = is("PROFILE", "release");
    if is("CARGO_CFG_TARGET_OS", "linux") {
        println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    }
    if is_release && is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu") {
        let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        println!("cargo::rustc-cdylib-link-arg=-Wl,-T,{folder}/layout.ld");
        println!("cargo::rustc-cfg=grouped_code");
    }
}
