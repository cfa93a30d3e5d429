//! What is read of a run: its log, and what a stdio process says, until its first process ends.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::{Sleep, sleep};

use crate::system::clock;
use crate::system::pipes::Ear;
use crate::system::process::Output;
use crate::system::ready::Awaited;

/// One read from a run's output takes at most this much, the size of a pipe.
const READ: usize = 64 * 1024;

/// The most that is taken of what a run said before it ended.
const LEFT: usize = 16 * READ;

/// After this long without output, descriptors and buffers for it are given back.
const QUIET: Duration = Duration::from_secs(10);
/// How long a run that writes more than its sink wants is not read from.
const FLOODED: Duration = Duration::from_millis(2);

thread_local! {
    // One buffer for all runs: a thousand idle ones must not hold a thousand.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ]);
}

/// The end of a run's FIFO that is ours.
pub(super) type Fifo = Awaited<File>;

/// What is read of a run.
pub(super) struct Streams {
    /// What goes into its log.
    pub(super) output: Option<Fifo>,
    /// What the process of a stdio run says. Boxed: most runs could do without.
    pub(super) ear: Option<Box<Ear>>,
}

impl Streams {
    fn may_have_more(&self) -> bool {
        self.output.as_ref().is_some_and(Awaited::may_have_more)
            || self.ear.as_ref().is_some_and(|ear| ear.may_have_more())
    }
}

/// What a run's task waits for.
enum Next {
    Exited,
    /// How much was read, and whether it is more than the sink wants.
    Read(io::Result<(usize, bool)>),
    /// The same of what a stdio process says, which goes into the log only if it is no message.
    Heard(io::Result<(usize, Logged)>),
    /// The wait is over.
    Time(Wait),
}

/// What of it went into the log.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Logged {
    Nothing,
    Some,
    TooMuch,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// Nothing is read meanwhile: what comes now is counted and dropped, and that must not cost a
    /// processor.
    Flood,
    /// The sink is told to rest if nothing comes meanwhile.
    Quiet,
}

/// Passes the run's output on until it exits, and gives back what may still be read.
///
/// Written by hand: there is one for every run and nearly all are idle, and what the compiler makes
/// of an `async fn` is more than twice as large.
pub(super) struct PassOn<'a> {
    /// None if it cannot be waited for: then it counts as over.
    death: Option<Awaited<&'a OwnedFd>>,
    streams: Streams,
    sink: &'a dyn Output,
    timer: Option<(Wait, Pin<Box<Sleep>>)>,
    /// The two streams take turns, so that neither waits for ever.
    ear_first: bool,
}

impl<'a> PassOn<'a> {
    pub(super) fn new(death: Option<Awaited<&'a OwnedFd>>, streams: Streams, sink: &'a dyn Output) -> Self {
        Self { death, streams, sink, timer: None, ear_first: false }
    }

    fn next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        let Self { death, streams: Streams { output, ear }, sink, timer, ear_first } = self;
        if death.as_ref().is_none_or(|death| death.poll(cx).is_ready()) {
            return Poll::Ready(Next::Exited);
        }
        if let Some((wait, sleep)) = timer
            && sleep.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Next::Time(*wait));
        }
        if matches!(timer, Some((Wait::Flood, _))) {
            return Poll::Pending;
        }
        let mut heard = |cx: &mut Context<'_>| match ear {
            Some(ear) => poll_heard(ear, *sink, cx).map(Next::Heard),
            None => Poll::Pending,
        };
        *ear_first = !*ear_first;
        if *ear_first && let ready @ Poll::Ready(_) = heard(cx) {
            return ready;
        }
        if let Some(output) = output
            && let Poll::Ready(read) = poll_read(output, *sink, cx)
        {
            return Poll::Ready(Next::Read(read));
        }
        if *ear_first { Poll::Pending } else { heard(cx) }
    }

    fn wait(&mut self, wait: Wait, time: Duration) {
        self.timer = Some((wait, Box::pin(sleep(time))));
    }
}

impl Future for PassOn<'_> {
    type Output = Streams;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Streams> {
        let this = &mut *self;
        loop {
            let others_turn = match ready!(this.next(cx)) {
                Next::Exited => {
                    let ended = Streams { output: None, ear: None };
                    return Poll::Ready(std::mem::replace(&mut this.streams, ended));
                }
                Next::Time(Wait::Flood) => {
                    this.wait(Wait::Quiet, QUIET);
                    false
                }
                Next::Time(Wait::Quiet) => {
                    this.sink.rest();
                    this.timer = None;
                    false
                }
                Next::Read(Ok((0, _)) | Err(_)) => {
                    this.streams.output = None;
                    false
                }
                Next::Heard(Ok((0, _)) | Err(_)) => {
                    if let Some(ear) = this.streams.ear.take() {
                        ear.end();
                    }
                    false
                }
                Next::Read(Ok((_, true))) | Next::Heard(Ok((_, Logged::TooMuch))) => {
                    this.wait(Wait::Flood, FLOODED);
                    false
                }
                Next::Heard(Ok((_, Logged::Nothing))) => true,
                Next::Read(Ok((_, false))) | Next::Heard(Ok((_, Logged::Some))) => {
                    this.wait(Wait::Quiet, QUIET);
                    true
                }
            };
            if others_turn && this.streams.may_have_more() {
                // Polled once: it wakes us when the others have had theirs.
                ready!(pin!(yield_now()).poll(cx));
            }
        }
    }
}

fn poll_read(output: &Fifo, sink: &dyn Output, cx: &mut Context<'_>) -> Poll<io::Result<(usize, bool)>> {
    BUFFER.with_borrow_mut(|buffer| {
        let read = output.poll_read(cx, buffer);
        read.map_ok(|count| (count, count > 0 && sink.take(clock::now(), &buffer[..count])))
    })
}

/// Takes what the run has said before it ended. A pipe holds at most 1 MiB (pipe(7), without
/// privileges); a child that goes on writing does not keep us here.
pub(super) async fn drain(streams: Streams, sink: &dyn Output) {
    if let Some(mut ear) = streams.ear {
        let mut left = LEFT;
        while left > 0
            && let Ok(taken @ 1..) = hear_rest(&mut ear, sink)
        {
            left = left.saturating_sub(taken);
            yield_now().await;
        }
        ear.end();
    }
    if let Some(output) = streams.output {
        let mut left = LEFT;
        while left > 0
            && let Ok((taken @ 1.., _)) = read_into(output.get(), sink)
        {
            left = left.saturating_sub(taken);
            yield_now().await;
        }
    }
}

fn hear_rest(ear: &mut Ear, sink: &dyn Output) -> io::Result<usize> {
    BUFFER.with_borrow_mut(|buffer| {
        ear.try_read(buffer, &mut |line, is_whole| {
            sink.take_line(clock::now(), line, is_whole);
        })
    })
}

fn poll_heard(ear: &mut Ear, sink: &dyn Output, cx: &mut Context<'_>) -> Poll<io::Result<(usize, Logged)>> {
    BUFFER.with_borrow_mut(|buffer| {
        let mut logged = Logged::Nothing;
        let mut log = |line: &[u8], is_whole| {
            let too_much = sink.take_line(clock::now(), line, is_whole);
            logged = if too_much { Logged::TooMuch } else { Logged::Some };
        };
        let read = ear.poll(buffer, cx, &mut log);
        read.map_ok(|count| (count, logged))
    })
}

/// How much was read, and whether it is more than the sink wants.
fn read_into(mut fifo: &File, sink: &dyn Output) -> io::Result<(usize, bool)> {
    BUFFER.with_borrow_mut(|buffer| {
        let count = fifo.read(buffer)?;
        Ok((count, count > 0 && sink.take(clock::now(), &buffer[..count])))
    })
}
