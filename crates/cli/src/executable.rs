//! Determines the kind of a program, and whether the loader can preload our library into it.

#![forbid(unsafe_code)]

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read},
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

use object::{
    elf::{DT_NEEDED, EM_X86_64, ET_DYN, FileHeader64, PT_LOAD, SHT_DYNSYM},
    read::{
        ReadCache, ReadRef,
        elf::{FileHeader, ProgramHeader, Sym},
    },
};

use status::folder::user;

use crate::system;

/// The machine for which this program, and thus the libraries beside it, were built.
const MACHINE: u16 =
    if cfg!(target_arch = "aarch64") { object::elf::EM_AARCH64.0 } else { EM_X86_64.0 };

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A program that glibc's loader starts.
    Glibc,
    /// A program that musl's loader starts, at this path.
    Musl(PathBuf),
    /// A program without a loader.
    Static,
    /// A program for another machine or another word size.
    OtherMachine,
    /// A script, with its interpreter and the argument of the interpreter.
    Script(PathBuf, Option<OsString>),
    /// A text without `#!`, which a shell can run, or an unknown format.
    Unknown,
}

impl Kind {
    /// Reads the kind of the file at `path`.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read, for example because this user may only execute it.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let mut start = [0; 256];
        let mut length = 0;
        while length < start.len() {
            match file.read(&mut start[length..])? {
                0 => break,
                bytes => length += bytes,
            }
        }
        Ok(match &start[..length] {
            [b'#', b'!', line @ ..] => script(line),
            [0x7f, b'E', b'L', b'F', ..] => elf(file),
            _ => Self::Unknown,
        })
    }
}

fn script(start: &[u8]) -> Kind {
    let line = start.split(|byte| *byte == b'\n').next().unwrap_or_default().trim_ascii();
    let end = line.iter().position(u8::is_ascii_whitespace).unwrap_or(line.len());
    let (interpreter, argument) = (&line[..end], line[end..].trim_ascii());
    if interpreter.is_empty() {
        return Kind::Unknown;
    }
    let argument = (!argument.is_empty()).then(|| OsStr::from_bytes(argument).to_owned());
    Kind::Script(PathBuf::from(OsStr::from_bytes(interpreter)), argument)
}

fn elf(file: File) -> Kind {
    let data = ReadCache::new(file);
    let Ok(header) = FileHeader64::<object::Endianness>::parse(&data) else {
        return Kind::OtherMachine;
    };
    let Ok(endian) = header.endian() else { return Kind::OtherMachine };
    if header.e_machine(endian).0 != MACHINE {
        return Kind::OtherMachine;
    }
    let headers = header.program_headers(endian, &data).unwrap_or_default();
    let loader = headers.iter().find_map(|header| header.interpreter(endian, &data).ok()?);
    match loader.map(|path| PathBuf::from(OsStr::from_bytes(path))) {
        None => Kind::Static,
        Some(path) if is_musl(&path) => Kind::Musl(path),
        Some(_) => Kind::Glibc,
    }
}

fn is_musl(loader: &Path) -> bool {
    loader.file_name().is_some_and(|name| name.as_bytes().starts_with(b"ld-musl"))
}

/// Fails if glibc's loader could not load the file at `path` as a library of this machine.
///
/// The loader would then start every program without the library.
pub(crate) fn require_library(path: &Path) -> io::Result<()> {
    let wrong = |reason| io::Error::new(io::ErrorKind::InvalidData, reason);
    let data = ReadCache::new(File::open(path)?);
    let header = FileHeader64::<object::Endianness>::parse(&data)
        .map_err(|_| wrong("it is no 64-bit ELF file"))?;
    let endian = header.endian().map_err(|_| wrong("it is no 64-bit ELF file"))?;
    if header.e_machine(endian).0 != MACHINE {
        return Err(wrong("it is built for another machine"));
    }
    if header.e_type(endian) != ET_DYN {
        return Err(wrong("it is no shared library"));
    }
    let headers = header.program_headers(endian, &data).unwrap_or_default();
    let parts = headers.iter().filter(|header| header.p_type(endian) == PT_LOAD);
    let end = parts.map(|part| part.p_offset(endian).saturating_add(part.p_filesz(endian))).max();
    match end.is_some_and(|end| end <= (&data).len().unwrap_or_default()) {
        true => Ok(()),
        false => Err(wrong("its end is missing")),
    }
}

/// Returns true if the program at `path` is Python 2.
///
/// We decide by the name of the file after all symbolic links have been resolved. A file with a
/// name such as `python2` or `python2.7` is Python 2. A file called `python` is Python 2 only if it
/// needs a shared library whose name begins with `libpython2`.
pub(crate) fn is_python_2(path: &Path) -> bool {
    let path = path.canonicalize().unwrap_or(path.to_owned());
    match path.file_name().map(OsStrExt::as_bytes) {
        Some(b"python") => {
            let libraries = needed(&path).unwrap_or_default();
            libraries.iter().any(|library| library.starts_with(b"libpython2"))
        }
        Some(name) => names_python_2(name),
        None => false,
    }
}

/// Returns true for the names `python2` and, for example, `python2.7`.
fn names_python_2(name: &[u8]) -> bool {
    let rest = name.strip_prefix(b"python2");
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"."))
}

/// Returns the names of the libraries that the program at `path` needs.
fn needed(path: &Path) -> Option<Vec<Vec<u8>>> {
    let data = ReadCache::new(File::open(path).ok()?);
    let header = FileHeader64::<object::Endianness>::parse(&data).ok()?;
    let endian = header.endian().ok()?;
    let table = header.sections(endian, &data).ok()?.dynamic_table(endian, &data).ok()?;
    let names = table.iter().filter(|entry| entry.tag == DT_NEEDED);
    names.map(|entry| Some(table.string(entry).ok()?.to_owned())).collect()
}

/// Returns true if the Python 2 at `path` exports `Py_GetVersion`, or needs a libpython that does.
pub(crate) fn exports_version(path: &Path) -> bool {
    let libraries = needed(path).unwrap_or_default();
    libraries.iter().any(|library| library.starts_with(b"libpython2"))
        || exports(path, b"Py_GetVersion").unwrap_or(false)
}

fn exports(path: &Path, symbol: &[u8]) -> Option<bool> {
    let data = ReadCache::new(File::open(path).ok()?);
    let header = FileHeader64::<object::Endianness>::parse(&data).ok()?;
    let endian = header.endian().ok()?;
    let table = header.sections(endian, &data).ok()?.symbols(endian, &data, SHT_DYNSYM).ok()?;
    let mut defined = table.iter().filter(|entry| !entry.is_undefined(endian));
    Some(defined.any(|entry| table.symbol_name(endian, entry).ok() == Some(symbol)))
}

/// The privilege of a program that has file capabilities.
pub(crate) const CAPABLE: &str = "file-capability";

/// Returns the privilege that this user gains by starting the program, such as `set-user-ID`.
///
/// The system removes `LD_PRELOAD` when it starts a program that gives the user privileges.
pub(crate) fn privilege(path: &Path) -> Option<&'static str> {
    const SET_USER: u32 = 0o4000;
    const SET_GROUP: u32 = 0o2000;
    let found = path.metadata().ok()?;
    if system::ignores_privileges(path) {
        return None;
    }
    if found.mode() & SET_USER != 0 && found.uid() != user() {
        return Some("set-user-ID");
    }
    let of_group = found.mode() & SET_GROUP != 0 && found.mode() & 0o010 != 0;
    if of_group && found.gid() != system::group() {
        return Some("set-group-ID");
    }
    // Root has all capabilities, so the system keeps root's variables.
    (user() != 0 && system::has_attribute(path, c"security.capability")).then_some(CAPABLE)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt, process::Command};

    use super::*;

    fn compiled(folder: &Path, flags: &[&str]) -> PathBuf {
        let (source, program) = (folder.join("p.c"), folder.join("p"));
        fs::write(&source, "int main(void) { return 0; }").unwrap();
        let status = Command::new("cc").arg(&source).arg("-o").arg(&program).args(flags).status();
        assert!(status.unwrap().success());
        program
    }

    #[test]
    fn programs_are_told_apart_by_their_loader() {
        let folder = tempfile::tempdir().unwrap();
        let kind = |flags: &[&str]| Kind::of(&compiled(folder.path(), flags)).unwrap();
        assert_eq!(kind(&[]), Kind::Glibc);
        assert_eq!(kind(&["-static"]), Kind::Static);
        let musl = "/lib/ld-musl-x86_64.so.1";
        assert_eq!(kind(&[&format!("-Wl,--dynamic-linker={musl}")]), Kind::Musl(musl.into()));
    }

    #[test]
    fn a_program_of_another_machine_is_recognised() {
        let folder = tempfile::tempdir().unwrap();
        let program = compiled(folder.path(), &[]);
        let mut bytes = fs::read(&program).unwrap();
        bytes[18] = 0xf3;
        fs::write(&program, &bytes).unwrap();
        assert_eq!(Kind::of(&program).unwrap(), Kind::OtherMachine);
        bytes[4] = 1;
        fs::write(&program, &bytes).unwrap();
        assert_eq!(Kind::of(&program).unwrap(), Kind::OtherMachine);
    }

    #[test]
    fn the_first_line_of_a_script_names_its_interpreter() {
        let kind = |line: &[u8]| script(line);
        let env = kind(b" /usr/bin/env  -S python3 -O \nimport x");
        assert_eq!(env, Kind::Script("/usr/bin/env".into(), Some("-S python3 -O".into())));
        assert_eq!(kind(b"/bin/sh"), Kind::Script("/bin/sh".into(), None));
        assert_eq!(kind(b"\nx"), Kind::Unknown);
    }

    #[test]
    fn only_a_complete_library_of_this_machine_can_be_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let library = compiled(folder.path(), &["-shared", "-fPIC"]);
        assert!(require_library(&library).is_ok());
        let whole = fs::read(&library).unwrap();
        let mut of_other_machine = whole.clone();
        of_other_machine[18] = 0xf3;
        let mut of_32_bits = whole.clone();
        of_32_bits[4] = 1;
        for (bytes, reason) in [
            (&b""[..], "no 64-bit ELF file"),
            (b"not a library, but longer than the header of a 64-bit ELF file", "no 64-bit ELF"),
            (&of_32_bits, "no 64-bit ELF file"),
            (&of_other_machine, "another machine"),
            (&whole[..whole.len() / 4], "its end is missing"),
        ] {
            fs::write(&library, bytes).unwrap();
            assert!(require_library(&library).unwrap_err().to_string().contains(reason));
        }
        let program = compiled(folder.path(), &["-no-pie"]);
        let error = require_library(&program).unwrap_err().to_string();
        assert!(error.contains("no shared library"), "{error}");
    }

    #[test]
    fn a_python_2_is_recognised_by_its_name_and_its_library() {
        for (name, expected) in
            [("python2", true), ("python2.7", true), ("python3.2", false), ("python27", false)]
        {
            assert_eq!(names_python_2(name.as_bytes()), expected, "{name}");
        }
        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join("libpython2.7.so.1.0");
        let name = "-Wl,-soname=libpython2.7.so.1.0";
        fs::rename(compiled(folder.path(), &["-shared", "-fPIC", name]), &library).unwrap();
        let linked = ["-Wl,--no-as-needed", library.to_str().unwrap()];
        let debugger = compiled(folder.path(), &linked);
        assert!(!is_python_2(&debugger), "another program may contain a Python 2");
        let python = folder.path().join("python");
        fs::rename(&debugger, &python).unwrap();
        assert!(is_python_2(&python));
        fs::remove_file(&python).unwrap();
        let (versioned, link) = (folder.path().join("python2.7"), folder.path().join("python"));
        fs::rename(compiled(folder.path(), &[]), &versioned).unwrap();
        std::os::unix::fs::symlink(&versioned, &link).unwrap();
        assert!(is_python_2(&link));
    }

    #[test]
    fn a_program_of_this_user_has_no_privilege_and_another_users_has() {
        let folder = tempfile::tempdir().unwrap();
        let program = compiled(folder.path(), &[]);
        fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).unwrap();
        assert_eq!(privilege(&program), None);
        if std::os::unix::fs::chown(&program, Some(4321), None).is_ok() {
            fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).unwrap();
            assert_eq!(privilege(&program), Some("set-user-ID"));
        }
    }
}
