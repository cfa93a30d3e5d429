//! System accounts, as the name service knows them (getpwnam(3), getgrouplist(3)).
//!
//! For the daemon another process asks it ([`apart`]).

pub mod apart;
mod service;

use nix::unistd::Gid;

use crate::model::spec::Account;
use apart::{Question, ask};

/// The user this process acts as.
#[must_use]
pub fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The uid that the kernel shows us in the place of every uid that our user namespace does not know
/// (`user_namespaces(7)`); none where it knows them all. So it is nobody's: whoever has it may be
/// anybody.
#[must_use]
pub fn stand_in() -> Option<u32> {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let number = || std::fs::read_to_string("/proc/sys/kernel/overflowuid").ok()?.trim().parse().ok();
    // A kernel that does not say what it is (there is no such file) uses 65534.
    (!is_whole(&map)).then(|| number().unwrap_or(65_534))
}

/// True if a `uid_map` has every uid mean itself, as in the first user namespace.
fn is_whole(map: &str) -> bool {
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// The account of this name; none if the name service says that there is none.
///
/// # Errors
///
/// When the name service cannot say, in words: whoever waits for LDAP has an account all the same.
/// getpwnam(3) lists `ENOENT`, `ESRCH` and others that some systems give for "not found", but glibc
/// and musl answer 0 and nothing then. There an `ENOENT` is a service's missing socket or library.
pub fn find(name: &str) -> Result<Option<Account>, String> {
    let question = || Question::Find(name.to_owned());
    ask(question).unwrap_or_else(|| Ok(service::find(name))).and_then(|found| found)
}

/// The uid of the account of this name, likewise.
///
/// # Errors
///
/// When the name service cannot say.
pub fn uid_of(name: &str) -> Result<Option<u32>, String> {
    Ok(find(name)?.map(|account| account.uid))
}

/// The name of the account with this uid, if it has one.
#[must_use]
pub fn name_of(uid: u32) -> Option<String> {
    ask(|| Question::NameOf(uid)).unwrap_or_else(|| Ok(service::name_of(uid))).unwrap_or_default()
}

/// What has this number on this host, as a uid or as a gid: `the account carol`.
///
/// # Errors
///
/// When the name service cannot say.
pub fn named(id: u32) -> Result<Option<String>, String> {
    ask(|| Question::Named(id)).unwrap_or_else(|| Ok(service::named(id))).and_then(|found| found)
}

/// True if this group is this process's own and nobody else's: root's, or the one that an ordinary
/// user has to themself, which has their name (user private groups, `USERGROUPS_ENAB` in
/// login.defs(5)). Where the name service does not say, it is not.
#[must_use]
pub fn is_own_group(gid: u32) -> bool {
    let us = own_uid();
    if us == 0 {
        return gid == 0;
    }
    let question = || Question::IsGroupOf(gid, us);
    ask(question).unwrap_or_else(|| Ok(service::is_group_of(gid, us))).unwrap_or_default()
}

/// True if the user `uid`, whose process runs with `gid`, belongs to the group of this name.
#[must_use]
pub fn is_member(uid: u32, gid: u32, group: &str) -> bool {
    let question = || Question::IsMember(uid, gid, group.to_owned());
    ask(question).unwrap_or_else(|| Ok(service::is_member(uid, gid, group))).unwrap_or_default()
}

/// Every group that processes of this account are in, its own first.
#[must_use]
pub fn groups_of(account: &Account) -> Vec<u32> {
    let others = ask(|| Question::GroupsOf(account.name.clone(), account.gid))
        .unwrap_or_else(|| Ok(service::groups_of(&account.name, account.gid)))
        .unwrap_or_default();
    let others = others.into_iter().filter(|gid| *gid != account.gid);
    std::iter::once(account.gid).chain(others).collect()
}

/// Every group that this process is in, its own first.
#[must_use]
pub fn own_groups() -> Vec<u32> {
    let all = nix::unistd::getgroups().unwrap_or_default();
    std::iter::once(nix::unistd::getegid()).chain(all).map(Gid::as_raw).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_where_every_uid_means_itself_is_none_a_stand_in() {
        assert!(is_whole("         0          0 4294967295\n"));
        for part in ["", "         0       1000          1\n", "0 0 65536\n", "0 0 1000\n1000 0 4294966295\n"]
        {
            assert!(!is_whole(part), "{part:?}");
        }
    }
}
