//! A small program with the functions of CPython that the library uses.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::support::{Run, command, compile, library, run};

/// A program that claims to be CPython `$VERSION`. It makes `$REQUESTS` additional requests of
/// `$SIZE` bytes. Its exit code is the number of domains whose allocator was replaced.
const SOURCE: &str = r#"
    #include <stdio.h>
    #include <stdlib.h>
    #include <string.h>

    typedef struct {
    #ifndef CONTEXT_LAST
        void *ctx;
    #endif
        void *(*malloc)(void *, size_t);
    #ifdef SWAPPED
        void *(*realloc)(void *, void *, size_t);
        void *(*calloc)(void *, size_t, size_t);
    #else
        void *(*calloc)(void *, size_t, size_t);
        void *(*realloc)(void *, void *, size_t);
    #endif
        void (*free)(void *, void *);
    #ifdef CONTEXT_LAST
        void *ctx;
    #endif
    #ifdef LARGER
        size_t (*size)(void *, void *);
    #endif
    } Vtable;

    static void *own_malloc(void *ctx, size_t n) { return malloc(n ? n : 1); }
    static void *own_calloc(void *ctx, size_t n, size_t m) {
    #ifdef DIRTY
        return n && m ? memset(malloc(n * m), 1, n * m) : malloc(1);
    #else
        return n && m ? calloc(n, m) : calloc(1, 1);
    #endif
    }
    static void *own_realloc(void *ctx, void *p, size_t n) { return realloc(p, n ? n : 1); }
    static void own_free(void *ctx, void *p) { free(p); }
    static size_t own_size(void *ctx, void *p) { return 0; }

    #ifdef LARGER
    #define OWN { .malloc = own_malloc, .calloc = own_calloc, .realloc = own_realloc, \
                  .free = own_free, .size = own_size }
    #else
    #define OWN { .malloc = own_malloc, .calloc = own_calloc, .realloc = own_realloc, \
                  .free = own_free }
    #endif
    static Vtable tables[3] = { OWN, OWN, OWN };

    void PyMem_SetAllocator(unsigned domain, const Vtable *vtable) {
    #ifndef DEAF
        tables[domain] = *vtable;
    #endif
    #ifdef ALL_AT_ONCE
        tables[1] = tables[2] = *vtable;
    #endif
    }
    void PyMem_GetAllocator(unsigned domain, Vtable *vtable) {
        *vtable = tables[domain];
        if (getenv("CONTEXT")) vtable->ctx = getenv("CONTEXT");
    }

    #ifdef NO_MULTIPLICATION
    #define CALLOC(table, n, m) (table).calloc((table).ctx, 1, (n) * (m))
    #else
    #define CALLOC(table, n, m) (table).calloc((table).ctx, n, m)
    #endif
    #define FUNCTIONS(prefix, table) \
        void *prefix##Malloc(size_t n) { return (table).malloc((table).ctx, n); } \
        void *prefix##Calloc(size_t n, size_t m) { return CALLOC(table, n, m); } \
        void *prefix##Realloc(void *p, size_t n) { return (table).realloc((table).ctx, p, n); } \
        void prefix##Free(void *p) { (table).free((table).ctx, p); }
    FUNCTIONS(PyMem_Raw, tables[0])
    #ifdef EXCHANGED
    FUNCTIONS(PyMem_, tables[2])
    FUNCTIONS(PyObject_, tables[1])
    #else
    FUNCTIONS(PyMem_, tables[1])
    FUNCTIONS(PyObject_, tables[2])
    #endif

    #ifdef FREE_THREADED
    void _Py_MergeZeroLocalRefcount(void *o) {}
    void _Py_DecRefShared(void *o) {}
    #endif
    const char *Py_GetVersion(void) { return getenv("VERSION"); }
    int Py_IsInitialized(void) { return 0; }
    int PyGILState_Check(void) { return 1; }
    int PyGILState_Ensure(void) { return 0; }
    void PyGILState_Release(int state) {}
    int Py_AddPendingCall(int (*function)(void *), void *argument) { return -1; }
    static void *imp(void) { return 0; }
    #ifdef WIDE_MODULES
    struct { const char *name; long flags; void *(*init)(void); }
    #else
    struct { const char *name; void *(*init)(void); }
    #endif
    table[3] = {
        { .name = "sys" },
    #ifndef NO_FIRST_MODULE
        { .name = "_imp", .init = imp },
    #endif
    };
    void *PyImport_Inittab = table;

    /* Seven requests of at most 512 bytes and two larger ones. */
    static void request(void) {
        PyMem_RawFree(PyMem_RawMalloc(7));
        PyMem_Free(PyMem_Calloc(3, 8));
        PyMem_Free(PyMem_Realloc(PyMem_Malloc(100), 200));
        for (int i = 0; i < 3; i++) PyObject_Free(PyObject_Malloc(40));
        PyObject_Free(PyObject_Malloc(1000));
        PyMem_RawFree(PyMem_RawMalloc(2000));
    }
    int main(void) {
        int replaced = 0;
        for (int i = 0; i < 3; i++) replaced += tables[i].malloc != own_malloc;
        request();
        if (getenv("REQUESTS"))
            for (long n = atol(getenv("REQUESTS")), size = atol(getenv("SIZE")); n > 0; n--)
                PyObject_Free(PyObject_Malloc(size));
        return replaced;
    }
"#;

pub(crate) struct Fake {
    _folder: TempDir,
    program: PathBuf,
}

impl Fake {
    /// Compiles the program. Macros in `flags` make the program differ from the known CPythons.
    pub(crate) fn new(flags: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        let program = compile(folder.path(), "fake", SOURCE, &[&["-rdynamic"], flags].concat());
        Self { _folder: folder, program }
    }

    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    pub(crate) fn command(&self, version: &str) -> Command {
        let mut command = command(&self.program);
        command.env("LD_PRELOAD", library()).env("VERSION", version);
        command
    }

    pub(crate) fn run(&self, version: &str) -> Run {
        run(&mut self.command(version))
    }
}

impl Run {
    /// Asserts that no allocator was replaced, and that one line gives the reason.
    pub(crate) fn is_refused_for(&self, reason: &str) {
        assert_eq!(self.status.code(), Some(0), "{self:?}");
        let lines: Vec<_> = self.stderr.lines().collect();
        assert!(lines.len() == 1 && lines[0].contains(reason), "no {reason:?} in {self:?}");
    }

    /// Asserts that `OBMALLOC=strict` ended the program before `main` and that one line gives the
    /// reason.
    pub(crate) fn is_ended_for(&self, reason: &str) {
        assert_eq!((self.status.code(), &*self.stdout), (Some(125), ""), "{self:?}");
        let lines: Vec<_> = self.stderr.lines().collect();
        let is_told = lines.len() == 1 && lines[0].starts_with("obmalloc: OBMALLOC=strict ends");
        assert!(is_told && lines[0].contains(reason), "no {reason:?} in {self:?}");
    }
}
