//! The list of broken set-ups.
#![expect(clippy::too_many_lines, reason = "a list is read from its beginning to its end")]

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use mcpsup::model::status::StateName;

use super::{Case, GOOD, How, Mend, World, drive};
use crate::host::{MCPSUP, copy_program, example, notes, unruly, write};

/// A case with what most have.
fn case(name: &'static str, breaks: fn(&mut World) -> bool) -> Case {
    Case {
        name,
        runs: true,
        asks: &[],
        again: false,
        root: false,
        servers: notes,
        breaks,
        code: "",
        wrong: "",
        mend: ("run", ""),
        how: How::Obey,
    }
}

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

fn alice(world: &World) -> std::path::PathBuf {
    world.at("env.d/alice.env")
}

/// Saves alice's file with these lines.
fn save(world: &World, lines: &str) -> bool {
    world.host.save("alice", lines);
    true
}

fn save_right(world: &mut World, _: &Mend) {
    save(world, &format!("NOTES_TOKEN={GOOD}\n"));
}

fn files() -> Vec<Case> {
    vec![
        Case {
            code: "env-file",
            wrong: "may be read by others (mode 0644)",
            mend: ("run", "chmod 600 DIR/env.d/alice.env"),
            ..case("an env file that others can read", |world| {
                mode(&alice(world), 0o644);
                true
            })
        },
        Case {
            root: true,
            code: "env-file",
            wrong: "belongs to uid 4242",
            mend: ("run", "chown root DIR/env.d/alice.env"),
            ..case("an env file of a stranger's", |world| {
                chown(alice(world), Some(4242), None).unwrap();
                true
            })
        },
        Case {
            code: "env-directory",
            wrong: "others may put files there (mode 0777)",
            mend: ("run", "chmod go-w DIR/env.d"),
            ..case("an env.d that others can write", |world| {
                mode(&world.host.env_dir(), 0o777);
                true
            })
        },
        Case {
            code: "env-file",
            wrong: "leads out of its directory",
            mend: ("run", "cp --remove-destination"),
            ..case("a link out of env.d", |world| {
                std::fs::rename(alice(world), world.at("elsewhere")).unwrap();
                std::os::unix::fs::symlink(world.at("elsewhere"), alice(world)).unwrap();
                true
            })
        },
        Case {
            code: "env-file",
            wrong: "has 2 names (hard links)",
            mend: ("run", "cp -p DIR/env.d/alice.env DIR/env.d/alice.env.new && mv"),
            ..case("a hard link", |world| {
                std::fs::hard_link(alice(world), world.at("second")).unwrap();
                true
            })
        },
        Case {
            code: "env-file",
            wrong: "env.d/alice.env:2: expected NAME=value",
            mend: ("edit", "DIR/env.d/alice.env:2: expected NAME=value"),
            how: How::Hands(save_right),
            ..case("a line that is no assignment", |world| save(world, "NOTES_TOKEN=x\nwhat is this\n"))
        },
        Case {
            code: "env-file",
            wrong: "env.d/alice.env:1: MCPSUP_SERVERS lists, as number 1, a server that is not in mcpsup.toml",
            mend: ("edit", "DIR/env.d/alice.env:1: did you mean notes?"),
            how: How::Hands(save_right),
            ..case("an unknown server", |world| save(world, "MCPSUP_SERVERS=nots\nNOTES_TOKEN=x\n"))
        },
        Case {
            code: "env-file",
            wrong: "NOTES_TOKEN is required (a token)",
            mend: ("run", "set NOTES_TOKEN --user alice"),
            ..case("a credential that is missing", |world| save(world, "OTHER=x\n"))
        },
        Case {
            runs: false,
            code: "env-file",
            wrong: "NOTES_TOKEN is required (a token)",
            mend: ("edit", "DIR/env.d/alice.env: NOTES_TOKEN=…"),
            how: How::Hands(save_right),
            ..case("a credential that is missing while no daemon runs", |world| save(world, "OTHER=x\n"))
        },
        Case {
            servers: || format!("{}pattern = \"^nt_\"\n", notes()),
            code: "env-file",
            wrong: "env.d/alice.env:1: NOTES_TOKEN (a token) does not match the pattern",
            mend: ("run", "set NOTES_TOKEN --user alice"),
            ..case("a credential that cannot be right", |world| save(world, "NOTES_TOKEN=zz_9\n"))
        },
        Case {
            code: "env-file",
            wrong: "two files for one user",
            mend: ("do", "delete the other"),
            how: How::Hands(|world, _| std::fs::remove_file(world.at("env.d/.env.alice")).unwrap()),
            ..case("two files of one user", |world| {
                write(&world.at("env.d/.env.alice"), "NOTES_TOKEN=x\n", 0o600);
                true
            })
        },
        Case {
            runs: false,
            code: "sealed",
            wrong: "env.d/alice.env.cred: cannot be unsealed: Decryption failed",
            mend: ("do", "restore /var/lib/systemd/credential.secret from a backup"),
            how: How::Hands(|world, _| write(&world.at("key"), "right", 0o600)),
            ..case("a sealed file and another host's key", |world| {
                // In the place of systemd-creds: opens what the right key is there for.
                let tool = format!(
                    "#!/bin/sh\ncat >/dev/null\n[ \"$(cat {0}/key)\" = right ] || {{ echo 'Decryption failed' >&2; exit 1; }}\necho NOTES_TOKEN={GOOD}\n",
                    world.host.path().display()
                );
                write(&world.at("tools/systemd-creds"), &tool, 0o755);
                write(&world.at("key"), "wrong", 0o600);
                std::fs::rename(alice(world), world.at("env.d/alice.env.cred")).unwrap();
                true
            })
        },
        Case {
            root: true,
            code: "account",
            wrong: "env.d/alice.env:1: MCPSUP_RUN_AS names no account of this host",
            mend: ("edit", "DIR/env.d/alice.env:1"),
            how: How::Hands(save_right),
            ..case("an account that is not there", |world| {
                save(world, &format!("MCPSUP_RUN_AS=nobody-of-this-name\nNOTES_TOKEN={GOOD}\n"))
            })
        },
        Case {
            root: true,
            runs: false,
            code: "account",
            wrong: "71000-71000 are all taken",
            mend: ("edit", "DIR/mcpsup.toml: widen [daemon] uid_range"),
            how: How::Hands(|world, _| world.host.configure(&notes())),
            ..case("no account, and no reserved uid left", |world| {
                world.host.configure(&format!("[daemon]\nuid_range = \"71000-71000\"\n{}", notes()));
                world.host.save("bob", &format!("NOTES_TOKEN={GOOD}\n"));
                true
            })
        },
    ]
}

fn configurations() -> Vec<Case> {
    let right = How::Hands(|world, _| world.host.configure(&notes()));
    let right_again = How::Hands(|world, _| world.host.configure(&notes()));
    vec![
        Case {
            runs: false,
            code: "configuration",
            wrong: "mcpsup.toml:4:",
            mend: ("edit", "DIR/mcpsup.toml:4:"),
            how: right,
            ..case("a configuration that is no TOML", |world| {
                world.host.configure("[server.notes\n");
                true
            })
        },
        Case {
            code: "configuration",
            wrong: "unknown key \"comand\"",
            mend: ("edit", "did you mean"),
            how: right_again,
            ..case("an unknown key", |world| {
                world.host.configure(&notes().replace("transport", "comand = [\"x\"]\ntransport"));
                true
            })
        },
        Case {
            runs: false,
            code: "configuration",
            wrong: "mcpsup.toml: is not there",
            mend: ("run", "mcpsup --config DIR/mcpsup.toml init"),
            how: How::Hands(|world, _| world.host.configure(&notes())),
            ..case("no configuration", |world| {
                std::fs::remove_file(world.at("mcpsup.toml")).unwrap();
                true
            })
        },
        Case {
            code: "configuration",
            wrong: "may be changed by others (mode 0666)",
            mend: ("run", "chmod go-w DIR/mcpsup.toml"),
            ..case("a configuration that others can write", |world| {
                mode(&world.at("mcpsup.toml"), 0o666);
                true
            })
        },
        Case {
            runs: false,
            code: "isolation",
            wrong: "isolation = \"require\" cannot be had here",
            mend: ("edit", "DIR/mcpsup.toml"),
            how: How::Hands(|world, _| world.host.configure(&notes())),
            ..case("isolation that this host does not have", |world| {
                let daemon = "[daemon]\ncontainment = \"session\"\nisolation = \"require\"\n";
                world.host.configure(&format!("{daemon}{}", notes()));
                true
            })
        },
        Case {
            runs: false,
            code: "limits",
            wrong: "limits of server \"notes\" not enforced on this host: memory",
            mend: ("edit", "DIR/mcpsup.toml: take the [server.NAME.limits]"),
            how: How::Hands(|world, _| world.host.configure(&notes())),
            ..case("a limit that nothing enforces", |world| {
                let limits = "[server.notes.limits]\nmemory = \"512M\"\n";
                world.host.configure(&format!("[daemon]\ncontainment = \"session\"\n{}{limits}", notes()));
                true
            })
        },
    ]
}

/// The notes server with a further key.
fn with(line: &str) -> String {
    notes().replace("\nenv =", &format!("\n{line}env ="))
}

/// The notes server begun by another command, in TOML.
fn by(command: &str) -> String {
    notes().replace(&format!("[{:?}]", example("notes")), command)
}

fn programs() -> Vec<Case> {
    let well = || {
        How::Hands(|world, _| {
            world.host.configure(&notes());
            world.host.ok(&["reload"]);
        })
    };
    let of_servers = |name, breaks| Case { again: true, ..case(name, breaks) };
    vec![
        Case {
            code: "program",
            wrong: "/opt/no/such/server is not there",
            mend: (
                "edit",
                "command: where the program is; or install it, so that there is /opt/no/such/server",
            ),
            how: well(),
            ..of_servers("a server that is not installed", |world| {
                world.host.configure(&by("[\"/opt/no/such/server\"]"));
                true
            })
        },
        Case {
            code: "not-executable",
            wrong: "is not executable (mode 0644)",
            mend: ("run", "chmod a+rx DIR/server"),
            ..of_servers("a server that may not be executed", |world| {
                script(world, "server", "/bin/sh", 0o644);
                world.host.configure(&by(&format!("['{}']", world.shown("server"))));
                true
            })
        },
        Case {
            code: "interpreter",
            wrong: "/opt/no/node, which the first line of its program names, is not there",
            mend: ("do", "install /opt/no/node, or correct the first line"),
            how: How::Hands(|world, _| script(world, "server", "/bin/sh", 0o755)),
            ..of_servers("a script whose interpreter is missing", |world| {
                script(world, "server", "/opt/no/node", 0o755);
                world.host.configure(&by(&format!("['{}']", world.shown("server"))));
                true
            })
        },
        Case {
            code: "interpreter",
            wrong: "nodeling is in no directory of the server's PATH",
            mend: ("edit", "in [server.notes] env = { PATH = \"DIR/tools:/usr/local/sbin"),
            how: How::Hands(|world, told| {
                let Mend::Edit(_, so) = told else { panic!("{told:?}") };
                let path = so.split("PATH = ").nth(1).unwrap().trim_end_matches('}').trim();
                let toml = by(&format!("['{}']", world.shown("server")));
                world.host.configure(&toml.replace("\nenv = {", &format!("\nenv = {{ PATH = {path},")));
                world.host.ok(&["reload"]);
            }),
            ..of_servers("an interpreter that only the administrator's PATH has", |world| {
                mode(&world.at("tools"), 0o755);
                script(world, "server", "/usr/bin/env nodeling", 0o755);
                std::os::unix::fs::symlink("/bin/sh", world.at("tools/nodeling")).unwrap();
                world.host.configure(&by(&format!("['{}']", world.shown("server"))));
                true
            })
        },
        Case {
            code: "argument",
            wrong: "dist/index.js, which command names, is not there",
            mend: ("edit", "in [server.notes] command: where it is"),
            how: How::Hands(|world, _| {
                std::fs::create_dir(world.at("dist")).unwrap();
                script(world, "dist/index.js", "/bin/sh", 0o755);
                mode(&world.at("dist"), 0o755);
            }),
            ..of_servers("a script that was never built", |world| {
                let index = world.shown("dist/index.js");
                world.host.configure(&by(&format!("['/bin/sh', '{index}']")));
                true
            })
        },
        Case {
            code: "package",
            wrong: "npx would download @acme/notes when the server starts",
            mend: ("run", "npm install --global @acme/notes"),
            ..of_servers("a package that npx would download", |world| {
                // In the place of npm and npx: one puts the package where the other finds it.
                let modules = world.shown("npm/lib/node_modules");
                std::fs::create_dir_all(world.at("npm/bin")).unwrap();
                let npx = format!(
                    "#!/bin/sh\n[ -d {modules}/$2 ] || {{ echo 'npm error network' >&2; exit 1; }}\nexec \"${{0%/*}}/notes\"\n",
                );
                copy_program(&example("notes"), &world.at("npm/bin/notes"));
                mode(&world.at("npm/bin/notes"), 0o755);
                write(&world.at("npm/bin/npx"), &npx, 0o755);
                write(
                    &world.at("tools/npm"),
                    &format!("#!/bin/sh\nmkdir -p {modules}/$3\nchmod -R a+rX {}\n", world.shown("npm")),
                    0o755,
                );
                mode(&world.at("npm"), 0o755);
                mode(&world.at("npm/bin"), 0o755);
                let allow = format!("[server.notes.allow]\npaths = ['{}']\n", world.shown("npm"));
                let toml = by(&format!("['{}', '-y', '@acme/notes']", world.shown("npm/bin/npx")));
                world.host.configure(&format!("{toml}{allow}"));
                true
            })
        },
        Case {
            code: "working-directory",
            wrong: "its working_dir, is not there",
            mend: ("run", "DIR/place"),
            ..of_servers("a working directory that is missing", |world| {
                let dir = world.shown("place");
                world.host.configure(&with(&format!("working_dir = '{dir}'\n")));
                true
            })
        },
        Case {
            root: true,
            code: "working-directory",
            wrong: "DIR/closed is closed to it (mode 0700)",
            mend: ("run", "chmod o+x DIR/closed"),
            ..of_servers("a working directory behind a closed one", |world| {
                std::fs::create_dir_all(world.at("closed/place")).unwrap();
                mode(&world.at("closed/place"), 0o755);
                mode(&world.at("closed"), 0o700);
                let dir = world.shown("closed/place");
                world.host.configure(&with(&format!("working_dir = '{dir}'\n")));
                true
            })
        },
        Case {
            root: true,
            code: "way",
            wrong: "DIR/closed is closed to it (mode 0700)",
            mend: ("run", "chmod o+x DIR/closed"),
            ..of_servers("a program behind a closed directory", |world| {
                std::fs::create_dir(world.at("closed")).unwrap();
                mode(&world.at("closed"), 0o700);
                script(world, "closed/server", "/bin/sh", 0o755);
                world.host.configure(&by(&format!("['{}']", world.shown("closed/server"))));
                true
            })
        },
        Case {
            root: true,
            code: "directory",
            wrong: "belongs to uid 4242, and the server runs as alice",
            mend: ("run", "chown -R 65536:65536 DIR/state/instances/alice/notes"),
            ..case("a state directory of another account's", |world| {
                world.host.ok(&["stop", "alice"]);
                chown(world.at("state/instances/alice/notes"), Some(4242), None).unwrap();
                true
            })
        },
        Case {
            runs: false,
            code: "denied",
            wrong: "is denied though its mode allows it",
            mend: ("do", "find out what denies DIR/denied/server"),
            how: How::Hands(|world, _| world.denied = None),
            ..case("a security module that denies what modes allow", |world| {
                std::fs::create_dir(world.at("denied")).unwrap();
                mode(&world.at("denied"), 0o755);
                script(world, "denied/server", "/bin/sh", 0o755);
                world.host.configure(&by(&format!("['{}']", world.shown("denied/server"))));
                world.denied = Some(world.at("denied"));
                super::denies_here(world)
            })
        },
    ]
}

/// A server as a script: its first line, then the notes server, which lies beside it (a run sees nothing
/// else of the directory for temporary files).
fn script(world: &World, path: &str, interpreter: &str, bits: u32) {
    let text = format!("#!{interpreter}\nexec \"${{0%/*}}/notes\"\n");
    let notes = world.at(path).with_file_name("notes");
    if !notes.exists() {
        copy_program(&example("notes"), &notes);
        mode(&notes, 0o755);
    }
    write(&world.at(path), &text, bits);
    mode(&world.at(path), bits);
}

/// Pins alice's door and has this process listen there.
fn hold_her_port(world: &mut World) -> bool {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    world.kept.push(Box::new(listener));
    save(world, &format!("MCPSUP_PORT={port}\nNOTES_TOKEN={GOOD}\n"))
}

/// Takes the port that doctor says is free.
fn take_the_free_port(world: &mut World, told: &Mend) {
    let Mend::Edit(_, so) = told else { panic!("{told:?}") };
    let setting = so.split(',').next().unwrap();
    assert!(setting.starts_with("MCPSUP_PORT="), "{so}");
    save(world, &format!("{setting}\nNOTES_TOKEN={GOOD}\n"));
}

/// Her file under its other name, with the port where a start script had it.
fn hold_the_port_of_a_moved_file(world: &mut World) -> bool {
    hold_her_port(world);
    let text = std::fs::read_to_string(alice(world)).unwrap();
    world.host.delete("alice");
    write(&world.at("env.d/.env.alice"), &text.replace("MCPSUP_PORT", "NOTES_PORT"), 0o600);
    true
}

/// Follows it to the letter.
fn take_it_in_the_file_that_is_named(_: &mut World, told: &Mend) {
    let Mend::Edit(file, so) = told else { panic!("{told:?}") };
    let text = std::fs::read_to_string(file).unwrap();
    let others = text.lines().filter(|line| !line.starts_with("NOTES_PORT="));
    let lines: Vec<&str> = so.split(',').take(1).chain(others).collect();
    write(file.as_ref(), &(lines.join("\n") + "\n"), 0o600);
}

fn ports() -> Vec<Case> {
    vec![
        Case {
            again: true,
            root: true,
            code: "port",
            wrong: "its door, is held by uid 0, ",
            mend: ("edit", "DIR/env.d/.env.alice: NOTES_PORT="),
            how: How::Hands(take_it_in_the_file_that_is_named),
            ..case("a port that somebody else has, in a file from before", hold_the_port_of_a_moved_file)
        },
        Case {
            runs: false,
            // A port of the kernel's own range is free for the test, and root's file may pin it.
            root: true,
            code: "port",
            wrong: "its door, is held by uid 0, ",
            mend: ("edit", "DIR/env.d/alice.env: MCPSUP_PORT="),
            how: How::Hands(take_the_free_port),
            ..case("a port that somebody else has, while no daemon runs", hold_her_port)
        },
        Case {
            again: true,
            root: true,
            code: "port",
            wrong: "its door, is held by uid 0, ",
            mend: ("edit", "DIR/env.d/alice.env: MCPSUP_PORT="),
            how: How::Hands(take_the_free_port),
            ..case("a port that somebody else has", hold_her_port)
        },
        Case {
            runs: false,
            code: "port",
            wrong: "no port left for \"bob",
            mend: ("edit", "widen [ports] range"),
            how: How::Hands(|world, _| world.host.configure(&notes())),
            ..case("a range that is used up", |world| {
                let toml = std::fs::read_to_string(world.at("mcpsup.toml")).unwrap();
                let narrow = |line: &str| match line.strip_prefix("range = \"") {
                    Some(rest) => {
                        let first = rest.split('-').next().unwrap();
                        format!("range = \"{first}-{first}\"\n")
                    }
                    None => format!("{line}\n"),
                };
                let toml: String = toml.lines().map(narrow).collect();
                write(&world.at("mcpsup.toml"), &toml, 0o600);
                world.host.save("bob", &format!("NOTES_TOKEN={GOOD}\n"));
                true
            })
        },
        Case {
            runs: false,
            root: true,
            code: "port-range",
            wrong: "lies where the kernel puts clients",
            mend: ("run", "sysctl -w net.ipv4.ip_local_reserved_ports=45000-45010"),
            ..case("a range where the kernel puts clients", |world| {
                let toml = format!("[ports]\nrange = \"45000-45010\"\n{}", notes());
                write(&world.at("mcpsup.toml"), &toml, 0o600);
                // A bare host has none.
                let sysctl = "#!/bin/sh\necho \"${2#*=}\" >/proc/sys/\"$(echo \"${2%%=*}\" | tr . /)\"\n";
                write(&world.at("tools/sysctl"), sysctl, 0o755);
                // A network of its own, whose settings are nobody else's.
                inside(world, &["-n"], "", &["-n"])
            })
        },
        Case {
            runs: false,
            root: true,
            code: "port-range",
            wrong: "[ports] range 443-453 begins below 1024, where only root may listen",
            mend: ("edit", "DIR/mcpsup.toml: [ports] range: begin at 1024 or above"),
            how: How::Hands(|world, _| {
                world.host.configure(&notes());
                owned_by(world, 4242);
            }),
            ..case("a range that only root may use", |world| {
                let toml = format!("[ports]\nrange = \"443-453\"\n{}", notes());
                write(&world.at("mcpsup.toml"), &toml, 0o600);
                owned_by(world, 4242);
                world.around = ["setpriv", "--reuid", "4242", "--regid", "4242", "--clear-groups"]
                    .map(str::to_owned)
                    .into();
                true
            })
        },
    ]
}

/// The whole scratch directory is this uid's.
fn owned_by(world: &World, uid: u32) {
    let status = Command::new("chown").arg("-R").arg(format!("{uid}:{uid}")).arg(world.host.path()).status();
    assert!(status.unwrap().success());
}

/// A process that keeps namespaces; it is ended with the case.
struct Kept(Child);

impl Drop for Kept {
    fn drop(&mut self) {
        self.0.kill().unwrap_or_default();
        self.0.wait().unwrap();
    }
}

/// From now on commands run in namespaces of their own, made ready by `script`; false where there can
/// be none.
fn inside(world: &mut World, make: &[&str], script: &str, enter: &[&str]) -> bool {
    let script = format!("set -e\n{script}\necho ready\nexec sleep 600");
    let mut child = Command::new("unshare")
        .args(make)
        .args(["/bin/sh", "-c", &script])
        .current_dir(world.host.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let out = child.stdout.take().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).unwrap();
    let pid = child.id().to_string();
    world.kept.push(Box::new(Kept(child)));
    if line.trim() != "ready" {
        eprintln!("skipped: unshare {make:?} cannot be had here");
        return false;
    }
    let words = ["nsenter", "-t", &pid].into_iter().chain(enter.iter().copied()).chain(["--"]);
    world.around = words.map(str::to_owned).collect();
    true
}

fn places() -> Vec<Case> {
    vec![
        Case {
            runs: false,
            code: "remembered",
            wrong: "state/ports.json cannot be understood",
            mend: ("run", "mv DIR/state/ports.json DIR/state/ports.json.damaged"),
            ..case("a port table that is damaged", |world| {
                std::fs::create_dir(world.at("state")).unwrap();
                write(&world.at("state/ports.json"), "{\"version\":1,", 0o600);
                true
            })
        },
        Case {
            runs: false,
            code: "port-map",
            wrong: "run/ports.json, the port map, cannot be understood",
            mend: ("run", "rm DIR/run/ports.json"),
            ..case("a port map that is damaged", |world| {
                std::fs::create_dir(world.at("run")).unwrap();
                write(&world.at("run/ports.json"), "half of", 0o644);
                true
            })
        },
        Case {
            runs: false,
            root: true,
            code: "directory",
            wrong: "the state directory, belongs to uid 4242",
            mend: ("run", "chown 0 DIR/state"),
            ..case("a state directory of another's", |world| {
                std::fs::create_dir(world.at("state")).unwrap();
                chown(world.at("state"), Some(4242), None).unwrap();
                true
            })
        },
        Case {
            runs: false,
            code: "directory",
            wrong: "others may write to DIR/logs, the logs directory (mode 0777)",
            mend: ("run", "chmod go-w DIR/logs"),
            ..case("a log directory that others can write", |world| {
                std::fs::create_dir(world.at("logs")).unwrap();
                mode(&world.at("logs"), 0o777);
                true
            })
        },
        Case {
            root: true,
            runs: false,
            code: "read-only",
            wrong: "the state directory, lies on a file system that is read-only",
            mend: ("run", "mount -o remount,rw"),
            ..case("a state directory that is read-only", |world| {
                let script = "mkdir state && mount -t tmpfs -o ro,mode=700 state-of-a-test state";
                inside(world, &["-m", "--propagation", "private"], script, &["-m"])
            })
        },
        Case {
            root: true,
            runs: false,
            code: "disk-full",
            wrong: "no space is left on the file system of DIR/state",
            mend: ("do", "make room"),
            how: How::Hands(|world, _| world.obey(&format!("rm {}", world.shown("state/fill")))),
            ..case("a full disk", |world| {
                let script = "mkdir state && mount -t tmpfs -o size=256k,mode=700 state-of-a-test state\n\
                              cat /dev/zero >state/fill 2>/dev/null || :";
                inside(world, &["-m", "--propagation", "private"], script, &["-m"])
            })
        },
    ]
}

/// Answers each question with the status of a daemon of another version.
fn other_version(world: &mut World) -> bool {
    use std::io::{Read as _, Write as _};
    for dir in ["run", "state", "logs"] {
        std::fs::create_dir(world.at(dir)).unwrap();
    }
    let listener = std::os::unix::net::UnixListener::bind(world.at("run/control.sock")).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = [0; 1024];
            // One that only knocked has gone.
            if stream.read(&mut head).unwrap_or(0) == 0 {
                continue;
            }
            let body = r#"{"version":"9.9.9","generation":1,"instances":[],"problems":[],"notes":[]}"#;
            let answer = format!(
                "HTTP/1.1 200 OK\r\nmcpsup-version: 9.9.9\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).unwrap_or_default();
        }
    });
    true
}

fn daemons() -> Vec<Case> {
    vec![
        Case {
            runs: false,
            code: "daemon",
            wrong: "the daemon is not running: there is no DIR/run/control.sock",
            mend: ("run", "mcpsup --config DIR/mcpsup.toml daemon"),
            ..case("no daemon", |_| true)
        },
        Case {
            code: "daemon",
            wrong: "control.sock is left of one that was killed",
            mend: ("run", "mcpsup --config DIR/mcpsup.toml daemon"),
            ..case("a daemon that was killed", |world| {
                world.host.kill_daemon();
                true
            })
        },
        Case {
            code: "daemon",
            wrong: "and its control socket DIR/run/control.sock is gone",
            mend: ("run", "kill -USR2 "),
            ..case("a control socket that somebody removed", |world| {
                std::fs::remove_file(world.at("run/control.sock")).unwrap();
                true
            })
        },
        Case {
            runs: false,
            code: "daemon",
            wrong: "control.sock is no socket",
            mend: ("run", "rm DIR/run/control.sock"),
            how: How::Hands(|world, told| {
                let Mend::Run(command) = told else { panic!("{told:?}") };
                world.obey(command);
                world.host.start();
            }),
            ..case("a file where the control socket should be", |world| {
                std::fs::create_dir(world.at("run")).unwrap();
                write(&world.at("run/control.sock"), "", 0o600);
                true
            })
        },
        Case {
            runs: false,
            code: "version",
            wrong: "the daemon is mcpsup 9.9.9, and this is mcpsup ",
            mend: ("run", "kill -USR2 "),
            // The process is this test's: another listens in its place.
            how: How::Hands(|world, _| {
                std::fs::remove_file(world.at("run/control.sock")).unwrap();
                world.host.start();
            }),
            ..case("a daemon of another version", other_version)
        },
    ]
}

/// In the place of systemctl: says what the file beside it says, and does what one is told to do.
const SYSTEMCTL: &str = r#"#!/bin/sh
here=$(dirname "$0")
say() { grep -v "^$1=" "$here/unit" >"$here/unit.new"; echo "$1=$2" >>"$here/unit.new"; mv "$here/unit.new" "$here/unit"; }
case "$1" in
show) cat "$here/unit" ;;
enable) say UnitFileState enabled ;;
reset-failed) say ActiveState inactive ;;
start) say ActiveState active ;;
revert) say KillMode process ;;
daemon-reload) say NeedDaemonReload no ;;
esac
"#;

/// A host that systemd seems to run, with mcpsup where it is installed: all of it in a world of its
/// own, in which /etc, /run and /var are the scratch directory's.
fn with_unit(world: &mut World, unit: &str) -> bool {
    write(&world.at("tools/systemctl"), SYSTEMCTL, 0o755);
    write(&world.at("tools/unit"), unit, 0o644);
    let script = "for dir in etc run var; do mkdir -p host/$dir; done\n\
                  cp /etc/passwd /etc/group /etc/nsswitch.conf host/etc/ 2>/dev/null || :\n\
                  mkdir -p host/etc/mcpsup host/run/systemd/system host/var/lib host/var/log\n\
                  cp mcpsup.toml host/etc/mcpsup/; cp -r env.d host/etc/mcpsup/\n\
                  chmod 600 host/etc/mcpsup/env.d/*\n\
                  for dir in etc run var; do mount --bind host/$dir /$dir; done";
    world.is_named = false;
    inside(world, &["-m", "--propagation", "private"], script, &["-m"])
}

const UNIT: &str = "LoadState=loaded\nUnitFileState=enabled\nActiveState=inactive\nResult=success\nKillMode=process\nRestartKillSignal=12\nNeedDaemonReload=no\n";

fn units() -> Vec<Case> {
    let of_unit = |name, breaks| Case { runs: false, root: true, code: "unit", ..case(name, breaks) };
    vec![
        Case {
            wrong: "mcpsup.service is not enabled",
            mend: ("run", "systemctl enable mcpsup"),
            ..of_unit("a unit that is not enabled", |world| {
                with_unit(world, &UNIT.replace("=enabled", "=disabled"))
            })
        },
        Case {
            wrong: "mcpsup.service failed (exit-code)",
            mend: ("run", "systemctl reset-failed mcpsup && systemctl start mcpsup"),
            ..of_unit("a unit that failed", |world| {
                with_unit(
                    world,
                    &UNIT
                        .replace("ActiveState=inactive", "ActiveState=failed")
                        .replace("=success", "=exit-code"),
                )
            })
        },
        Case {
            wrong: "mcpsup.service has KillMode=control-group",
            mend: ("run", "systemctl revert mcpsup && systemctl daemon-reload"),
            ..of_unit("a unit whose KillMode was edited", |world| {
                with_unit(world, &UNIT.replace("KillMode=process", "KillMode=control-group"))
            })
        },
        Case {
            wrong: "mcpsup.service is not installed",
            mend: (
                "run",
                "install -m 644 units/mcpsup.service /etc/systemd/system/ && systemctl enable --now mcpsup",
            ),
            how: How::Hands(|world, _| write(&world.at("tools/unit"), UNIT, 0o644)),
            ..of_unit("a unit that is not installed", |world| with_unit(world, "LoadState=not-found\n"))
        },
    ]
}

fn limits() -> Vec<Case> {
    vec![
        Case {
            runs: false,
            root: true,
            code: "watch",
            wrong: "fs.inotify.max_user_instances is used up",
            mend: ("run", "sysctl -w fs.inotify.max_user_instances=1024"),
            // The same limit by the name that it has in a user namespace.
            how: How::Hands(|world, _| world.obey("echo 1024 >/proc/sys/user/max_inotify_instances")),
            ..case("no inotify instance left", |world| {
                let script = "echo 0 >/proc/sys/user/max_inotify_instances";
                inside(world, &["-U", "-r"], script, &["-U", "--preserve-credentials"])
            })
        },
        Case {
            runs: false,
            code: "open-files",
            wrong: "the daemon may open 60 files, and 1 instances need 68",
            mend: ("do", "ulimit -n 65536"),
            how: How::Hands(|world, _| world.around.clear()),
            ..case("too few open files", |world| {
                world.around = ["/bin/sh", "-c", "ulimit -n 60; exec \"$@\"", "sh"].map(str::to_owned).into();
                true
            })
        },
    ]
}

fn servers() -> Vec<Case> {
    let well = || {
        How::Hands(|world, _| {
            world.host.configure(&notes());
            world.host.ok(&["reload"]);
        })
    };
    let of_servers = |name, breaks| Case { again: true, ..case(name, breaks) };
    vec![
        Case {
            code: "crash",
            wrong: "its last words: Error: Cannot find module 'zod'",
            mend: ("do", "install what its last words name"),
            how: well(),
            ..of_servers("a server that ends by itself", |world| {
                let script =
                    "echo \"Error: Cannot find module 'zod'\" >&2; echo '    at node:internal' >&2; exit 1";
                world.host.configure(&by(&format!("['/bin/sh', '-c', {script:?}]")));
                true
            })
        },
        Case {
            code: "crash",
            wrong: "its last words: 401 Unauthorized: [redacted]",
            mend: ("run", "edit alice"),
            how: well(),
            ..of_servers("a credential that the service refuses", |world| {
                let script = "echo \"401 Unauthorized: $NOTES_TOKEN\" >&2; exit 1";
                world.host.configure(&by(&format!("['/bin/sh', '-c', {script:?}]")));
                true
            })
        },
        Case {
            code: "not-ready",
            wrong: "it answered HTTP 404",
            mend: ("edit", "in [server.notes] path (or ready.probe_path)"),
            how: well(),
            ..of_servers("an endpoint at another path", |world| {
                let ready = "[server.notes.ready]\ntimeout = \"1s\"\n";
                world.host.configure(&format!("{}{ready}", with("path = \"/nope\"\n")));
                true
            })
        },
        Case {
            code: "not-ready",
            wrong: "it does not listen on port ",
            mend: ("edit", "in [server.unruly] port_env, or {port} in command"),
            how: How::Hands(|world, _| {
                save(world, "UNRULY=\n");
            }),
            servers: || unruly("[server.unruly.ready]\ntimeout = \"1s\"\n"),
            ..of_servers("a server that does not listen", |world| save(world, "UNRULY=--never\n"))
        },
        Case {
            code: "not-ready",
            wrong: "it has not answered initialize",
            mend: ("edit", "in [server.notes] transport, or an argument of command"),
            how: well(),
            ..of_servers("a server that prints no protocol", |world| {
                world.host.configure(
                    "[server.notes]\ncommand = ['/bin/sh', '-c', 'echo Server started; exec cat >/dev/null']\ntransport = \"stdio\"\n\
                     [server.notes.ready]\ntimeout = \"1s\"\n",
                );
                true
            })
        },
    ]
}

/// What the client of the case has in its project file.
fn snippet(world: &World, text: &str) -> bool {
    write(&world.at("work/.mcp.json"), text, 0o644);
    true
}

fn clients() -> Vec<Case> {
    let of_clients = |name, breaks| Case { code: "client", asks: &["alice"], ..case(name, breaks) };
    vec![
        Case {
            wrong: "stale: points at 4242",
            mend: ("run", "client alice --write"),
            ..of_clients("a client that has an old port", |world| {
                snippet(
                    world,
                    r#"{"mcpServers":{"notes":{"type":"http","url":"http://127.0.0.1:4242/mcp"}}}"#,
                )
            })
        },
        Case {
            wrong: "claude-code: .mcp.json: notes",
            mend: ("edit", "DIR/work/.mcp.json:1:"),
            how: How::Hands(|world, _| {
                std::fs::remove_file(world.at("work/.mcp.json")).unwrap();
            }),
            ..of_clients("a client's file that is broken JSON", |world| {
                snippet(world, "{\"mcpServers\": {\"notes\" 1}}")
            })
        },
        Case {
            servers: || with("access = \"token\"\n"),
            wrong: "is not written as claude-code reads it",
            mend: ("run", "client alice --write"),
            ..of_clients("a client that asks for no token", |world| {
                let url = world.host.until_state("alice", StateName::Up).url.unwrap();
                snippet(world, &format!(r#"{{"mcpServers":{{"notes":{{"type":"http","url":"{url}"}}}}}}"#))
            })
        },
    ]
}

/// Every case of every group.
pub(super) fn all() -> Vec<Case> {
    let groups = [
        files(),
        configurations(),
        programs(),
        ports(),
        places(),
        daemons(),
        units(),
        limits(),
        servers(),
        clients(),
    ];
    groups.into_iter().flatten().collect()
}

#[test]
fn the_list_has_what_was_promised() {
    let all = all();
    assert!(all.len() >= 25, "{}", all.len());
    for (at, one) in all.iter().enumerate() {
        assert!(!one.code.is_empty() && !one.wrong.is_empty(), "{}", one.name);
        assert!(all[..at].iter().all(|other| other.name != one.name), "{} stands twice", one.name);
    }
    assert!(Path::new(MCPSUP).exists());
}

fn drive_all(cases: &[Case]) {
    cases.iter().for_each(drive);
}

#[test]
fn every_broken_env_file_is_named_with_its_mend() {
    drive_all(&files());
}

#[test]
fn every_broken_configuration_is_named_with_its_mend() {
    drive_all(&configurations());
}

#[test]
fn everything_a_server_lacks_is_named_with_its_mend() {
    drive_all(&programs());
}

#[test]
fn every_port_that_cannot_be_had_is_named_with_its_mend() {
    drive_all(&ports());
}

#[test]
fn every_directory_that_is_of_no_use_is_named_with_its_mend() {
    drive_all(&places());
}

#[test]
fn every_daemon_that_does_not_answer_is_named_with_its_mend() {
    drive_all(&daemons());
}

#[test]
fn every_unit_that_would_not_keep_it_running_is_named_with_its_mend() {
    drive_all(&units());
}

#[test]
fn every_limit_of_the_host_is_named_with_its_mend() {
    drive_all(&limits());
}

#[test]
fn every_server_that_does_not_come_up_is_named_with_its_mend() {
    drive_all(&servers());
}

#[test]
fn every_client_that_would_not_get_in_is_named_with_its_mend() {
    drive_all(&clients());
}
