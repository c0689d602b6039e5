//! A CPython that is newer than the versions on which the library was tested.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::pythons::Python;

use crate::{
    fake::Fake,
    support::{compile, home, library, linker_flags, plain, run, supported},
};

const NEWER: &str = "3.16.0 (main)";

/// Does a bit of everything, and prints the version first.
const PROGRAM: &str = "
import gc, json, sys, threading
print(sys.version[:4])
words = [str(n) * (n % 40) for n in range(20000)]
table = json.loads(json.dumps({word: [word] for word in words}))
threads = [threading.Thread(target=lambda: sorted(table)) for _ in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(table), sum(map(len, words)), gc.collect() >= 0)
";

/// A copy of a CPython whose only difference is that it claims to be version 3.16.
struct Renumbered {
    folder: TempDir,
    /// The changed file: the executable itself, or its libpython.
    changed: PathBuf,
    is_static: bool,
    python: &'static Python,
}

impl Renumbered {
    fn new(python: &'static Python) -> Self {
        let folder = TempDir::new().unwrap();
        // A machine may have the shared library of an interpreter that is linked statically.
        let code = "print('/libpython' in open('/proc/self/maps').read())";
        let is_static = run(plain(python).args(["-c", code])).stdout == "False\n";
        let file = if is_static { Some(&python.executable) } else { python.libpython.as_ref() };
        let changed = renumber(file.unwrap(), python, folder.path());
        Self { folder, changed, is_static, python }
    }

    /// Returns a command that preloads `libraries` after the library.
    fn command(&self, libraries: &[&Path]) -> Command {
        let mut preload: Vec<&Path> = [&[library()], libraries].concat();
        let mut command = if !self.is_static {
            // The loader does not load another library of the same name.
            preload.push(&self.changed);
            plain(self.python)
        } else {
            let mut command = crate::support::command(&self.changed);
            command.env("PYTHONHOME", home(self.python));
            command
        };
        let preload: Vec<_> = preload.iter().map(|path| path.to_str().unwrap()).collect();
        command.env("LD_PRELOAD", preload.join(":")).args(["-c", PROGRAM]);
        command
    }
}

/// Writes a copy of the program or library `original` to `folder`, with another version.
fn renumber(original: &Path, python: &Python, folder: &Path) -> PathBuf {
    let (major, minor, micro) = python.version;
    let version = format!("{major}.{minor}.{micro}");
    let newer = format!("3.16.{:0>1$}", 0, version.len() - "3.16.".len());
    let mut bytes = fs::read(original).unwrap();
    let replaced = replace(&mut bytes, version.as_bytes(), newer.as_bytes());
    assert!(replaced > 0, "{}: no text {version}", original.display());
    let changed = folder.join(original.file_name().unwrap());
    fs::write(&changed, bytes).unwrap();
    fs::set_permissions(&changed, fs::metadata(original).unwrap().permissions()).unwrap();
    changed
}

/// Replaces `old` wherever it is the end of a C string, and returns how often.
fn replace(bytes: &mut [u8], old: &[u8], new: &[u8]) -> usize {
    assert_eq!(old.len(), new.len());
    let found = bytes.windows(old.len() + 1).enumerate();
    let found = found.filter(|(_, window)| window.strip_suffix(b"\0") == Some(old));
    let places: Vec<_> = found.map(|(at, _)| at).collect();
    for at in &places {
        bytes[*at..*at + new.len()].copy_from_slice(new);
    }
    places.len()
}

fn stats_of(command: &mut Command, folder: &Path) -> Value {
    let path = folder.join("stats.json");
    run(command.env("OBMALLOC_STATS", &path));
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn a_cpython_with_only_a_newer_version_number_runs_after_the_self_check() {
    for python in supported() {
        let newer = Renumbered::new(python);
        let own = run(plain(python).args(["-c", PROGRAM])).is_clean(python).stdout.clone();
        let (_, expected) = own.split_once('\n').unwrap();
        let ours = run(&mut newer.command(&[]));
        assert!(ours.status.success(), "{python:?}: {ours:?}");
        assert_eq!(ours.stdout, format!("3.16\n{expected}"), "{python:?}");
        let line = ours.stderr.as_str();
        let is_warning = line.starts_with("obmalloc: CPython 3.16 is newer than 3.8 to 3.15");
        assert!(is_warning && line.lines().count() == 1, "{python:?}: {ours:?}");

        let stats = stats_of(&mut newer.command(&[]), newer.folder.path());
        assert_eq!(
            (&stats["in_force"], &stats["known_version"], &stats["reason"]),
            (&json!(true), &json!(false), &Value::Null)
        );
        assert!(stats["served"]["share"].as_f64() > Some(0.99), "{python:?}: {stats}");
    }
}

#[test]
fn strict_refuses_a_newer_version_and_quiet_accepts_it_in_silence() {
    for python in supported() {
        let newer = Renumbered::new(python);
        let strict = run(newer.command(&[]).env("OBMALLOC", "strict"));
        let line = strict.stderr.as_str();
        assert!(strict.status.success() && strict.stdout.starts_with("3.16\n"), "{strict:?}");
        assert!(line.starts_with("obmalloc: not installed: OBMALLOC=strict"), "{strict:?}");
        assert_eq!(line.lines().count(), 1, "{strict:?}");

        let mut quiet = newer.command(&[]);
        run(quiet.env("OBMALLOC", "quiet")).is_clean(python);
        assert_eq!(stats_of(&mut quiet, newer.folder.path())["in_force"], json!(true));
        run(plain(python).env("LD_PRELOAD", library()).env("OBMALLOC", "strict").args(["-c", ""]))
            .is_clean(python);
    }
}

/// Makes a real CPython have vtables of six words, the third of which is new.
///
/// CPython also calls these functions itself, as the layout that it really has.
const LARGER_VTABLES: &str = r#"
    #define _GNU_SOURCE
    #include <dlfcn.h>
    #include <string.h>
    typedef struct { void *words[6]; } Vtable;
    typedef void (*Function)(unsigned, Vtable *);
    static void *nothing;
    static int is_ours(void *caller) {
        Dl_info info;
        return dladdr(caller, &info) && strstr(info.dli_fname, "obmalloc_cpython");
    }
    void PyMem_GetAllocator(unsigned domain, Vtable *vtable) {
        Function get = dlsym(RTLD_NEXT, "PyMem_GetAllocator");
        if (!is_ours(__builtin_return_address(0))) { get(domain, vtable); return; }
        Vtable known;
        get(domain, &known);
        for (int i = 0; i < 6; i++) vtable->words[i] = known.words[i - (i > 2)];
        vtable->words[2] = &nothing;
    }
    void PyMem_SetAllocator(unsigned domain, Vtable *vtable) {
        Function set = dlsym(RTLD_NEXT, "PyMem_SetAllocator");
        if (!is_ours(__builtin_return_address(0))) { set(domain, vtable); return; }
        Vtable known;
        for (int i = 0; i < 6; i++) if (i != 2) known.words[i - (i > 2)] = vtable->words[i];
        set(domain, &known);
    }
"#;

#[test]
fn a_real_cpython_with_another_layout_of_vtables_is_refused() {
    let mut tried = 0;
    // In a program that is linked statically, no library can replace the functions.
    for newer in supported().map(Renumbered::new).filter(|newer| !newer.is_static) {
        let python = newer.python;
        let flags = ["-shared".to_owned(), "-ldl".to_owned()];
        let flags = [&flags[..], &linker_flags(python, &newer.changed)].concat();
        let larger = compile(newer.folder.path(), "larger.so", LARGER_VTABLES, &flags);
        let ours = run(&mut newer.command(&[&larger]));
        let line = ours.stderr.as_str();
        assert!(ours.status.success() && ours.stdout.starts_with("3.16\n"), "{ours:?}");
        let reason = "fails the self-check: its vtables have another layout (6 words in the raw";
        assert!(line.contains(reason) && line.lines().count() == 1, "{python:?}: {ours:?}");

        let stats = stats_of(&mut newer.command(&[&larger]), newer.folder.path());
        assert_eq!((&stats["in_force"], &stats["domains"]), (&json!(false), &json!({})));
        tried += 1;
    }
    assert!(tried > 0, "no CPython has a shared libpython");
}

#[test]
fn every_difference_that_the_heap_relies_on_is_noticed() {
    let differences = [
        ("LARGER", "its vtables have another layout (6 words in the raw domain)"),
        ("SWAPPED", "its calloc of the raw domain calls the vtable in another way"),
        ("CONTEXT_LAST", "its vtable of the raw domain lacks a function"),
        ("EXCHANGED", "its malloc of the mem domain calls the vtable in another way"),
        ("NO_MULTIPLICATION", "its calloc of the raw domain calls the vtable in another way"),
        ("DEAF", "setting the allocator of the raw domain has other effects"),
        ("ALL_AT_ONCE", "setting the allocator of the raw domain has other effects"),
        ("NO_FIRST_MODULE", "its table of built-in modules has another layout"),
        ("WIDE_MODULES", "its table of built-in modules has another layout"),
        ("DIRTY", "a trial of calloc in the raw domain failed"),
    ];
    for (difference, reason) in differences {
        let fake = Fake::new(&[&format!("-D{difference}")]);
        fake.run(NEWER).is_refused_for(reason);
    }
    let same = Fake::new(&[]).run(NEWER);
    assert!(same.stderr.contains("passed the self-check"), "{same:?}");
    assert_eq!(same.status.code(), Some(2), "mem and obj must be set: {same:?}");
}
