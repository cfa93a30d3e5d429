//! How a server's runs live: when they are up, how they end, what follows, what they may use.

use std::time::Duration;

use super::report::Report;
use super::server::url_path;
use super::table::Table;
use super::{SECOND, stdio, units};
use crate::model::config::{Limits, Probe, Ready, Restart, Stop, Transport};
use crate::model::run::{STOPS, signal_name, signal_number};

/// `[server.NAME.ready]`
pub(super) fn ready(
    mut table: Table<'_, '_>,
    transport: Option<Transport>,
    report: &mut Report<'_>,
) -> Ready {
    let probe_entry = table.take("probe");
    let kind = probe_entry.as_ref().and_then(|entry| {
        entry.text("\"mcp\", \"http\" or \"tcp\"", report, |text| {
            ["mcp", "http", "tcp"].into_iter().find(|known| *known == text)
        })
    });
    let path_entry = table.take("probe_path");
    let path = path_entry.as_ref().and_then(|entry| url_path(entry, report));
    let timeout = table.take("timeout").and_then(|e| e.span_of_time(report));
    table.finish(report);

    match (&probe_entry, &path_entry, kind) {
        (Some(probe), None, Some("http")) => report.missing(
            Some(&probe.key_span),
            "probe = \"http\" needs probe_path, the path to ask: probe_path = \"/health\"",
        ),
        (None, Some(path), _) | (Some(_), Some(path), Some("mcp" | "tcp")) => {
            report.say(&path.key_span, "probe_path is only for probe = \"http\"");
        }
        _ => {}
    }
    let probe = match (kind, path) {
        (Some("http"), Some(path)) => Probe::Http(path),
        (Some("tcp"), _) => Probe::Tcp,
        _ => Probe::Mcp,
    };
    if let (Some(entry), Some(transport)) = (&probe_entry, transport)
        && let Some(complaint) = stdio::probe_out_of_place(&probe, transport)
    {
        report.say(&entry.value.span(), complaint);
    }
    Ready { probe, timeout: timeout.unwrap_or(30 * SECOND) }
}

/// `[server.NAME.stop]`
pub(super) fn stop(mut table: Table<'_, '_>, report: &mut Report<'_>) -> Stop {
    let stop = |name: &str| signal_number(name).filter(|signal| STOPS.contains(signal));
    let known = || {
        let names: Vec<&str> = STOPS.into_iter().filter_map(signal_name).collect();
        format!("the name of a signal: {}", names.join(", "))
    };
    let signal = table.take("signal").and_then(|entry| entry.text(&known(), report, stop));
    let grace = table.take("grace").and_then(|e| e.duration(report));
    table.finish(report);
    Stop { signal: signal.unwrap_or(15), grace: grace.unwrap_or(10 * SECOND) }
}

/// `[server.NAME.restart]`
pub(super) fn restart(mut table: Table<'_, '_>, report: &mut Report<'_>) -> Restart {
    let first_entry = table.take("first_wait");
    // Zero would double to zero, and a crash loop would spin.
    let first_wait = first_entry.as_ref().and_then(|e| e.span_of_time(report));
    let max_entry = table.take("max_wait");
    let max_wait = max_entry.as_ref().and_then(|e| e.span_of_time(report));
    let stable = table.take("stable").and_then(|e| e.span_of_time(report));
    table.finish(report);
    let restart = Restart {
        first_wait: first_wait.unwrap_or(Duration::from_millis(100)),
        max_wait: max_wait.unwrap_or(60 * SECOND),
        stable: stable.unwrap_or(60 * SECOND),
    };
    if restart.first_wait > restart.max_wait
        && let Some(entry) = first_entry.or(max_entry)
    {
        report.say(
            &entry.value.span(),
            format!(
                "first_wait ({:?}) is longer than max_wait ({:?}), where doubling ends",
                restart.first_wait, restart.max_wait
            ),
        );
    }
    restart
}

/// `[server.NAME.limits]`
pub(super) fn limits(mut table: Table<'_, '_>, report: &mut Report<'_>) -> Limits {
    let memory = table.take("memory").and_then(|e| e.size(report));
    let cpu = table.take("cpu").and_then(|e| e.text(units::CPU, report, units::cpu));
    let tasks = table.take("tasks").and_then(|e| e.count(1, report));
    let open_files = table.take("open_files").and_then(|e| e.count(1, report));
    table.finish(report);
    Limits { memory, cpu, tasks, open_files: open_files.or(Some(1024)) }
}
