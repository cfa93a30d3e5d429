//! What every client is given, and that nothing else in its file changes.

use super::*;

const URL: &str = "http://127.0.0.1:3456/mcp";

fn notes() -> Vec<Entry> {
    vec![Entry { name: "notes".to_owned(), url: URL.to_owned(), command: None, helper: None }]
}

fn merged(kind: ClientKind, existing: &str) -> Result<String, MergeError> {
    merge(kind, existing, &notes(), false)
}

/// `marked` is the result, with « » around what the merge may add. Without it, it is the file
/// before. Checks line ends of both kinds, and that a second merge changes nothing.
fn adds(kind: ClientKind, marked: &str) {
    for newline in ["\n", "\r\n"] {
        let marked = marked.replace('\n', newline);
        let mut before = String::new();
        let mut rest = marked.as_str();
        while let Some((kept, after)) = rest.split_once('«') {
            before.push_str(kept);
            rest = after.split_once('»').unwrap().1;
        }
        before.push_str(rest);
        let wanted = marked.replace(['«', '»'], "");
        let got = merged(kind, &before).unwrap_or_else(|error| panic!("{kind}: {error}\n{before}"));
        assert_eq!(got, wanted, "{kind}");
        assert_eq!(merged(kind, &got).unwrap(), got, "{kind}, second time");
        let found = find(kind, &got, "notes").unwrap().unwrap();
        assert_eq!(found, Found { url: Some(URL.to_owned()), command: found.command.clone(), off: false });
        // A byte order mark stays where it is.
        assert_eq!(merged(kind, &format!("\u{feff}{before}")).unwrap(), format!("\u{feff}{wanted}"));
    }
}

#[test]
fn every_client_gets_the_shape_it_reads() {
    let json = |kind| serde_json::from_str::<serde_json::Value>(&render(kind, &notes())).unwrap();
    let servers = |key: &str, entry| serde_json::json!({ key: { "notes": entry } });
    let url = |key: &str| serde_json::json!({ key: URL });
    let typed = serde_json::json!({ "type": "http", "url": URL });
    assert_eq!(json(ClientKind::ClaudeCode), servers("mcpServers", typed.clone()));
    assert_eq!(json(ClientKind::Vscode), servers("servers", typed));
    assert_eq!(json(ClientKind::Cursor), servers("mcpServers", url("url")));
    assert_eq!(json(ClientKind::Gemini), servers("mcpServers", url("httpUrl")));
    assert_eq!(json(ClientKind::Windsurf), servers("mcpServers", url("serverUrl")));
    assert_eq!(json(ClientKind::Zed), servers("context_servers", url("url")));
    assert_eq!(
        json(ClientKind::Opencode),
        servers("mcp", serde_json::json!({ "type": "remote", "url": URL, "enabled": true, "oauth": false }))
    );
    assert_eq!(
        json(ClientKind::ClaudeDesktop),
        servers(
            "mcpServers",
            serde_json::json!({
                "command": "npx",
                "args": ["-y", "mcp-remote", URL, "--transport", "http-only"],
            })
        )
    );
    assert_eq!(
        render(ClientKind::Codex, &notes()),
        "[mcp_servers.notes]\nurl = \"http://127.0.0.1:3456/mcp\"\n"
    );
    assert_eq!(
        render(ClientKind::Goose, &notes()),
        "extensions:\n  notes:\n    enabled: true\n    type: streamable_http\n    name: notes\n    \
         uri: \"http://127.0.0.1:3456/mcp\"\n    timeout: 300\n"
    );
}

#[test]
fn a_printed_snippet_is_laid_out_for_reading() {
    assert_eq!(
        render(ClientKind::ClaudeCode, &notes()),
        r#"{
  "mcpServers": {
    "notes": {
      "type": "http",
      "url": "http://127.0.0.1:3456/mcp"
    }
  }
}
"#
    );
}

#[test]
fn a_rendered_file_holds_all_entries_and_merging_them_again_changes_nothing() {
    let two = vec![
        Entry { name: "notes".to_owned(), url: URL.to_owned(), command: None, helper: None },
        Entry {
            name: "7of9".to_owned(),
            url: "http://127.0.0.1:3457/mcp".to_owned(),
            command: None,
            helper: None,
        },
    ];
    for kind in ClientKind::ALL {
        let file = render(kind, &two);
        assert_eq!(merge(kind, &file, &two, false).unwrap(), file, "{kind}");
        for entry in &two {
            let found = find(kind, &file, &entry.name).unwrap().unwrap();
            assert_eq!(found.url.as_deref(), Some(entry.url.as_str()), "{kind}");
        }
        assert_eq!(find(kind, &file, "other").unwrap(), None);
        // One after the other comes to the same entries.
        let first = merge(kind, "", &two[..1], false).unwrap();
        let both = merge(kind, &first, &two[1..], false).unwrap();
        assert_eq!(merge(kind, &both, &two, false).unwrap(), both, "{kind}");
    }
}

#[test]
fn an_empty_file_becomes_a_whole_one() {
    for kind in ClientKind::ALL {
        for empty in ["", " \n\t\r\n"] {
            assert_eq!(merged(kind, empty).unwrap(), render(kind, &notes()), "{kind}");
            assert_eq!(find(kind, empty, "notes").unwrap(), None);
        }
    }
}

#[test]
fn json_with_comments_keeps_every_other_byte() {
    adds(
        ClientKind::Vscode,
        r#"// mine
{
	"servers": {
		/* a */ "a": { "url": "https://a.example/mcp", }, // trailing, on purpose
		"b" : {"command":"x","args":[ 1,2 , 3 ],}, /* here */ // and here«
		"notes": {
			"type": "http",
			"url": "http://127.0.0.1:3456/mcp"
		},»
		// the last word
	},
	"inputs": [],
}
"#,
    );
    adds(
        ClientKind::Zed,
        r#"{
    "theme": "One", // {"context_servers": {}}
    "context_servers": {
        "a": {"url": "https://a.example"}«,» // no comma«
        "notes": {
            "url": "http://127.0.0.1:3456/mcp"
        }»
        // "notes": {}
    }
}"#,
    );
}

#[test]
fn a_file_without_servers_gets_them_at_its_end() {
    adds(
        ClientKind::Gemini,
        r#"{
  "theme": "dark"«,
  "mcpServers": {
    "notes": {
      "httpUrl": "http://127.0.0.1:3456/mcp"
    }
  }»
}
"#,
    );
    adds(
        ClientKind::Cursor,
        r#"{«
  "mcpServers": {
    "notes": {
      "url": "http://127.0.0.1:3456/mcp"
    }
  }
»}
"#,
    );
    adds(
        ClientKind::Cursor,
        r#"{
  // nothing yet«
  "mcpServers": {
    "notes": {
      "url": "http://127.0.0.1:3456/mcp"
    }
  }»
}
"#,
    );
    adds(
        ClientKind::Windsurf,
        r#"{
  "mcpServers": {«
    "notes": {
      "serverUrl": "http://127.0.0.1:3456/mcp"
    }
  »}
}"#,
    );
}

#[test]
fn a_file_in_one_line_stays_in_one_line() {
    adds(
        ClientKind::ClaudeCode,
        r#"{"n":1,"mcpServers":{"a":{"command":"a"}«,"notes":{"type":"http","url":"http://127.0.0.1:3456/mcp"}»}}"#,
    );
    adds(
        ClientKind::ClaudeCode,
        r#"{ "mcpServers": { "a": {}«, "notes": {"type": "http", "url": "http://127.0.0.1:3456/mcp"}» } }"#,
    );
    adds(
        ClientKind::ClaudeCode,
        r#"{"mcpServers":{«"notes": {"type": "http", "url": "http://127.0.0.1:3456/mcp"}»}}"#,
    );
    adds(ClientKind::Cursor, r#"{"mcpServers":{"a":{},«"notes":{"url":"http://127.0.0.1:3456/mcp"},»}}"#);
}

#[test]
fn toml_keeps_every_other_byte() {
    adds(
        ClientKind::Codex,
        r#"# mine
model   =   "o3"   # spaced

[mcp_servers . "a"]   # theirs
command = 'x'
args = [ 1,
  2, # two
]

[profiles.x]
a.b = { c = 1 }
«
[mcp_servers.notes]
url = "http://127.0.0.1:3456/mcp"
»"#,
    );
    adds(
        ClientKind::Codex,
        "x = '''\n[mcp_servers.notes]\n'''«\n\n[mcp_servers.notes]\nurl = \"http://127.0.0.1:3456/mcp\"\n»",
    );
}

#[test]
fn yaml_keeps_every_other_byte() {
    let entry = r#"  notes:
    enabled: true
    type: streamable_http
    name: notes
    uri: "http://127.0.0.1:3456/mcp"
    timeout: 300
"#;
    adds(
        ClientKind::Goose,
        &format!(
            r#"# mine
GOOSE_MODE:   smart  # spaced
extensions: # all of them
«{entry}»  # the shell
  developer:
    type: builtin
    enabled: true

  fetch:   # theirs
    cmd: "uvx"
    args: [a, 'b']
    text: |+
      ends in blank lines

# the end
"#
        ),
    );
    adds(ClientKind::Goose, &format!("A: 1\n«extensions:\n{entry}»"));
    adds(ClientKind::Goose, &format!("A: 1\nextensions:\n«{entry}»B: 2\n"));
    adds(ClientKind::Goose, &format!("A: 1\nextensions:«\n{entry}»"));
    let four = format!("  {}\n", entry.trim_end().replace('\n', "\n  "));
    adds(ClientKind::Goose, &format!("extensions:\n«{four}»    a:\n        type: builtin\n"));
}

#[test]
fn empty_braces_in_yaml_make_room() {
    let got = merged(ClientKind::Goose, "A: 1\nextensions: {} # none\nB: 2\n").unwrap();
    assert!(got.starts_with("A: 1\nextensions:  # none\n  notes:\n"), "{got}");
    assert!(got.ends_with("    timeout: 300\nB: 2\n"), "{got}");
    assert_eq!(merged(ClientKind::Goose, &got).unwrap(), got);
}

#[test]
fn a_stale_entry_is_brought_up_to_date_and_keeps_what_its_user_added() {
    for (kind, before) in [
        (
            ClientKind::ClaudeCode,
            r#"{"mcpServers": {"notes": {"headers": {"X": "1"}, "url": "http://127.0.0.1:3999/mcp", "timeout": 5, "type": "http"}}}"#,
        ),
        (
            ClientKind::Vscode,
            "{\n  \"servers\": {\n    \"notes\": {\n      \"type\": \"http\", // c\n      \"url\": \"http://127.0.0.1:3999/mcp\",\n      \"headers\": {}, // h\n    },\n  },\n}",
        ),
        (
            ClientKind::Opencode,
            r#"{"mcp": {"notes": {"type": "remote", "enabled": false, "url": "http://127.0.0.1:3999/mcp"}}}"#,
        ),
        (
            ClientKind::ClaudeDesktop,
            r#"{"mcpServers": {"notes": {"command": "npx", "args": ["mcp-remote@latest", "http://127.0.0.1:3999/mcp", "--silent"], "env": {}}}}"#,
        ),
        (
            ClientKind::Codex,
            "[mcp_servers.notes]\nenabled_tools = ['a'] # a\nurl = 'http://127.0.0.1:3999/mcp' # u\n[mcp_servers.notes.http_headers]\nX = '1'\n",
        ),
        (ClientKind::Codex, "mcp_servers = { notes = { url = 'http://127.0.0.1:3999/mcp', a = 1 } }\n"),
        (
            ClientKind::Goose,
            "extensions:\n  notes:\n    uri:   http://127.0.0.1:3999/mcp   # u\n    type: streamable_http\n    timeout: 10\n    headers:\n      X: y\n",
        ),
    ] {
        let got = merged(kind, before).unwrap();
        let plain = |text: &str| {
            text.replace("'http://127.0.0.1:3999/mcp'", "U")
                .replace("\"http://127.0.0.1:3999/mcp\"", "U")
                .replace("http://127.0.0.1:3999/mcp", "U")
                .replace("\"http://127.0.0.1:3456/mcp\"", "U")
        };
        assert_eq!(plain(&got), plain(before), "{kind}");
        assert_ne!(got, before);
        assert_eq!(merged(kind, &got).unwrap(), got, "{kind}");
        let off = kind == ClientKind::Opencode;
        assert_eq!(
            find(kind, &got, "notes").unwrap(),
            Some(Found {
                url: Some(URL.to_owned()),
                command: find(kind, &got, "notes").unwrap().unwrap().command,
                off
            })
        );
    }
}

#[test]
fn an_entry_under_the_wrong_key_or_of_the_wrong_type_is_mended() {
    assert_eq!(
        merged(
            ClientKind::Gemini,
            r#"{"mcpServers": {"notes": {"url": "http://localhost:3456/mcp", "trust": true}}}"#
        )
        .unwrap(),
        r#"{"mcpServers": {"notes": {"httpUrl": "http://127.0.0.1:3456/mcp", "trust": true}}}"#
    );
    assert_eq!(
        merged(ClientKind::Vscode, "{\"servers\": {\n\"notes\": {\"type\": 7}}}").unwrap(),
        "{\"servers\": {\n\"notes\": {\"type\": \"http\", \"url\": \"http://127.0.0.1:3456/mcp\"}}}"
    );
    assert_eq!(
        merged(ClientKind::ClaudeDesktop, r#"{"mcpServers": {"notes": {"url": "http://127.0.0.1:1/mcp"}}}"#)
            .unwrap(),
        r#"{"mcpServers": {"notes": {"command": "npx", "args": ["-y", "mcp-remote", "http://127.0.0.1:3456/mcp", "--transport", "http-only"]}}}"#
    );
    assert_eq!(
        merged(ClientKind::Codex, "[mcp_servers.notes] # n\nenabled = true\n").unwrap(),
        "[mcp_servers.notes] # n\nurl = \"http://127.0.0.1:3456/mcp\"\nenabled = true\n"
    );
    assert_eq!(
        merged(ClientKind::Goose, "extensions:\n  notes:\n    # c\n    enabled: false\n    type: sse\n")
            .unwrap(),
        "extensions:\n  notes:\n    # c\n    uri: \"http://127.0.0.1:3456/mcp\"\n    enabled: false\n    type: streamable_http\n"
    );
}

#[test]
fn somebody_elses_entry_is_replaced_only_when_told_to() {
    let secret = "hunter2hunter2";
    for (kind, before, forced) in [
        (
            ClientKind::ClaudeCode,
            format!(
                r#"{{"mcpServers":{{"notes":{{"url":"https://mcp.example/{secret}","headers":{{"A":"{secret}"}}}},"z":{{}}}}}}"#
            ),
            true,
        ),
        (ClientKind::Cursor, format!(r#"{{"mcpServers":{{"notes":{{"command":"{secret}"}}}}}}"#), true),
        (ClientKind::Cursor, format!(r#"{{"mcpServers":{{"notes":"{secret}"}}}}"#), true),
        (
            ClientKind::ClaudeDesktop,
            format!(
                r#"{{"mcpServers":{{"notes":{{"command":"npx","args":["mcp-remote","https://{secret}@x.example/"]}}}}}}"#
            ),
            true,
        ),
        (ClientKind::Codex, format!("[mcp_servers.notes]\nurl = 'https://mcp.example/{secret}'\n"), true),
        (
            ClientKind::Codex,
            format!(
                "[mcp_servers.notes]\nurl = 'https://mcp.example/'\nhttp_headers = {{ A = '{secret}' }}\n"
            ),
            false,
        ),
        (ClientKind::Codex, format!("[mcp_servers.notes]\ncommand = '{secret}'\n"), false),
        (
            ClientKind::Goose,
            format!(
                "extensions:\n  notes:\n    uri: https://mcp.example/{secret}\n    type: streamable_http\n"
            ),
            true,
        ),
        (ClientKind::Goose, format!("extensions:\n  notes:\n    cmd: {secret}\n    type: stdio\n"), false),
    ] {
        let refused = merged(kind, &before).unwrap_err();
        assert!(matches!(&refused, MergeError::Taken { name, .. } if name == "notes"), "{refused:?}");
        assert!(!refused.to_string().contains(secret), "{refused}");
        match merge(kind, &before, &notes(), true) {
            Ok(got) => {
                assert!(forced, "{kind}: {got}");
                assert!(!got.contains(secret), "{got}");
                assert_eq!(find(kind, &got, "notes").unwrap().unwrap().url.as_deref(), Some(URL));
            }
            Err(error) => {
                assert!(!forced, "{kind}: {error}");
                assert!(!error.to_string().contains(secret), "{error}");
            }
        }
    }
}

#[test]
fn a_file_that_does_not_parse_is_refused_with_its_place_and_without_its_contents() {
    let secret = "hunter2hunter2";
    for (kind, text, place) in [
        (ClientKind::ClaudeCode, format!("{{\n  \"a\": \"{secret}\n}}"), (2, 8)),
        (ClientKind::ClaudeCode, format!("{{\n  // {secret}\n}}"), (2, 3)),
        (ClientKind::ClaudeCode, "{\"a\": 1,}".to_owned(), (1, 8)),
        (ClientKind::Vscode, format!("{{\"a\": {secret}}}"), (1, 7)),
        (ClientKind::Vscode, format!("{{\"a\": 1}} {secret}"), (1, 10)),
        (ClientKind::Vscode, "null".to_owned(), (1, 1)),
        (ClientKind::Vscode, "[]".to_owned(), (1, 1)),
        (ClientKind::Vscode, "\n{\"servers\": []}".to_owned(), (2, 13)),
        (ClientKind::Vscode, "{\"servers\": null}".to_owned(), (1, 13)),
        (ClientKind::Vscode, format!("{{\"servers\": \"{secret}\"}}"), (1, 13)),
        (ClientKind::Vscode, "{\"servers\": {},\n \"servers\": {}}".to_owned(), (2, 2)),
        (ClientKind::Vscode, "{\"servers\": {\"notes\": {}, \"not\\u0065s\": {}}}".to_owned(), (1, 27)),
        (
            ClientKind::Vscode,
            "{\"servers\": {\"notes\": {\"url\": \"http://127.0.0.1/\", \"url\": \"http://x/\"}}}".to_owned(),
            (1, 52),
        ),
        (ClientKind::Codex, format!("a = 1\nb = {secret}\n"), (2, 5)),
        (ClientKind::Codex, "a = 1\na = 2\n".to_owned(), (2, 1)),
        (ClientKind::Codex, "\nmcp_servers = 3\n".to_owned(), (2, 15)),
        (ClientKind::Goose, "a: 1\nextensions: 3\n".to_owned(), (2, 1)),
        (ClientKind::Goose, "- a\n".to_owned(), (1, 1)),
    ] {
        let refused = merged(kind, &text).unwrap_err();
        match &refused {
            MergeError::Parse { line, column, .. } => {
                assert_eq!((*line, *column), place, "{kind}: {text}: {refused}");
            }
            MergeError::Unsafe(_) | MergeError::Taken { .. } => panic!("{kind}: {text}: {refused}"),
        }
        assert!(!refused.to_string().contains(secret), "{refused}");
    }
}

#[test]
fn yaml_in_an_unusual_style_is_refused() {
    for text in [
        "{extensions: {}}\n",
        "extensions: {a: {type: builtin}}\n",
        "extensions: &all\n  a: 1\nb: *all\n",
        "a: &x {}\nextensions: *x\n",
        "extensions: !!map\n  a: 1\n",
        "extensions:\n  a: 1\nextensions:\n  b: 1\n",
        "extensions:\n  notes: {uri: 'http://127.0.0.1:1/'}\n",
        "extensions:\n  notes:\n    uri: http://127.0.0.1:1/\n    uri: http://127.0.0.1:2/\n",
        "---\na: 1\n---\nb: 2\n",
        "a: 1\n...\n",
        "a: [\n",
        "a: 'x\n",
        "\ta: 1\n",
    ] {
        match merged(ClientKind::Goose, text) {
            // Fine too, if only our entry came to it.
            Ok(got) => assert_eq!(merged(ClientKind::Goose, &got).unwrap(), got, "{text}"),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    assert!(merged(ClientKind::Goose, "extensions: {a: {type: builtin}}\n").is_err());
    assert!(merged(ClientKind::Goose, "a: [\n").is_err());
}

#[test]
fn a_file_nested_without_end_is_refused_and_not_a_crash() {
    for kind in ClientKind::ALL {
        for open in ["[", "{\"a\":", "a = [", "{ a = ", "- ", "? "] {
            let text = open.repeat(20_000);
            assert!(merged(kind, &text).is_err(), "{kind} {open}");
            assert!(find(kind, &text, "notes").is_err(), "{kind} {open}");
        }
    }
    let steps: String = (0..600).flat_map(|depth| [" ".repeat(depth), "a:\n".to_owned()]).collect();
    assert!(merged(ClientKind::Goose, &steps).is_err());
}

/// A small fixed sequence: the same texts in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % sides
    }
}

#[test]
fn whatever_is_in_a_file_a_merge_is_refused_or_complete_and_settled() {
    const PIECES: [&str; 30] = [
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"notes\"",
        "\"mcpServers\"",
        "extensions:",
        "\n",
        "\r\n",
        "  ",
        "notes:",
        "url",
        "\"url\"",
        "\"http://127.0.0.1:1/\"",
        " = ",
        "[mcp_servers.notes]",
        "// c\n",
        "/* c */",
        "# c\n",
        "1",
        "null",
        "|+\n",
        "'",
        "\u{e9}",
        "&a ",
        "*a",
        "- ",
        "mcp_servers",
    ];
    let seeds = [
        "{\n  \"mcpServers\": {\n    \"a\": {\"url\": \"https://x\"}, // c\n    \"notes\": {\"url\": \"http://127.0.0.1:1/\"},\n  },\n}\n",
        "a = 1\n[mcp_servers.notes]\nurl = \"http://127.0.0.1:1/\"\n[mcp_servers.a]\nurl = 'x'\n",
        "a: 1\nextensions:\n  a:\n    uri: x\n  notes:\n    uri: http://127.0.0.1:1/\n    type: sse\nb: |+\n  x\n\n",
    ];
    let mut dice = Dice(7);
    let mut complete = 0;
    for _ in 0..4000 {
        let format = dice.roll(3);
        let kind = [ClientKind::Cursor, ClientKind::Codex, ClientKind::Goose][format];
        let mut text = seeds[format].to_owned();
        for _ in 0..=dice.roll(4) {
            let mut at = dice.roll(text.len() + 1);
            while !text.is_char_boundary(at) {
                at -= 1;
            }
            let mut end = (at + dice.roll(12)).min(text.len());
            while !text.is_char_boundary(end) {
                end += 1;
            }
            text.replace_range(at..end, PIECES[dice.roll(PIECES.len())]);
        }
        if let Ok(got) = merged(kind, &text) {
            complete += 1;
            let again = merged(kind, &got);
            assert_eq!(again.as_deref(), Ok(got.as_str()), "{kind}: {text}");
            let found = find(kind, &got, "notes").unwrap().unwrap();
            assert_eq!(found.url.as_deref(), Some(URL), "{kind}: {text}");
        }
    }
    assert!(complete > 500, "only {complete} merges were tried in earnest");
}

#[test]
fn every_client_is_known_by_its_word_and_has_a_file() {
    let bases = Bases {
        home: std::path::Path::new("/home/alice"),
        config_home: std::path::Path::new("/home/alice/.config"),
        cwd: std::path::Path::new("/src/project"),
    };
    for kind in ClientKind::ALL {
        assert_eq!(kind.as_str().parse(), Ok(kind));
        assert!(NotAClient.to_string().contains(kind.as_str()));
        assert!(!files(kind, Scope::User, bases).is_empty());
        assert!(!files(kind, Scope::default_for(kind), bases).is_empty());
    }
    assert_eq!(
        files(ClientKind::ClaudeCode, Scope::Project, bases),
        [std::path::PathBuf::from("/src/project/.mcp.json")]
    );
    assert_eq!("emacs".parse::<ClientKind>(), Err(NotAClient));
}

#[test]
fn no_note_promises_that_a_door_knows_who_connects() {
    for note in ClientKind::ALL.into_iter().filter_map(|kind| kind.note(false)) {
        assert!(!note.contains("door") && !note.contains("yours"), "{note}");
    }
}

#[test]
fn a_server_is_named_by_letters_every_client_takes() {
    assert_eq!(entry_name(&"notes.v2".parse().unwrap()), "notes-v2");
}

const WORDS: [&str; 3] = ["/opt/bin/mcpsup", "connect", "alice/notes"];

fn connects() -> Vec<Entry> {
    let command = Some(WORDS.map(str::to_owned).to_vec());
    vec![Entry { name: "notes".to_owned(), url: URL.to_owned(), command, helper: None }]
}

#[test]
fn every_client_gets_the_shape_in_which_it_starts_a_program() {
    let json = |kind| serde_json::from_str::<serde_json::Value>(&render(kind, &connects())).unwrap();
    let servers = |key: &str, entry: &serde_json::Value| serde_json::json!({ key: { "notes": entry } });
    let plain = serde_json::json!({ "command": WORDS[0], "args": &WORDS[1..] });
    let typed = serde_json::json!({ "type": "stdio", "command": WORDS[0], "args": &WORDS[1..] });
    for (kind, key, entry) in [
        (ClientKind::ClaudeCode, "mcpServers", &typed),
        (ClientKind::ClaudeDesktop, "mcpServers", &plain),
        (ClientKind::Vscode, "servers", &typed),
        (ClientKind::Cursor, "mcpServers", &typed),
        (ClientKind::Gemini, "mcpServers", &plain),
        (ClientKind::Windsurf, "mcpServers", &plain),
        (ClientKind::Zed, "context_servers", &plain),
        (
            ClientKind::Opencode,
            "mcp",
            &serde_json::json!({ "type": "local", "command": WORDS, "enabled": true }),
        ),
    ] {
        assert_eq!(json(kind), servers(key, entry), "{kind}");
    }
    assert_eq!(
        render(ClientKind::Codex, &connects()),
        "[mcp_servers.notes]\ncommand = \"/opt/bin/mcpsup\"\nargs = [\"connect\", \"alice/notes\"]\n"
    );
    assert_eq!(
        render(ClientKind::Goose, &connects()),
        "extensions:\n  notes:\n    enabled: true\n    type: stdio\n    name: notes\n    \
         cmd: \"/opt/bin/mcpsup\"\n    args: [\"connect\", \"alice/notes\"]\n    timeout: 300\n"
    );
}

#[test]
fn a_command_of_ours_is_brought_up_to_date_and_keeps_what_the_user_added() {
    for kind in ClientKind::ALL {
        let whole = render(kind, &connects());
        assert_eq!(merge(kind, &whole, &connects(), false).unwrap(), whole, "{kind}, a second time");
        let found = find(kind, &whole, "notes").unwrap().unwrap();
        assert_eq!(found.command, connects()[0].command, "{kind}");
        let old = whole.replace("/opt/bin/mcpsup", "/usr/bin/mcpsup").replace("alice/notes", "alice/old");
        assert_eq!(merge(kind, &old, &connects(), false).unwrap(), whole, "{kind}");
        let others = whole.replace("/opt/bin/mcpsup", "/opt/bin/another");
        assert!(merge(kind, &others, &connects(), false).is_err(), "{kind} takes over another's command");
    }
    let added = r#"{"mcpServers": {"notes": {"command": "mcpsup", "args": ["connect"], "env": {"A": "b"}}}}"#;
    let got = merge(ClientKind::Cursor, added, &connects(), false).unwrap();
    assert!(got.contains(r#""env": {"A": "b"}"#) && got.contains("alice/notes"), "{got}");
}

#[test]
fn a_door_and_a_command_of_ours_take_each_others_place() {
    for kind in ClientKind::ALL {
        let (door, command) = (render(kind, &notes()), render(kind, &connects()));
        let is_json = !matches!(kind, ClientKind::Codex | ClientKind::Goose);
        let to_command = merge(kind, &door, &connects(), false);
        let to_door = merge(kind, &command, &notes(), false);
        if is_json {
            assert_eq!(to_command.unwrap(), command, "{kind}");
            assert_eq!(to_door.unwrap(), door, "{kind}");
        } else {
            assert!(to_command.is_err() && to_door.is_err(), "{kind}: left to people");
        }
    }
}

/// Our entry for a door that takes a token.
fn helped() -> Vec<Entry> {
    let helper = Some("/usr/bin/mcpsup headers alice/notes".to_owned());
    vec![Entry { name: "notes".to_owned(), url: URL.to_owned(), command: None, helper }]
}

#[test]
fn a_client_with_a_helper_is_told_to_ask_it_and_no_token_is_written() {
    for (kind, line) in [
        (ClientKind::ClaudeCode, "\"headersHelper\": \"/usr/bin/mcpsup headers alice/notes\""),
        (ClientKind::Codex, "http_headers_helper = \"/usr/bin/mcpsup headers alice/notes\""),
    ] {
        assert!(kind.has_helper());
        let fresh = render(kind, &helped());
        assert!(fresh.contains(line) && fresh.contains(URL), "{fresh}");
        assert_eq!(merge(kind, &fresh, &helped(), false).unwrap(), fresh, "{kind}: twice");

        // One that was written when the door took none, with what its user added.
        let before = render(kind, &[Entry { helper: None, ..helped().remove(0) }]);
        assert!(!before.contains("elper"), "{before}");
        let after = merge(kind, &before, &helped(), false).unwrap();
        assert!(after.contains(line), "{after}");
        assert_eq!(find(kind, &after, "notes").unwrap().unwrap().url.as_deref(), Some(URL));
        let moved = after.replace("alice/notes", "alice/old");
        assert_eq!(merge(kind, &moved, &helped(), false).unwrap(), after);
    }
}
