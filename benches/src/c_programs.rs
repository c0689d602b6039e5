//! The names of the programs in C, which `benches/c` contains.

/// The name of each program on its command line, in the order of tables.
pub const NAMES: [&str; 15] = [
    "alloc-test, 1 thread",
    "alloc-test",
    "cache-scratch, 1 thread",
    "cache-scratch",
    "cache-thrash, 1 thread",
    "cache-thrash",
    "glibc-simple",
    "glibc-thread",
    "larson",
    "malloc-large",
    "mstress",
    "rptest",
    "sh6bench",
    "sh8bench",
    "xmalloc-test",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_introduce_themselves_by_these_names() {
        let main = include_str!("../c/main.c");
        let table = main.split_once("PROGRAMS[] = {").unwrap().1.split_once("};").unwrap().0;
        let names = table.lines().filter_map(|line| line.split('"').nth(1));
        assert_eq!(names.collect::<Vec<_>>(), NAMES);
    }
}
