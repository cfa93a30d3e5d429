//! The signals the daemon answers, as a stream.

use std::io;

use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGUSR2};
use tokio::io::AsyncReadExt;
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
        let [term, int, hup, usr2, chld] = self.pipes.as_mut_slice() else {
            return std::future::pending().await;
        };
        tokio::select! {
            biased;
            signal = drain(term) => signal,
            signal = drain(int) => signal,
            signal = drain(hup) => signal,
            signal = drain(usr2) => signal,
            signal = drain(chld) => signal,
        }
    }
}

async fn drain(pipe: &mut (UnixStream, Signal)) -> Signal {
    let mut bytes = [0; 256];
    match pipe.0.read(&mut bytes).await {
        Ok(1..) => pipe.1,
        // The other end lives as long as the process; without it there is nothing to wait for.
        Ok(0) | Err(_) => std::future::pending().await,
    }
}
