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
    elf::{EM_X86_64, FileHeader64},
    read::{
        ReadCache,
        elf::{FileHeader, ProgramHeader},
    },
};

use status::folder::user;

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

/// Returns the privilege that this user gains by starting the program, such as `set-user-ID`.
///
/// The system removes `LD_PRELOAD` when it starts a program that gives the user privileges.
pub(crate) fn privilege(path: &Path) -> Option<&'static str> {
    const SET_USER: u32 = 0o4000;
    const SET_GROUP: u32 = 0o2000;
    let found = path.metadata().ok()?;
    if found.mode() & SET_USER != 0 && found.uid() != user() {
        return Some("set-user-ID");
    }
    let of_group = found.mode() & SET_GROUP != 0 && found.mode() & 0o010 != 0;
    (of_group && found.gid() != crate::system::group()).then_some("set-group-ID")
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
