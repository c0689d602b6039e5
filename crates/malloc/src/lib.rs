#![doc = include_str!("../README.md")]

#[cfg(not(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64")))]
compile_error!("this library replaces the malloc of glibc, on 64-bit Linux");

pub mod aligned;
pub mod c;
pub mod cpp;
mod debug;
pub mod fork;
pub mod glibc;
mod global;
mod heap;
mod in_force;
pub mod own;
mod report;

// We link Rust's unwinder statically, because loading it as a shared library would take longer.
// Only the Rust standard library uses this unwinder; C++ exceptions use the unwinder of the C++
// runtime.
#[link(name = "gcc_eh", kind = "static", modifiers = "-bundle")]
unsafe extern "C" {}

/// Makes the dynamic loader call `construct` before `main`.
#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = construct;

/// Makes the dynamic loader call `destruct` at exit, after the functions that `atexit` registered.
#[used]
#[unsafe(link_section = ".fini_array")]
static DESTRUCTOR: extern "C" fn() = destruct;

extern "C" fn construct() {
    report::set_up_heap();
    heap::open();
    host::look_up();
    cpp::prepare();
    report::read_environment();
}

extern "C" fn destruct() {
    report::write();
}
