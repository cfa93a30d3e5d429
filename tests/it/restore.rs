//! A backup of what docs/upgrade.md says is enough: everybody has what they had.

use std::fs;
use std::path::Path;
use std::process::Command;

use mcpsup::model::status::StateName;

use crate::host::Host;

/// What that page says "yes" to.
const BACKED_UP: [&str; 7] = [
    "mcpsup.toml",
    "env.d",
    "state/ports.json",
    "state/holds.json",
    "state/uids.json",
    "state/tokens",
    "state/instances",
];

fn tar(words: &[&str], dir: &Path) {
    let done = Command::new("tar").arg("-C").arg(dir).args(words).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn what_is_backed_up_is_enough_to_go_on_where_everything_else_is_lost() {
    let mut host = Host::with_notes();
    for user in ["alice", "bob", "carol"] {
        host.save(user, &format!("NOTES_TOKEN=nt_token-of-{user}\n"));
    }
    host.start();
    host.until_all_up(3);
    // Ports in an order that names alone would not give again.
    host.ok(&["remove", "alice", "--yes"]);
    host.save("zoe", "NOTES_TOKEN=nt_token-of-zoe\n");
    host.until_all_up(3);
    host.call("bob", "add_note", r#"{"text":"kept"}"#).unwrap();
    host.ok(&["stop", "carol"]);
    let token = host.ok(&["headers", "bob", "--lasting"]);
    let ports = ["bob", "carol", "zoe"].map(|user| host.instance(user).port);

    let backup = tempfile::NamedTempFile::new().unwrap();
    let file = backup.path().to_str().unwrap();
    tar(&[&["--ignore-failed-read", "-cpf", file], &BACKED_UP[..]].concat(), host.path());
    assert!(host.stop().success());
    for lost in ["mcpsup.toml", "env.d", "state", "run", "logs"] {
        let path = host.path().join(lost);
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
    }
    tar(&["-xpf", file], host.path());
    host.start();

    host.until_state("bob", StateName::Up);
    host.until_state("zoe", StateName::Up);
    assert_eq!(["bob", "carol", "zoe"].map(|user| host.instance(user).port), ports);
    assert_eq!(host.instance("carol").state, StateName::Stopped);
    assert_eq!(host.call("bob", "list_notes", "{}").unwrap(), "kept");
    assert_eq!(host.ok(&["headers", "bob", "--lasting"]), token);
}
