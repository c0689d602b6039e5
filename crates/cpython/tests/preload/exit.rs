//! Exits while threads are still running, and blocks that C code frees after finalization.

use std::iter;

use tempfile::TempDir;

use crate::support::{Run, compile, library, plain, preloaded, run, supported};

/// The source of a library that ends the process after an invalid access to memory. The exit code
/// is 86 if CPython's own code accessed an address near 0, and 87 otherwise.
const REPORTER: &str = r#"
    #define _GNU_SOURCE
    #include <dlfcn.h>
    #include <link.h>
    #include <signal.h>
    #include <stdio.h>
    #include <unistd.h>
    static size_t python, start, end;
    static int find(struct dl_phdr_info *library, size_t size, void *unused) {
        for (int nth = 0; nth < library->dlpi_phnum; nth++) {
            const ElfW(Phdr) *part = &library->dlpi_phdr[nth];
            size_t from = library->dlpi_addr + part->p_vaddr;
            if (part->p_type == PT_LOAD && from <= python && python < from + part->p_memsz)
                start = from, end = from + part->p_memsz;
        }
        return 0;
    }
    static void report(int number, siginfo_t *info, void *context) {
        size_t code = ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
        int is_known = start <= code && code < end && (size_t)info->si_addr < 4096;
        _exit(is_known ? 86 : 87);
    }
    __attribute__((constructor)) static void watch(void) {
        struct sigaction action = { .sa_sigaction = report, .sa_flags = SA_SIGINFO };
        python = (size_t)dlsym(RTLD_DEFAULT, "Py_Initialize");
        if (python) {
            dl_iterate_phdr(find, NULL);
            sigaction(SIGSEGV, &action, NULL);
        }
    }
"#;

/// The exit code of [`REPORTER`] if CPython's own code accessed an address near 0.
const CRASHED_IN_CPYTHON: i32 = 86;

/// On a busy machine, CPython 3.10 sometimes crashes in this program, even without our library.
/// After the main thread has deleted the interpreter's state, a daemon thread that waits for the
/// GIL follows a pointer in this state, and this pointer is then null (`COMPUTE_EVAL_BREAKER` in
/// `Python/ceval.c`). Only after this crash does the test run the program again.
#[test]
#[cfg(target_arch = "x86_64")]
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
    let folder = TempDir::new().unwrap();
    let reporter = compile(folder.path(), "reporter.so", REPORTER, &["-shared", "-ldl"]);
    let preload = format!("{} {}", library().display(), reporter.display());
    for python in supported() {
        for _ in 0..5 {
            let mut command = plain(python);
            command.env("OBMALLOC_STATS", "/dev/null").args(["-c", code]);
            command.env("LD_PRELOAD", &preload);
            let is_known =
                |run: &Run| python.version.1 == 10 && run.status.code() == Some(CRASHED_IN_CPYTHON);
            let mut runs = iter::repeat_with(|| run(&mut command)).take(5);
            let run = runs.find(|run| !is_known(run)).expect("a run without this crash");
            assert_eq!(run.is_clean(python).stdout, "done\n");
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
