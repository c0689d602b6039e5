//! Groups the library's code, so that a process keeps little of it in memory.
//!
//! The kernel maps code in blocks of 64 KiB. The code that every process runs is therefore kept
//! together, apart from code that formats a panic or a report. See `layout.ld`.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=layout.ld");
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|is| is == value);
    let is_release = is("PROFILE", "release");
    if is_release && is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu") {
        let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        println!("cargo::rustc-cdylib-link-arg=-Wl,-T,{folder}/layout.ld");
        // The loader then places the library at a multiple of such a block, and the code fills few.
        println!("cargo::rustc-cdylib-link-arg=-Wl,-z,max-page-size=65536");
    }
}
