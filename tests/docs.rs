//! docs/ beside the program: every message that docs/troubleshooting.md quotes still stands in the
//! sources, every command is one that the program takes, every file is one that it reads, and every
//! link leads somewhere; docs/security.md says of each promise what the program says of it, and
//! src/lib.rs leads to every module. Reads src and docs as text, and all the rest for what a merge leaves.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first thing that is wrong")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap::{CommandFactory, Parser};
use mcpsup::cli::args::Cli;
use mcpsup::logic::cage::Site;
use mcpsup::logic::{config, envfile};
use mcpsup::model::cage::{Ground, Isolation, Promise, Tree, Tried};

/// The shortest piece of a message that tells it from others.
const TELLING: usize = 7;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below `dir`.
fn below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(below(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// Every file below `dir` whose name ends in `.ending`.
fn files(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = below(dir);
    found.retain(|path| path.extension().is_some_and(|it| it == ending));
    found
}

/// The pages for those who use it, with their text.
fn pages() -> Vec<(PathBuf, String)> {
    let mut pages = files(&root().join("docs"), "md");
    let others =
        ["examples/servers/README.md", "README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"];
    pages.extend(others.map(|page| root().join(page)));
    pages.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// The text of the program's own files as its messages are printed: escapes resolved, lines that go
/// on joined, tests left out.
fn sources() -> String {
    let is_test =
        |path: &Path| path.components().any(|part| part.as_os_str() == "tests") || path.ends_with("tests.rs");
    let mut all = String::new();
    for path in files(&root().join("src"), "rs").into_iter().filter(|path| !is_test(path)) {
        let text = fs::read_to_string(&path).unwrap();
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let code: String = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .flat_map(|line| [line, "\n"])
            .collect();
        // A backslash at the end of a line swallows the break and the blanks after it.
        all.extend(code.split("\\\n").map(str::trim_start));
    }
    all.replace("\\\"", "\"").replace("\\\\", "\\").replace("{{", "{").replace("}}", "}")
}

/// The messages of a page: the first column of its tables, where that is code.
fn messages(page: &str) -> Vec<&str> {
    page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect()
}

#[test]
fn every_message_that_is_explained_still_stands_in_the_sources() {
    let sources = sources();
    let page = fs::read_to_string(root().join("docs/troubleshooting.md")).unwrap();
    let messages = messages(&page);
    assert!(messages.len() > 150, "{}", messages.len());
    let mut gone = Vec::new();
    for message in messages {
        // What differs is shown as `…`; the mend, after a semicolon, may be another text of the program.
        let pieces: Vec<&str> = message
            .split('…')
            .flat_map(|piece| piece.split("; "))
            .map(|piece| piece.trim_matches(' '))
            .collect();
        let longest = pieces.iter().map(|piece| piece.len()).max().unwrap_or(0);
        if longest < TELLING || !pieces.iter().all(|piece| sources.contains(piece)) {
            gone.push(message);
        }
    }
    assert!(gone.is_empty(), "docs/troubleshooting.md explains what nobody says any more: {gone:#?}");
}

/// The blocks of a page that are marked as `kind`.
fn blocks<'p>(page: &'p str, kind: &str) -> Vec<&'p str> {
    let open = format!("```{kind}\n");
    page.split(open.as_str()).skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

#[test]
fn every_command_is_one_that_the_program_takes() {
    let mut seen = 0;
    for (path, page) in pages() {
        for line in blocks(&page, "sh").into_iter().chain(blocks(&page, "text")).flat_map(str::lines) {
            let line = line.trim().trim_start_matches("$ ").trim_start_matches("sudo ");
            // Comments, and what a shell makes of the rest, are not for the parser.
            let line = line.split(" 2>").next().unwrap_or("");
            let line = line.split([';', '|', '&', '<', '>', '#', '(']).next().unwrap_or("");
            let words: Vec<&str> = line.split_whitespace().collect();
            if words.first() != Some(&"mcpsup") || words.get(1).is_some_and(|word| word.ends_with(':')) {
                continue;
            }
            seen += 1;
            if let Err(error) = Cli::try_parse_from(&words)
                && error.use_stderr()
            {
                panic!("{}: {line}: {error}", path.display());
            }
        }
    }
    assert!(seen > 20, "{seen}");
}

/// What stands between backquotes in a page's running text, and begins with `mcpsup` and a verb.
fn spoken(page: &str) -> Vec<String> {
    let text: String = page.split("\n```").step_by(2).collect();
    let spans = text.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
    spans.filter(|span| span.starts_with("mcpsup ")).map(str::to_owned).collect()
}

#[test]
fn every_command_that_is_spoken_of_is_one_that_the_program_takes() {
    let (mut seen, mut wrong) = (0, Vec::new());
    for (path, page) in pages().into_iter().filter(|(path, _)| !path.ends_with("troubleshooting.md")) {
        for span in spoken(&page) {
            // `[USER]` may be left out, and stands for one; of two ways, the first.
            let mut plain = span.replace(['[', ']'], "");
            for (stands, word) in [("\\|age", ""), (" -- COMMAND", ""), ("SHELL", "bash"), ("VERB", "status")]
            {
                plain = plain.replace(stands, word);
            }
            let words: Vec<&str> = plain.split_whitespace().filter(|word| *word != "…").collect();
            seen += 1;
            // A verb alone is a verb that is spoken of.
            if let Err(error) = Cli::try_parse_from(&words)
                && error.use_stderr()
                && error.kind() != clap::error::ErrorKind::MissingRequiredArgument
            {
                wrong.push(format!("{}: {span}: {error}", path.display()));
            }
        }
    }
    assert!(seen > 100 && wrong.is_empty(), "{seen}: {}", wrong.join("\n"));
}

#[test]
fn every_file_that_is_shown_is_one_that_the_program_reads() {
    for (path, page) in pages() {
        for block in blocks(&page, "toml") {
            // Parts of a file are read with a server, whose keys they may be.
            let has_server = block.contains("[server.");
            let rest = "[server.rest]\ncommand = ['rest']\ntransport = 'stdio'\n";
            let text = if has_server { block.to_owned() } else { format!("{block}\n{rest}") };
            let read = config::parse(&text, "mcpsup.toml");
            assert!(read.is_ok(), "{}: {read:?}\n{block}", path.display());
        }
        for block in blocks(&page, "env") {
            let read = envfile::parse(block.as_bytes(), "alice.env");
            assert!(read.is_ok(), "{}: {:?}\n{block}", path.display(), read.err());
        }
    }
}

/// What GitHub makes of a heading: its letters in lower case, `-` for blanks, nothing for the rest.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

#[test]
fn every_link_leads_somewhere() {
    for (path, page) in pages() {
        for target in page.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") {
                continue;
            }
            let (file, section) = target.split_once('#').unwrap_or((target, ""));
            let to = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            assert!(to.exists(), "{}: {target}", path.display());
            if !section.is_empty() {
                let text = fs::read_to_string(&to).unwrap();
                let has = text
                    .lines()
                    .filter(|line| line.starts_with('#'))
                    .any(|line| anchor(line.trim_start_matches('#')) == section);
                assert!(has, "{}: {target}", path.display());
            }
        }
    }
}

/// The rows of the table of a page that begins with this heading.
fn table<'p>(page: &'p str, heading: &str) -> Vec<&'p str> {
    let rows = page.lines().skip_while(|line| !line.starts_with(heading));
    rows.skip(2).take_while(|line| line.starts_with('|')).collect()
}

/// What a daemon of each tier finds on a kernel that has everything that the tier leaves it.
fn sites() -> [Site; 4] {
    let no = |why: &str| Tried::Fails(why.to_owned());
    let accounts = Site {
        ground: Ground {
            accounts: Tried::Works,
            bounding: Tried::Works,
            landlock: 7,
            calls: Tried::Works,
            mounts: Tried::Works,
            pids: Tried::Works,
            hidepid: Tried::Works,
            through_user: false,
        },
        tree: Tree::Cgroup,
        hidden: Vec::new(),
        isolation: Isolation::Auto,
        unlimited: Vec::new(),
    };
    let mut namespaces = accounts.clone();
    namespaces.ground.accounts = no("the daemon does not run as root");
    namespaces.ground.bounding = no("not permitted");
    namespaces.ground.hidepid = no("not permitted");
    namespaces.ground.through_user = true;
    let mut landlock = Site { tree: Tree::Session, ..namespaces.clone() };
    landlock.ground.mounts = no("no user namespaces");
    landlock.ground.pids = no("no user namespaces");
    let mut none = landlock.clone();
    none.ground.landlock = 0;
    [accounts, namespaces, landlock, none]
}

#[test]
fn the_table_of_promises_says_what_the_program_says() {
    let said: Vec<Vec<Promise>> = sites().iter().map(Site::promises).collect();
    let cell = |promises: &[Promise], what: &str| {
        promises.iter().find(|promise| promise.what == what).map_or_else(
            || "**no**".to_owned(),
            |promise| if promise.kept { promise.by.clone() } else { "**no**".to_owned() },
        )
    };
    let rows: Vec<String> = said[0]
        .iter()
        .map(|Promise { what, .. }| {
            let cells: Vec<String> = said.iter().map(|promises| cell(promises, what)).collect();
            format!("| {what} | {} |", cells.join(" | "))
        })
        .collect();
    assert!(said.iter().flatten().all(|promise| said[0].iter().any(|first| first.what == promise.what)));
    let tiers: Vec<&str> = sites().iter().map(|site| site.tier().as_str()).collect();
    let heading = format!("| promise | {} |", tiers.join(" | "));
    let page = fs::read_to_string(root().join("docs/security.md")).unwrap();
    assert_eq!(table(&page, &heading), rows, "docs/security.md should say:\n{}", rows.join("\n"));
}

#[test]
fn what_gets_through_is_the_same_on_both_pages_that_say_it() {
    let [readme, page] =
        ["README.md", "docs/security.md"].map(|page| fs::read_to_string(root().join(page)).unwrap());
    for heading in ["| tier | who | gets through |", "| tier | gets through from outside any run |"] {
        let rows = table(&readme, heading);
        assert!(rows.len() >= 2, "{rows:?}");
        assert_eq!(table(&page, heading), rows, "of README.md:\n{}", rows.join("\n"));
    }
}

/// The settings and capabilities that a text names.
fn points(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '=' | '@')));
    let head = |word: &str| word.split_inclusive('=').next().unwrap_or_default().to_owned();
    let is_one = |word: &String| {
        word.len() > 1 && (word.ends_with('=') || word.starts_with("CAP_") || word.starts_with('@'))
    };
    words.map(head).filter(is_one).collect()
}

#[test]
fn what_systemd_finds_open_in_the_unit_has_the_same_reason_in_the_readme() {
    let [readme, unit, scenario] =
        ["README.md", "units/mcpsup.service", "tests/systemd/scenarios/service.sh"]
            .map(|page| fs::read_to_string(root().join(page)).unwrap());
    // The virtual machine sees that the unit names every point, and that there are no more.
    let why: String = unit
        .lines()
        .skip_while(|line| !line.starts_with("# What `systemd-analyze security mcpsup` finds open"))
        .skip(1)
        .take_while(|line| line.starts_with('#'))
        .flat_map(|line| [line, "\n"])
        .collect();
    // Of another setting it is said how it has to do with one.
    let why = why.replace("as ProtectClock= has it", "");
    let rows = table(&readme, "| open | because |");
    let open: String = rows.iter().flat_map(|row| [row.split('|').nth(1).unwrap(), "\n"]).collect();
    assert!(points(&why).len() > 20, "{why}");
    assert_eq!(points(&open), points(&why), "README.md beside units/mcpsup.service");
    let most = scenario.split("ARGV[0] <= ").nth(1).and_then(|rest| rest.split(')').next()).unwrap();
    let said = format!("`systemd-analyze security mcpsup` gives {most}.");
    assert!(readme.contains(&said), "README.md should say: {said}");
}

const FOLDERS: [&str; 7] = ["model", "logic", "system", "control", "door", "daemon", "cli"];

#[test]
fn no_file_holds_both_sides_of_a_merge() {
    let folders = ["benches", "docs", "env.d", "examples", "packaging", "src", "tests", "units"];
    let mut all: Vec<_> = folders.iter().flat_map(|folder| below(&root().join(folder))).collect();
    let beside = fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().path());
    all.extend(beside.filter(|path| path.is_file()));
    assert!(all.len() > 300, "{} files are looked at", all.len());
    for path in all {
        // What is no text was not merged line by line.
        let Ok(text) = fs::read_to_string(&path) else { continue };
        for (line, number) in text.lines().zip(1..) {
            let is_left = ["<<<<<<< ", ">>>>>>> "].iter().any(|mark| line.starts_with(mark));
            assert!(!is_left, "{}:{number}: {line}", path.display());
        }
    }
}

#[test]
fn the_map_of_the_code_leads_to_every_module() {
    let read = |path: &str| fs::read_to_string(root().join("src").join(path)).unwrap();
    let head = |text: &str| text.lines().take_while(|line| line.starts_with("//!")).collect::<String>();
    let map = head(&read("lib.rs"));
    let verbs = Cli::command();
    let mut lost = Vec::new();
    for folder in FOLDERS {
        let text = read(&format!("{folder}/mod.rs"));
        let (here, modules) = (head(&text), text.lines().filter_map(|line| line.strip_suffix(';')));
        for name in modules.filter_map(|line| {
            line.trim_start_matches("pub(crate) ").trim_start_matches("pub ").strip_prefix("mod ")
        }) {
            let is_verb = folder == "cli" && verbs.get_subcommands().any(|verb| verb.get_name() == name);
            let named =
                map.contains(&format!("{folder}::{name})")) || map.contains(&format!("{folder}::{name}`]"));
            let named = named || here.contains(&format!("`{name}`")) || here.contains(&format!("{name}.rs"));
            if !(named || is_verb || name == "tests") {
                lost.push(format!("{folder}::{name}"));
            }
        }
    }
    assert!(lost.is_empty(), "neither src/lib.rs nor the head of their folder names {lost:?}");
}

#[test]
fn the_page_on_backups_knows_every_file_of_the_state() {
    let store = fs::read_to_string(root().join("src/daemon/store.rs")).unwrap();
    let page = fs::read_to_string(root().join("docs/upgrade.md")).unwrap();
    let written =
        ["self.write(\"", "self.dir.join(\""].into_iter().flat_map(|call| store.split(call).skip(1));
    let mut names: Vec<&str> = written.filter_map(|rest| rest.split('"').next()).collect();
    assert!(names.len() >= 5, "{names:?}");
    names.extend(["lock", "tokens/", "instances/", "seal.key"]);
    for name in names {
        assert!(
            page.contains(&format!("| `/var/lib/mcpsup/{name}` |")),
            "docs/upgrade.md does not say: {name}"
        );
    }
}
