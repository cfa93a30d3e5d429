//! The signals the daemon answers, as a stream.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGUSR2};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::UnixStream;

/// What somebody, or the kernel, asks of the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM, SIGINT: end everything.
    Terminate,
    /// SIGHUP: read every file again.
    Reload,
    /// SIGUSR2: end, and leave the runs to the next daemon.
    HandOver,
    /// SIGCHLD: a child ended.
    Child,
}

/// In the order in which those are told that came together.
const WATCHED: [(i32, Signal); 5] = [
    (SIGTERM, Signal::Terminate),
    (SIGINT, Signal::Terminate),
    (SIGHUP, Signal::Reload),
    (SIGUSR2, Signal::HandOver),
    (SIGCHLD, Signal::Child),
];

/// One pipe per signal: signal-hook writes a byte when it comes.
#[derive(Debug)]
pub struct Signals {
    pipes: Vec<(UnixStream, Signal)>,
}

impl Signals {
    /// Takes over the signals of this process.
    ///
    /// # Errors
    ///
    /// When no descriptor is left.
    pub fn new() -> io::Result<Self> {
        let pipes = WATCHED.iter().map(|&(number, signal)| {
            let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
            ours.set_nonblocking(true)?;
            theirs.set_nonblocking(true)?;
            signal_hook::low_level::pipe::register(number, theirs)?;
            Ok((UnixStream::from_std(ours)?, signal))
        });
        Ok(Self { pipes: pipes.collect::<io::Result<_>>()? })
    }

    /// The next signal; several of a kind may count as one. Cancel-safe.
    pub async fn next(&mut self) -> Signal {
        poll_fn(|context| {
            let rung =
                self.pipes.iter_mut().find_map(|(pipe, signal)| rings(pipe, context).then_some(*signal));
            rung.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

/// True if the signal came. Its other end lives as long as the process, so it neither ends nor fails.
fn rings(pipe: &mut UnixStream, context: &mut Context<'_>) -> bool {
    let mut bytes = [0; 256];
    let mut buffer = ReadBuf::new(&mut bytes);
    match Pin::new(pipe).poll_read(context, &mut buffer) {
        Poll::Ready(Ok(())) => !buffer.filled().is_empty(),
        Poll::Ready(Err(_)) | Poll::Pending => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_signal_that_is_watched_for_is_heard_the_weightier_first() {
        let mut signals = Signals::new().unwrap();
        for number in [SIGCHLD, SIGHUP, SIGUSR2, SIGTERM] {
            signal_hook::low_level::raise(number).unwrap();
        }
        let expected = [Signal::Terminate, Signal::Reload, Signal::HandOver, Signal::Child];
        for signal in expected {
            assert_eq!(signals.next().await, signal);
        }
        signal_hook::low_level::raise(SIGINT).unwrap();
        assert_eq!(signals.next().await, Signal::Terminate);
    }
}
