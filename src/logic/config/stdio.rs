//! What a server says about how its process is spoken with: its transport, and what belongs to
//! stdio alone.

use super::SECOND;
use super::report::{Report, Span};
use super::table::{Entry, Table};
use crate::logic::template;
use crate::model::config::{Era, Health, Piece, Probe, Sessions, Stdio, Template, Transport};

/// More seldom is no hardship for anybody, and more often would be felt by the server.
const OFTENEST: std::time::Duration = SECOND;
/// An `initialize` and its answer have to fit.
const SMALLEST_MESSAGE: u64 = 64 << 10;

/// A key that is for stdio alone, and why http has no use for it.
type OnlyStdio<'t, 'd> = (Option<Entry<'t, 'd>>, &'static str);

/// `transport` and the keys of stdio; `None` only where a problem has been reported.
pub(super) fn transport(
    table: &mut Table<'_, '_>,
    place: &Span,
    report: &mut Report<'_>,
) -> Option<Transport> {
    let entry = table.take("transport");
    let own = "an http process keeps its sessions itself";
    let keys: [OnlyStdio<'_, '_>; 6] = [
        (table.take("sessions"), own),
        (table.take("max_sessions"), own),
        (table.take("session_idle"), own),
        (table.take("era"), "an http process is asked by its clients themselves"),
        (table.take("max_message"), "what an http client may send is said by [door] max_body"),
        (table.take("health"), "an http process is not asked once it is up"),
    ];
    let Some(entry) = entry else {
        report.missing(
            Some(place),
            "transport is missing; \"stdio\" is a process that speaks MCP on its standard input and output, \"http\" one that speaks Streamable HTTP itself",
        );
        return None;
    };
    let what = "\"stdio\", or \"http\" for a process that speaks Streamable HTTP itself";
    let is_stdio = entry.text(what, report, |text| match text {
        "http" => Some(false),
        "stdio" => Some(true),
        _ => None,
    })?;
    if is_stdio {
        return Some(Transport::Stdio(stdio(keys, report)));
    }
    for (entry, why) in keys {
        if let Some(entry) = entry {
            report.say(
                &entry.key_span,
                format!("{} is for transport = \"stdio\"; {why}; remove it", entry.key),
            );
        }
    }
    Some(Transport::Http)
}

fn stdio(keys: [OnlyStdio<'_, '_>; 6], report: &mut Report<'_>) -> Stdio {
    let [sessions, max_sessions, session_idle, era, max_message, health] = keys.map(|(entry, _)| entry);
    let sessions = sessions.and_then(|entry| {
        let what =
            "\"shared\" (one process for all of a user's clients) or \"isolated\" (one for each session)";
        entry.text(what, report, |text| match text {
            "shared" => Some(Sessions::Shared),
            "isolated" => Some(Sessions::Isolated),
            _ => None,
        })
    });
    let era = era.and_then(|entry| {
        let what = "\"auto\", \"legacy\" (up to 2025-11-25) or \"modern\" (from 2026-07-28)";
        entry.text(what, report, |text| match text {
            "auto" => Some(Era::Auto),
            "legacy" => Some(Era::Legacy),
            "modern" => Some(Era::Modern),
            _ => None,
        })
    });
    let max_sessions = max_sessions.and_then(|entry| entry.count(1, report));
    let session_idle = session_idle.and_then(|entry| entry.span_of_time(report));
    let max_message = max_message.and_then(|entry| {
        let size = entry.size(report)?;
        if size < SMALLEST_MESSAGE {
            report.say(&entry.value.span(), "max_message is at least \"64K\"");
        }
        Some(size)
    });
    let health = health.and_then(|entry| self::health(entry, report));
    let usual = Stdio::of(sessions.unwrap_or_default());
    Stdio {
        sessions: usual.sessions,
        max_sessions: max_sessions.unwrap_or(usual.max_sessions),
        session_idle: session_idle.unwrap_or(usual.session_idle),
        era: era.unwrap_or(usual.era),
        max_message: max_message.unwrap_or(usual.max_message),
        health,
    }
}

/// `[server.NAME.health]`
fn health(entry: Entry<'_, '_>, report: &mut Report<'_>) -> Option<Health> {
    let place = entry.key_span.clone();
    let mut table = entry.into_table("[server.NAME.health]", report)?;
    let every_entry = table.take("every");
    let every = every_entry.as_ref().and_then(|e| e.span_of_time(report));
    let timeout = table.take("timeout").and_then(|e| e.span_of_time(report));
    table.finish(report);
    match (&every_entry, every) {
        (None, _) => {
            report
                .missing(Some(&place), "health needs every, how often the server is asked: every = \"30s\"");
        }
        (Some(entry), Some(every)) if every < OFTENEST => {
            report.say(&entry.value.span(), "every is at least \"1s\"");
        }
        (Some(_), _) => {}
    }
    Some(Health { every: every?, timeout: timeout.unwrap_or(10 * SECOND) })
}

/// What must be true of the transport and the texts with holes together: who has a `{port}`, and who
/// a `{session}`.
pub(super) fn hole_out_of_place(template: &Template, transport: Transport) -> Option<&'static str> {
    let (has_port, has_session) = match transport {
        Transport::Http => (true, false),
        Transport::Stdio(stdio) => (false, stdio.sessions == Sessions::Isolated),
    };
    if !has_port && template::mentions_port(template) {
        return Some("{port} is where an http process listens; a stdio process has none; remove it");
    }
    if !has_port && template.0.contains(&Piece::Socket) {
        return Some("{socket} is where an http process listens; a stdio process needs none; remove it");
    }
    if !has_session && template.0.contains(&Piece::Session) {
        return Some(
            "{session} is only for a process of one session: transport = \"stdio\" with sessions = \"isolated\"",
        );
    }
    None
}

/// A stdio process is up when it has answered its opening, and nothing else could be asked.
pub(super) fn probe_out_of_place(probe: &Probe, transport: Transport) -> Option<&'static str> {
    match (transport, probe) {
        (Transport::Stdio(_), Probe::Http(_) | Probe::Tcp) => Some(
            "a stdio process has no port to be asked at; it is up when it has answered initialize or server/discover: remove probe, or say \"mcp\"",
        ),
        (Transport::Stdio(_), Probe::Mcp) | (Transport::Http, _) => None,
    }
}
