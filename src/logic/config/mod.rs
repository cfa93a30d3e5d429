//! mcpsup.toml, as text → [`Config`], or everything that is wrong with it.
//!
//! Every problem comes with line and column, all of them at once (PRODUCT §3). The types of the
//! result and their meaning stand in [`model::config`](crate::model::config); this folder holds
//! the keys, the defaults and the checks: here the general tables, in `server` and `life` what
//! one server says, in `stdio` how it is spoken with, in `units` numbers with units, in `table` the walk with its unknown keys,
//! in `report` what is said and what is not.
//!
//! It does not look at the world: whether a command exists or a port is free is found out where
//! it is used.

mod allow;
mod life;
mod report;
mod server;
pub(in crate::logic) mod spelling;
mod stdio;
mod table;
mod units;

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use toml::de::DeTable;

use crate::logic::config::report::Report;
use crate::logic::config::table::{Entry, Table};
use crate::model::config::{Config, Containment, Daemon, Door, Log, Ports, Server};
use crate::model::port::PortRange;
use crate::model::uid::UidRange;
use crate::model::{Problem, ServerName};

const SECOND: Duration = Duration::from_secs(1);
/// The largest mcpsup.toml that is read, in bytes.
pub const MAX_FILE: usize = 1 << 20;

/// Reads mcpsup.toml. `file` is its name as the administrator knows it, for the problems.
///
/// # Errors
///
/// With every problem, in the order of the file. Where the text is not TOML, that is reported for
/// every place the parser can recover from, and what seems to be missing is not.
pub fn parse(text: &str, file: &str) -> Result<Config, Vec<Problem>> {
    if text.len() > MAX_FILE {
        return Err(vec![Problem::new(file, "larger than 1 MiB; is it the right file?")]);
    }
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut report = Report::new(file, text);
    report.syntax(&errors);
    let mut root = Table::new("mcpsup.toml", document.get_ref());
    let config = Config {
        ports: ports(root.table("ports", "[ports]", &mut report), &mut report),
        door: door(root.table("door", "[door]", &mut report), &mut report),
        log: log(root.table("log", "[log]", &mut report), &mut report),
        daemon: daemon(root.table("daemon", "[daemon]", &mut report), &mut report),
        servers: servers(&mut root, &mut report),
    };
    root.finish(&mut report);
    report.verdict(config)
}

/// True if a credential's value is what its `pattern` asks for: a search, as everywhere, so a
/// pattern for the whole value says `^…$`. False if the pattern does not compile, which [`parse`]
/// has ruled out.
#[must_use]
pub fn matches(pattern: &str, value: &str) -> bool {
    regex_lite::Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(value))
}

fn ports(mut table: Table<'_, '_>, report: &mut Report<'_>) -> Ports {
    let usual = Ports::default();
    let listen = table.take("listen").and_then(|entry| {
        entry.text("an IP address: \"127.0.0.1\" or \"::1\"", report, |text| text.parse().ok())
    });
    let range = table.take("range");
    let backend_range = table.take("backend_range");
    let read = |entry: Option<&Entry<'_, '_>>, default: PortRange, report: &mut Report<'_>| {
        let what = format!("two ports from 1 to 65535, in quotes: \"{default}\"");
        entry.and_then(|e| e.text(&what, report, |text| text.parse().ok())).unwrap_or(default)
    };
    let ports = Ports {
        listen: listen.unwrap_or(usual.listen),
        range: read(range.as_ref(), usual.range, report),
        backend_range: read(backend_range.as_ref(), usual.backend_range, report),
    };
    if ports.range.overlaps(ports.backend_range)
        && let Some(entry) = backend_range.or(range)
    {
        report.say(
            &entry.value.span(),
            format!(
                "range {} and backend_range {} overlap; a port is either a user's door or where a process listens",
                ports.range, ports.backend_range
            ),
        );
    }
    table.finish(report);
    ports
}

fn door(mut table: Table<'_, '_>, report: &mut Report<'_>) -> Door {
    let wait = table.take("wait").and_then(|e| e.duration(report));
    let max_body = table.take("max_body").and_then(|e| e.size(report));
    let max_connections = table.take("max_connections").and_then(|e| e.count(1, report));
    let head_timeout = table.take("head_timeout").and_then(|e| e.span_of_time(report));
    let unix = table.take("unix").and_then(|entry| entry.flag(report));
    let hosts = table.take("hosts").and_then(|entry| {
        let what = "a list of host names without scheme, port or path: [\"mcp.example.org\"]";
        entry.read(what, report, |value| {
            value.as_array()?.iter().map(|host| host_name(host.get_ref().as_str()?)).collect()
        })
    });
    table.finish(report);
    let usual = Door::default();
    Door {
        wait: wait.unwrap_or(usual.wait),
        max_body: max_body.unwrap_or(usual.max_body),
        max_connections: max_connections.unwrap_or(usual.max_connections),
        head_timeout: head_timeout.unwrap_or(usual.head_timeout),
        hosts: hosts.unwrap_or(usual.hosts),
        unix: unix.unwrap_or(usual.unix),
    }
}

/// A host as a Host header names it, without its port, in lower case; no wildcards, which would
/// look like protection against DNS rebinding and be none.
fn host_name(text: &str) -> Option<String> {
    let address = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let valid = match address {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => {
            (1..=253).contains(&text.len())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        }
    };
    valid.then(|| text.to_ascii_lowercase())
}

fn log(mut table: Table<'_, '_>, report: &mut Report<'_>) -> Log {
    let max_size = table.take("max_size").and_then(|e| e.size(report));
    let keep = table.take("keep").and_then(|e| e.count(0, report));
    let max_rate = table.take("max_rate").and_then(|e| e.size(report));
    table.finish(report);
    let usual = Log::default();
    Log {
        max_size: max_size.unwrap_or(usual.max_size),
        keep: keep.unwrap_or(usual.keep),
        max_rate: max_rate.unwrap_or(usual.max_rate),
    }
}

fn daemon(mut table: Table<'_, '_>, report: &mut Report<'_>) -> Daemon {
    let containment = table.take("containment").and_then(|entry| {
        let what = "\"auto\", \"cgroup\", \"pid-namespace\" or \"session\"";
        entry.text(what, report, |text| match text {
            "auto" => Some(Containment::Auto),
            "cgroup" => Some(Containment::Cgroup),
            "pid-namespace" => Some(Containment::PidNamespace),
            "session" => Some(Containment::Session),
            _ => None,
        })
    });
    let cgroup_root = table.take("cgroup_root").and_then(|entry| {
        let what = "the absolute path of a directory: \"/sys/fs/cgroup/mcpsup\"";
        entry.text(what, report, |text| {
            (text.starts_with('/') && !text.contains(char::is_control)).then(|| PathBuf::from(text))
        })
    });
    let isolation = table.take("isolation").and_then(|e| e.text(allow::ISOLATION, report, allow::isolation));
    let uid_range = table.take("uid_range").and_then(|entry| {
        let what = format!(
            "two uids from 1000 to 2147483647, without 65534 and 65535 between them, in quotes: \"{}\"",
            UidRange::default()
        );
        entry.text(&what, report, |text| text.parse().ok())
    });
    table.finish(report);
    Daemon {
        containment: containment.unwrap_or_default(),
        cgroup_root,
        isolation: isolation.unwrap_or_default(),
        uid_range: uid_range.unwrap_or_default(),
    }
}

fn servers(root: &mut Table<'_, '_>, report: &mut Report<'_>) -> BTreeMap<ServerName, Arc<Server>> {
    let entries = root.named("server", report);
    if entries.as_ref().is_some_and(Vec::is_empty) {
        report.missing(None, "no server is described; add a table [server.NAME]");
    }
    let mut servers = BTreeMap::new();
    let mut pins: BTreeMap<String, ServerName> = BTreeMap::new();
    for entry in entries.into_iter().flatten() {
        let Ok(name) = entry.key.parse::<ServerName>() else {
            let text = format!(
                "{} cannot name a server; {}",
                spelling::shown(entry.key),
                crate::model::name::NotAName
            );
            report.say(&entry.key_span, text);
            continue;
        };
        let pin = pin_suffix(&name);
        if let Some(other) = pins.get(&pin) {
            let text =
                format!("{name} and {other} would share the setting MCPSUP_PORT_{pin}; rename one of them");
            report.say(&entry.key_span, text);
        } else {
            pins.insert(pin, name.clone());
        }
        if let Some(server) = server::read(entry, report) {
            servers.insert(name, Arc::new(server));
        }
    }
    servers
}

/// What stands for a server in `MCPSUP_PORT_…`: its name in capitals, with `_` for everything that
/// a variable's name cannot hold.
#[must_use]
pub fn pin_suffix(server: &ServerName) -> String {
    let letter = |b: u8| {
        if b.is_ascii_alphanumeric() { char::from(b.to_ascii_uppercase()) } else { '_' }
    };
    server.as_str().bytes().map(letter).collect()
}

#[cfg(test)]
mod tests;
