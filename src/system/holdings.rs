//! What belongs to a uid on this host: directories of instances, and processes.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::model::UserName;

/// Every user who has directories below `instances`, with the uids that own them. The names were
/// made by the daemon, and the directories given away by it: nobody else can.
#[must_use]
pub fn of_instances(instances: &Path) -> Vec<(String, u32)> {
    let mut found = Vec::new();
    for user in fs::read_dir(instances).into_iter().flatten().flatten() {
        let Ok(name) = user.file_name().into_string() else { continue };
        found.extend(owners(&user.path()).map(|uid| (name.clone(), uid)));
    }
    found.sort();
    found.dedup();
    found
}

/// Whether something of a user's is there under a uid: a directory below the daemon's state, or a process.
pub fn is_used(state: &Path) -> impl Fn(&UserName, u32) -> bool + use<> {
    let instances = state.join("instances");
    move |user, uid| are_left(&instances.join(user.as_str()), uid)
}

/// True if a directory in `dir`, one user's, belongs to `uid`, or a process does.
#[must_use]
pub fn are_left(dir: &Path, uid: u32) -> bool {
    owners(dir).any(|owner| owner == uid) || has_process(uid)
}

fn owners(dir: &Path) -> impl Iterator<Item = u32> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    // Of the entry itself: it may be a link.
    entries.filter_map(|entry| entry.metadata().ok().map(|meta| meta.uid()))
}

fn has_process(uid: u32) -> bool {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.into_iter().any(|process| {
        let Ok(status) = fs::read_to_string(process.path().join("status")) else { return false };
        let uids = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
        uids.split_whitespace().any(|one| one.parse() == Ok(uid))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::account::own_uid;

    #[test]
    fn directories_and_processes_of_a_uid_are_found() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("alice/notes")).unwrap();
        fs::create_dir_all(dir.path().join("bob")).unwrap();
        assert_eq!(of_instances(dir.path()), [("alice".to_owned(), own_uid())]);
        assert!(are_left(&dir.path().join("alice"), own_uid()));
        assert!(are_left(&dir.path().join("bob"), own_uid()), "this process");
        assert!(!are_left(&dir.path().join("alice"), 2_000_000_011));
    }
}
