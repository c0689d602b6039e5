//! A program with the standard library.

mod program;

fn main() {
    program::main();
}
