//! Installs the malloc library: the shared library, its header, and a file for pkg-config.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};

use crate::{header, workspace};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The folder in which lib and include are created.
    #[arg(long, value_name = "FOLDER")]
    prefix: PathBuf,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let library = workspace::build_malloc()?;
    let files = [
        (library, "lib/libobmalloc.so"),
        (header::path(), "include/obmalloc.h"),
        (workspace::root().join("crates/malloc/obmalloc.pc"), "lib/pkgconfig/obmalloc.pc"),
    ];
    for (from, to) in files {
        let to = args.prefix.join(to);
        let folder = to.parent().context("the path has a folder")?;
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        // A program may be using the old library, so it is replaced rather than overwritten.
        let _ = fs::remove_file(&to);
        fs::copy(from, &to).with_context(|| to.display().to_string())?;
        println!("{}", to.display());
    }
    Ok(())
}
