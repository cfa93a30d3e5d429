//! The daemon's own: that it runs, its directories, what the kernel gives it, its ports, its unit.

use super::{Asker, shell_word};
use crate::logic::config::pin_suffix;
use crate::model::InstanceId;
use crate::model::config::Config;
use crate::model::finding::{Code, Finding, Mend};
use crate::model::port::PortRange;
use crate::model::survey::{NoWatch, Place, PortRules, Reached, Seen, Stop, Unit};

/// Less than this is as good as nothing: a log line, a record and a table want room.
const LITTLE: u64 = 64 * 1024;
/// Descriptors that the daemon needs beside those of its instances.
const FILES_OF_ITS_OWN: u64 = 64;
/// Descriptors of each instance: its FIFOs and its door (docs/tuning.md).
const FILES_OF_EACH: u64 = 4;

/// Whether a daemon answers, and which.
#[must_use]
pub fn daemon(seen: &Seen, version: &str, asker: &Asker) -> Option<Finding> {
    let socket = shell_word(&seen.socket);
    let wrong = |text: String, mend| Some(Finding::wrong(Code::Daemon, text, mend));
    match &seen.reached {
        Reached::Answers(report) if report.version == version => None,
        Reached::Answers(report) => {
            let text = format!("the daemon is mcpsup {}, and this is mcpsup {version}", report.version);
            Some(Finding::wrong(Code::Version, text, asker.restart_daemon(seen.pid)))
        }
        Reached::Missing if seen.is_locked => {
            let text = format!("a daemon runs{}, and its control socket {socket} is gone", pid(seen));
            wrong(text, asker.restart_daemon(seen.pid))
        }
        Reached::Missing => {
            wrong(format!("the daemon is not running: there is no {socket}"), asker.start_daemon())
        }
        Reached::Refused if seen.is_locked => {
            let text = format!("a daemon runs{} and does not listen at {socket}", pid(seen));
            wrong(text, asker.restart_daemon(seen.pid))
        }
        Reached::Refused => {
            let text = format!("the daemon is not running: {socket} is left of one that was killed");
            wrong(text, asker.start_daemon())
        }
        Reached::NoSocket => {
            let text = format!("{socket} is no socket, so no daemon can listen there");
            wrong(text, asker.for_administrators(Mend::Run(format!("rm {socket}"))))
        }
        Reached::Closed => {
            let text = format!("{socket} is closed to you");
            let dir = seen.socket.parent().map(shell_word).unwrap_or_default();
            wrong(text, asker.for_administrators(Mend::Run(format!("chmod 755 {dir} && chmod 666 {socket}"))))
        }
        Reached::Odd(why) => {
            let text = format!("the daemon cannot be understood: {why}");
            Some(Finding::wrong(Code::Version, text, asker.restart_daemon(seen.pid)))
        }
    }
}

fn pid(seen: &Seen) -> String {
    seen.pid.map_or_else(String::new, |pid| format!(" (pid {pid})"))
}

/// One of the daemon's directories.
#[must_use]
pub fn place(place: &Place, seen: &Seen, asker: &Asker) -> Vec<Finding> {
    let Place { what, way, disk } = place;
    let shown = shell_word(&way.path);
    let mut found = Vec::new();
    let is_alive = seen.is_locked || matches!(seen.reached, Reached::Answers(_));
    match (&way.stop, way.steps.iter().find(|step| step.path == way.path)) {
        // A daemon that begins makes it; one that runs has lost it.
        (Some(Stop::Missing), _) if !is_alive => {}
        (Some(Stop::Missing), _) => {
            let text = format!("{shown}, the {what} directory of the daemon that runs, is gone");
            found.push(Finding::wrong(Code::Directory, text, asker.restart_daemon(seen.pid)));
        }
        (Some(Stop::Closed), _) => {
            let dir = way.steps.last().map_or_else(|| shown.clone(), |step| shell_word(&step.path));
            let text = format!("{shown}, the {what} directory, cannot be reached: {dir} is closed");
            found.push(Finding::wrong(Code::Directory, text, Mend::Run(format!("chmod u+rwx {dir}"))));
        }
        (Some(Stop::Failed(why)), _) => {
            let text = format!("{shown}, the {what} directory, cannot be reached: {why}");
            found.push(Finding::wrong(
                Code::Directory,
                text,
                Mend::Do(format!("look at it: ls -ld {shown}")),
            ));
        }
        (None, Some(end)) if end.uid != asker.uid => {
            let text =
                format!("{shown}, the {what} directory, belongs to uid {} and not to the daemon", end.uid);
            found.push(Finding::wrong(
                Code::Directory,
                text,
                Mend::Run(format!("chown {} {shown}", asker.uid)),
            ));
        }
        (None, Some(end)) if end.mode & 0o022 != 0 => {
            let text = format!("others may write to {shown}, the {what} directory (mode {:04o})", end.mode);
            found.push(Finding::wrong(Code::Directory, text, Mend::Run(format!("chmod go-w {shown}"))));
        }
        (None, Some(end)) if end.mode & 0o700 != 0o700 => {
            let text =
                format!("the daemon may not use {shown}, its {what} directory (mode {:04o})", end.mode);
            found.push(Finding::wrong(Code::Directory, text, Mend::Run(format!("chmod u+rwx {shown}"))));
        }
        (None, Some(_) | None) => {}
    }
    found.extend(disk.and_then(|disk| {
        let no_files = disk.free_files.is_some_and(|files| files == 0);
        if disk.is_read_only {
            let text = format!("{shown}, the {what} directory, lies on a file system that is read-only");
            let mend = Mend::Run(format!("mount -o remount,rw \"$(findmnt -no TARGET -T {shown})\""));
            return Some(Finding::wrong(Code::ReadOnly, text, mend));
        }
        if disk.free < LITTLE || no_files {
            let of = if no_files { "inodes" } else { "space" };
            let text = format!("no {of} is left on the file system of {shown}, the {what} directory");
            let which = if no_files { "--inodes" } else { "-h" };
            let mend = Mend::Do(format!("make room; what takes it: du {which} -x --max-depth=2 \"$(findmnt -no TARGET -T {shown})\" | sort -h | tail"));
            return Some(Finding::wrong(Code::DiskFull, text, mend));
        }
        // With `--config` it lies beside that file, as was asked.
        if *what == "runtime" && !disk.is_in_memory && !asker.names_config {
            let text = format!("{shown}, the runtime directory, is not kept in memory: after a reboot it has what is no more");
            let how = if asker.uid == 0 {
                "have /run be a tmpfs, as systemd makes it"
            } else {
                "set XDG_RUNTIME_DIR, or have systemd make it (RuntimeDirectory=)"
            };
            let mend = Mend::Do(how.to_owned());
            return Some(Finding::note(Code::OnDisk, text, mend));
        }
        None
    }));
    found
}

/// A file that the daemon remembers something in.
#[must_use]
pub fn remembered(path: &std::path::Path, why: &str, is_ports: bool) -> Finding {
    let shown = shell_word(path);
    let lost = if is_ports { "; everybody gets a port anew, unless a backup is put there" } else { "" };
    let text = format!("{shown} cannot be understood: {why}{lost}");
    Finding::wrong(Code::Remembered, text, Mend::Run(format!("mv {shown} {shown}.damaged")))
}

/// The port map that tools read.
#[must_use]
pub fn port_map(path: &std::path::Path, why: &str, seen: &Seen, asker: &Asker) -> Finding {
    let shown = shell_word(path);
    let text = format!("{shown}, the port map, cannot be understood: {why}");
    let mend = match &seen.reached {
        Reached::Answers(_) => asker.for_administrators(asker.ours("restart --all")),
        Reached::Missing | Reached::Refused | Reached::Closed | Reached::NoSocket | Reached::Odd(_) => {
            asker.for_administrators(Mend::Run(format!("rm {shown}")))
        }
    };
    Finding::wrong(Code::PortMap, text, mend)
}

/// Where the ranges are.
#[must_use]
pub fn ranges(config: &Config, rules: PortRules, reserved: &[(u16, u16)], asker: &Asker) -> Vec<Finding> {
    let ports = &config.ports;
    let mut found = Vec::new();
    for (key, range) in [("range", ports.range), ("backend_range", ports.backend_range)] {
        let PortRange { first, last } = range;
        if first < rules.for_everybody && asker.uid != 0 {
            let text = format!(
                "[ports] {key} {first}-{last} begins below {}, where only root may listen",
                rules.for_everybody
            );
            let so = format!("[ports] {key}: begin at {} or above", rules.for_everybody.max(1024));
            found.push(Finding::wrong(Code::PortRange, text, Mend::Edit { file: asker.config.clone(), so }));
        }
        let (low, high) = rules.for_clients;
        let is_kept = reserved.iter().any(|(from, to)| *from <= first.max(low) && *to >= last.min(high));
        if first <= high && last >= low && !is_kept {
            let text = format!(
                "[ports] {key} {first}-{last} lies where the kernel puts clients ({low}-{high}): any program may sit on one of them"
            );
            let own = [(first, last)];
            let kept = reserved.iter().chain(&own).map(|(from, to)| format!("{from}-{to}"));
            let all = kept.collect::<Vec<_>>().join(",");
            let mend = Mend::Run(format!("sysctl -w net.ipv4.ip_local_reserved_ports={all}"));
            found.push(Finding::wrong(Code::PortRange, text, asker.for_administrators(mend)));
        }
    }
    found
}

/// What says on which port somebody's door is, or would.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// The env file's name in env.d.
    pub file: String,
    /// The variable.
    pub setting: String,
}

/// The pin of an instance, by its user's file `name` and what that says; `name` is `None` where no
/// file is known.
#[must_use]
pub fn pin(id: &InstanceId, name: Option<&str>, says: impl Fn(&str) -> bool, config: Option<&Config>) -> Pin {
    let general = "MCPSUP_PORT".to_owned();
    let own = format!("{general}_{}", pin_suffix(&id.server));
    let port_env = config.and_then(|config| config.servers.get(&id.server)?.port_env.clone());
    let usual = if config.is_some_and(|config| config.servers.len() > 1) { &own } else { &general };
    let said = [Some(&own), Some(&general), port_env.as_ref()].into_iter().flatten().find(|name| says(name));
    let file = name.map_or_else(|| format!("{}.env", id.user), str::to_owned);
    Pin { file, setting: said.unwrap_or(usual).clone() }
}

/// Somebody else listens where a door should be. `by` says who, as far as the caller may see; `free`
/// is a port that nobody has.
#[must_use]
pub fn door_held(
    id: &InstanceId,
    port: u16,
    by: &str,
    pin: &Pin,
    free: Option<u16>,
    asker: &Asker,
) -> Finding {
    let text = format!("port {port}, its door, is held by {by}");
    let file = shell_word(&asker.env_dir.join(&pin.file));
    let setting = &pin.setting;
    let mend = match free {
        Some(free) => Mend::Edit { file, so: format!("{setting}={free}, which is free; or end {by}") },
        None => Mend::Do(format!("end {by}")),
    };
    Finding::wrong(Code::Port, text, asker.for_administrators(mend)).of_server(&id.user, &id.server)
}

/// No watch can be had, so that saved files are seen only within a minute.
#[must_use]
pub fn watch(fails: NoWatch, asker: &Asker) -> Finding {
    let (name, usual) = match fails {
        NoWatch::Instances => ("max_user_instances", 1024),
        NoWatch::Watches => ("max_user_watches", 524_288),
    };
    let text = format!(
        "no watch on env.d can be had (fs.inotify.{name} is used up): changes are found within a minute"
    );
    let mend = Mend::Run(format!("sysctl -w fs.inotify.{name}={usual}"));
    Finding::wrong(Code::Watch, text, asker.for_administrators(mend))
}

/// Too few descriptors for so many instances.
#[must_use]
pub fn open_files(most: u64, instances: usize, asker: &Asker) -> Option<Finding> {
    let needed = FILES_OF_ITS_OWN + FILES_OF_EACH * instances as u64;
    if most >= needed {
        return None;
    }
    let text = format!("the daemon may open {most} files, and {instances} instances need {needed}");
    let mend = if asker.by_systemd {
        Mend::Edit {
            file: "/etc/systemd/system/mcpsup.service.d/files.conf".to_owned(),
            so: "[Service] LimitNOFILE=65536; then systemctl daemon-reload && systemctl restart mcpsup"
                .to_owned(),
        }
    } else {
        Mend::Do("raise the limit where the daemon is started: ulimit -n 65536".to_owned())
    };
    Some(Finding::wrong(Code::OpenFiles, text, mend))
}

/// What the daemon says beside, or would say: only what has to be mended.
#[must_use]
pub fn note(text: &str, asker: &Asker) -> Option<Finding> {
    let (code, mend) = match () {
        () if text.starts_with("limits of server ") => {
            let so = "take the [server.NAME.limits] that cannot be had out; or boot with cgroup v2 and its memory, cpu and pids controllers";
            (Code::Limits, Mend::Edit { file: asker.config.clone(), so: so.to_owned() })
        }
        () if text.starts_with("not seen by servers: ") => {
            let so = "another place, and move there what lies in this one".to_owned();
            (Code::Argument, Mend::Edit { file: asker.config.clone(), so })
        }
        () if text.starts_with("cannot watch ") => {
            (Code::Watch, Mend::Run("sysctl -w fs.inotify.max_user_instances=1024".to_owned()))
        }
        () if text.starts_with("cannot remember ") => (
            Code::DiskFull,
            Mend::Do("make room, or let the daemon write there again; it tries by itself".to_owned()),
        ),
        () if text.starts_with("isolation = ") => (
            Code::Isolation,
            Mend::Edit { file: asker.config.clone(), so: "[daemon] isolation = \"auto\"".to_owned() },
        ),
        () => return None,
    };
    Some(Finding::wrong(code, text, asker.for_administrators(mend)))
}

/// The unit as systemd has it, beside the one that is shipped.
#[must_use]
pub fn unit(unit: &Unit, shipped: &str, asker: &Asker) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut wrong = |text: String, command: &str| {
        let mend = asker.for_administrators(Mend::Run(command.to_owned()));
        found.push(Finding::wrong(Code::Unit, text, mend));
    };
    match unit.load.as_str() {
        "not-found" | "" => {
            wrong(
                "mcpsup.service is not installed: nothing starts the daemon after a reboot".to_owned(),
                "install -m 644 units/mcpsup.service /etc/systemd/system/ && systemctl enable --now mcpsup",
            );
            return found;
        }
        "masked" => wrong(
            "mcpsup.service is masked".to_owned(),
            "systemctl unmask mcpsup && systemctl enable --now mcpsup",
        ),
        "loaded" => {}
        other => wrong(
            format!("mcpsup.service cannot be loaded: {other}"),
            "systemd-analyze verify mcpsup.service",
        ),
    }
    if unit.needs_reload {
        wrong("mcpsup.service was changed and systemd has not read it".to_owned(), "systemctl daemon-reload");
    }
    if unit.file == "disabled" {
        wrong(
            "mcpsup.service is not enabled: it does not start after a reboot".to_owned(),
            "systemctl enable mcpsup",
        );
    }
    if unit.active == "failed" {
        wrong(
            format!("mcpsup.service failed ({}); journalctl -u mcpsup says why", unit.result),
            "systemctl reset-failed mcpsup && systemctl start mcpsup",
        );
    }
    let own = |key: &str| shipped.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    if let Some(mode) = own("KillMode")
        && !unit.kill_mode.is_empty()
        && unit.kill_mode != mode
    {
        wrong(
            format!(
                "mcpsup.service has KillMode={}, and not {mode}: a restart of the daemon ends everybody's servers",
                unit.kill_mode
            ),
            "systemctl revert mcpsup && systemctl daemon-reload",
        );
    }
    if own("RestartKillSignal") == Some("SIGUSR2")
        && !matches!(unit.restart_signal.as_str(), "" | "12" | "SIGUSR2")
    {
        wrong(
            format!(
                "mcpsup.service has RestartKillSignal={}, and not SIGUSR2: a restart of the daemon ends everybody's servers",
                unit.restart_signal
            ),
            "systemctl revert mcpsup && systemctl daemon-reload",
        );
    }
    found
}
