//! Opens status pages and reads their contents.

#![forbid(unsafe_code)]

use std::{io::ErrorKind, time::Duration};

use serde_json::Value;
use status::{StatusFile, folder};

use crate::{
    failure::{Failure, NO, Result},
    system,
};

/// Opens the page of the process `pid`.
///
/// # Errors
///
/// Fails if the process has no status page that this user may read.
pub(super) fn page(pid: u32) -> Result<StatusFile> {
    system::status_page(pid).map_err(|error| {
        Failure::new(format!("cannot find the status page of process {pid}"))
            .because(match error.kind() {
                ErrorKind::NotFound => format!("no page of it is in {}", places()),
                _ => error.to_string(),
            })
            .remedy("start it with `obmalloc run`, and ask with its user and XDG_RUNTIME_DIR")
            .code(NO)
    })
}

/// Returns the folders in which pages are looked for, as text.
pub(super) fn places() -> String {
    let folders = folder::candidates();
    let folders: Vec<_> = folders.iter().map(|folder| folder.display().to_string()).collect();
    folders.join(" or ")
}

/// Returns the time since the figures of `page` were published.
pub(super) fn age(page: &StatusFile) -> Option<Duration> {
    Some(page.published()?.elapsed().unwrap_or_default())
}

/// Returns the figures that a process has published, or `None` if there are none yet.
pub(super) fn figures(page: &StatusFile) -> Option<Value> {
    serde_json::from_slice(&page.text().read()?).ok()
}

/// Returns a number of bytes with a binary unit.
pub(super) fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut units = ["B", "KiB", "MiB", "GiB"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    for next in units {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, next);
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_has_the_largest_unit_that_fits() {
        assert_eq!([0, 1023, 1024, 1 << 20].map(size), ["0 B", "1023 B", "1.0 KiB", "1.0 MiB"]);
        assert_eq!(size(5 << 40), "5120.0 GiB");
    }
}
