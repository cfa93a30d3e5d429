//! What of a cage can be had on this host, found out by having it.
//!
//! Kernel versions and settings do not tell: containers, security modules and distributions each
//! forbid other parts. So each part is tried by a copy of this process, which ends with it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use landlock::{AccessFs, LandlockStatus, Ruleset, RulesetAttr, RulesetCreated};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use rustix::thread::{CapabilitySet, capabilities};

use super::calls::Filters;
use super::mounts::{self, Ids, Plan};
use super::{because, cannot, rights};
use crate::model::cage::{Calls, Ground, Namespaces, Proc, Tried};
use crate::system::launch::clone::{self, Side};
use crate::system::orders::Failure;

/// Tries everything.
pub(in crate::system::launch) fn ground() -> Ground {
    let effective = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    let has = |capability| effective.contains(capability);
    let is_root = rustix::process::geteuid().is_root();
    let accounts = match (is_root, has(CapabilitySet::SETUID | CapabilitySet::SETGID)) {
        (true, true) => Tried::Works,
        (true, false) => Tried::Fails("root has no CAP_SETUID and CAP_SETGID here".into()),
        (false, _) => Tried::Fails("the daemon does not run as root".into()),
    };
    // A user namespace of its maker's own holds one uid: of no use to root, whose servers have others.
    let through_user = !is_root && !has(CapabilitySet::SYS_ADMIN);
    let born = Namespaces { user: through_user, mount: true, pid: false };
    let arranged =
        |namespaces, proc| attempt(namespaces, move || mounts::arrange(&Plan::default(), namespaces, proc));
    let hidepid = if through_user {
        Tried::Fails("it takes CAP_SYS_ADMIN, or a pid namespace".into())
    } else {
        arranged(born, Proc::Hiding)
    };
    Ground {
        accounts,
        bounding: attempt(Namespaces::default(), || {
            rights::empty_bounding_set().map_err(cannot("empty the bounding set"))
        }),
        landlock: landlock_abi(),
        calls: attempt(Namespaces::default(), filtered),
        mounts: arranged(born, Proc::Shared),
        pids: arranged(Namespaces { pid: true, ..born }, Proc::Own),
        hidepid,
        through_user,
    }
}

fn filtered() -> Result<(), Failure> {
    let all = Calls { namespaces: true, unix_sockets: true, others: true, modes: true, ipc: true };
    Filters::new().apply(all).map_err(|error| because("filter system calls", &error))
}

/// Does it in a copy of this process, born into these namespaces.
fn attempt(namespaces: Namespaces, what: impl FnOnce() -> Result<(), Failure>) -> Tried {
    attempted(namespaces, |socket| {
        let answer = what().err().map_or_else(String::new, |failure| failure.to_string());
        // Nobody hears it if it cannot be said, and hearing nothing at all is no success.
        socket.write_all(format!("{answer}\n").as_bytes()).unwrap_or_default();
    })
    .map_or_else(
        |error| Tried::Fails(error.to_string()),
        |said| match said.strip_suffix('\n') {
            Some("") => Tried::Works,
            Some(why) => Tried::Fails(why.to_owned()),
            None => Tried::Fails("the attempt ended without a word".into()),
        },
    )
}

/// What a copy of this process says.
fn attempted(namespaces: Namespaces, what: impl FnOnce(&mut UnixStream)) -> io::Result<String> {
    let (mut ours, mut theirs) = UnixStream::pair()?;
    let ids = Ids::own();
    match clone::copy(None::<&File>, namespaces, clone::Parent::Us)? {
        Side::Copy => {
            drop(ours);
            if namespaces.user
                && let Err(error) = ids.keep()
            {
                theirs.write_all(format!("cannot use a user namespace: {error}\n").as_bytes())?;
                leave();
            }
            what(&mut theirs);
            drop(theirs);
            leave()
        }
        Side::Original(pid) => {
            drop(theirs);
            let mut said = String::new();
            ours.read_to_string(&mut said)?;
            waitpid(Pid::from_raw(pid), None)?;
            Ok(said)
        }
    }
}

/// What only the original's caller may do afterwards is not for a copy.
#[expect(clippy::disallowed_methods, reason = "the end of a copy that was made for one attempt")]
fn leave() -> ! {
    std::process::exit(0)
}

/// The crate says the kernel's ABI only to who has restricted themself.
fn landlock_abi() -> u8 {
    let said = attempted(Namespaces::default(), |socket| {
        let rules = Ruleset::default().handle_access(AccessFs::Execute);
        let status = rules.and_then(Ruleset::create).and_then(RulesetCreated::restrict_self);
        let abi = match status.map(|status| status.landlock) {
            Ok(LandlockStatus::Available { effective_abi, kernel_abi }) => {
                kernel_abi.unwrap_or(effective_abi as i32)
            }
            Ok(LandlockStatus::NotEnabled | LandlockStatus::NotImplemented) | Err(_) => 0,
        };
        socket.write_all(abi.to_string().as_bytes()).unwrap_or_default();
    });
    said.ok().and_then(|abi| abi.parse().ok()).unwrap_or(0)
}
