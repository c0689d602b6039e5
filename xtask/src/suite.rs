//! To be filled.

/// None yet.
#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: Args) -> anyhow::Result<()> {
    anyhow::bail!("not here yet")
}
pub(crate) fn run_part() -> anyhow::Result<crate::tally::Tally> {
    anyhow::bail!("not here yet")
}
