use crate::support::{Run, obmalloc};

#[test]
fn a_comparison_prints_medians_and_what_the_heap_served() {
    let words = ["compare", "--rounds", "2", "-c", "print(len([[n] for n in range(100000)]))"];
    let run = Run::of(&mut obmalloc(words)).succeeds();
    for part in ["medians of 2 rounds", "obmalloc / CPython", "wall time, s", "our heap served"] {
        assert!(run.stdout.contains(part), "{part} in {run:?}");
    }
}

#[test]
fn the_runs_are_available_as_json() {
    let words = ["compare", "--json", "--rounds", "3", "--on", "malloc,obmalloc", "-c", "pass"];
    let run = Run::of(&mut obmalloc(words)).succeeds();
    let json: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(json["schema"], 1);
    assert_eq!(json["sides"][1]["allocator"], "obmalloc");
    assert_eq!(json["sides"][1]["wall_seconds"].as_array().unwrap().len(), 3);
}

#[test]
fn a_program_that_fails_or_lacks_the_heap_is_not_compared() {
    let run = Run::of(&mut obmalloc(["compare", "-c", "print('out'); exit(3)"]));
    assert!(!run.stderr.contains("LD_PRELOAD="), "{run:?}");
    run.fails(3, &["exit status: 3", "out", "because: ", "try: "]);
    Run::of(&mut obmalloc(["compare", "--", "true"])).fails(1, &["not in force"]);
}
