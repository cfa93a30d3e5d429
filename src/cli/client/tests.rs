//! The verb on real files in a scratch directory; servers are stood in for by a closure, or by a
//! small listener.

use std::cell::RefCell;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use clap::Parser;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

fn args(line: &str) -> Args {
    let words = ["client"].into_iter().chain(line.split(' ').filter(|word| !word.is_empty()));
    Line::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}")).args
}

fn door(user: &str, server: &str, port: u16) -> portmap::Entry {
    portmap::Entry {
        user: user.parse().unwrap(),
        server: server.parse().unwrap(),
        port,
        url: format!("http://127.0.0.1:{port}/mcp"),
        takes_token: false,
        state: StateName::Up,
        since: "2026-11-21T09:00:00Z".to_owned(),
    }
}

fn map() -> PortMap {
    let instances = vec![door("alice", "notes", 3456), door("bob", "notes", 3457)];
    PortMap { version: 1, generation: 1, instances }
}

struct Scratch {
    dir: tempfile::TempDir,
    here: Here,
    map: PortMap,
}

impl Scratch {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| {
            let path = dir.path().join(name);
            fs::create_dir(&path).unwrap();
            path
        };
        let here = Here {
            caller: Some("alice".parse().unwrap()),
            uid: fs::metadata(dir.path()).unwrap().uid(),
            home: at("home"),
            config_home: at("config"),
            cwd: at("project"),
            program: vec!["/opt/bin/mcpsup".to_owned()],
        };
        Self { dir, here, map: map() }
    }

    /// What it answers, and what goes to stdout and stderr.
    fn run(&self, line: &str) -> (anyhow::Result<bool>, String, String) {
        let (mut out, mut aside) = (Vec::new(), Vec::new());
        let answer = tell(&args(line), &self.map, &self.here, &mut out, &mut aside);
        (answer, String::from_utf8(out).unwrap(), String::from_utf8(aside).unwrap())
    }

    fn check(&self, line: &str, answers: &Result<(), String>) -> (bool, String) {
        let args = args(&format!("{line} --check"));
        let doors = Doors::find(&args, &self.map, &self.here).unwrap();
        let mut out = Vec::new();
        let asked = RefCell::new(Vec::new());
        let well = check::run(&args, &doors, &self.map, &self.here, &mut out, |url| {
            asked.borrow_mut().push(url.to_owned());
            answers.clone()
        });
        assert!(asked.borrow().iter().all(|entry| entry.url == "http://127.0.0.1:3456/mcp"));
        (well.unwrap(), String::from_utf8(out).unwrap())
    }

    fn project(&self, name: &str) -> PathBuf {
        self.here.cwd.join(name)
    }
}

fn put(path: &Path, text: &str, mode: u32) {
    crate::system::files::replace(path, text.as_bytes(), mode).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn what_is_printed_can_be_pasted_and_the_advice_goes_elsewhere() {
    let scratch = Scratch::new();
    for kind in ClientKind::ALL {
        let (answer, out, aside) = scratch.run(&format!("alice --for {kind}"));
        assert!(answer.unwrap());
        let way = if kind == ClientKind::ClaudeDesktop { "alice/notes" } else { "http://127.0.0.1:3456/mcp" };
        assert!(out.contains(way), "{out}");
        assert!(!out.contains("3457"), "somebody else's door: {out}");
        assert!(aside.contains("this belongs in "), "{aside}");
    }
    for kind in ClientKind::ALL {
        let (_, out, _) = scratch.run(&format!("alice --for {kind} --stdio"));
        assert!(
            out.contains("/opt/bin/mcpsup") && out.contains("alice/notes") && !out.contains("3456"),
            "{out}"
        );
    }
    let (_, out, aside) = scratch.run("");
    assert!(serde_json::from_str::<serde_json::Value>(&out).is_ok(), "{out}");
    assert!(aside.contains("project/.mcp.json; --write puts it there"), "{aside}");
}

#[test]
fn nobody_without_a_door_gets_a_snippet() {
    let mut scratch = Scratch::new();
    for (line, wanted) in [
        ("carol", "cannot find a port of carol in the port map"),
        ("alice/github", "cannot find a port of alice/github"),
        ("alice --for zed --scope project", "zed has no project file"),
    ] {
        let error = scratch.run(&format!("{line} --write")).0.unwrap_err().to_string();
        assert!(error.contains(wanted), "{line}: {error}");
    }
    scratch.here.caller = None;
    assert!(scratch.run("").0.unwrap_err().to_string().contains("name the user"));
}

#[test]
fn a_server_that_does_not_run_is_said_beside_its_snippet() {
    let mut scratch = Scratch::new();
    scratch.map.instances[0].state = StateName::Refused;
    let (_, _, aside) = scratch.run("alice");
    assert!(aside.contains("alice/notes is refused; see mcpsup status alice"), "{aside}");
}

#[test]
fn two_servers_that_a_client_would_confuse_get_two_names() {
    let mut scratch = Scratch::new();
    scratch.map.instances = vec![door("alice", "a-b", 1), door("alice", "a.b", 2), door("alice", "c", 3)];
    let (_, out, _) = scratch.run("alice");
    let file: serde_json::Value = serde_json::from_str(&out).unwrap();
    let names: Vec<_> = file["mcpServers"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["a-b-1", "a-b-2", "c"]);
}

#[test]
fn writing_twice_changes_the_file_once() {
    let scratch = Scratch::new();
    for kind in ClientKind::ALL {
        let line = format!("alice --for {kind} --write --json");
        let answer = |out: &str| serde_json::from_str::<serde_json::Value>(out).unwrap();
        let (done, out, _) = scratch.run(&line);
        assert!(done.unwrap());
        let first = answer(&out);
        assert_eq!((&first["changed"], &first["backup"]), (&true.into(), &serde_json::Value::Null));
        let path = PathBuf::from(first["file"].as_str().unwrap());
        assert_eq!(mode(&path), 0o600, "{kind}");
        let written = fs::read_to_string(&path).unwrap();
        let (done, out, _) = scratch.run(&line);
        assert!(done.unwrap());
        assert_eq!(answer(&out)["changed"], false, "{kind}");
        assert_eq!(fs::read_to_string(&path).unwrap(), written);
        let (well, said) = scratch.check(&format!("alice --for {kind}"), &Ok(()));
        assert!(well, "{said}");
    }
}

#[test]
fn every_change_keeps_its_own_backup_with_the_mode_of_the_file() {
    let scratch = Scratch::new();
    let file = scratch.project(".mcp.json");
    let texts = [r#"{"a": 1}"#, r#"{"a": 2}"#];
    for (i, text) in texts.iter().enumerate() {
        put(&file, text, 0o640);
        let (answer, out, aside) = scratch.run("alice --write");
        assert!(answer.unwrap());
        assert!(out.contains("notes now in"), "{out}");
        let backup = scratch.project(&format!(".mcp.json.bak-mcpsup{}", ["", ".1"][i]));
        assert!(aside.contains(&*backup.to_string_lossy()), "{aside}");
        assert_eq!(fs::read_to_string(&backup).unwrap(), *text);
        assert_eq!((mode(&file), mode(&backup)), (0o640, 0o640));
    }
    let first = scratch.project(".mcp.json.bak-mcpsup");
    assert_eq!(fs::read_to_string(first).unwrap(), texts[0]);
}

#[test]
fn a_refused_file_is_untouched_and_leaves_no_backup() {
    let scratch = Scratch::new();
    let file = scratch.project(".mcp.json");
    for (text, wanted) in [
        ("{\n  \"mcpServers\": [\n", ".mcp.json:2:"),
        (
            "{\"mcpServers\": {\"notes\": {\"command\": \"x\"}}}",
            "\"notes\" already points at a command; --force",
        ),
        (
            "{\"mcpServers\": {\"notes\": {\"url\": \"http://127.0.0.1:3457/mcp\"}}}",
            "it is bob's door on 3457; --force",
        ),
    ] {
        put(&file, text, 0o600);
        let error = format!("{:#}", scratch.run("alice --write").0.unwrap_err());
        assert!(error.contains(wanted), "{error}");
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
        assert_eq!(fs::read_dir(&scratch.here.cwd).unwrap().count(), 1);
    }
    assert!(scratch.run("alice --write --force").0.unwrap());
    assert!(fs::read_to_string(&file).unwrap().contains("3456"));
}

#[test]
fn a_link_is_followed_and_stays_a_link() {
    let scratch = Scratch::new();
    let target = scratch.dir.path().join("dotfiles.json");
    put(&target, "{}\n", 0o644);
    let link = scratch.project(".mcp.json");
    std::os::unix::fs::symlink(&target, &link).unwrap();
    assert!(scratch.run("alice --write").0.unwrap());
    assert!(link.is_symlink());
    assert!(fs::read_to_string(&target).unwrap().contains("3456"));
    fs::remove_file(&target).unwrap();
    let error = scratch.run("alice --write").0.unwrap_err().to_string();
    assert!(error.contains("a link to nothing"), "{error}");
}

#[test]
fn somebody_elses_file_is_not_replaced() {
    let mut scratch = Scratch::new();
    put(&scratch.project(".mcp.json"), "{}", 0o600);
    scratch.here.uid += 1;
    let error = scratch.run("alice --write").0.unwrap_err().to_string();
    assert!(error.contains("it belongs to uid"), "{error}");
}

#[test]
fn what_is_no_text_file_is_refused() {
    let scratch = Scratch::new();
    let file = scratch.project(".mcp.json");
    crate::system::files::replace(&file, b"{\"a\": \"\xff\"}", 0o600).unwrap();
    let error = scratch.run("alice --write").0.unwrap_err().to_string();
    assert!(error.contains("byte 7 is not UTF-8"), "{error}");
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    assert!(scratch.run("alice --write").0.is_err());
    assert!(scratch.run("alice --check").0.is_err());
}

#[test]
fn opencode_is_given_its_entry_where_it_already_has_a_file() {
    let scratch = Scratch::new();
    put(&scratch.project("opencode.jsonc"), "{\n  // c\n}\n", 0o600);
    assert!(scratch.run("alice --for opencode --write").0.unwrap());
    assert!(fs::read_to_string(scratch.project("opencode.jsonc")).unwrap().contains("3456"));
    assert!(!scratch.project("opencode.json").exists());
}

#[test]
fn a_check_says_what_is_wrong_and_the_command_that_mends_it() {
    let scratch = Scratch::new();
    let (well, said) = scratch.check("alice", &Ok(()));
    assert!(!well);
    assert_eq!(said, "claude-code: .mcp.json: notes: is missing; run mcpsup client alice --write\n");
    let entry = |fields: &str| format!("{{\"mcpServers\": {{\"notes\": {{{fields}}}}}}}");
    let right = "\"type\": \"http\", \"url\": \"http://127.0.0.1:3456/mcp\"";
    for (text, answers, wanted) in [
        (entry(right), Ok(()), "notes → http://127.0.0.1:3456/mcp: answers\n"),
        (
            entry(right),
            Err("connection refused".to_owned()),
            "does not answer: connection refused; see mcpsup status alice\n",
        ),
        (
            entry("\"url\": \"http://127.0.0.1:3999/mcp\""),
            Ok(()),
            "stale: points at 3999, alice's door is 3456; run mcpsup client alice --write\n",
        ),
        (
            entry("\"url\": \"http://127.0.0.1:3457/mcp\""),
            Ok(()),
            "stale: points at 3457, bob's door, alice's door is 3456; run mcpsup client alice --write --force\n",
        ),
        (
            entry("\"url\": \"https://mcp.example/SECRET\""),
            Ok(()),
            "stale: points at https://mcp.example, alice's door is 3456; run mcpsup client alice --write --force\n",
        ),
        (entry("\"headers\": {}"), Ok(()), "has no URL that claude-code looks at; run"),
        (
            entry("\"type\": \"sse\", \"url\": \"http://127.0.0.1:3456/mcp\""),
            Ok(()),
            "is not written as claude-code reads it; run mcpsup client alice --write\n",
        ),
        (entry(&format!("{right}, \"disabled\": true")), Ok(()), "is switched off in "),
        ("{".to_owned(), Ok(()), ".mcp.json:1:1: "),
    ] {
        put(&scratch.project(".mcp.json"), &text, 0o600);
        let (well, said) = scratch.check("alice", &answers);
        assert!(said.contains(wanted), "{text}: {said}");
        assert!(!said.contains("SECRET"), "{said}");
        assert_eq!(well, wanted.ends_with(": answers\n"), "{said}");
    }
}

#[test]
fn a_check_looks_into_both_files_and_names_the_one_to_mend() {
    let scratch = Scratch::new();
    assert!(scratch.run("alice --scope user --write").0.unwrap());
    let (well, said) = scratch.check("alice", &Ok(()));
    assert!(well, "{said}");
    assert!(said.contains("home/.claude.json: notes"), "{said}");
    put(
        &scratch.here.home.join(".claude.json"),
        "{\"mcpServers\": {\"notes\": {\"url\": \"http://127.0.0.1:3999/mcp\"}}}",
        0o600,
    );
    let (well, said) = scratch.check("alice", &Ok(()));
    assert!(!well);
    assert!(said.contains("run mcpsup client alice --scope user --write"), "{said}");
    let (_, said) = scratch.check("alice --json", &Ok(()));
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["checks"][0]["ok"], false);
}

#[test]
fn a_check_really_asks_the_server() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let mut heard = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 2048];
            let read = stream.read(&mut request).unwrap();
            let request = String::from_utf8_lossy(&request[..read]).into_owned();
            if request == "enough" {
                return heard;
            }
            heard.push(request);
            stream
                .write_all(
                    b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                )
                .unwrap();
        }
    });
    let at = |url: &str| Entry { name: "notes".to_owned(), url: url.to_owned(), command: None, helper: None };
    let refused = check::answers(&at(&format!("http://{address}/somewhere"))).unwrap_err();
    std::net::TcpStream::connect(address).unwrap().write_all(b"enough").unwrap();
    let heard = server.join().unwrap();
    assert!(refused.contains("503"), "{refused}");
    assert!(!heard.is_empty());
    assert!(heard.iter().all(|request| request.starts_with("POST /somewhere HTTP/1.1")), "{heard:?}");
    assert!(check::answers(&at(&format!("http://{address}/mcp"))).is_err(), "nobody listens any more");
    assert!(check::answers(&at("https://127.0.0.1:1/mcp")).is_err());
}

#[test]
fn words_that_cannot_mean_anything_together_are_wrong_use() {
    for line in [
        "--for emacs",
        "--write --check",
        "--force",
        "--scope user --file x",
        "--scope all",
        "../x",
        "alice/",
    ] {
        assert!(Line::try_parse_from(["client"].into_iter().chain(line.split(' '))).is_err(), "{line}");
    }
}

#[test]
fn words_are_quoted_for_a_shell_where_they_have_to_be() {
    let words = |text: &[&str]| line(&text.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
    assert_eq!(words(&["/usr/bin/mcpsup", "headers", "a.b/c-d"]), "/usr/bin/mcpsup headers a.b/c-d");
    assert_eq!(words(&["/a b/$x", "it's", ""]), "'/a b/$x' 'it'\\''s' ''");
}

#[test]
fn an_entry_that_stdio_wrote_is_right_whether_or_not_it_is_asked_for_by_that() {
    let scratch = Scratch::new();
    scratch.run("--for vscode --stdio --write").0.unwrap();
    let (well, said) = scratch.check("--for vscode", &Ok(()));
    assert!(well && said.contains("notes: answers"), "{said}");
    // Another user's is none of alice's.
    let file = scratch.project(".vscode/mcp.json");
    let bobs = fs::read_to_string(&file).unwrap().replace("alice/notes", "bob/notes");
    put(&file, &bobs, 0o600);
    let (well, said) = scratch.check("--for vscode", &Ok(()));
    assert!(!well && said.contains("stale: starts another mcpsup connect"), "{said}");
}

#[test]
fn what_holds_for_project_files_is_not_said_of_a_users_own() {
    let scratch = Scratch::new();
    for (line, is_said) in
        [("--for codex", false), ("--for codex --scope project", true), ("", true), ("--scope user", false)]
    {
        let (_, _, aside) = scratch.run(line);
        assert_eq!(aside.contains("a project file"), is_said, "{line}: {aside}");
    }
}

#[test]
fn root_without_servers_is_asked_whose_are_meant() {
    let mut scratch = Scratch::new();
    scratch.here = Here { uid: 0, caller: Some("root".parse().unwrap()), ..scratch.here };
    let said = scratch.run("").0.unwrap_err().to_string();
    assert_eq!(said, "say whose: USER or USER/SERVER");
}

#[test]
fn a_server_that_is_configured_no_more_gets_no_entry_and_is_missed_by_nobody() {
    let mut scratch = Scratch::new();
    let gone = |server, port| portmap::Entry { state: StateName::Gone, ..door("alice", server, port) };
    scratch.map.instances.push(gone("maps", 3458));
    let (_, out, aside) = scratch.run("--write");
    assert!(
        out.contains("notes now in") && !out.contains("maps") && !aside.contains("is gone"),
        "{out}{aside}"
    );
    let (well, said) = scratch.check("", &Ok(()));
    assert!(well, "{said}");
    // Who asks for it by name, or has nothing else, is told.
    assert!(scratch.run("alice/maps").2.contains("alice/maps is gone"));
    scratch.map.instances = vec![gone("notes", 3456)];
    assert!(scratch.run("").2.contains("alice/notes is gone"));
}
