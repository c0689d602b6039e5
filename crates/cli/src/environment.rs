//! Prints the setting that replaces `obmalloc run` where it cannot be used, and library paths.

#![forbid(unsafe_code)]

use std::path::Path;

use crate::{
    failure::{Failure, Result},
    libraries::Libraries,
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
    print!(
        "{}",
        if args.docker {
            format!(
                "# Better, because the variable also reaches programs that cannot load the library:\n\
             #   ENTRYPOINT [\"obmalloc\", \"run\", \"--\"]\n\
             ENV LD_PRELOAD={}\n",
                lasting(&list)?
            )
        } else if args.systemd {
            format!(
                "# Better, because it says why the heap is not in force:\n\
             #   ExecStart=/path/of/obmalloc run -- COMMAND\n\
             Environment=LD_PRELOAD={}\n",
                lasting(&list)?
            )
        } else {
            let value = preload::value(&list, None)?;
            format!(
                "export LD_PRELOAD='{}'\"${{LD_PRELOAD:+:$LD_PRELOAD}}\"\n",
                value.to_string_lossy().replace('\'', "'\\''")
            )
        }
    );
    Ok(())
}

/// Returns the value of `LD_PRELOAD` for a permanent file.
///
/// The value must not contain a path in our private folder, because that folder may exist only
/// during this session.
fn lasting(libraries: &[&Path]) -> Result<String> {
    for library in libraries {
        if !preload::is_listable(library) {
            return Err(Failure::new(format!("cannot list {} in LD_PRELOAD", library.display()))
                .because("the loader splits its value at spaces and colons, and expands $")
                .remedy("install obmalloc in a folder without these characters"));
        }
    }
    Ok(preload::value(libraries, None)?.to_string_lossy().into_owned())
}

/// Prints the path of a library.
///
/// # Errors
///
/// Fails if the library is missing.
pub fn path(args: &PathArgs) -> Result<()> {
    let libraries = Libraries::find()?;
    println!("{}", if args.malloc { libraries.malloc()? } else { libraries.cpython() }.display());
    Ok(())
}
