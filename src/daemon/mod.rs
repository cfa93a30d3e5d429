//! (STUB: another hand writes this file.)

use crate::system::places::Places;

/// (STUB)
///
/// # Errors
///
/// (STUB)
pub fn run(_places: &Places) -> anyhow::Result<()> {
    anyhow::bail!("cannot start: this build has no daemon yet")
}
