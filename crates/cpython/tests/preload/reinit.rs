//! A program that embeds CPython and initialises it several times.

use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;
use testkit::pythons::Python;

use crate::support::{Run, command, compile, home, library, linker_flags, run, supported};

/// Initialises CPython `argv[1]` times, and runs the code `argv[2]` each time. Each round checks
/// and frees the blocks of the previous round.
const EMBEDDING: &str = r#"
    #include <stdio.h>
    #include <stdlib.h>
    #include <string.h>
    void Py_Initialize(void);
    int Py_FinalizeEx(void);
    int PyRun_SimpleString(const char *);
    void *PyMem_Malloc(size_t), *PyMem_Realloc(void *, size_t);
    void PyMem_Free(void *);
    void *PyObject_Malloc(size_t);
    void PyObject_Free(void *);
    void *PyBytes_FromStringAndSize(const char *, ssize_t);
    void Py_DecRef(void *);

    enum { BLOCKS = 300 };
    static unsigned char *mem[BLOCKS], *obj[BLOCKS];
    static void *bytes[BLOCKS];

    static void check(unsigned char *block, int i) {
        for (int j = 0; j < i * 4; j++) if (block[j] != (unsigned char)i) abort();
    }
    static void take(void) {
        for (int i = 0; i < BLOCKS; i++) {
            memset(mem[i] = PyMem_Malloc(i * 4), i, i * 4);
            memset(obj[i] = PyObject_Malloc(i * 4), i, i * 4);
            bytes[i] = PyBytes_FromStringAndSize(0, i * 4);
        }
    }
    static void give_back(void) {
        for (int i = 0; i < BLOCKS; i++) {
            check(mem[i], i);
            check(obj[i], i);
            check(mem[i] = PyMem_Realloc(mem[i], i * 5), i);
            PyMem_Free(mem[i]);
            PyObject_Free(obj[i]);
            Py_DecRef(bytes[i]);
        }
    }
    int main(int argc, char **argv) {
        for (int round = 1; round <= atoi(argv[1]); round++) {
            Py_Initialize();
            if (round > 1) give_back();
            if (PyRun_SimpleString(argv[2])) return 1;
            take();
            if (Py_FinalizeEx()) return 2;
            printf("round %d\n", round);
            fflush(stdout);
        }
        return 0;
    }
"#;

pub(crate) fn embed(folder: &Path, rounds: &str, code: &str, judge: impl Fn(&Python, Run, Value)) {
    embed_with(folder, rounds, code, ("OBMALLOC", "on"), |_| true, judge);
}

/// Embeds each CPython for which `is_meant` returns true in a program, and sets an environment
/// variable.
pub(crate) fn embed_with(
    folder: &Path,
    rounds: &str,
    code: &str,
    (variable, value): (&str, &str),
    is_meant: impl Fn(&Python) -> bool,
    judge: impl Fn(&Python, Run, Value),
) {
    let mut found = 0;
    for python in supported().filter(|python| is_meant(python)) {
        let Some(libpython) = &python.libpython else { continue };
        found += 1;
        let name = format!("embed-{found}");
        let mut flags = linker_flags(python, libpython);
        flags.push(libpython.display().to_string());
        let program = compile(folder, &name, EMBEDDING, &flags);
        let stats = folder.join(format!("{name}.json"));
        let mut command = command(program);
        command.env("LD_PRELOAD", library()).env("PYTHONHOME", home(python));
        command.env(variable, value);
        let run = run(command.env("OBMALLOC_STATS", &stats).args([rounds, code]));
        let json = std::fs::read(stats).unwrap_or_else(|_| panic!("{python:?}: {run:?}"));
        judge(python, run, serde_json::from_slice(&json).unwrap());
    }
    assert!(found > 0, "no Python with a shared library");
}

/// Static types of the modules `json` and `datetime` keep blocks of the first round. CPython 3.12.1
/// crashes in this test even without the library.
#[test]
fn blocks_stay_valid_in_a_second_initialisation_and_the_heap_serves_it_too() {
    let folder = TempDir::new().unwrap();
    let code = "import json, datetime, ctypes\n\
                assert json.loads(json.dumps([datetime.MAXYEAR] * 1000))[999] == 9999";
    embed(folder.path(), "4", code, |python, run, stats| {
        assert_eq!(run.is_clean(python).stdout, "round 1\nround 2\nround 3\nround 4\n");
        assert_eq!(stats["in_force"], true, "{python:?}");
        assert_eq!(stats["reinitialised"], python.version.1 >= 12, "{python:?}");
    });
}

#[test]
fn an_embedding_program_is_served_from_its_first_block_on() {
    let folder = TempDir::new().unwrap();
    embed(folder.path(), "1", "pass", |python, run, stats| {
        assert_eq!(run.is_clean(python).stdout, "round 1\n");
        assert_eq!((&stats["in_force"], &stats["reinitialised"]), (&true.into(), &false.into()));
        assert!(stats["served"]["share"].as_f64() > Some(0.95), "{stats}");
    });
}
