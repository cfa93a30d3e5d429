//! One `[server.NAME]`: its keys, its defaults, and what must be true of them together.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::DeValue;

use super::report::{Report, Span};
use super::spelling::shown;
use super::table::{Entry, Table};
use super::{life, stdio};
use crate::logic::{envfile, template};
use crate::model::config::{Access, Credential, Piece, Server, Template, Transport};

/// What one server says; `None` only where a problem has been reported.
pub(super) fn read(entry: Entry<'_, '_>, report: &mut Report<'_>) -> Option<Server> {
    let place = entry.key_span.clone();
    let mut table = entry.into_table("[server.NAME]", report)?;

    let secrets_in_argv = table.take("secrets_in_argv").and_then(|e| e.flag(report)).unwrap_or(false);
    let transport = stdio::transport(&mut table, &place, report);
    let command = command(&mut table, &place, (secrets_in_argv, transport), report);
    let env = env(&mut table, transport, report);
    let for_all = table.take("for_all").and_then(|e| e.flag(report)).unwrap_or(true);
    let credentials = credentials(&mut table, report);
    let port_entry = table.take("port_env");
    let port_env = port_entry.as_ref().and_then(|entry| variable_name(entry, report));
    let path = table.take("path").and_then(|e| url_path(&e, report));
    let working_dir = working_dir(&mut table, transport, report);
    let access = table.take("access").and_then(|entry| access(&entry, report));
    let ready = life::ready(table.table("ready", "[server.NAME.ready]", report), transport, report);
    let stop = life::stop(table.table("stop", "[server.NAME.stop]", report), report);
    let restart = life::restart(table.table("restart", "[server.NAME.restart]", report), report);
    let limits = life::limits(table.table("limits", "[server.NAME.limits]", report), report);
    let allow = super::allow::allow(table.table("allow", "[server.NAME.allow]", report), report);
    table.finish(report);

    let (command, transport) = (command?, transport?);
    let told = port_entry.is_some() || command.iter().chain(env.values()).any(template::mentions_port);
    let has_socket = command.iter().chain(env.values()).any(|text| text.0.contains(&Piece::Socket));
    match transport {
        Transport::Http if told && has_socket => report.missing(
            Some(&place),
            "{socket} and a port are two ways to listen, and the door takes one: remove {port} and port_env, or {socket}",
        ),
        Transport::Http if has_socket => {}
        Transport::Http if !told => report.missing(
            Some(&place),
            "nothing tells the process its port; name the variable it reads, port_env = \"PORT\", or write {port} in command or env (or {socket}, if it can listen on a Unix socket)",
        ),
        Transport::Http | Transport::Stdio(_) => {}
    }
    Some(Server {
        command,
        transport,
        env,
        for_all,
        credentials,
        port_env,
        path: path.unwrap_or_else(|| "/mcp".to_owned()),
        working_dir,
        access: access.unwrap_or_default(),
        secrets_in_argv,
        ready,
        stop,
        restart,
        limits,
        allow,
    })
}

fn command(
    table: &mut Table<'_, '_>,
    place: &Span,
    rules: (bool, Option<Transport>),
    report: &mut Report<'_>,
) -> Option<Vec<Template>> {
    const WHAT: &str = "a list of the program and its arguments: [\"/opt/notes/server\", \"--verbose\"]";
    let Some(entry) = table.take("command") else {
        report.missing(Some(place), format!("command is missing; it is {WHAT}"));
        return None;
    };
    let items = entry.read(WHAT, report, |value| value.as_array())?;
    if items.is_empty() {
        report.say(&entry.value.span(), format!("command takes {WHAT}"));
        return None;
    }
    // Every argument is looked at, so that all that is wrong is said; then one wrong is enough.
    let read: Vec<Option<Template>> =
        items.iter().enumerate().map(|(index, item)| argument(index, item, rules, report)).collect();
    read.into_iter().collect()
}

fn argument(
    index: usize,
    item: &Spanned<DeValue<'_>>,
    (secrets_in_argv, transport): (bool, Option<Transport>),
    report: &mut Report<'_>,
) -> Option<Template> {
    let argument = template(item, "command", (true, transport), report)?;
    let complaint = if index == 0 && argument.0.is_empty() {
        "the first of command is the program, and it is empty"
    } else if template::variables(&argument).next().is_none() {
        return Some(argument);
    } else if index == 0 {
        "the program cannot be {env:NAME}: which program runs is not for the user's file to say"
    } else if secrets_in_argv {
        return Some(argument);
    } else {
        "{env:NAME} in command would stand in everybody's ps; hand it over in env, or say secrets_in_argv = true if the server takes it only as an argument"
    };
    report.say(&item.span(), complaint);
    None
}

fn env(
    table: &mut Table<'_, '_>,
    transport: Option<Transport>,
    report: &mut Report<'_>,
) -> BTreeMap<String, Template> {
    let mut variables = BTreeMap::new();
    for entry in table.named("env", report).into_iter().flatten() {
        let named = is_process_name(entry.key, &entry.key_span, report);
        // Its text may be a secret the administrator put there: it is never quoted.
        let value = template(entry.value, "a variable of env", (false, transport), report);
        if let (true, Some(value)) = (named, value) {
            variables.insert(entry.key.to_owned(), value);
        }
    }
    variables
}

fn credentials(table: &mut Table<'_, '_>, report: &mut Report<'_>) -> BTreeMap<String, Credential> {
    let mut credentials = BTreeMap::new();
    for entry in table.named("credential", report).into_iter().flatten() {
        let name = entry.key.to_owned();
        is_process_name(entry.key, &entry.key_span, report);
        let Some(mut table) = entry.into_table("[server.NAME.credential.VARIABLE]", report) else {
            continue;
        };
        let description = table
            .take("description")
            .and_then(|e| e.text("a text in quotes", report, |text| Some(text.to_owned())));
        let pattern = table.take("pattern").and_then(|e| pattern(&e, report));
        let required = table.take("required").and_then(|e| e.flag(report));
        table.finish(report);
        let credential = Credential {
            description: description.unwrap_or_default(),
            pattern,
            required: required.unwrap_or(true),
        };
        credentials.insert(name, credential);
    }
    credentials
}

fn pattern(entry: &Entry<'_, '_>, report: &mut Report<'_>) -> Option<String> {
    let text = entry.text("a regular expression in quotes: '^ghp_[A-Za-z0-9]+$'", report, Some)?;
    match regex_lite::Regex::new(text) {
        Ok(_) => Some(text.to_owned()),
        Err(error) => {
            report.say(&entry.value.span(), format!("pattern is not a regular expression: {error}"));
            None
        }
    }
}

fn variable_name(entry: &Entry<'_, '_>, report: &mut Report<'_>) -> Option<String> {
    let what =
        "the name of a variable in quotes, letters, digits and _, none of mcpsup's own (MCPSUP_…): \"PORT\"";
    entry.text(what, report, |text| envfile::is_process_name(text).then(|| text.to_owned()))
}

/// True if a key may name a variable of a process; else that is reported.
fn is_process_name(key: &str, span: &Span, report: &mut Report<'_>) -> bool {
    if envfile::is_process_name(key) {
        return true;
    }
    let why = if envfile::is_name(key) {
        "names that begin with MCPSUP_ are mcpsup's own and never handed to a process"
    } else {
        "expected letters, digits and _, not beginning with a digit"
    };
    report.say(span, format!("{} cannot name a variable; {why}", shown(key)));
    false
}

/// A path of a URL, without query.
pub(super) fn url_path(entry: &Entry<'_, '_>, report: &mut Report<'_>) -> Option<String> {
    let what = "a path that begins with /, in quotes: \"/mcp\"";
    entry.text(what, report, |text| {
        let plain = text.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'?' | b'#'));
        (text.starts_with('/') && plain).then(|| text.to_owned())
    })
}

fn working_dir(
    table: &mut Table<'_, '_>,
    transport: Option<Transport>,
    report: &mut Report<'_>,
) -> Option<Template> {
    let entry = table.take("working_dir")?;
    let found = template(entry.value, "working_dir", (true, transport), report)?;
    if template::variables(&found).next().is_some() {
        report.say(
            &entry.value.span(),
            "{env:NAME} is for env only; a working_dir stands in logs and messages",
        );
        return None;
    }
    let absolute = match found.0.first() {
        Some(Piece::Text(text)) => text.starts_with('/'),
        Some(Piece::StateDir | Piece::RuntimeDir) => true,
        Some(Piece::User | Piece::Server | Piece::Port | Piece::Socket | Piece::Session | Piece::Env(_))
        | None => false,
    };
    if !absolute {
        report.say(
            &entry.value.span(),
            "working_dir takes a path that begins with /, {state_dir} or {runtime_dir}",
        );
    }
    Some(found)
}

fn access(entry: &Entry<'_, '_>, report: &mut Report<'_>) -> Option<Access> {
    let what = "\"owner\" (the user's own uid, or a token of theirs), \"token\" (a token, always) or \"open\" (everybody on this host)";
    entry.text(what, report, |text| match text {
        "owner" => Some(Access::Owner),
        "token" => Some(Access::Token),
        "open" => Some(Access::Open),
        _ => None,
    })
}

/// A text with holes; `quotable` says whether a message may show a hole that is not known, and the
/// transport, where it is known, which holes there are.
fn template(
    value: &Spanned<DeValue<'_>>,
    what: &str,
    (quotable, transport): (bool, Option<Transport>),
    report: &mut Report<'_>,
) -> Option<Template> {
    let Some(text) = value.get_ref().as_str() else {
        report.say(&value.span(), format!("{what} takes text in quotes"));
        return None;
    };
    if text.contains('\0') {
        report.say(&value.span(), format!("{what} cannot hold a NUL character"));
        return None;
    }
    match template::parse(text) {
        Ok(template) => {
            if let Some(complaint) = transport.and_then(|it| stdio::hole_out_of_place(&template, it)) {
                report.say(&value.span(), complaint);
                return None;
            }
            Some(template)
        }
        Err(error) => {
            let error = if quotable { error } else { error.unquoted() };
            report.say(&value.span(), error.to_string());
            None
        }
    }
}
