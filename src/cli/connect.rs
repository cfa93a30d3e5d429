//! `mcpsup connect`: MCP on stdin and stdout with an instance, through the control socket.
//!
//! No port and no token: the kernel says to the daemon who we are. What is sent, and what the
//! client hears, [`logic::connect`](crate::logic::connect) decides; here it is done. Nothing but
//! protocol goes to stdout, and it goes there from one place, whole lines at a time: while the
//! client does not read, nobody is read from either.

use std::collections::BTreeMap;
use std::io::{self, BufRead};
use std::sync::Arc;
use std::time::Duration;

use clap_complete::ArgValueCompleter;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::session::Session;
use super::who::{Who, target};
use super::{Outcome, names};
use crate::control::client::way::{Answer, Kind, NoAnswer, Way};
use crate::logic::connect::{CallId, Deed, End, Event, Events, Happening, Order, Relay, Verb};

/// The longest line either way, in bytes: what a door takes unless told otherwise.
const LONGEST: usize = 64 * 1024 * 1024;
/// How long calls may take that are in flight when the client has said its last.
const LAST_CALLS: Duration = Duration::from_secs(10);
/// How long saying farewell may take.
const FAREWELL: Duration = Duration::from_secs(2);
/// The most that is read of an answer that says no.
const LONGEST_REFUSAL: usize = 64 * 1024;
/// Lines, and pieces of answers, that are read ahead.
const AHEAD: usize = 8;

/// Whose.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Whose; the server may be left out where there is only one
    #[arg(value_name = "USER[/SERVER]", add = ArgValueCompleter::new(names::instances))]
    pub who: Option<Who>,
}

/// Speaks until stdin ends or stdout is closed.
///
/// # Errors
///
/// When the daemon cannot be reached at first, or does not let the caller pass.
pub fn run(args: &Args, session: &Session) -> anyhow::Result<Outcome> {
    let target = target(args.who.as_ref(), false);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let spoken = runtime.block_on(async {
        let (way, instance) = Way::find(&session.control(), &target).await?;
        session.print.aside(&format!("connected to {instance}"));
        speak(Arc::new(way), session).await
    });
    // A task that is left is one that nobody waits for.
    runtime.shutdown_background();
    spoken.map(|()| Outcome::Done)
}

/// What comes from stdin.
enum Input {
    Line(Vec<u8>),
    Overlong,
}

async fn speak(way: Arc<Way>, session: &Session) -> anyhow::Result<()> {
    let (read, mut lines) = mpsc::channel(AHEAD);
    // A thread of its own, because reading a pipe blocks; it ends with the process.
    std::thread::spawn(move || read_lines(io::stdin().lock(), &read));
    let (tell, mut told) = mpsc::channel(AHEAD);
    let mut desk = Desk { way: way.clone(), tell, tasks: BTreeMap::new(), session };
    let mut relay = Relay::default();
    let mut last: Option<Instant> = None;
    let mut spoken = Ok(());
    while spoken.is_ok() && !(last.is_some() && relay.is_idle()) {
        tokio::select! {
            Some((call, happening)) = told.recv() => relay.heard(call, happening),
            line = lines.recv(), if last.is_none() => match line {
                Some(Input::Line(line)) => relay.line(line),
                Some(Input::Overlong) => relay.overlong(LONGEST),
                None => {
                    last = Some(Instant::now() + LAST_CALLS);
                    relay.eof();
                }
            },
            () = sleep_until(last.unwrap_or_else(Instant::now)), if last.is_some() => break,
        }
        for deed in relay.deeds() {
            spoken = spoken.and_then(|()| desk.act(deed));
        }
    }
    if let Some(order) = relay.farewell() {
        // Nobody is left who would hear of a failure.
        drop(timeout(FAREWELL, way.send("DELETE", &order.headers, order.body)).await);
    }
    Ok(spoken?)
}

/// Does what the relay says.
struct Desk<'s> {
    way: Arc<Way>,
    tell: mpsc::Sender<(CallId, Happening)>,
    tasks: BTreeMap<CallId, AbortHandle>,
    session: &'s Session,
}

impl Desk<'_> {
    fn act(&mut self, deed: Deed) -> io::Result<()> {
        match deed {
            Deed::Send(order) => {
                self.tasks.retain(|_, task| !task.is_finished());
                let call = order.call;
                let task = tokio::spawn(follow(self.way.clone(), order, self.tell.clone()));
                self.tasks.insert(call, task.abort_handle());
                Ok(())
            }
            Deed::Drop(call) => {
                if let Some(task) = self.tasks.remove(&call) {
                    task.abort();
                }
                Ok(())
            }
            Deed::Say(mut line) => {
                line.push(b'\n');
                self.session.print.bytes(&line)
            }
            Deed::Note(text) => {
                self.session.print.aside(&text);
                Ok(())
            }
        }
    }
}

/// Sends one request and tells what becomes of it.
async fn follow(way: Arc<Way>, order: Order, tell: mpsc::Sender<(CallId, Happening)>) {
    let call = order.call;
    sleep(order.after).await;
    let end = match exchange(&way, order, &tell).await {
        Ok(end) => end,
        Err(NoAnswer::Broken) => End::Broken,
        Err(NoAnswer::Unsent(error)) => End::Unsent(error.to_string()),
    };
    // Without a hearer there is nobody to tell.
    drop(tell.send((call, Happening::Ended(end))).await);
}

async fn exchange(
    way: &Way,
    order: Order,
    tell: &mpsc::Sender<(CallId, Happening)>,
) -> Result<End, NoAnswer> {
    let method = match order.verb {
        Verb::Post => "POST",
        Verb::Get => "GET",
        Verb::Delete => "DELETE",
    };
    let call = order.call;
    let mut answer = way.send(method, &order.headers, order.body).await?;
    let status = answer.status;
    if !(200..300).contains(&status) {
        let body = answer.whole(LONGEST_REFUSAL).await?;
        let by_daemon = answer.by_daemon.then(|| Answer::reason(&body).unwrap_or_default());
        return Ok(End::Refused { status, body, by_daemon });
    }
    let accepted = Happening::Accepted { session: answer.session.take(), daemon: answer.daemon };
    // Without a hearer nothing more comes of it; the same holds below.
    drop(tell.send((call, accepted)).await);
    match answer.kind {
        Kind::Events => events(call, &mut answer, tell).await,
        Kind::Json => {
            let body = answer.whole(LONGEST + 1).await?;
            if body.len() > LONGEST {
                return Ok(too_long());
            }
            let data = Event { data: body, ..Event::default() };
            drop(tell.send((call, Happening::Said(data))).await);
            Ok(End::Whole)
        }
        Kind::Other => {
            // What it is made of is nothing that could be passed on.
            while answer.piece().await?.is_some() {}
            Ok(End::Whole)
        }
    }
}

async fn events(
    call: CallId,
    answer: &mut Answer<'_>,
    tell: &mpsc::Sender<(CallId, Happening)>,
) -> Result<End, NoAnswer> {
    let mut events = Events::new(LONGEST);
    let mut found = Vec::new();
    while let Some(piece) = answer.piece().await? {
        if events.push(&piece, |event| found.push(event)).is_err() {
            return Ok(too_long());
        }
        for event in found.drain(..) {
            drop(tell.send((call, Happening::Said(event))).await);
        }
    }
    Ok(End::Whole)
}

fn too_long() -> End {
    End::Strange(format!("the server's answer is longer than {LONGEST} bytes; it may have taken effect"))
}

/// Reads lines until there are no more, or nobody wants them.
fn read_lines(mut from: impl BufRead, to: &mpsc::Sender<Input>) {
    while let Ok(Some(input)) = read_line(&mut from) {
        if to.blocking_send(input).is_err() {
            return;
        }
    }
}

/// A line without its end; `None` if there are no more.
fn read_line(from: &mut impl BufRead) -> io::Result<Option<Input>> {
    let (mut line, mut is_overlong, mut any) = (Vec::new(), false, false);
    loop {
        let ready = match from.fill_buf() {
            Ok(ready) => ready,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let end = ready.iter().position(|byte| *byte == b'\n');
        let piece = &ready[..end.unwrap_or(ready.len())];
        any |= !ready.is_empty();
        is_overlong |= line.len() + piece.len() > LONGEST;
        if !is_overlong {
            line.extend_from_slice(piece);
        }
        let is_over = end.is_some() || ready.is_empty();
        let used = end.map_or(ready.len(), |end| end + 1);
        from.consume(used);
        if is_over {
            let input = if is_overlong { Input::Overlong } else { Input::Line(line) };
            return Ok(any.then_some(input));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_too_long_is_skipped_whole_and_the_next_one_is_read() {
        let mut text = vec![b'x'; LONGEST + 1];
        text.extend_from_slice(b"\nnext\n\nlast");
        let mut from = io::BufReader::new(text.as_slice());
        assert!(matches!(read_line(&mut from), Ok(Some(Input::Overlong))));
        for expected in ["next", "", "last"] {
            let Ok(Some(Input::Line(line))) = read_line(&mut from) else { panic!("no {expected:?}") };
            assert_eq!(line, expected.as_bytes());
        }
        assert!(matches!(read_line(&mut from), Ok(None)));
    }
}
