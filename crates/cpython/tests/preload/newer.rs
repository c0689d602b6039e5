//! A CPython that is newer than the versions with which the library was tested.

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

/// Prints the version, and then performs a variety of work.
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
        // A shared library can exist even if the interpreter itself is linked statically.
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
            // The loader will not load a second library of the same name.
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

/// Replaces `old` wherever it is the end of a C string, and returns the number of replacements.
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
fn strict_ends_a_newer_version_and_quiet_accepts_it_in_silence() {
    for python in supported() {
        let newer = Renumbered::new(python);
        let strict = run(newer.command(&[]).env("OBMALLOC", "strict"));
        strict.is_ended_for("is newer than 3.15");

        let mut quiet = newer.command(&[]);
        run(quiet.env("OBMALLOC", "quiet")).is_clean(python);
        assert_eq!(stats_of(&mut quiet, newer.folder.path())["in_force"], json!(true));
        run(plain(python).env("LD_PRELOAD", library()).env("OBMALLOC", "strict").args(["-c", ""]))
            .is_clean(python);
    }
}

/// A library that makes a real CPython appear to have vtables of six words. The third word is new.
///
/// If CPython itself calls one of the replaced functions, it gets its real layout. If CPython is
/// linked statically, `GET` and `SET` are the distances of its own functions from its start.
const LARGER_VTABLES: &str = r#"
    #define _GNU_SOURCE
    #include <dlfcn.h>
    #include <link.h>
    #include <string.h>
    typedef struct { void *words[6]; } Vtable;
    typedef void (*Function)(unsigned, Vtable *);
    static void *nothing;
    static int is_ours(void *caller) {
        Dl_info info;
        return dladdr(caller, &info) && strstr(info.dli_fname, "obmalloc_cpython");
    }
    #ifdef GET
    static int begin(struct dl_phdr_info *info, size_t size, void *found) {
        int i = 0;
        while (info->dlpi_phdr[i].p_type != PT_LOAD) i++;
        *(char **)found = (char *)info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
        return 1;  /* The program itself comes first. */
    }
    static Function own(unsigned long distance) {
        char *program;
        dl_iterate_phdr(begin, &program);
        return (Function)(program + distance);
    }
    #define OWN(name, distance) own(distance)
    #else
    #define OWN(name, distance) ((Function)dlsym(RTLD_NEXT, name))
    #endif
    void PyMem_GetAllocator(unsigned domain, Vtable *vtable) {
        Function get = OWN("PyMem_GetAllocator", GET);
        if (!is_ours(__builtin_return_address(0))) { get(domain, vtable); return; }
        Vtable known;
        get(domain, &known);
        for (int i = 0; i < 6; i++) vtable->words[i] = known.words[i - (i > 2)];
        vtable->words[2] = &nothing;
    }
    void PyMem_SetAllocator(unsigned domain, Vtable *vtable) {
        Function set = OWN("PyMem_SetAllocator", SET);
        if (!is_ours(__builtin_return_address(0))) { set(domain, vtable); return; }
        Vtable known;
        for (int i = 0; i < 6; i++) if (i != 2) known.words[i - (i > 2)] = vtable->words[i];
        set(domain, &known);
    }
"#;

/// Prints the distances of the two functions from the start of the program.
const DISTANCES: &str = "
import ctypes, sys
with open('/proc/self/maps') as maps:
    [begin, *_] = [line for line in maps if line.rstrip().endswith(sys.argv[1])]
for name in ('PyMem_GetAllocator', 'PyMem_SetAllocator'):
    function = ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p)
    print(function.value - int(begin.split('-')[0], 16))
";

impl Renumbered {
    /// Compiles a library that gives this CPython larger vtables.
    fn larger_vtables(&self) -> PathBuf {
        let mut flags = vec!["-shared".to_owned(), "-ldl".to_owned()];
        if self.is_static {
            let mut ask = crate::support::command(&self.changed);
            ask.env("PYTHONHOME", home(self.python)).args(["-c", DISTANCES]).arg(&self.changed);
            let printed = run(&mut ask).is_clean(self.python).stdout.clone();
            let distances = ["GET", "SET"].into_iter().zip(printed.lines());
            flags.extend(distances.map(|(name, distance)| format!("-D{name}={distance}ul")));
            self.hide_functions();
        } else {
            flags.extend(linker_flags(self.python, &self.changed));
        }
        compile(self.folder.path(), "larger.so", LARGER_VTABLES, &flags)
    }

    /// Renames the two functions of a statically linked program, so that the loader finds the
    /// functions of a library instead.
    ///
    /// The program calls its own functions directly, so the new names do not affect it.
    fn hide_functions(&self) {
        let mut bytes = fs::read(&self.changed).unwrap();
        for name in ["\0PyMem_GetAllocator", "\0PyMem_SetAllocator"] {
            let hidden = name.replace("Py", "Xy");
            let replaced = replace(&mut bytes, name.as_bytes(), hidden.as_bytes());
            assert!(replaced > 0, "{name} in {}", self.changed.display());
        }
        fs::write(&self.changed, bytes).unwrap();
    }
}

#[test]
fn a_real_cpython_with_another_layout_of_vtables_is_refused() {
    for newer in supported().map(Renumbered::new) {
        let python = newer.python;
        let larger = newer.larger_vtables();
        let ours = run(&mut newer.command(&[&larger]));
        let line = ours.stderr.as_str();
        assert!(ours.status.success() && ours.stdout.starts_with("3.16\n"), "{ours:?}");
        let reason = "fails the self-check: its vtables have another layout (6 words in the raw";
        assert!(line.contains(reason) && line.lines().count() == 1, "{python:?}: {ours:?}");

        let stats = stats_of(&mut newer.command(&[&larger]), newer.folder.path());
        assert_eq!((&stats["in_force"], &stats["domains"]), (&json!(false), &json!({})));
    }
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
