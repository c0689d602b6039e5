//! Prints the setting that replaces `obmalloc run` where it cannot be used, and library paths.

#![forbid(unsafe_code)]

use std::{
    env,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::Path,
};

use crate::{
    failure::{Failure, Result},
    libraries::Libraries,
    output::print,
    preload,
};

/// Prints the setting of LD_PRELOAD for environments where `obmalloc run` cannot be used.
#[derive(Clone, Debug, clap::Args)]
pub struct EnvArgs {
    /// For a shell: eval "$(obmalloc env)". This is the default.
    #[arg(long, group = "syntax")]
    sh: bool,
    /// For a Dockerfile.
    #[arg(long, group = "syntax")]
    docker: bool,
    /// For the section `[Service]` of a unit.
    #[arg(long, group = "syntax")]
    systemd: bool,
    /// Lists the malloc library too.
    #[arg(long)]
    malloc: bool,
}

/// Prints the path of the library for CPython.
#[derive(Clone, Debug, clap::Args)]
pub struct PathArgs {
    /// Prints the path of the malloc library instead.
    #[arg(long)]
    malloc: bool,
}

/// Prints the variable in the syntax that `args` names.
///
/// # Errors
///
/// Fails if a library is missing, or if its path cannot be listed in the variable.
pub fn env(args: &EnvArgs) -> Result<()> {
    let libraries = Libraries::find()?;
    let mut list = vec![libraries.cpython()];
    if args.malloc {
        list.push(libraries.malloc()?);
    }
    if args.docker {
        let lines = "# Better, because the variable also reaches programs that cannot load the \
                     library:\n#   ENTRYPOINT [\"obmalloc\", \"run\", \"--\"]\nENV ";
        return print([lines.as_bytes(), &in_docker(&lasting(&list)?), b"\n"].concat());
    }
    if args.systemd {
        let lines = "# Better, because it says why the heap is not in force:\n\
                     #   ExecStart=/path/of/obmalloc run -- COMMAND\nEnvironment=";
        return print([lines.as_bytes(), &in_systemd(&lasting(&list)?), b"\n"].concat());
    }
    // The printed command sets `LD_PRELOAD` to our libraries. It usually ends with `$LD_PRELOAD`,
    // so that the shell appends the libraries that the variable already lists. However, a
    // sanitizer's runtime must stay before our libraries. If `LD_PRELOAD` lists such a runtime, we
    // therefore print the complete list ourselves.
    let inherited = env::var_os(preload::VARIABLE).filter(|value| preload::lists_sanitizer(value));
    let value = preload::value(&list, inherited.as_deref())?;
    let value = replaced(value.as_bytes(), |byte| if byte == b'\'' { b"'\\''" } else { b"" });
    let rest = if inherited.is_some() { "'\n" } else { "'\"${LD_PRELOAD:+:$LD_PRELOAD}\"\n" };
    print([b"export LD_PRELOAD='", &*value, rest.as_bytes()].concat())
}

/// Returns `text` with each byte replaced for which `by` returns a text that is not empty.
fn replaced(text: &[u8], by: impl Fn(u8) -> &'static [u8]) -> Vec<u8> {
    let mut result = Vec::new();
    for byte in text {
        match by(*byte) {
            b"" => result.push(*byte),
            other => result.extend(other),
        }
    }
    result
}

/// Returns `value` for a text in double quotes.
fn escaped(value: &[u8]) -> Vec<u8> {
    replaced(value, |byte| match byte {
        b'"' => b"\\\"",
        b'\\' => b"\\\\",
        _ => b"",
    })
}

/// Returns true if no program takes a byte of `value` for syntax.
fn is_plain(value: &[u8]) -> bool {
    value.iter().all(|byte| byte.is_ascii_alphanumeric() || b"/._-+:,".contains(byte))
}

/// Returns the setting for the instruction `ENV` of a Dockerfile.
fn in_docker(value: &[u8]) -> Vec<u8> {
    if is_plain(value) {
        return [b"LD_PRELOAD=", value].concat();
    }
    [b"LD_PRELOAD=\"", &*escaped(value), b"\""].concat()
}

/// Returns the setting for the directive `Environment=` of a unit, where `%` begins a specifier.
fn in_systemd(value: &[u8]) -> Vec<u8> {
    let value = replaced(value, |byte| if byte == b'%' { b"%%" } else { b"" });
    if is_plain(&value) {
        return [b"LD_PRELOAD=", &*value].concat();
    }
    [b"\"LD_PRELOAD=", &*escaped(&value), b"\""].concat()
}

/// Returns the value of `LD_PRELOAD` for a permanent file.
///
/// The value must not contain a path in our private folder, because that folder may exist only
/// during this session.
fn lasting(libraries: &[&Path]) -> Result<Vec<u8>> {
    for library in libraries {
        if !preload::is_listable(library) {
            return Err(Failure::new(format!("cannot list {} in LD_PRELOAD", library.display()))
                .because("the loader splits its value at spaces and colons, and expands $")
                .remedy("install obmalloc in a folder without these characters"));
        }
    }
    Ok(preload::value(libraries, None)?.into_vec())
}

/// Prints the path of a library.
///
/// # Errors
///
/// Fails if the library is missing.
pub fn path(args: &PathArgs) -> Result<()> {
    let libraries = Libraries::find()?;
    let path = if args.malloc { libraries.malloc()? } else { libraries.cpython() };
    print([path.as_os_str().as_bytes(), b"\n"].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_special_characters_is_quoted() {
        assert_eq!(in_systemd(b"/a-b/x.so"), b"LD_PRELOAD=/a-b/x.so");
        assert_eq!(in_systemd(b"/it's/100%.so"), b"\"LD_PRELOAD=/it's/100%%.so\"");
        assert_eq!(in_systemd(b"/a\"b\\.so"), b"\"LD_PRELOAD=/a\\\"b\\\\.so\"");
        assert_eq!(in_docker(b"/it's/100%.so"), b"LD_PRELOAD=\"/it's/100%.so\"");
    }

    #[test]
    fn bytes_that_are_no_utf_8_are_unchanged() {
        assert_eq!(in_systemd(b"/\xff.so"), b"\"LD_PRELOAD=/\xff.so\"");
    }
}
