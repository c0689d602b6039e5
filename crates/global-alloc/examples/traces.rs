//! Prints which calls allocated the blocks in use, and what changed between two moments.
//!
//! With the argument `count`, an assertion about the number of allocations of a thread fails
//! instead.

use std::collections::BTreeMap;

use allocator_api::{
    Domain, Global,
    counted::{Counted, count},
    hooks::{Trace, Traces},
};
use global_alloc::ObMalloc;

static TRACES: Traces = Traces::new();

type Traced = Global<Trace<ObMalloc>>;

#[global_allocator]
static GLOBAL: Counted<Traced> =
    Counted::new(Global::new(Trace::new(ObMalloc::new(), Domain::Raw, &TRACES)));

#[inline(never)]
fn read_words() -> Vec<String> {
    (0..1000).map(|number| format!("word {number}")).collect()
}

#[inline(never)]
fn index(words: &[String]) -> BTreeMap<&str, usize> {
    words.iter().enumerate().map(|(nth, word)| (word.as_str(), nth)).collect()
}

fn main() {
    if std::env::args().nth(1).as_deref() == Some("count") {
        let words = count(|| read_words().leak());
        words.assert_made(1001).assert_leaves_none();
        return;
    }
    TRACES.start(2);
    let words = read_words();
    let before = TRACES.snapshot();
    let index = index(&words);
    for change in TRACES.snapshot().since(&before) {
        println!("{change}");
    }
    println!("at most {} bytes were in use\n", TRACES.total().peak_bytes);
    TRACES.print();
    drop((index, words.len()));
}
