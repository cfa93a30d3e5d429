//! What a run is kept from, laid around the launcher's copy just before it becomes the server.
//!
//! Everything the [`Cage`](crate::model::cage::Cage) names is done, or the launch fails and says what: nothing is skipped.
//! What can be done here at all is found out by doing it ([`trial`]), long before. In order:
//!
//! 1. [`mounts`]: what is not to be seen is covered, the rest made read-only
//! 2. [`rights`]: capabilities are given up for good (before the change of account, which would
//!    take the right to)
//! 3. [`files`], by Landlock
//! 4. [`calls`]: the filter of system calls, last, because it stops most of the above
//!
//! Writing is closed twice: a server that got around the mounts finds Landlock, and the other way
//! round. Reading is closed by the mounts, or, where there can be none, by Landlock: a rule for each
//! entry beside what is hidden costs more, and closes what is put there anew.

mod attributes;
pub(super) mod calls;
mod files;
pub(super) mod mounts;
pub(super) mod rights;
pub(super) mod trial;

use std::io;
use std::path::{Path, PathBuf};

use crate::system::orders::{Failure, Orders};

use super::cannot;
use calls::Filters;

/// What the configuration lets it write to must be there: the daemon makes nothing in a home.
pub(super) fn look(orders: &Orders) -> Result<(), Failure> {
    let missing = asked(orders).find(|path| !path.exists());
    let Some(path) = missing else { return Ok(()) };
    let text = format!(
        "cannot let it write to {}, which [server.NAME.allow] write names: it is not there; make it",
        path.display()
    );
    Err(Failure { doing: text, errno: None })
}

/// The last steps, as the one whom the run will be.
pub(super) fn close(orders: &Orders, filters: &Filters, streams: &[&std::fs::File]) -> Result<(), Failure> {
    let cage = &orders.cage;
    rights::give_up_all().map_err(cannot("give up capabilities"))?;
    if cage.landlock > 0 {
        files::restrict(&files::Reach::of(orders, streams))
            .map_err(io::Error::other)
            .map_err(|error| because("restrict it with Landlock", &error))?;
    }
    if let Some(which) = &cage.calls {
        filters.apply(*which).map_err(|error| because("filter its system calls", &error))?;
    }
    Ok(())
}

/// A failure whose cause has no number.
fn because(doing: &str, error: &dyn std::error::Error) -> Failure {
    let mut text = format!("cannot {doing}: {error}");
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.ends_with(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    Failure { doing: text, errno: None }
}

/// Everything the run may write to besides its own, with `~` filled in. What may be missing and is,
/// is left out.
fn writable(orders: &Orders) -> Vec<PathBuf> {
    let there = |path: &PathBuf| path.is_dir();
    let caches = orders.cage.write_if_there.iter().map(|path| at_home(path, home(orders)));
    asked(orders).chain(caches.filter(there)).collect()
}

fn asked(orders: &Orders) -> impl Iterator<Item = PathBuf> {
    let places = orders.cage.write.iter().map(|path| at_home(path, home(orders)));
    // Who has no account has their home in what is theirs.
    places.filter(|path| !path.starts_with(&orders.state_dir))
}

fn home(orders: &Orders) -> &Path {
    let account = orders.account.as_ref().filter(|account| account.has_home());
    account.map_or(&orders.state_dir, |account| &account.home)
}

fn at_home(path: &Path, home: &Path) -> PathBuf {
    path.strip_prefix("~").map_or_else(|_| path.to_path_buf(), |rest| home.join(rest))
}
