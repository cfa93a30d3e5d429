//! Sealed env files: what they say runs, and is on no disk; and what happens when they do not open.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use mcpsup::model::status::StateName;

use crate::host::{Host, MCPSUP, text, write};

const SECRET: &str = "nt_0123456789abcdef";

/// What stands in for systemd-creds: says which host sealed it, then each letter thirteen further on.
/// It counts its calls, and waits for a file if the sealed one tells it to.
const TOOL: &str = r#"#!/bin/sh
echo "$1" >>"$FAKE_DIR/calls"
rot() { tr 'A-Za-z' 'N-ZA-Mn-za-m'; }
case "$1" in
--version) echo fake ;;
encrypt) printf 'sealed %s %s\n' "$(cat "$FAKE_DIR/key")" "$2"; rot ;;
decrypt)
    read -r head
    case "$head" in "hang"*) exec sleep 1000 ;; esac
    [ "$head" = "sealed $(cat "$FAKE_DIR/key") $2" ] || { echo 'Decryption failed (incorrect key?)' >&2; exit 1; }
    rot ;;
esac
"#;

struct Sealed {
    host: Host,
    env: Vec<(String, String)>,
}

impl Sealed {
    /// With the stand-in as the host's tool.
    fn new() -> Self {
        let mut host = Host::with_notes();
        let bin = host.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        write(&bin.join("systemd-creds"), TOOL, 0o755);
        write(&host.path().join("key"), "of-this-host", 0o600);
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        let dir = host.path().display().to_string();
        host.env = vec![("PATH".to_owned(), path), ("FAKE_DIR".to_owned(), dir)];
        let env = host.env.clone();
        Self { host, env }
    }

    /// With the real one and a key of our own; `None` where it is not installed.
    fn with_the_real_tool() -> Option<Self> {
        Command::new("systemd-creds").arg("--version").stdout(Stdio::null()).status().ok()?;
        let mut host = Host::with_notes();
        let key = host.path().join("host.key").display().to_string();
        host.env = vec![("SYSTEMD_CREDENTIAL_SECRET".to_owned(), key)];
        let env = host.env.clone();
        Some(Self { host, env })
    }

    fn cli(&self, args: &[&str], input: &str) -> (i32, String) {
        let mut command = Command::new(MCPSUP);
        command.arg("--config").arg(self.host.path().join("mcpsup.toml")).args(args);
        command.envs(self.env.iter().map(|(name, value)| (name, value))).env("NO_COLOR", "1");
        let file = self.host.path().join("input");
        write(&file, input, 0o600);
        command.stdin(std::fs::File::open(&file).unwrap());
        let output = command.output().unwrap();
        std::fs::remove_file(file).unwrap();
        (output.status.code().unwrap(), format!("{}{}", text(&output.stdout), text(&output.stderr)))
    }

    fn seal(&self, user: &str) {
        let (code, said) = self.cli(&["seal", user], "");
        assert_eq!(code, 0, "{said}");
    }

    fn file(&self, user: &str) -> PathBuf {
        self.host.env_dir().join(format!("{user}.env.cred"))
    }

    fn calls(&self, what: &str) -> usize {
        let calls = std::fs::read_to_string(self.host.path().join("calls")).unwrap_or_default();
        calls.lines().filter(|line| *line == what).count()
    }

    /// Every file of this host's that shows the secret.
    fn showing(&self, secret: &str) -> Vec<PathBuf> {
        fn below(dir: &Path, secret: &str, found: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(dir).unwrap().flatten() {
                let kind = entry.file_type().unwrap();
                if kind.is_dir() {
                    below(&entry.path(), secret, found);
                } else if kind.is_file() {
                    let bytes = std::fs::read(entry.path()).unwrap_or_default();
                    if bytes.windows(secret.len()).any(|window| window == secret.as_bytes()) {
                        found.push(entry.path());
                    }
                }
            }
        }
        let mut found = Vec::new();
        below(self.host.path(), secret, &mut found);
        found
    }
}

#[test]
fn a_sealed_file_runs_is_changed_and_is_on_no_disk_in_plain() {
    let Some(mut sealed) = Sealed::with_the_real_tool() else {
        eprintln!("skipped: no systemd-creds here");
        return;
    };
    sealed.host.save("alice", &format!("# hers\nNOTES_TOKEN={SECRET}\n"));
    sealed.host.start();
    let run = sealed.host.until_all_up(1)[0].run;
    sealed.seal("alice");
    assert_eq!(sealed.showing(SECRET), Vec::<PathBuf>::new());
    assert!(!sealed.host.env_dir().join("alice.env").exists());
    let mode = std::fs::metadata(sealed.file("alice")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    // It says the same, so nothing starts anew: not now, and not for the next daemon.
    assert_eq!(sealed.cli(&["reload"], "").0, 0);
    let fingerprint = sealed.host.call("alice", "whoami", "{}").unwrap();
    sealed.host.kill_daemon();
    sealed.host.start();
    let found = sealed.host.until_state("alice", StateName::Up);
    assert_eq!((found.run, &found.problems[..]), (run, &[][..]));
    let log = sealed.host.log();
    assert!(!log.contains("file refused") && !log.contains("ERROR"), "{log}");

    let (code, said) = sealed.cli(&["set", "NOTES_TOKEN", "--user", "alice"], "nt_brand-new-0123\n");
    assert!(code == 0 && said.contains("up on"), "{said}");
    assert_ne!(sealed.host.call("alice", "whoami", "{}").unwrap(), fingerprint);
    assert_eq!(sealed.showing("nt_brand-new-0123"), Vec::<PathBuf>::new());
    let run = sealed.host.instance("alice").run;

    let script = sealed.host.path().join("editor");
    let text = "#!/bin/sh\nstat -f -c %T \"$1\" \"$TMPDIR\" >\"$FAKE_DIR/where\"\nsed -i s/brand-new/edited/ \"$1\"\n";
    write(&script, text, 0o755);
    sealed.env.push(("EDITOR".to_owned(), script.display().to_string()));
    sealed.env.push(("FAKE_DIR".to_owned(), sealed.host.path().display().to_string()));
    let (code, said) = sealed.cli(&["edit", "alice"], "");
    assert!(code == 0 && said.contains("saved"), "{said}");
    assert_eq!(std::fs::read_to_string(sealed.host.path().join("where")).unwrap(), "tmpfs\ntmpfs\n");
    sealed.host.until("the edited one runs", || {
        let now = sealed.host.instance("alice");
        now.run > run && now.state == StateName::Up
    });
    assert_eq!(sealed.showing("nt_edited-0123"), Vec::<PathBuf>::new());
    let (code, said) = sealed.cli(&["check", "-v"], "");
    assert!(code == 0 && said.contains("NOTES_TOKEN  14 bytes"), "{said}");
    assert_eq!(sealed.cli(&["seal", "alice"], "").0, 1, "it is sealed already");

    // Another's sealed file is not hers, whoever renames it; nor is one of another host.
    std::fs::rename(sealed.file("alice"), sealed.file("bob")).unwrap();
    sealed.host.until("it is refused", || {
        let all = sealed.host.status().instances;
        let bob = all.iter().find(|one| one.user.as_str() == "bob" && one.state == StateName::Refused);
        bob.is_some_and(|bob| bob.problems.iter().any(|one| one.text.contains("cannot be unsealed")))
    });
}

#[test]
fn a_key_that_does_not_fit_is_refused_and_leaves_the_last_good_run_alone() {
    let mut sealed = Sealed::new();
    sealed.host.save("alice", &format!("NOTES_TOKEN={SECRET}\n"));
    sealed.host.start();
    let run = sealed.host.until_all_up(1)[0].run;
    sealed.seal("alice");
    sealed.host.until("it is read", || {
        sealed.host.instance("alice").problems.is_empty() && sealed.calls("decrypt") == 2
    });
    // One for `seal` itself, one for the daemon, and none while it stays as it is.
    for _ in 0..3 {
        assert_eq!(sealed.cli(&["reload"], "").0, 0);
    }
    assert_eq!((sealed.calls("encrypt"), sealed.calls("decrypt")), (1, 2));

    write(&sealed.host.path().join("key"), "of-another-host", 0o600);
    let bytes = std::fs::read(sealed.file("alice")).unwrap();
    let other = sealed.host.path().join("other");
    std::fs::write(&other, [&bytes[..], b"Z=1\n"].concat()).unwrap();
    std::fs::set_permissions(&other, PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::rename(other, sealed.file("alice")).unwrap();
    let refused = sealed.host.until_some("it is refused", || {
        Some(sealed.host.instance("alice")).filter(|now| !now.problems.is_empty())
    });
    assert_eq!((refused.state, refused.run), (StateName::Up, run));
    let why = refused.problems[0].to_string();
    assert_eq!(why, "env.d/alice.env.cred: cannot be unsealed: Decryption failed (incorrect key?)");
    assert!(sealed.host.call("alice", "whoami", "{}").is_ok());
    let (code, said) = sealed.cli(&["set", "NOTES_TOKEN", "--user", "alice"], "nt_new");
    assert!(code == 1 && said.contains("incorrect key"), "{said}");
    assert_eq!(sealed.cli(&["edit", "alice"], "").0, 1);
    assert_eq!(sealed.cli(&["check"], "").0, 1);
    assert_eq!(std::fs::read(sealed.file("alice")).unwrap(), [&bytes[..], b"Z=1\n"].concat());

    // The key is back: a reload is enough.
    write(&sealed.host.path().join("key"), "of-this-host", 0o600);
    assert_eq!(sealed.cli(&["reload"], "").0, 0);
    sealed.host.until("it is mended", || sealed.host.instance("alice").problems.is_empty());
}

#[cfg(feature = "age")]
#[test]
fn a_key_moved_to_what_systemd_gives_the_daemon_opens_files_there_and_no_other_is_made() {
    use std::os::unix::fs::DirBuilderExt;

    let host = Host::with_notes();
    host.save("alice", &format!("NOTES_TOKEN={SECRET}\n"));
    let mut sealed = Sealed { host, env: Vec::new() };
    let (code, said) = sealed.cli(&["seal", "alice", "--with", "age"], "");
    assert_eq!(code, 0, "{said}");
    let (key, given) = (sealed.host.path().join("state/seal.key"), sealed.host.path().join("given"));
    std::fs::DirBuilder::new().mode(0o700).create(&given).unwrap();
    std::fs::rename(&key, given.join("mcpsup.seal.key")).unwrap();
    std::fs::set_permissions(given.join("mcpsup.seal.key"), std::fs::Permissions::from_mode(0o400)).unwrap();
    let variable = ("CREDENTIALS_DIRECTORY".to_owned(), given.display().to_string());
    sealed.host.env = vec![variable.clone()];
    sealed.host.start();
    let up = sealed.host.until_state("alice", StateName::Up);
    let environ = std::fs::read_to_string(format!("/proc/{}/environ", up.pid.unwrap())).unwrap();
    assert!(environ.contains(SECRET) && !environ.contains("CREDENTIALS_DIRECTORY"), "{environ}");
    let (code, said) = sealed.cli(&["set", "NOTES_TOKEN", "--user", "alice"], "nt_brand-new-0123\n");
    assert_eq!(code, 0, "{said}");

    // A command that is not told of it says how to tell it.
    sealed.env.push(("EDITOR".to_owned(), "cat".to_owned()));
    let told = "there is no key ";
    for verb in [&["edit", "alice"][..], &["check"]] {
        let (code, said) = sealed.cli(verb, "");
        assert!(
            code == 1 && said.contains(told) && said.contains("CREDENTIALS_DIRECTORY=/etc/credstore"),
            "{said}"
        );
    }
    sealed.env.push(variable);
    let (code, said) = sealed.cli(&["edit", "alice"], "");
    assert!(code == 0 && said.contains("nt_brand-new-0123"), "{said}");
    sealed.host.save("bob", &format!("NOTES_TOKEN={SECRET}\n"));
    let (code, said) = sealed.cli(&["seal", "bob", "--with", "age"], "");
    assert_eq!(code, 0, "{said}");
    assert_eq!(sealed.cli(&["check"], "").0, 0);
    sealed.host.until_state("bob", StateName::Up);
    assert!(sealed.host.instance("bob").problems.is_empty());
    assert!(!key.exists());
}

#[test]
fn a_tool_that_hangs_holds_up_nobody_but_its_own_user() {
    let mut sealed = Sealed::new();
    write(&sealed.file("bob"), "hang\n", 0o600);
    sealed.host.save("alice", &format!("NOTES_TOKEN={SECRET}\n"));
    sealed.host.start();
    let run = sealed.host.until_state("alice", StateName::Up).run;
    sealed.host.save("alice", &format!("NOTES_TOKEN={SECRET}-and-more\n"));
    sealed.host.until("the new file runs", || {
        let now = sealed.host.instance("alice");
        now.run > run && now.state == StateName::Up
    });
    assert!(sealed.host.stop().success(), "nor the daemon's end");
}

#[test]
fn what_cannot_be_sealed_stays_as_it_was() {
    let sealed = Sealed::new();
    let plain = format!("NOTES_TOKEN={SECRET}\n");
    assert!(sealed.cli(&["seal", "alice"], "").1.contains("there is none"));
    sealed.host.save("alice", "oh dear\n");
    let (code, said) = sealed.cli(&["seal", "alice"], "");
    assert!(code == 1 && said.contains("env.d/alice.env:1: "), "{said}");
    sealed.host.save("alice", &plain);
    // One that would not open again.
    let broken = TOOL.replace("rot ;;\nesac", "exit 1 ;;\nesac");
    write(&sealed.host.path().join("bin/systemd-creds"), &broken, 0o755);
    let (code, said) = sealed.cli(&["seal", "alice"], "");
    assert!(code == 1 && said.contains("cannot be unsealed"), "{said}");
    let names: Vec<_> =
        std::fs::read_dir(sealed.host.env_dir()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(names, ["alice.env"]);
    assert_eq!(std::fs::read_to_string(sealed.host.env_dir().join("alice.env")).unwrap(), plain);
}
