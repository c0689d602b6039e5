//! Memory that Python no longer uses goes back to the system.

use testkit::pythons::Python;

use crate::support::{preloaded, run, supported};

/// Keeps one of every thousand objects, and then runs `$ACTION`. Prints the percentage of the peak
/// that is left, and the value that `$ACTION` has assigned to `result`.
const SCRIPT: &str = r#"
import ctypes, gc, os, signal, time
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])
def work(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        numbers = [(n, n + 1) for n in range(200)]
gc.disable()
result = None
start = resident()
objects = [[bytes(64) for n in range(1000)] for n in range(400)]
peak = resident() - start
survivors = [some[0] for some in objects]
objects.clear()
$ACTION
print(100 * max(resident() - start, 0) // peak, result)
"#;

/// Returns the percentage of the peak that is left, and the result of `action`.
fn left_after(python: &Python, variables: &[(&str, &str)], action: &str) -> (u32, String) {
    let mut command = preloaded(python);
    command.envs(variables.iter().copied());
    let run = run(command.args(["-c", &SCRIPT.replace("$ACTION", action)]));
    let stdout = run.is_clean(python).stdout.trim();
    let (left, result) = stdout.split_once(' ').unwrap();
    (left.parse().unwrap(), result.to_owned())
}

/// Memory stays mapped unless an action of a test returns it.
const NEVER: (&str, &str) = ("OBMALLOC_DECAY", "never");

#[test]
fn unused_memory_stays_if_the_user_says_so() {
    for python in supported() {
        let (left, _) = left_after(python, &[NEVER], "work(1.5)");
        assert!(left > 60, "{left} % are left under {python:?}");
    }
}

#[test]
fn unused_memory_goes_back_within_the_decay_time_while_the_program_runs() {
    for python in supported() {
        let (left, _) = left_after(python, &[], "work(1.1)");
        assert!(left < 35, "{left} % are left under {python:?}");
        let (left, _) = left_after(python, &[("OBMALLOC_DECAY", "100")], "work(0.2)");
        assert!(left < 35, "{left} % are left under {python:?}");
    }
}

#[test]
fn a_function_gives_unused_memory_back_and_says_how_much() {
    for python in supported() {
        for library in ["CDLL", "PyDLL"] {
            let action = format!(
                "trim = ctypes.{library}(None).obmalloc_trim; trim.restype = ctypes.c_size_t\n\
                 result = trim() > 10 << 20"
            );
            let (left, result) = left_after(python, &[NEVER], &action);
            assert!(left < 35 && result == "True", "{left} %, {result}: {python:?}");
        }
    }
}

/// Builds objects that the C library serves, and drops all but one in a hundred.
const DROP_LARGE: &str = "objects = [bytes(3000) for n in range(40_000)]\n\
     peak = resident() - start\n\
     survivors = objects[::100]\n\
     del objects\n";

#[test]
fn a_trim_gives_back_what_the_c_library_has_free() {
    let action = format!(
        "{DROP_LARGE}before = 100 * (resident() - start) // peak\n\
         ctypes.PyDLL(None).obmalloc_trim()\n\
         result = before"
    );
    for python in supported() {
        let (left, before) = left_after(python, &[NEVER], &action);
        assert!(before.parse::<u32>().unwrap() > 60, "{before} % were left in {python:?}");
        assert!(left < 25, "{left} % are left, {before} % before the trim: {python:?}");
    }
}

#[test]
fn what_the_c_library_has_free_goes_back_within_the_decay_time() {
    let action = format!("{DROP_LARGE}work(0.3)");
    for python in supported() {
        let (left, _) = left_after(python, &[("OBMALLOC_DECAY", "100")], &action);
        assert!(left < 25, "{left} % are left: {python:?}");
        let (left, _) = left_after(python, &[NEVER], &action);
        assert!(left > 60, "{left} % are left, although nothing decays: {python:?}");
    }
}

#[test]
fn a_signal_gives_unused_memory_back() {
    for python in supported() {
        for name in ["USR1", "SIGUSR1", "usr1", "10"] {
            let variables = [NEVER, ("OBMALLOC_TRIM_SIGNAL", name)];
            let action = "os.kill(os.getpid(), signal.SIGUSR1)";
            let (left, _) = left_after(python, &variables, action);
            assert!(left < 35, "{left} % are left under {python:?}");
        }
    }
}

#[test]
fn a_full_garbage_collection_gives_unused_memory_back() {
    for python in supported() {
        let variables = [NEVER, ("OBMALLOC_TRIM_AFTER_GC", "1")];
        let (left, _) = left_after(python, &variables, "gc.collect()");
        assert!(left < 35, "{left} % are left under {python:?}");
        let (left, _) = left_after(python, &variables, "gc.collect(0)");
        assert!(left > 60, "{left} % are left under {python:?}");
    }
}

/// Creates many objects. Prints how many KiB of the process are in huge pages, and the exit code of
/// a forked child that changes every object.
const HUGE: &str = r#"
import os, sys
objects = [[n, n + 1] for n in range(500_000)]
with open("/proc/self/smaps_rollup") as file:
    huge = [line.split()[1] for line in file if line.startswith("AnonHugePages:")]
child = os.fork()
for some in objects:
    some.append(child)
if child == 0:
    os._exit(0 if all(len(some) == 3 for some in objects) else 1)
print(huge[0], os.waitpid(child, 0)[1])
"#;

#[test]
fn objects_are_in_huge_pages_if_the_user_asks_for_them_and_a_fork_harms_nobody() {
    let setting = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    let takes_advice = setting.is_ok_and(|setting| setting.contains("[madvise]"));
    for python in supported() {
        for (value, is_huge) in [("off", false), ("advise", true), ("explicit", true)] {
            let mut command = preloaded(python);
            let run = run(command.env("OBMALLOC_HUGE_PAGES", value).args(["-c", HUGE]));
            let stdout = run.is_clean(python).stdout.trim();
            let (huge, status) = stdout.split_once(' ').unwrap();
            assert_eq!(status, "0", "{python:?}");
            let huge: u32 = huge.parse().unwrap();
            if takes_advice {
                assert_eq!(huge > 20_000, is_huge, "{value}: {huge} KiB under {python:?}");
            }
        }
    }
}
