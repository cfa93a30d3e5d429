//! What mcpsup.toml may say, and what is said about one that is wrong.

use super::*;
use crate::model::config::{Access, Era, Health, Limits, Piece, Probe, Sessions, Stdio, Template, Transport};

/// A server that is right, to put other things beside.
const NOTES: &str = "[server.notes]\ncommand = [\"/opt/notes\", \"{port}\"]\ntransport = \"http\"\n";

fn said(text: &str) -> Vec<String> {
    parse(text, "mcpsup.toml").unwrap_err().iter().map(ToString::to_string).collect()
}

/// "3:8: unknown key" stands for a problem at that place whose text holds what follows.
fn refused(text: &str, expected: &[&str]) {
    let said = said(text);
    assert_eq!(said.len(), expected.len(), "{said:#?}");
    for (said, expected) in said.iter().zip(expected) {
        let (place, part) = expected.split_once(": ").unwrap();
        let start = format!("mcpsup.toml:{place}: ");
        assert!(said.starts_with(&start) && said.contains(part), "{said} — {expected}");
    }
}

/// What is said about lines added to the right server; they begin on line 4.
fn refused_in_server(lines: &str, expected: &[&str]) {
    refused(&format!("{NOTES}{lines}\n"), expected);
}

fn notes(lines: &str) -> Arc<Server> {
    let config = parse(&format!("{NOTES}{lines}"), "mcpsup.toml").unwrap();
    config.servers.into_values().next().unwrap()
}

fn text(text: &str) -> Template {
    Template(vec![Piece::Text(text.into())])
}

#[test]
fn the_shortest_file_has_every_default() {
    let config = parse(NOTES, "mcpsup.toml").unwrap();
    assert_eq!(config.ports.listen.to_string(), "127.0.0.1");
    assert_eq!(config.ports.range.to_string(), "3456-3999");
    assert_eq!(config.ports.backend_range.to_string(), "20000-29999");
    assert_eq!(config.door.wait, Duration::from_secs(30));
    assert_eq!(config.door.max_body, 64 << 20);
    assert_eq!(config.door.max_connections, 256);
    assert_eq!(config.door.head_timeout, Duration::from_secs(60));
    assert_eq!((config.log.max_size, config.log.keep, config.log.max_rate), (10 << 20, 3, 4 << 20));
    assert_eq!(config.daemon, Daemon::default());
    assert_eq!(config.daemon.uid_range.to_string(), "65536-99999");
    let server = &config.servers[&"notes".parse().unwrap()];
    assert_eq!(server.command, [text("/opt/notes"), Template(vec![Piece::Port])]);
    assert_eq!(server.transport, Transport::Http);
    assert!(server.for_all && !server.secrets_in_argv);
    assert_eq!((server.path.as_str(), &server.port_env), ("/mcp", &None));
    assert_eq!(server.ready.probe, Probe::Mcp);
    assert_eq!(server.ready.timeout, Duration::from_secs(30));
    assert_eq!((server.stop.signal, server.stop.grace), (15, Duration::from_secs(10)));
    assert_eq!(server.restart.first_wait, Duration::from_millis(100));
    assert_eq!(server.restart.max_wait, Duration::from_secs(60));
    assert_eq!(server.restart.stable, Duration::from_secs(60));
    assert_eq!(server.limits, Limits { open_files: Some(1024), ..Limits::default() });
}

#[test]
fn every_key_is_read() {
    let config = parse(
        r#"
        [ports]
        listen = "::1"
        range = "4000-4099"
        backend_range = "21000-21999"
        [door]
        wait = "0s"
        max_body = "1G"
        max_connections = 8
        head_timeout = "500ms"
        hosts = ["MCP.example.org", "[fd00::1]"]
        [log]
        max_size = "512K"
        keep = 0
        max_rate = "1M"
        [daemon]
        containment = "pid-namespace"
        cgroup_root = "/sys/fs/cgroup/mcpsup"
        uid_range = "70000-70999"
        [server.notes]
        command = ["node", "{{}}", "{env:DSN}"]
        transport = "http"
        env = { NAME = "notes-{user}", TOKEN = "{env:TOKEN}" }
        for_all = false
        port_env = "NOTES_PORT"
        path = "/notes/mcp"
        working_dir = "{state_dir}/work"
        secrets_in_argv = true
        access = "open"
        [server.notes.credential.TOKEN]
        description = "a token"
        pattern = '^t-\d+$'
        required = false
        [server.notes.credential.DSN]
        [server.notes.ready]
        probe = "http"
        probe_path = "/health"
        timeout = "5m"
        [server.notes.stop]
        signal = "INT"
        grace = "0s"
        [server.notes.restart]
        first_wait = "1s"
        max_wait = "1s"
        stable = "1h"
        [server.notes.limits]
        memory = "512M"
        cpu = "150%"
        tasks = 64
        open_files = 4_096
        "#,
        "mcpsup.toml",
    )
    .unwrap();
    assert!(config.ports.listen.is_ipv6() && config.ports.range.contains(4099));
    assert_eq!(config.door.wait, Duration::ZERO);
    assert_eq!(config.door.hosts, ["mcp.example.org", "[fd00::1]"]);
    assert_eq!(config.log.keep, 0);
    assert_eq!(config.daemon.containment, Containment::PidNamespace);
    assert_eq!(config.daemon.cgroup_root, Some("/sys/fs/cgroup/mcpsup".into()));
    assert_eq!(config.daemon.uid_range.to_string(), "70000-70999");
    let server = &config.servers[&"notes".parse().unwrap()];
    assert_eq!(server.command[1], text("{}"));
    assert_eq!(server.command[2], Template(vec![Piece::Env("DSN".to_owned())]));
    assert_eq!(server.env["NAME"].0, [Piece::Text("notes-".into()), Piece::User]);
    assert!(!server.for_all && server.secrets_in_argv);
    assert_eq!(server.port_env.as_deref(), Some("NOTES_PORT"));
    assert!(!server.credentials["TOKEN"].required && server.credentials["DSN"].required);
    assert_eq!(server.credentials["TOKEN"].pattern.as_deref(), Some("^t-\\d+$"));
    assert_eq!(server.ready.probe, Probe::Http("/health".to_owned()));
    assert_eq!(server.stop.signal, 2);
    assert_eq!(server.limits.cpu, Some(150));
    assert_eq!(server.limits.open_files, Some(4096));
}

#[test]
fn unknown_keys_are_refused_with_the_nearest_right_one() {
    refused_in_server("comand = []", &["4:1: unknown key \"comand\"; did you mean \"command\"?"]);
    refused_in_server(
        "colour = 1",
        &["4:1: unknown key \"colour\"; [server.NAME] knows secrets_in_argv, transport"],
    );
    refused_in_server("limits.memroy = \"1M\"", &["4:8: did you mean \"memory\"?"]);
    refused(
        &format!("{NOTES}[prots]\n[door]\nwiat = \"1s\""),
        &["4:2: did you mean \"ports\"?", "6:1: did you mean \"wait\"?"],
    );
    refused(&format!("{NOTES}\n[\"a\\u001b[2J\"]"), &["5:2: unknown key \"a\\u{1b}[2J\""]);
}

#[test]
fn all_problems_are_reported_at_once_in_the_order_of_the_file() {
    refused(
        "[ports]\nrange = \"99\"\n[server.a]\ntransport = \"htpp\"\npath = 1\n[server.'-b']\nx = 1\n[log]\nkeep = -1\n",
        &[
            "2:9: range takes two ports",
            "3:9: command is missing",
            "4:13: transport takes \"stdio\", or \"http\"",
            "5:8: path takes a path",
            "6:9: \"-b\" cannot name a server; a name is",
            "9:8: keep takes a whole number from 0",
        ],
    );
}

#[test]
fn text_that_is_not_toml_is_named_by_its_place_and_hides_nothing_else() {
    refused(
        "[server.notes]\ncommand = [\"x\"\ntransport = \"http\"\n\n[door]\nwait = 1\n",
        &["3:1: expected a comma or ]; is the list that began before closed?"],
    );
    refused(
        "[server.notes]\ncommand = [\"x\" \"y\"]\nprot_env = 1\n\n[door]\nwait = 10s\nmax_body = 1\n",
        &[
            "2:16: expected a comma or ]",
            "3:1: did you mean \"port_env\"?",
            "6:8: must be quoted",
            "7:12: max_body takes a size",
        ],
    );
    refused("[door]\nwait = \"1s\"\nwait = \"2s\"\n", &["3:1: duplicate key"]);
    refused("log = \"open\nb = 1", &["1:12: invalid basic string", "2:1: unknown key"]);
}

#[test]
fn a_bare_number_is_refused_with_the_way_to_write_it() {
    refused_in_server(
        "ready.timeout = 30",
        &["4:17: timeout takes a duration with its unit, in quotes: \"100ms\""],
    );
    refused_in_server("limits.memory = 512", &["4:17: memory takes a size with its unit"]);
    refused_in_server("limits.cpu = 0.5", &["4:14: cpu takes a percentage"]);
    refused_in_server(
        "limits.tasks = \"64\"",
        &["4:16: tasks takes a whole number from 1 to 4294967295, without quotes"],
    );
    refused_in_server("for_all = \"yes\"", &["4:11: for_all takes true or false"]);
}

#[test]
fn what_would_make_a_wait_of_nothing_is_refused() {
    for key in ["ready.timeout", "restart.first_wait", "restart.max_wait", "restart.stable"] {
        let said = said(&format!("{NOTES}{key} = \"0s\""));
        assert!(said.len() == 1 && said[0].contains("more than zero"), "{said:?}");
    }
    refused_in_server(
        "restart.first_wait = \"2m\"",
        &["4:22: first_wait (120s) is longer than max_wait (60s)"],
    );
}

#[test]
fn ranges_that_overlap_are_refused() {
    refused(
        &format!("ports.range = \"3456-20000\"\n{NOTES}"),
        &["1:15: range 3456-20000 and backend_range 20000-29999 overlap"],
    );
    refused(&format!("ports.listen = \"localhost\"\n{NOTES}"), &["1:16: listen takes an IP address"]);
    assert!(parse(&format!("ports.listen = \"0.0.0.0\"\n{NOTES}"), "f").is_ok());
}

#[test]
fn a_file_needs_a_server_and_a_server_a_command_and_a_transport() {
    assert_eq!(said(""), ["mcpsup.toml: no server is described; add a table [server.NAME]"]);
    refused("[server.a]", &["1:9: transport is missing", "1:9: command is missing"]);
    refused("server.a = 1", &["1:12: a takes a table"]);
    refused("[[server]]\nx = 1", &["1:1: server takes a table"]);
}

#[test]
fn a_command_is_a_list_whose_program_is_not_empty() {
    let command =
        |list: &str| format!("[server.a]\ntransport = \"http\"\nport_env = \"PORT\"\ncommand = {list}\n");
    refused(&command("\"node x\""), &["4:11: command takes a list of the program and its arguments"]);
    refused(&command("[]"), &["4:11: command takes a list"]);
    refused(
        &command("[\"\", \"{x}\", 1]"),
        &[
            "4:12: is empty",
            "4:16: unknown template \"{x}\"; known are {user}",
            "4:23: command takes text in quotes",
        ],
    );
    refused(&command("[\"a\\u0000b\"]"), &["4:12: NUL"]);
    refused(&command("[\"x\", \"{session}\"]"), &["4:17: {session} is only for a process of one session"]);
}

#[test]
fn a_secret_in_argv_has_to_be_asked_for() {
    let server = |more: &str| format!("[server.a]\ntransport = \"http\"\nport_env = \"PORT\"\n{more}\n");
    let argument = "command = [\"x\", \"--dsn={env:DSN}\"]";
    refused(&server(argument), &["4:17: would stand in everybody's ps"]);
    assert!(parse(&server(&format!("{argument}\nsecrets_in_argv = true")), "f").is_ok());
    refused(
        &server("secrets_in_argv = true\ncommand = [\"{env:X}\"]"),
        &["5:12: the program cannot be {env:NAME}"],
    );
    refused(
        &server("secrets_in_argv = true\ncommand = [\"x\"]\nworking_dir = \"/srv/{env:X}\""),
        &["6:15: {env:NAME} is for env only"],
    );
}

#[test]
fn an_http_server_has_to_learn_its_port_from_somewhere() {
    let server = |more: &str| format!("[server.a]\ntransport = \"http\"\n{more}\n");
    refused(&server("command = [\"x\"]"), &["1:9: nothing tells the process its port"]);
    for more in [
        "command = [\"x\", \"-p{port}\"]",
        "command = [\"x\"]\nport_env = \"PORT\"",
        "command = [\"x\"]\nenv.P = \"{port}\"",
    ] {
        assert!(parse(&server(more), "f").is_ok(), "{more}");
    }
}

#[test]
fn a_door_is_its_owners_unless_said_otherwise() {
    let access = |more: &str| {
        let text = format!("[server.a]\ncommand = [\"x\"]\ntransport = \"http\"\nport_env = \"P\"\n{more}\n");
        parse(&text, "f").unwrap().servers.into_values().next().unwrap().access
    };
    assert_eq!(access(""), Access::Owner);
    assert_eq!(access("access = \"owner\""), Access::Owner);
    assert_eq!(access("access = \"token\""), Access::Token);
    assert_eq!(access("access = \"open\""), Access::Open);
    refused_in_server("access = \"world\"", &["4:10: access takes \"owner\" (the user's own uid"]);
}

fn stdio(lines: &str) -> Stdio {
    let text = format!("[server.a]\ncommand = [\"x\"]\ntransport = \"stdio\"\n{lines}\n");
    match parse(&text, "f").unwrap().servers.into_values().next().unwrap().transport {
        Transport::Stdio(stdio) => stdio,
        Transport::Http => panic!("http"),
    }
}

#[test]
fn a_stdio_server_has_defaults_of_its_own_and_every_key_of_it_is_read() {
    let shared = stdio("");
    assert_eq!(shared, Stdio::of(Sessions::Shared));
    assert_eq!((shared.max_sessions, shared.session_idle), (256, 24 * 3600 * SECOND));
    assert_eq!((shared.era, shared.max_message, shared.health), (Era::Auto, 16 << 20, None));
    let isolated = stdio("sessions = \"isolated\"\nworking_dir = \"{state_dir}/{session}\"");
    assert_eq!(isolated, Stdio::of(Sessions::Isolated));
    assert_eq!((isolated.max_sessions, isolated.session_idle), (8, 3600 * SECOND));
    let all = "sessions = \"isolated\"\nmax_sessions = 3\nsession_idle = \"2d\"\nera = \"modern\"\n\
               max_message = \"1M\"\nport_env = \"PORT\"\nready.probe = \"mcp\"\nhealth.every = \"30s\"";
    let all = stdio(all);
    assert_eq!((all.sessions, all.max_sessions, all.era), (Sessions::Isolated, 3, Era::Modern));
    assert_eq!((all.session_idle, all.max_message), (2 * 24 * 3600 * SECOND, 1 << 20));
    assert_eq!(all.health, Some(Health { every: 30 * SECOND, timeout: 10 * SECOND }));
    let health = stdio("[server.a.health]\nevery = \"1s\"\ntimeout = \"1m\"").health;
    assert_eq!(health, Some(Health { every: SECOND, timeout: 60 * SECOND }));
}

#[test]
fn what_only_stdio_has_is_refused_for_http_and_the_other_way_round() {
    for (line, why) in [
        ("sessions = \"shared\"", "keeps its sessions itself"),
        ("max_sessions = 3", "keeps its sessions itself"),
        ("session_idle = \"1h\"", "keeps its sessions itself"),
        ("era = \"auto\"", "asked by its clients themselves"),
        ("max_message = \"1M\"", "[door] max_body"),
        ("health.every = \"30s\"", "not asked once it is up"),
    ] {
        let key = line.split([' ', '.']).next().unwrap();
        let expected = format!("4:1: {key} is for transport = \"stdio\"; ");
        refused_in_server(line, &[&expected]);
        refused_in_server(line, &[&format!("4:1: {why}")]);
    }
    let server = |lines: &str| format!("[server.a]\ntransport = \"stdio\"\n{lines}\n");
    let x = "command = [\"x\"]\n";
    refused(&server("command = [\"x\", \"{port}\"]"), &["3:17: a stdio process has none"]);
    refused(&server(&format!("{x}env.P = \"{{port}}\"")), &["4:9: a stdio process has none"]);
    for probe in ["\"tcp\"", "\"http\"\nready.probe_path = \"/health\""] {
        refused(&server(&format!("{x}ready.probe = {probe}")), &["4:15: a stdio process has no port"]);
    }
}

#[test]
fn a_session_of_its_own_is_for_isolated_processes() {
    let server = |lines: &str| format!("[server.a]\ntransport = \"stdio\"\n{lines}\n");
    let what = "{session} is only for a process of one session";
    refused(&server("command = [\"x\", \"{session}\"]"), &[&format!("3:17: {what}")]);
    refused(
        &server("command = [\"x\"]\nsessions = \"shared\"\nenv.S = \"{session}\""),
        &[&format!("5:9: {what}")],
    );
    refused_in_server("working_dir = \"/srv/{session}\"", &[&format!("4:15: {what}")]);
    assert!(parse(&server("command = [\"x\", \"{session}\"]\nsessions = \"isolated\""), "f").is_ok());
}

#[test]
fn what_a_stdio_server_says_is_checked() {
    let refused = |line: &str, expected: &str| {
        refused(&format!("[server.a]\ntransport = \"stdio\"\ncommand = [\"x\"]\n{line}\n"), &[expected]);
    };
    refused("sessions = \"own\"", "4:12: sessions takes \"shared\"");
    refused("max_sessions = 0", "4:16: max_sessions takes a whole number from 1");
    refused("session_idle = \"0s\"", "4:16: more than zero");
    refused("era = \"2025-11-25\"", "4:7: era takes \"auto\", \"legacy\"");
    refused("max_message = \"63K\"", "4:15: max_message is at least \"64K\"");
    refused("health.timeout = \"5s\"", "4:1: health needs every");
    refused("health.every = \"500ms\"", "4:16: every is at least \"1s\"");
    refused("health = 1", "4:10: health takes a table");
    refused("healt.every = \"1s\"", "4:1: did you mean \"health\"?");
}

#[test]
fn names_of_variables_are_checked() {
    refused_in_server(
        "env = { \"A-B\" = \"\", MCPSUP_PORT = \"1\" }",
        &["4:9: \"A-B\" cannot name a variable", "4:21: mcpsup's own"],
    );
    refused_in_server("port_env = \"1PORT\"", &["4:12: port_env takes the name of a variable"]);
    refused_in_server("port_env = \"MCPSUP_PORT\"", &["4:12: port_env takes"]);
    refused_in_server("credential.\"\".required = true", &["4:12: \"\" cannot name a variable"]);
}

#[test]
fn two_servers_cannot_share_the_setting_of_their_port() {
    let second = "[server.a_b]\ncommand = [\"x\", \"{port}\"]\ntransport = \"http\"\n";
    let text = format!("{second}{}", second.replace("a_b", "a-b"));
    let said = said(&text);
    assert!(said.len() == 1 && said[0].contains("MCPSUP_PORT_A_B"), "{said:?}");
}

#[test]
fn paths_patterns_signals_and_probes_are_checked() {
    refused_in_server("path = \"mcp\"", &["4:8: path takes a path that begins with /"]);
    refused_in_server("path = \"/a b\"", &["4:8: path takes"]);
    refused_in_server("path = \"/a\\r\\nX: y\"", &["4:8: path takes"]);
    refused_in_server("credential.T.pattern = \"(\"", &["4:24: pattern is not a regular expression"]);
    let stops = "4:15: signal takes the name of a signal: SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGKILL";
    for signal in ["SIGFOO", "SIGALRM", "SIGPIPE"] {
        refused_in_server(&format!("stop.signal = \"{signal}\""), &[stops]);
    }
    refused_in_server("ready.probe = \"http\"", &["4:7: needs probe_path"]);
    refused_in_server("ready.probe_path = \"/x\"", &["4:7: probe_path is only for"]);
    refused_in_server("working_dir = \"work\"", &["4:15: working_dir takes a path that begins with /"]);
    for host in ["*.example.org", "http://x", "x:80", "", "a b", "[x]"] {
        let said = said(&format!("door.hosts = [\"{host}\"]\n{NOTES}"));
        assert!(said.len() == 1 && said[0].contains("host names"), "{host}: {said:?}");
    }
}

#[test]
fn a_value_of_env_is_never_shown() {
    for value in [
        "\"{hunter2}\"",
        "\"hunter2}\"",
        "\"{env:hunter2!}\"",
        "\"hunter2\\u0000\"",
        "[\"hunter2\"]",
        "{ hunter3 = \"hunter2\" }",
        "\"hunter2",
        "hunter2",
        "'{\"hunter2\":1}'",
    ] {
        let said = said(&format!("{NOTES}env.TOKEN = {value}\n")).concat();
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[test]
fn patterns_are_searched_for() {
    assert!(matches("^1000\\.[A-Z0-9]+$", "1000.ABC"));
    assert!(!matches("^1000\\.[A-Z0-9]+$", "1000.ABC\n"));
    assert!(matches("b", "abc"));
    assert!(!matches("(", "("));
}

#[test]
fn a_flood_of_problems_is_counted() {
    let flood: Vec<String> = (0..5_000).map(|n| format!("key-{n} = 1\n")).collect();
    let flood = flood.concat();
    let said = said(&format!("{flood}{NOTES}"));
    assert_eq!(said.len(), 101);
    assert_eq!(said[100], "mcpsup.toml: and 4900 more problems");
}

#[test]
fn settings_of_ports_are_called_in_capitals() {
    assert_eq!(pin_suffix(&"service-desk.v2".parse().unwrap()), "SERVICE_DESK_V2");
    assert_eq!(notes("").path, "/mcp");
}

#[test]
fn a_large_file_of_noise_is_answered() {
    assert_eq!(said(&"x".repeat(MAX_FILE + 1)).len(), 1);
    for noise in ["[", "a=", "\"", "a=[\n", "x\n", "[a]\n", "{", "a.", "#\n'"] {
        let said = said(&noise.repeat(50_000 / noise.len()));
        assert!((1..=101).contains(&said.len()), "{noise:?}: {}", said.len());
    }
}

#[test]
fn a_process_that_listens_on_a_socket_has_no_port() {
    let http = |more: &str| format!("[server.a]\ntransport = \"http\"\n{more}\n");
    let socket = parse(&http("command = [\"x\", \"--uds\", \"{socket}\"]"), "f").unwrap();
    let socket = &socket.servers[&"a".parse().unwrap()];
    assert!(socket.has_socket() && !socket.listens());
    for both in
        ["command = [\"x\", \"{socket}\", \"{port}\"]", "command = [\"x\", \"{socket}\"]\nport_env = \"P\""]
    {
        let problems = parse(&http(both), "f").unwrap_err();
        assert!(problems[0].text.contains("two ways to listen"), "{problems:?}");
    }
    let stdio = "[server.a]\ncommand = [\"x\", \"{socket}\"]\ntransport = \"stdio\"\n";
    let problems = parse(stdio, "f").unwrap_err();
    assert!(problems[0].text.contains("a stdio process needs none"), "{problems:?}");
}
