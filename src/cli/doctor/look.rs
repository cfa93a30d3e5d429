//! Gathers everything that can be known, each from the one who knows: the files from `check`, what
//! runs from the daemon, the host from `system::survey`, the entries from `client`.
//!
//! Whoever does not administer the files is told of their own part only, as the daemon tells it: none of
//! the files is opened for them here that they could not open themselves.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::cli::check::{self, Examined};
use crate::cli::client::{is_anothers_account, survey};
use crate::cli::session::Session;
use crate::control::client::{Client, ClientError};
use crate::control::protocol::{Refusal, RefusalKind, Target};
use crate::daemon::apart::Apartness;
use crate::daemon::store;
use crate::logic::doctor::{Asker, host, needs, problem, server, shell_word};
use crate::logic::instance::Want;
use crate::model::finding::{Code, Finding};
use crate::model::portmap::PortMap;
use crate::model::spec::Home;
use crate::model::status::{InstanceStatus, StateName, StatusReport};
use crate::model::survey::{Reached, Seen};
use crate::model::{InstanceId, Problem, UserName};
use crate::system::envdir::user_of;
use crate::system::places::Places;
use crate::system::survey as host_survey;
use crate::system::{account, files, socket};

/// So many lines of a log are looked at for a server's last words.
const TAIL: usize = 40;
/// Largest port map in bytes.
const LARGEST: usize = files::LARGEST;
/// Our unit, as it is shipped.
const UNIT: &str = include_str!("../../../units/mcpsup.service");

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Looked {
    pub(super) findings: Vec<Finding>,
    /// What was looked at and is right, for people.
    pub(super) looked: Vec<String>,
}

/// Looks at everything the caller may see; the walk of `user`'s servers if one is meant.
///
/// # Errors
///
/// When the daemon says that `user` is not the caller's business, or there is no such user.
pub(super) fn look(user: Option<&UserName>, session: &Session) -> anyhow::Result<Looked> {
    let places = session.asked();
    let administers = administers(session);
    let (mut seen, client) = ask(places, user.filter(|_| !administers))?;
    if !administers {
        // The state directory is not theirs to look into.
        seen.is_locked = false;
    }
    let asker = asker(session, &seen, administers);
    let mut found = Looked::default();
    found.findings.extend(host::daemon(&seen, env!("CARGO_PKG_VERSION"), &asker));
    let report = match &seen.reached {
        Reached::Answers(report) => Some((**report).clone()),
        Reached::Missing | Reached::Refused | Reached::Closed | Reached::NoSocket | Reached::Odd(_) => None,
    };
    if let Some(report) = &report {
        found.looked.push(format!("daemon   mcpsup {}, {}", report.version, shell_word(&seen.socket)));
    }
    let examined =
        administers.then(|| files_and_host(user, session, (&seen, report.as_ref()), &asker, &mut found));
    if let Some(report) = &report {
        instances(report, client.as_ref(), (user, examined.as_ref()), &asker, &mut found);
        if !administers && report.instances.is_empty() {
            found.findings.push(server::none(&asker));
        }
    }
    if let (Some(user), Some(examined)) = (user, &examined) {
        is_known(user, examined, report.as_ref())?;
    }
    clients(user, examined.as_ref(), report.as_ref(), &asker, session, &mut found)?;
    Ok(found)
}

/// True if the files are the caller's: root's, or those of an ordinary user's own daemon.
fn administers(session: &Session) -> bool {
    let places = session.asked();
    let uid = account::own_uid();
    let owner = |path: &Path| std::fs::metadata(path).ok().map(|meta| meta.uid());
    // Where nothing is there yet, whoever is asked for it would make it.
    let whose = owner(&places.config).or_else(|| owner(&places.env_dir));
    uid == 0 || session.asks_own() && whose.is_none_or(|owner| owner == uid)
}

/// Asks the daemon: for everything, or for what is `user`'s.
fn ask(places: &Places, user: Option<&UserName>) -> anyhow::Result<(Seen, Option<Client>)> {
    let socket = places.control();
    let locked = host_survey::locked_by(&places.state);
    let mut seen = Seen {
        reached: Reached::Missing,
        pid: locked.flatten(),
        is_locked: locked.is_some(),
        open_files: None,
        socket,
    };
    match host_survey::knock(&seen.socket) {
        Ok(pid) => seen.pid = Some(pid),
        Err(reached) => {
            seen.reached = reached;
            return Ok((seen, None));
        }
    }
    seen.open_files = host_survey::open_files(seen.pid);
    let target = Target { user: user.cloned(), ..Target::default() };
    let client = Client::connect(&seen.socket);
    match client.and_then(|client| Ok((client.status(&target, None)?, client))) {
        Ok((report, client)) => {
            seen.reached = Reached::Answers(Box::new(report));
            Ok((seen, Some(client)))
        }
        Err(ClientError::Broken { why, .. }) => {
            seen.reached = Reached::Odd(why);
            Ok((seen, None))
        }
        // Nothing is theirs: that is no reason to say nothing.
        Err(ClientError::Refused(refusal)) if user.is_none() && refusal.kind == RefusalKind::Unknown => {
            seen.reached = Reached::Answers(Box::new(nothing()));
            Ok((seen, None))
        }
        Err(error @ (ClientError::Refused(_) | ClientError::Unreachable { .. } | ClientError::Output(_))) => {
            Err(error.into())
        }
    }
}

fn nothing() -> StatusReport {
    StatusReport {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        generation: 0,
        instances: Vec::new(),
        problems: Vec::new(),
        notes: Vec::new(),
        apart: None,
    }
}

fn asker(session: &Session, seen: &Seen, administers: bool) -> Asker {
    let places = session.asked();
    let mcpsup = match &session.config {
        Some(config) => {
            let config = std::path::absolute(config).unwrap_or_else(|_| config.clone());
            format!("mcpsup --config {}", shell_word(&config))
        }
        None => "mcpsup".to_owned(),
    };
    Asker {
        mcpsup,
        names_config: session.config.is_some(),
        config: shell_word(&places.config),
        env_dir: places.env_dir.clone(),
        state: places.state.clone(),
        administers,
        uid: account::own_uid(),
        by_systemd: session.config.is_none() && host_survey::has_systemd() && !session.asks_own_as_user(),
        is_answered: matches!(seen.reached, Reached::Answers(_)),
        keepers: host_survey::keepers(),
    }
}

/// What an administrator may see: the files, the directories, the limits, what servers need.
fn files_and_host(
    user: Option<&UserName>,
    session: &Session,
    (seen, report): (&Seen, Option<&StatusReport>),
    asker: &Asker,
    found: &mut Looked,
) -> Examined {
    let places = session.asked();
    let mut examined = check::examine(places, None);
    let apart = check::foresee(places, &mut examined);
    for one in &examined.problems {
        found.findings.push(problem::of(one, whose(one, &examined).as_ref(), asker));
    }
    if examined.problems.is_empty() {
        let files = examined.files.len();
        let servers = examined.listed.values().filter(|one| matches!(one.want, Want::Always(_))).count();
        found.looked.push(format!("files    mcpsup.toml, {files} env files, {servers} servers asked for"));
    }
    for place in host_survey::places(places) {
        found.findings.extend(host::place(&place, seen, asker));
    }
    for (path, why) in store::unreadable(&places.state) {
        let is_ports = path.ends_with("ports.json");
        found.findings.push(host::remembered(&path, &why, is_ports));
    }
    found.findings.extend(bad_map(places).map(|why| host::port_map(&places.port_map(), &why, seen, asker)));
    if let Some(unit) = host_survey::unit("mcpsup.service").filter(|_| asker.by_systemd) {
        found.findings.extend(host::unit(&unit, UNIT, asker));
    }
    if let Some(config) = &examined.config {
        let reserved = host_survey::reserved_ports();
        found.findings.extend(host::ranges(config, host_survey::port_rules(), &reserved, asker));
    }
    let mut notes: Vec<String> = apart.iter().flat_map(Apartness::unseen_notes).collect();
    notes.extend(match (report, &apart) {
        (Some(report), _) => report.notes.clone(),
        (None, Some(apart)) => apart.unlimited.clone(),
        (None, None) => Vec::new(),
    });
    found.findings.extend(notes.iter().filter_map(|text| host::note(text, asker)));
    if report.is_none() {
        found
            .findings
            .extend(host_survey::watch_fails(&places.env_dir).map(|fails| host::watch(fails, asker)));
        if !seen.is_locked {
            held_doors(&examined, asker, found);
        }
    }
    let most = seen.open_files.or_else(|| host_survey::open_files(None).filter(|_| !asker.by_systemd));
    let instances = examined.listed.len();
    found.findings.extend(most.and_then(|most| host::open_files(most, instances, asker)));
    let path = session.environment.get("PATH").map(|path| path.to_string_lossy().into_owned());
    for (id, listed) in &examined.listed {
        let Want::Always(spec) = &listed.want else { continue };
        let home = Home::of(id, &places.state, &places.runtime);
        let needed = host_survey::needs(spec, &home, path.as_deref().unwrap_or_default());
        let is_up = report.is_some_and(|report| state(report, id) == Some(StateName::Up));
        let wrong = needs::diagnose(id, &needed, asker);
        // What runs has what it needs, whatever it looks like from here; but not at its next start.
        let told = wrong.into_iter().filter(|finding| !is_up || finding.code != Code::Package);
        // Where nothing is seen, nothing is to be opened.
        let unseen = apart.as_ref().and_then(|apart| apart.unseen.get(&id.server));
        let is_seen = |text: &str| {
            !unseen.into_iter().flatten().any(|unseen| text.contains(&*unseen.path.to_string_lossy()))
        };
        let told = told.filter(|finding| is_seen(&finding.wrong));
        let before = found.findings.len();
        found.findings.extend(told);
        if found.findings.len() == before && user.is_none_or(|user| id.user == *user) {
            let program = needed
                .program
                .way
                .as_ref()
                .map_or(&*needed.program.named, |way| way.path.to_str().unwrap_or(""));
            found.looked.push(format!("program  {id}: {program}, as {}", needed.identity.name));
        }
    }
    examined
}

fn state(report: &StatusReport, id: &InstanceId) -> Option<StateName> {
    let is_it = |now: &&InstanceStatus| now.user == id.user && now.server == id.server;
    report.instances.iter().find(is_it).map(|now| now.state)
}

/// Whose file a problem is of, or whose instance.
fn whose(problem: &Problem, examined: &Examined) -> Option<UserName> {
    let by_file = problem.file.rsplit('/').next().filter(|_| problem.file.contains('/')).and_then(user_of);
    by_file.or_else(|| {
        let mut of = examined.listed.iter().filter(|(_, listed)| listed.problems.contains(problem));
        of.next().map(|(id, _)| id.user.clone())
    })
}

/// Why the port map that lies there cannot be read.
fn bad_map(places: &Places) -> Option<String> {
    let bytes = match files::read_bounded(&places.port_map(), LARGEST) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => return Some(crate::system::cause::plain(&error.kind().into())),
    };
    serde_json::from_slice::<PortMap>(&bytes).err().map(|error| error.to_string())
}

/// While no daemon runs, nobody should listen at a door.
fn held_doors(examined: &Examined, asker: &Asker, found: &mut Looked) {
    for (id, listed) in &examined.listed {
        let Some(port) = listed.door else { continue };
        if let Ok(Some(holder)) = socket::holder(port) {
            let finding = held(id, port, &holder.to_string(), Some(examined), asker);
            found.findings.push(finding);
        }
    }
}

/// Somebody holds a door: of which file and variable its port is, as far as the caller may read them.
fn held(id: &InstanceId, port: u16, by: &str, examined: Option<&Examined>, asker: &Asker) -> Finding {
    let base = |file: &str| file.rsplit('/').next().unwrap_or(file).to_owned();
    let files = examined.iter().flat_map(|examined| &examined.files);
    let file = files
        .map(|(file, says)| (base(file), says))
        .find(|(file, _)| user_of(file).as_ref() == Some(&id.user));
    let says = |name: &str| file.as_ref().is_some_and(|(_, says)| says.get(name).is_some());
    let config = examined.and_then(|examined| examined.config.as_ref());
    let pin = host::pin(id, file.as_ref().map(|(file, _)| &**file), says, config);
    let is_given = |port: u16| {
        examined.is_some_and(|examined| examined.listed.values().any(|one| one.door == Some(port)))
    };
    let (first, last) = config.map_or((port.saturating_add(1), u16::MAX), |config| {
        (config.ports.range.first, config.ports.range.last)
    });
    let free = (first..=last).find(|port| !is_given(*port) && !socket::is_kept(*port));
    host::door_held(id, port, by, &pin, free, asker)
}

/// What the daemon says of each instance that the caller may see.
fn instances(
    report: &StatusReport,
    client: Option<&Client>,
    (user, examined): (Option<&UserName>, Option<&Examined>),
    asker: &Asker,
    found: &mut Looked,
) {
    let known = examined.map(|examined| &*examined.problems).unwrap_or_default();
    // The daemon says what it read last; what stands there now has been said.
    let name = |problem: &Problem| problem.file.rsplit('/').next().map(str::to_owned);
    let is_said = |one: &Problem| {
        known.iter().any(|said| said.text == one.text && said.line == one.line && name(said) == name(one))
    };
    for one in report.problems.iter().filter(|one| !is_said(one)) {
        found.findings.push(problem::of(one, None, asker));
    }
    let meant = report.instances.iter().filter(|now| user.is_none_or(|user| now.user == *user));
    for now in meant {
        for one in now.problems.iter().filter(|one| !is_said(one)) {
            found.findings.push(of_instance(one, now, examined, asker));
        }
        let target = Target { user: Some(now.user.clone()), server: Some(now.server.clone()), all: false };
        let mut log = Vec::new();
        if let Some(client) = client.filter(|_| now.strikes > 0 || now.state == StateName::Cooling) {
            // A log that is not there says nothing, and that is all.
            let take = |piece: &[u8]| {
                log.extend_from_slice(piece);
                Ok(())
            };
            client.logs(&target, TAIL, false, take).unwrap_or_default();
        }
        let log = String::from_utf8_lossy(&log);
        found.findings.extend(server::diagnose(now, &log, asker));
        if now.state == StateName::Up {
            let port = now.port.map_or_else(String::new, |port| format!(" on {port}"));
            found.looked.push(format!("server   {}/{}: up{port}", now.user, now.server));
        }
    }
}

/// A problem that the daemon tells of one instance.
fn of_instance(one: &Problem, now: &InstanceStatus, examined: Option<&Examined>, asker: &Asker) -> Finding {
    let by = one.text.split_once(" is held by ").and_then(|(_, rest)| rest.split(';').next());
    match (by, now.port) {
        (Some(by), Some(port)) if one.file == "[ports]" => {
            let id = InstanceId::new(now.user.clone(), now.server.clone());
            held(&id, port, by, examined, asker)
        }
        (_, _) => problem::of(one, Some(&now.user), asker),
    }
}

fn is_known(user: &UserName, examined: &Examined, report: Option<&StatusReport>) -> anyhow::Result<()> {
    let has_file = examined
        .files
        .iter()
        .any(|(file, _)| file.rsplit('/').next().and_then(user_of).as_ref() == Some(user));
    let is_listed = examined.listed.keys().any(|id| id.user == *user);
    let is_broken = examined.problems.iter().any(|one| whose(one, examined).as_ref() == Some(user));
    let is_told = report.is_some_and(|report| report.instances.iter().any(|now| now.user == *user));
    if has_file || is_listed || is_broken || is_told {
        return Ok(());
    }
    let text = format!("there is no user \"{user}\": no {user}.env in env.d");
    Err(ClientError::from(Refusal { kind: RefusalKind::Unknown, text }).into())
}

/// The walk's end: the door, and the files of the caller's clients.
fn clients(
    user: Option<&UserName>,
    examined: Option<&Examined>,
    report: Option<&StatusReport>,
    asker: &Asker,
    session: &Session,
    found: &mut Looked,
) -> anyhow::Result<()> {
    let own = account::name_of(account::own_uid()).and_then(|name| name.parse().ok());
    // An administrator's clients are theirs: only who has servers here is looked at.
    let is_theirs =
        |user: &UserName| examined.is_none_or(|examined| examined.listed.keys().any(|id| id.user == *user));
    let Some(user) = user.cloned().or(own).filter(is_theirs) else { return Ok(()) };
    let Some(map) = map(session) else { return Ok(()) };
    let is_up = |server: &crate::model::ServerName| {
        let id = InstanceId::new(user.clone(), server.clone());
        report.is_some_and(|report| state(report, &id) == Some(StateName::Up))
    };
    if session.environment.get("HOME").is_none() {
        return Ok(());
    }
    let seen = survey::survey(&user, &map, is_up, &asker.mcpsup, session)?;
    for (server, why) in seen.silent {
        let mend = asker.ours(&format!("logs {user}/{server}"));
        let wrong = format!("its door does not answer: {why}");
        found.findings.push(Finding::wrong(Code::Door, wrong, mend).of_server(&user, &server));
    }
    // Root's own files say nothing of those of a user who has an account.
    if is_anothers_account(&user) {
        return Ok(());
    }
    found.findings.extend(seen.findings);
    found.looked.extend(seen.right.into_iter().map(|line| format!("client   {line}")));
    Ok(())
}

/// The port map: the daemon's, or the one it left.
fn map(session: &Session) -> Option<PortMap> {
    if let Ok(map) = session.client().and_then(|client| client.ports()) {
        return Some(map);
    }
    let bytes = files::read_bounded(&session.port_map(), LARGEST).ok()?;
    serde_json::from_slice(&bytes).ok()
}
