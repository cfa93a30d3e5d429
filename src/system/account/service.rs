//! The name service itself (getpwnam(3), getgrouplist(3)): what answers in it is loaded into this process.
//!
//! [`account`](super) says what each of these means, and asks them here or elsewhere.

use std::ffi::CString;

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

use crate::model::spec::Account;
use crate::system::cause::plain;

pub(super) fn find(name: &str) -> Result<Option<Account>, String> {
    let found = User::from_name(name).map_err(|errno| plain(&errno.into()))?;
    Ok(found.map(|user| Account {
        name: user.name,
        uid: user.uid.as_raw(),
        gid: user.gid.as_raw(),
        home: user.dir,
        is_reserved: false,
    }))
}

pub(super) fn name_of(uid: u32) -> Option<String> {
    User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|user| user.name)
}

pub(super) fn named(id: u32) -> Result<Option<String>, String> {
    let words = |errno: nix::errno::Errno| plain(&errno.into());
    if let Some(user) = User::from_uid(Uid::from_raw(id)).map_err(words)? {
        return Ok(Some(format!("the account {}", user.name)));
    }
    let group = Group::from_gid(Gid::from_raw(id)).map_err(words)?;
    Ok(group.map(|group| format!("the group {}", group.name)))
}

/// True if the group has the name of this user.
pub(super) fn is_group_of(gid: u32, uid: u32) -> bool {
    let group = Group::from_gid(Gid::from_raw(gid)).ok().flatten();
    group.is_some_and(|group| name_of(uid) == Some(group.name))
}

pub(super) fn is_member(uid: u32, gid: u32, group: &str) -> bool {
    let Ok(Some(group)) = Group::from_name(group) else { return false };
    if group.gid.as_raw() == gid {
        return true;
    }
    let Ok(Some(user)) = User::from_uid(Uid::from_raw(uid)) else { return false };
    let Ok(name) = CString::new(user.name) else { return false };
    getgrouplist(&name, Gid::from_raw(gid)).is_ok_and(|groups| groups.contains(&group.gid))
}

/// The groups that processes of the account of this name are in.
pub(super) fn groups_of(name: &str, gid: u32) -> Vec<u32> {
    let listed = CString::new(name).ok().and_then(|name| getgrouplist(&name, Gid::from_raw(gid)).ok());
    listed.unwrap_or_default().into_iter().map(Gid::as_raw).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_who_the_group_lists_and_whose_process_has_it_and_nobody_else() {
        let table = std::fs::read_to_string("/etc/group").unwrap();
        let mut tried = 0;
        for line in table.lines() {
            let fields: Vec<&str> = line.split(':').collect();
            let [name, _, gid, members] = fields[..] else { continue };
            let Ok(Some(group)) = Group::from_name(name) else { continue };
            let gid: u32 = gid.parse().unwrap();
            if group.gid.as_raw() != gid {
                continue;
            }
            assert!(is_member(4_000_000_000, gid, name), "{name}: its own");
            assert!(!is_member(4_000_000_000, 4_000_000_000, name), "{name}: no account's");
            for member in members.split(',').filter(|member| !member.is_empty()) {
                let Ok(Some(user)) = User::from_name(member) else { continue };
                assert!(is_member(user.uid.as_raw(), user.gid.as_raw(), name), "{member} of {name}");
            }
            tried += 1;
        }
        assert!(tried > 0);
        assert!(!is_member(0, 0, "a-group-that-nobody-made"));
    }
}
