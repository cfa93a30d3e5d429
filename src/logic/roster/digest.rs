//! Whether two specs are the same to the process that is given them.
//!
//! Every part is written with its length or at a fixed width, in a fixed order, so that no two
//! specs are written alike. Of stdio there is also what its bridge is made of. What the process cannot notice (timeouts, the probe, the path, which
//! values are secret) is left out: changing it restarts nobody.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::model::config::{Era, Sessions, Transport};
use crate::model::spec::Home;
use crate::model::{Cage, Spec, SpecId};

/// Names what is written; a new order of parts needs a new name.
const FORMAT: &[u8] = b"mcpsup spec 2";

/// HMAC-SHA256 of `spec`, for an instance at home here, under `key`; its `id` is not looked at.
pub(super) fn of(spec: &Spec, home: &Home<'_>, key: &[u8; 32]) -> SpecId {
    // A key shorter than a block is filled up with zeros (RFC 2104), here already.
    let mut block = [0; 64];
    block[..32].copy_from_slice(key);
    let mut digest = Digest(Hmac::new(&block.into()));
    digest.bytes(FORMAT);
    digest.bytes(spec.program.as_bytes());
    digest.number(spec.args.len() as u64);
    spec.args.iter().for_each(|arg| digest.bytes(arg.reveal().as_bytes()));
    let env = spec.environment(home);
    digest.number(env.len() as u64);
    for (name, value) in &env {
        digest.bytes(name.as_bytes());
        digest.bytes(value.as_bytes());
    }
    for path in [spec.start_dir(home), &home.state_dir, &home.runtime_dir] {
        digest.path(path);
    }
    digest.number(spec.account.as_ref().map_or(0, |account| if account.is_reserved { 2 } else { 1 }));
    if let Some(account) = &spec.account {
        digest.bytes(account.name.as_bytes());
        digest.number(account.uid.into());
        digest.number(account.gid.into());
        digest.path(&account.home);
    }
    let limits = &spec.server.limits;
    let small = |limit: Option<u32>| limit.map(u64::from);
    for limit in [limits.memory, small(limits.cpu), small(limits.tasks), small(limits.open_files)] {
        digest.number(u64::from(limit.is_some()));
        digest.number(limit.unwrap_or_default());
    }
    match spec.server.transport {
        // No port is so high.
        Transport::Http if spec.server.has_socket() => digest.number(1 << 18),
        // Whoever listens on one is given one, or no spec is made.
        Transport::Http => digest.number(spec.backend.unwrap_or_default().into()),
        Transport::Stdio(stdio) => {
            // No port is so high.
            digest.number(match stdio.sessions {
                Sessions::Shared => 1 << 16,
                Sessions::Isolated => 1 << 17,
            });
            digest.number(match stdio.era {
                Era::Auto => 0,
                Era::Legacy => 1,
                Era::Modern => 2,
            });
            // Its clients' way to it is as old as the run itself.
            digest.bytes(spec.server.path.as_bytes());
        }
    }
    // Why nothing is started is no reason to end what runs.
    let cage = Cage { refused: None, ..(*spec.cage).clone() };
    digest.bytes(&serde_json::to_vec(&cage).unwrap_or_default());
    SpecId(digest.0.finalize().into_bytes().into())
}

struct Digest(Hmac<Sha256>);

impl Digest {
    fn number(&mut self, number: u64) {
        self.0.update(&number.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
    }

    fn path(&mut self, path: &Path) {
        self.bytes(path.as_os_str().as_bytes());
    }
}
