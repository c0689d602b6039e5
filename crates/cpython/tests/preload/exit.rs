//! Exits while threads are still running, and blocks that C code frees after finalization.

use std::os::unix::process::ExitStatusExt;

use tempfile::TempDir;

use crate::support::{compile, preloaded, run, supported};

/// CPython 3.10 itself sometimes crashes here, also without the library, if the machine is busy. A
/// daemon thread that waits for the GIL then reads the state of the interpreter after the main
/// thread has cleared it (`COMPUTE_EVAL_BREAKER` in `Python/ceval.c`).
#[test]
fn daemon_threads_can_allocate_until_the_process_ends() {
    let code = r#"
import threading
def work():
    while True:
        [bytes(n) for n in range(600)]
for _ in range(4):
    threading.Thread(target=work, daemon=True).start()
print("done")
"#;
    for python in supported() {
        for _ in 0..5 {
            let mut crashes_of_cpython = if python.version.1 == 10 { 2 } else { 0 };
            let mut command = preloaded(python);
            command.env("OBMALLOC_STATS", "/dev/null").args(["-c", code]);
            let mut last = run(&mut command);
            while last.status.signal() == Some(libc::SIGSEGV) && crashes_of_cpython > 0 {
                crashes_of_cpython -= 1;
                last = run(&mut command);
            }
            assert_eq!(last.is_clean(python).stdout, "done\n");
        }
    }
}

#[test]
fn destructors_of_c_libraries_can_free_blocks_after_finalization() {
    let source = r#"
        #include <stdio.h>
        #include <stdlib.h>
        #include <string.h>
        static void *held[1000];
        static void (*release)(void *);
        void hold(void *(*malloc)(size_t), void (*free)(void *)) {
            release = free;
            for (int i = 0; i < 1000; i++) memset(held[i] = malloc(i * 3), i, i * 3);
        }
        __attribute__((destructor)) static void end(void) {
            for (int i = 0; i < 1000; i++) {
                for (int j = 0; j < i * 3; j++)
                    if (((unsigned char *)held[i])[j] != (unsigned char)i) abort();
                release(held[i]);
            }
            puts("freed");
        }
    "#;
    let folder = TempDir::new().unwrap();
    let library = compile(folder.path(), "late.so", source, &["-shared"]);
    for python in supported() {
        for [malloc, free] in [["PyMem_Malloc", "PyMem_Free"], ["PyObject_Malloc", "PyObject_Free"]]
        {
            let code = format!(
                "import ctypes\napi = ctypes.pythonapi\n\
                 ctypes.PyDLL({library:?}).hold(api.{malloc}, api.{free})"
            );
            let mut command = preloaded(python);
            let run = run(command.args(["-c", &code]));
            assert_eq!(run.is_clean(python).stdout, "freed\n");
        }
    }
}

#[test]
fn statistics_are_written_at_an_exit_without_finalization_and_without_the_gil() {
    let code = r#"
import ctypes, threading
def work():
    while True:
        [bytes(n) for n in range(600)]
for _ in range(4):
    threading.Thread(target=work, daemon=True).start()
ctypes.CDLL(None).exit(5)
"#;
    for python in supported() {
        let mut command = preloaded(python);
        let run = run(command.env("OBMALLOC_STATS", "1").args(["-c", code]));
        assert_eq!(run.status.code(), Some(5), "{run:?}");
        assert!(run.stderr.contains("\nin force\n"), "{run:?}");
    }
}
