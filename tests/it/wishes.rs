//! What users change in their own env files through the daemon, and what they cannot.

use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use mcpsup::model::status::StateName;

use crate::host::{Host, MCPSUP, copy_program, example, text};
use crate::wire;

const FILE: &str = "# hers\n\nexport NOTES_TOKEN='nt_old' # May\nMODE=kept\n";

/// Notes for everybody, and another that is chosen.
fn servers(notes: &PathBuf) -> String {
    format!(
        "[server.notes]\ncommand = [{notes:?}]\ntransport = \"http\"\nport_env = \"NOTES_PORT\"\n\
         env = {{ NOTES_DIR = \"{{state_dir}}\" }}\n\
         [server.notes.credential.NOTES_TOKEN]\npattern = \"^nt_[a-z0-9-]+$\"\n\
         [server.more]\ncommand = [{notes:?}]\ntransport = \"http\"\nport_env = \"NOTES_PORT\"\nfor_all = false\n\
         env = {{ NOTES_DIR = \"{{state_dir}}\", NOTES_TOKEN = \"more\" }}\n\
         [server.more.credential.MORE_KEY]\ndescription = \"a key\"\n"
    )
}

fn with_input(command: &mut Command, input: &str) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).env("NO_COLOR", "1");
    let mut child = command.spawn().unwrap();
    // Who is refused for another reason may not have read it.
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap_or_default();
    child.wait_with_output().unwrap()
}

impl Host {
    /// As the one whose daemon it is.
    fn wish(&self, args: &[&str], input: &str) -> Output {
        let mut command = Command::new(MCPSUP);
        command.arg("--config").arg(self.path().join("mcpsup.toml")).args(args);
        with_input(&mut command, input)
    }

    fn read(&self, user: &str) -> String {
        std::fs::read_to_string(self.env_dir().join(format!("{user}.env"))).unwrap()
    }
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

fn one_user() -> Host {
    let mut host = Host::new(&servers(&example("notes")));
    host.save("alice", FILE);
    host.start();
    host.until_all_up(1);
    host
}

#[test]
fn a_credential_that_is_set_is_in_the_file_and_in_the_process_and_nowhere_else() {
    let host = one_user();
    let path = host.env_dir().join("alice.env");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o400)).unwrap();
    let before = std::fs::metadata(&path).unwrap();
    let (old, run) = (host.call("alice", "whoami", "{}").unwrap(), host.instance("alice").run);

    let output = host.wish(&["set", "NOTES_TOKEN", "--user", "alice"], "nt_brand-new\n");
    assert_eq!(code(&output), 0, "{}", said(&output));
    assert!(text(&output.stdout).contains("NOTES_TOKEN is set\nalice: up on "), "{}", said(&output));
    assert_eq!(host.read("alice"), FILE.replace("nt_old", "nt_brand-new"));
    let after = std::fs::metadata(&path).unwrap();
    assert_eq!((after.uid(), after.gid(), after.mode()), (before.uid(), before.gid(), before.mode()));
    assert!(host.instance("alice").run > run);
    assert_ne!(host.call("alice", "whoami", "{}").unwrap(), old);
    assert!(!host.log().contains("nt_brand-new") && !said(&output).contains("nt_brand-new"));
    assert!(host.log().contains("change=\"set NOTES_TOKEN\""), "{}", host.log());

    // The same once more starts nothing anew.
    let run = host.instance("alice").run;
    let again = host.wish(&["set", "NOTES_TOKEN", "--user", "alice", "--json"], "nt_brand-new");
    let told: serde_json::Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!((code(&again), told["instances"].as_array().map(Vec::len)), (0, Some(0)), "{}", said(&again));
    assert_eq!(host.instance("alice").run, run);
    assert_eq!(std::fs::read_dir(host.env_dir()).unwrap().count(), 1, "nothing is left beside it");
}

#[test]
fn a_value_or_a_name_that_is_not_allowed_changes_nothing_and_is_not_repeated() {
    let host = one_user();
    let run = host.instance("alice").run;
    let set = |name: &str, value: &str| host.wish(&["set", name, "--user", "alice"], value);
    for (name, value) in
        [("NOTES_TOKEN", "hunter2"), ("NOTES_TOKEN", "nt_x\nLD_PRELOAD=/evil"), ("NOTES_TOKEN", "")]
    {
        let output = set(name, value);
        assert!(!output.status.success(), "{}", said(&output));
        assert!(value.is_empty() || !said(&output).contains(value), "{}", said(&output));
    }
    for name in [
        "LD_PRELOAD",
        "GCONV_PATH",
        "LISTEN_FDS",
        "NOTIFY_SOCKET",
        "MCPSUP_RUN_AS",
        "MCPSUP_PORT",
        "NOTES_PORT",
        "PATH",
    ] {
        let output = set(name, "/evil/path");
        assert_eq!(code(&output), 4, "{name}: {}", said(&output));
        assert!(said(&output).contains(name) && !said(&output).contains("/evil"), "{}", said(&output));
        assert_eq!(code(&host.wish(&["unset", name, "--user", "alice"], "")), 4, "{name}");
        // By plain HTTP as well.
        let socket = host.path().join("run/control.sock");
        let answer = wire::control(&socket, "POST", &format!("/v1/set?user=alice&name={name}"), "/evil/path");
        assert!(answer.status == 403 && !answer.body.contains("/evil"), "{answer:?}");
    }
    assert_eq!(code(&set("NOTES_TOKEN=nt_new", "x")), 2);
    assert_eq!(code(&host.wish(&["set", "NOTES_TOKEN"], "nt_new")), 2, "an administrator says whose");
    let nobody = host.wish(&["set", "NOTES_TOKEN", "--user", "zoe"], "nt_new");
    assert!(code(&nobody) == 1 && said(&nobody).contains("mcpsup add zoe"), "{}", said(&nobody));
    assert_eq!(host.read("alice"), FILE);
    assert_eq!(host.instance("alice").run, run);
    assert!(!host.log().contains("/evil") && !host.log().contains("hunter2"), "{}", host.log());
}

#[test]
fn a_credential_that_is_taken_back_is_not_used_any_more() {
    let mut host = one_user();
    let output = host.wish(&["unset", "NOTES_TOKEN", "--user", "alice"], "");
    assert_eq!(code(&output), 0, "{}", said(&output));
    assert!(
        text(&output.stdout).contains("alice/notes: stopped, as it needs NOTES_TOKEN"),
        "{}",
        said(&output)
    );
    assert_eq!(host.read("alice"), "# hers\n\nMODE=kept\n");
    let again = host.wish(&["unset", "NOTES_TOKEN", "--user", "alice"], "");
    assert!(
        text(&again.stdout).contains("NOTES_TOKEN is not in the file; nothing changes"),
        "{}",
        said(&again)
    );
    host.until_state("alice", StateName::Stopped);
    host.until("its process has ended", || host.processes().is_empty());
    // Not even if it is asked for: the last good version had it.
    assert_eq!(code(&host.cli(&["start", "alice"])), 1);
    assert!(host.processes().is_empty());
    host.kill_daemon();
    host.start();
    assert_eq!(host.instance("alice").pid, None);

    let output = host.wish(&["set", "NOTES_TOKEN", "--user", "alice"], "nt_again");
    assert_eq!(code(&output), 0, "{}", said(&output));
    host.until_state("alice", StateName::Up);
    assert_eq!(host.read("alice"), "# hers\n\nMODE=kept\nNOTES_TOKEN=nt_again\n");
}

#[test]
fn a_credential_that_is_there_again_has_its_server_started_unless_somebody_stopped_it() {
    let mut host = one_user();
    for stopped_by in ["nobody", "before", "since"] {
        if stopped_by == "before" {
            host.ok(&["stop", "alice"]);
        }
        assert_eq!(code(&host.wish(&["unset", "NOTES_TOKEN", "--user", "alice"], "")), 0);
        host.until_state("alice", StateName::Stopped);
        if stopped_by == "since" {
            host.ok(&["stop", "alice"]);
        }
        // The next daemon knows as well who it was.
        assert!(host.stop().success());
        host.start();
        assert_eq!(host.instance("alice").state, StateName::Stopped, "{stopped_by}");
        let output = host.wish(&["set", "NOTES_TOKEN", "--user", "alice"], "nt_again");
        assert_eq!(code(&output), 0, "{}", said(&output));
        if stopped_by == "nobody" {
            assert!(said(&output).contains("up on "), "{}", said(&output));
        } else {
            assert_eq!(host.instance("alice").state, StateName::Stopped, "{stopped_by}");
            host.ok(&["start", "alice"]);
        }
        host.until_state("alice", StateName::Up);
    }
}

#[test]
fn a_server_is_chosen_once_its_credential_is_there_and_left_again() {
    let host = one_user();
    let as_admin = |args: &[&str], input| host.wish(&[args, &["--user", "alice"]].concat(), input);
    let early = as_admin(&["enable", "more"], "");
    assert!(code(&early) == 1 && said(&early).contains("MORE_KEY is required (a key)"), "{}", said(&early));
    assert_eq!(code(&as_admin(&["set", "MORE_KEY"], "it's a \"key\"\n")), 0);
    let output = as_admin(&["enable", "more"], "");
    assert!(code(&output) == 0 && said(&output).contains("alice: up on "), "{}", said(&output));
    host.until_all_up(2);
    assert_eq!(host.read("alice"), format!("{FILE}MORE_KEY=\"it's a \\\"key\\\"\"\nMCPSUP_SERVERS=more\n"));
    let run = host.instance("alice").run;
    let output = as_admin(&["disable", "more", "--no-wait"], "");
    assert_eq!(code(&output), 0, "{}", said(&output));
    host.until("it is left", || {
        host.status().instances.iter().all(|one| one.server.as_str() != "more" || one.pid.is_none())
    });
    assert_eq!(host.read("alice"), format!("{FILE}MORE_KEY=\"it's a \\\"key\\\"\"\n"));
    assert!(code(&as_admin(&["disable", "notes"], "")) == 1 && host.instance("alice").run == run);
    assert_eq!(code(&as_admin(&["enable", "no-such"], "")), 1);
}

#[test]
fn a_broken_file_is_left_for_whoever_broke_it() {
    let host = one_user();
    let broken = format!("{FILE}hunter2\n");
    host.save("alice", &broken);
    let output = host.wish(&["set", "NOTES_TOKEN", "--user", "alice"], "nt_new");
    assert!(
        code(&output) == 1 && said(&output).contains("alice.env:5: expected NAME=value"),
        "{}",
        said(&output)
    );
    assert!(!said(&output).contains("hunter2"));
    assert_eq!(host.read("alice"), broken);
}

/// A copy of a program for somebody who cannot reach ours.
fn copied(host: &Host, from: &Path) -> PathBuf {
    let to = host.path().join(from.file_name().unwrap());
    copy_program(from, &to);
    std::fs::set_permissions(&to, PermissionsExt::from_mode(0o755)).unwrap();
    to
}

/// As somebody else, by that copy.
fn wish_by(host: &Host, who: &nix::unistd::User, args: &[&str], input: &str) -> Output {
    let mut command = Command::new(host.path().join("mcpsup"));
    command.arg("--config").arg(host.path().join("mcpsup.toml")).args(args);
    with_input(command.uid(who.uid.as_raw()).gid(who.gid.as_raw()), input)
}

#[test]
fn who_may_be_anybody_changes_nobodys_file() {
    let account = |name: &str| nix::unistd::User::from_name(name).ok().flatten();
    let (true, Some(games), Some(nobody)) =
        (nix::unistd::geteuid().is_root(), account("games"), account("nobody"))
    else {
        eprintln!("skipped: only root can be somebody else");
        return;
    };
    let mut host = Host::new("");
    std::fs::set_permissions(host.path(), PermissionsExt::from_mode(0o711)).unwrap();
    copied(&host, MCPSUP.as_ref());
    host.configure(&servers(&example("notes")));
    host.save("nobody", FILE);
    // A daemon to which everybody but root looks like nobody.
    let mut unshare = Command::new("unshare");
    unshare.args(["--user", "--map-root-user", MCPSUP]);
    host.spawn_by(unshare);
    host.until("the daemon answers or has ended", || {
        host.cli(&["status"]).status.success() || host.log().contains("unshare:")
    });
    if host.log().contains("unshare:") {
        eprintln!("skipped: no user namespace can be made here: {}", host.log());
        return;
    }

    for who in [&games, &nobody] {
        let output = wish_by(&host, who, &["set", "NOTES_TOKEN"], "nt_evil");
        assert!(
            code(&output) == 1 && said(&output).contains("anybody may be uid 65534"),
            "{}",
            said(&output)
        );
        let output = wish_by(&host, who, &["set", "NOTES_TOKEN", "--user", "nobody"], "nt_evil");
        assert_eq!(code(&output), 4, "{}", said(&output));
    }
    assert_eq!(host.read("nobody"), FILE);
}

#[test]
fn one_user_changes_their_own_file_without_reading_it_and_nobody_elses() {
    // Accounts that every Debian and Fedora has.
    let account = |name: &str| nix::unistd::User::from_name(name).ok().flatten();
    let (true, Some(games), Some(nobody)) =
        (nix::unistd::geteuid().is_root(), account("games"), account("nobody"))
    else {
        eprintln!("skipped: only root can be somebody else");
        return;
    };
    let mut host = Host::new("");
    std::fs::set_permissions(host.path(), PermissionsExt::from_mode(0o711)).unwrap();
    let notes = copied(&host, &example("notes"));
    copied(&host, MCPSUP.as_ref());
    host.configure(&servers(&notes));
    host.save("games", FILE);
    host.save("nobody", &FILE.replace("nt_old", "nt_nobodys"));
    host.start();
    host.until_all_up(2);
    let by = |who: &nix::unistd::User, args: &[&str], input: &str| wish_by(&host, who, args, input);
    let env = host.env_dir().join("games.env");
    assert!(
        !Command::new("/bin/cat").arg(&env).uid(5).gid(60).stderr(Stdio::null()).status().unwrap().success()
    );

    let own = by(&games, &["set", "NOTES_TOKEN"], "nt_new\n");
    assert!(code(&own) == 0 && said(&own).contains("games: up on"), "{}", said(&own));
    assert_eq!(host.read("games"), FILE.replace("nt_old", "nt_new"));
    assert_eq!(std::fs::metadata(&env).unwrap().uid(), 0, "it stays root's");

    let before = (host.read("games"), host.read("nobody"));
    let nobodys = host.instance("nobody");
    for args in [
        &["set", "NOTES_TOKEN", "--user", "nobody"][..],
        &["unset", "NOTES_TOKEN", "--user", "nobody"],
        &["enable", "more", "--user", "nobody"],
        &["disable", "more", "--user", "nobody"],
        &["set", "NOTES_TOKEN", "--user", "no-such-user"],
        // Their own, but not theirs to set.
        &["set", "LD_PRELOAD"],
        &["set", "MCPSUP_RUN_AS"],
        &["set", "MCPSUP_SERVERS"],
        &["set", "NODE_OPTIONS"],
        &["unset", "MODE"],
        &["set", "MODE"],
    ] {
        let output = by(&games, args, "nt_evil");
        assert_eq!(code(&output), 4, "{args:?}: {}", said(&output));
        assert!(!said(&output).contains("nt_"), "{args:?}: {}", said(&output));
    }
    assert_eq!((host.read("games"), host.read("nobody")), before);
    assert_eq!(host.instance("nobody").run, nobodys.run);
    assert!(host.log().contains("request refused") && host.log().contains("uid=5"), "{}", host.log());

    // Who has no file is told whom to ask; and what is gone is not made anew.
    host.delete("nobody");
    let none = by(&nobody, &["set", "NOTES_TOKEN"], "nt_new");
    assert!(
        code(&none) == 1 && said(&none).contains("ask an administrator")
            || said(&none).contains("mcpsup add"),
        "{}",
        said(&none)
    );
    assert!(!host.env_dir().join("nobody.env").exists());

    // One uid with two users is neither of them.
    host.save("shared", &format!("MCPSUP_RUN_AS=games\n{FILE}"));
    host.until_state("shared", StateName::Up);
    let shared = by(&games, &["set", "NOTES_TOKEN"], "nt_other");
    assert!(code(&shared) == 1 && said(&shared).contains("several users"), "{}", said(&shared));
    assert_eq!(code(&by(&games, &["set", "NOTES_TOKEN", "--user", "shared"], "nt_other")), 4);
    assert_eq!(host.read("games"), before.0);
}
