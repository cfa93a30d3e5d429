//! One run from its intent to its end, as a task.
//!
//! [`begin`] makes the process and [`resume`] finds one again; both go on in the same way: pass
//! its output on, wait for its exit, and once the core has said so, kill what is left of it until
//! nothing is. Every step that a later daemon must be able to take up is a
//! [`failpoint`](super::failpoint).

mod streams;

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Signal, WaitId, WaitIdOptions, waitid};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::time::sleep;

use super::cgroup::Group;
use super::failpoint;
use super::launcher::{Turn, answer, cannot};
use super::orders::{Answer, Failure, Make, OrdersOf, encode};
use super::pipes::{self, Ear, Talk};
use super::process::{Held, Leader, Life, Output, What, reap, report, send_to};
use super::ready::Awaited;
use super::record::{Identity, Record, RunDir};
use super::{clock, tree};
use crate::model::spec::Home;
use crate::model::{Exit, InstanceId, RunId, Spec};
use streams::{Fifo, PassOn, Streams, drain};

/// What a process that ends closes before it has ended; one that closed its standard input and is there
/// so long after goes on without it.
const ENDS_WITHIN: Duration = Duration::from_secs(1);

// A task is as large as its largest part, and a thousand idle runs should not carry the room for a
// thousand launches. So what happens once in a life, its beginning and its end, is boxed; what is there
// all the time is an `async` block, for an `async fn` keeps its arguments twice, and a future that is
// written by hand.

/// What a run begins with.
pub(super) struct Beginning {
    pub(super) instance: InstanceId,
    pub(super) spec: Arc<Spec>,
    /// Who speaks with it, if it is a stdio run.
    pub(super) talk: Option<Arc<dyn Talk>>,
}

/// Starts a run and stays with it until nothing of it is alive.
#[expect(clippy::manual_async_fn, reason = "an async fn keeps its arguments twice; see above")]
pub(super) fn begin(
    life: Arc<Life>,
    with: Box<Beginning>,
    sink: Arc<dyn Output>,
) -> impl Future<Output = ()> + Send {
    async move {
        let turn = Box::pin(unless_killed(&life, life.shared.launcher.turn())).await;
        let Some(streams) = Box::pin(enter(&life, turn, with, &*sink)).await else { return };
        let Some(leader) = life.leader() else { return };
        let streams = PassOn::new(death(&life, leader), streams, &*sink).await;
        Box::pin(end(&life, leader, streams, &*sink)).await;
    }
}

/// Launches the run in its turn; one that cannot be launched ends here.
async fn enter(
    life: &Arc<Life>,
    turn: Result<Turn<'_>, Failure>,
    with: Box<Beginning>,
    sink: &dyn Output,
) -> Option<Streams> {
    let launched = match turn {
        Ok(_turn) => launch(life, &with.instance, &with.spec).await,
        Err(failure) => Err(failure),
    };
    let Beginning { talk, instance, spec } = *with;
    drop((instance, spec));
    match launched {
        Ok((output, said)) => {
            life.tell(What::Launched);
            let ear = said.zip(talk).and_then(|(said, talk)| ear(life, said, talk, false));
            failpoint::pass("spawn.launched");
            Some(Streams { output: Some(output), ear })
        }
        Err(failure) => {
            tracing::debug!(run = life.run.0, %failure, "not started");
            end_copy(life).await;
            sink.end();
            life.set_exited();
            life.tell(What::Exited(Exit::NotStarted(failure.to_string())));
            life.kill.notified().await;
            clean(life);
            None
        }
    }
}

/// Takes over a run, alive or not; `recorded` is the pid it was recorded with, and whether it is a
/// stdio run.
pub(super) async fn resume(
    life: Arc<Life>,
    (recorded, is_stdio): (i32, bool),
    sink: Arc<dyn Output>,
    talk: Option<Arc<dyn Talk>>,
) {
    if let Some(leader) = life.leader() {
        let streams = open_streams(&life, is_stdio).map_err(|error| {
            tracing::warn!(run = life.run.0, %error, "cannot read the output of an adopted run");
        });
        let (output, said) = streams.map_or((None, None), |(output, said)| (Some(output), said));
        life.tell(What::Launched);
        let ear = said.zip(talk).and_then(|(said, talk)| ear(&life, said, talk, true));
        let streams = PassOn::new(death(&life, leader), Streams { output, ear }, &*sink).await;
        return Box::pin(end(&life, leader, streams, &*sink)).await;
    }
    life.set_exited();
    life.tell(What::Exited(blame(&life, ended(&life).unwrap_or(Exit::Unknown))));
    life.kill.notified().await;
    Box::pin(sweep(&life, recorded, false)).await;
    failpoint::pass("adopt.swept");
    sink.end();
    clean(&life);
}

/// Removes what there is of a run without a server.
pub(super) async fn discard(run: RunId, group: Option<Group>, dir: RunDir) {
    if let Some(group) = group.filter(|group| group.dir().exists()) {
        end_group(run, &group).await;
        report("remove a cgroup", run, group.remove());
    }
    report("remove a run's directory", run, dir.remove());
}

/// Makes the process: directory, cgroup, process, record, orders, in this order.
async fn launch(life: &Life, instance: &InstanceId, spec: &Spec) -> Result<(Fifo, Option<Fifo>), Failure> {
    let is_stdio = spec.stdio().is_some();
    let dir = life.dir();
    dir.create(is_stdio).map_err(cannot("make the run's directory"))?;
    failpoint::pass("spawn.intended");
    let group = match &life.held {
        Held::Cgroup(group) => {
            group.create().map_err(cannot("make the run's cgroup"))?;
            group.limit(&spec.server.limits, life.has_init).map_err(cannot("set the run's limits"))?;
            Some(group)
        }
        Held::Namespace | Held::Session => None,
    };
    failpoint::pass("spawn.grouped");
    let streams = open_streams(life, is_stdio).map_err(cannot("open the run's output"))?;
    let make = Make::new(group.map(Group::dir).as_deref(), spec.cage.namespaces);
    let (mut socket, pid) = ask(life, make).await?;
    failpoint::pass("spawn.started");
    // It is our child and cannot be reaped by anybody else, so the pid still means it.
    let (identity, handle) = Identity::of(pid).map_err(cannot("see the process that was made"))?;
    life.set_leader(Leader { pid, handle, ours: true });
    let home = Home::of(instance, &life.shared.state, &life.shared.runtime);
    let record = Record {
        run: life.run,
        instance: instance.clone(),
        spec: spec.id,
        plan: spec.plan(),
        identity,
        cgroup: group.map(Group::dir),
        pid_namespace: life.has_init,
        backend: spec.backend,
        socket: spec.socket(&home),
        stdio: spec.stdio().map(|stdio| (stdio, spec.server.path.clone())),
        marker: life.marker.to_path_buf(),
        uid: life.uid,
    };
    dir.write(&record).map_err(cannot("write the run's record"))?;
    failpoint::pass("spawn.recorded");
    let orders = OrdersOf::new(spec, &home, &dir);
    send(&mut socket, &encode(&orders).map_err(cannot("write the launcher's orders"))?).await?;
    failpoint::pass("spawn.ordered");
    match answer(&mut socket).await? {
        None => Ok(streams),
        Some(Answer::Failed(failure)) => Err(failure),
        Some(Answer::Pid(_)) => {
            Err(Failure { doing: "cannot understand the launcher: it spoke out of turn".into(), errno: None })
        }
    }
}

async fn ask(life: &Life, make: Make) -> Result<(UnixStream, i32), Failure> {
    let asking = tokio::spawn(Arc::clone(&life.shared.launcher).make(make));
    let done = unless_killed(life, asking).await?;
    done.unwrap_or_else(|error| Err(cannot("ask the launcher")(error.into())))
}

/// Waits for the launcher, unless the run is to be killed meanwhile.
async fn unless_killed<T>(life: &Life, what: impl Future<Output = T>) -> Result<T, Failure> {
    tokio::select! {
        biased;
        done = what => Ok(done),
        () = life.kill.notified() => {
            // It is waited for once more.
            life.kill.notify_one();
            Err(Failure { doing: "ended while it waited for the launcher".into(), errno: None })
        }
    }
}

async fn send(socket: &mut UnixStream, bytes: &[u8]) -> Result<(), Failure> {
    socket.write_all(bytes).await.map_err(cannot("give the launcher its orders"))
}

/// After a failed launch nothing of the launcher's copy may be left either.
async fn end_copy(life: &Life) {
    if let Some(leader) = life.leader() {
        super::process::send(&leader.handle, Signal::KILL);
        wait_for_exit(life, leader).await;
        sweep(life, leader.pid, true).await;
        reap(leader.pid);
    } else if let Held::Cgroup(group) = &life.held {
        // It may be there though its pid was never heard, and an empty group is all that can go.
        end_group(life.run, group).await;
    }
}

/// What follows when the first process has exited.
async fn end(life: &Life, leader: &Leader, streams: Streams, sink: &dyn Output) {
    drain(streams, sink).await;
    life.set_exited();
    failpoint::pass("stop.exited");
    // Who started the server in a namespace knows best, and a daemon that found the run asks nobody else.
    let exit = ended(life).unwrap_or_else(|| status(leader));
    life.tell(What::Exited(blame(life, exit)));
    life.kill.notified().await;
    sweep(life, leader.pid, leader.ours).await;
    failpoint::pass("stop.swept");
    if leader.ours {
        reap(leader.pid);
    }
    failpoint::pass("stop.reaped");
    sink.end();
    clean(life);
}

fn clean(life: &Life) {
    if let Held::Cgroup(group) = &life.held {
        report("remove a run's cgroup", life.run, group.remove());
    }
    failpoint::pass("stop.ungrouped");
    report("remove a run's directory", life.run, life.dir().remove());
    failpoint::pass("stop.removed");
    life.tell(What::Gone);
}

async fn wait_for_exit(life: &Life, leader: &Leader) {
    if let Some(death) = death(life, leader) {
        poll_fn(|cx| death.poll(cx)).await;
    }
}

/// None if it cannot be waited for: then it counts as dead, and is swept.
fn death<'a>(life: &Life, leader: &'a Leader) -> Option<Awaited<&'a OwnedFd>> {
    // A pidfd is readable when the process is dead (pidfd_open(2)).
    let death = life.shared.hub.add(&leader.handle);
    death.map_err(|error| tracing::error!(%error, pid = leader.pid, "cannot wait for a process")).ok()
}

/// How the server ended, as the first process of its namespace says.
fn ended(life: &Life) -> Option<Exit> {
    life.has_init.then(|| life.dir().ended()).flatten()
}

/// A limit that it hit is part of how it ended.
fn blame(life: &Life, exit: Exit) -> Exit {
    let Held::Cgroup(group) = &life.held else { return exit };
    match group.reached(life.has_init) {
        Some(reached) => Exit::AtLimit(reached, Box::new(exit)),
        None => exit,
    }
}

/// How it ended, without reaping it. One that is not our child has told somebody else.
fn status(leader: &Leader) -> Exit {
    if !leader.ours {
        return Exit::Unknown;
    }
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    match waitid(WaitId::PidFd(leader.handle.as_fd()), options) {
        Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Exit::Status(code),
            (None, Some(signal)) => Exit::Signal(signal),
            (None, None) => Exit::Unknown,
        },
        Ok(None) | Err(_) => Exit::Unknown,
    }
}

/// Kills until nothing of the run is alive. It has no deadline: what the kernel does not release
/// is shown as being killed, and gets no sibling.
async fn sweep(life: &Life, leader: i32, ours: bool) {
    match &life.held {
        Held::Namespace => {}
        Held::Cgroup(group) => end_group(life.run, group).await,
        Held::Session => {
            if ours {
                kill_group(leader);
            }
            let marks = life.marks(leader, ours);
            let mut pause = Duration::from_millis(1);
            loop {
                // Runs that end in one breath share one look at /proc: let them all come this far.
                let since = clock::now();
                tokio::task::yield_now().await;
                // Whoever holds its standard input is looked for everywhere; so is everything of
                // a run that was not our child, whose orphans went to another process.
                let everywhere = !ours || tree::is_held(&life.dir().stdin());
                let alive = tree::members(&marks, since, everywhere);
                if alive.is_empty() {
                    break;
                }
                for member in &alive {
                    send_to(*member, Signal::KILL);
                }
                sleep(pause).await;
                for member in alive {
                    reap(member.pid);
                }
                pause = (pause * 2).min(Duration::from_millis(100));
            }
        }
    }
}

/// Kills everything in a group until there is nothing.
async fn end_group(run: RunId, group: &Group) {
    let mut pause = Duration::from_millis(1);
    while group.is_populated() {
        report("kill a cgroup", run, group.kill());
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

fn kill_group(leader: i32) {
    if let Some(group) = rustix::process::Pid::from_raw(leader)
        && let Err(error) = rustix::process::kill_process_group(group, Signal::KILL)
    {
        tracing::debug!(%error, leader, "its group is empty");
    }
}

/// What goes into the log, and for a stdio run what its process says beside.
fn open_streams(life: &Life, is_stdio: bool) -> io::Result<(Fifo, Option<Fifo>)> {
    let open = |path| life.shared.hub.add(pipes::open(path, false)?);
    if is_stdio {
        Ok((open(&life.dir().error())?, Some(open(&life.dir().output())?)))
    } else {
        Ok((open(&life.dir().output())?, None))
    }
}

/// Lets `talk` speak with a stdio run whose process is there.
fn ear(life: &Arc<Life>, said: Fifo, talk: Arc<dyn Talk>, is_found: bool) -> Option<Box<Ear>> {
    let whose = Arc::clone(life);
    let ear = Ear::open(&life.dir(), said, talk, is_found, move || note_deaf(&whose));
    ear.map(Box::new)
        .map_err(|error| {
            // Nobody holds the other end (fifo(7)): it closed it before anything was said to it.
            if error.raw_os_error() != Some(rustix::io::Errno::NXIO.raw_os_error()) {
                tracing::warn!(run = life.run.0, %error, "cannot speak with a run");
            }
            note_deaf(life);
        })
        .ok()
}

/// Tells that a process hears nothing any more, unless that is because it ends: then how it ended is
/// all there is to say, and its end is told in its own place.
fn note_deaf(life: &Arc<Life>) {
    let life = Arc::clone(life);
    tokio::spawn(async move {
        sleep(ENDS_WITHIN).await;
        if !life.has_exited() {
            life.tell(What::Deaf);
        }
    });
}

#[cfg(test)]
mod tests;
