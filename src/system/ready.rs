//! Waiting for many descriptors through one registration with the runtime.
//!
//! tokio keeps 272 bytes for each descriptor it waits for, and a thousand instances have three each:
//! the pidfd and the output of their run, and their door. Here all of them are in an epoll set of our own (epoll(7)),
//! and only that set is registered; what is kept for each is a number and whom to wake.
//!
//! The set tells each change once (`EPOLLET`), so whoever reads does so until there is nothing more
//! and only then waits ([`Awaited::poll_with`], [`Awaited::poll_read`]).
//!
//! tokio can wait for a descriptor that is not a socket or a pipe only through a call that its
//! caller must vouch for; this module is the fence around it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::{AbortHandle, coop};

use crate::model::pack;

/// So many changes are heard of in one call.
const AT_ONCE: usize = 64;

/// The set. Dropping it ends all waiting: nobody in it is woken any more.
#[derive(Debug)]
pub struct Hub {
    shared: Arc<Shared>,
    task: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    set: Arc<OwnedFd>,
    members: Mutex<Members>,
}

#[derive(Debug, Default)]
struct Members {
    /// A number is never used again, so that a late word about one member is not taken for one
    /// about another.
    next: u64,
    states: BTreeMap<u64, State>,
}

/// What is known of a descriptor.
#[derive(Debug)]
enum State {
    /// Something changed since it was last found to have nothing more.
    Ready,
    /// It has ended, which is told once, and may be told before the last bytes are read.
    Ended,
    /// Nothing did; this is to be woken when something does.
    Waiting(Option<Waker>),
}

impl Hub {
    /// An empty set. Must be called on a runtime.
    ///
    /// # Errors
    ///
    /// When no descriptor is left.
    pub fn new() -> io::Result<Self> {
        let set = Arc::new(epoll::create(epoll::CreateFlags::CLOEXEC)?);
        let registered = register(Arc::clone(&set))?;
        let shared = Arc::new(Shared { set, members: Mutex::default() });
        let task = tokio::spawn(tell(Arc::clone(&shared), registered)).abort_handle();
        Ok(Self { shared, task })
    }

    /// Takes a descriptor in, to be waited for until it can be read.
    ///
    /// # Errors
    ///
    /// When the kernel refuses: it cannot be waited for, or there are too many.
    pub fn add<F: AsFd>(&self, fd: F) -> io::Result<Awaited<F>> {
        let mut members = self.shared.lock();
        let number = members.next;
        epoll::add(&self.shared.set, &fd, EventData::new_u64(number), EventFlags::IN | EventFlags::ET)?;
        members.next += 1;
        members.states.insert(number, State::Waiting(None));
        drop(members);
        Ok(Awaited { fd, number, shared: Arc::clone(&self.shared) })
    }

    /// Makes what is kept of the members as small as it can be.
    pub fn pack(&self) {
        pack(&mut self.shared.lock().states);
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a descriptor has beside what was taken.
enum Left {
    Nothing,
    Perhaps,
}

/// A descriptor that is waited for.
#[derive(Debug)]
pub struct Awaited<F: AsFd> {
    fd: F,
    number: u64,
    shared: Arc<Shared>,
}

impl<F: AsFd> Awaited<F> {
    /// The descriptor.
    #[must_use]
    pub fn get(&self) -> &F {
        &self.fd
    }

    /// Ready when it may be read, or has ended. For one task at a time, as polling is.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self.shared.lock().states.get_mut(&self.number) {
            Some(State::Waiting(waker)) => {
                if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                    *waker = Some(cx.waker().clone());
                }
                Poll::Pending
            }
            Some(State::Ready | State::Ended) | None => Poll::Ready(()),
        }
    }

    /// True if [`Awaited::poll`] would not wait.
    #[must_use]
    pub fn may_have_more(&self) -> bool {
        !matches!(self.shared.lock().states.get(&self.number), Some(State::Waiting(_)))
    }

    /// Does something with the descriptor that must not be waited for, as soon as it is possible.
    pub fn poll_with<T>(
        &self,
        cx: &mut Context<'_>,
        mut deed: impl FnMut(&F) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        self.poll_taking(cx, |fd| deed(fd).map(|done| (done, Left::Perhaps)))
    }

    fn poll_taking<T>(
        &self,
        cx: &mut Context<'_>,
        mut deed: impl FnMut(&F) -> io::Result<(T, Left)>,
    ) -> Poll<io::Result<T>> {
        // One that always finds something lets others have their turn too.
        let budget = ready!(coop::poll_proceed(cx));
        loop {
            ready!(self.poll(cx));
            // Before the deed: what comes after it is news then, and makes it ready again.
            let before = self.change(|_| Some(State::Waiting(None)));
            let done = match deed(&self.fd) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                done => done,
            };
            // What the set has told already, it does not tell again.
            self.change(|now| match (now, before, &done) {
                (State::Waiting(_), Some(State::Ended), _) => Some(State::Ended),
                (State::Waiting(_), _, Ok((_, Left::Perhaps)) | Err(_)) => Some(State::Ready),
                (State::Waiting(_), _, Ok((_, Left::Nothing))) | (State::Ready | State::Ended, _, _) => None,
            });
            budget.made_progress();
            return Poll::Ready(done.map(|(done, _)| done));
        }
    }

    /// Makes another state of the state, and gives the old one.
    fn change(&self, to: impl FnOnce(&State) -> Option<State>) -> Option<State> {
        let mut members = self.shared.lock();
        let state = members.states.get_mut(&self.number)?;
        let new = to(state)?;
        Some(std::mem::replace(state, new))
    }
}

impl Awaited<File> {
    /// Reads from a FIFO, as soon as there is something, and asks whether that was all, so that nobody has
    /// to come back and find nothing. (That it filled less than `buffer` says nothing: whoever writes may
    /// write packets, `O_DIRECT` in pipe(2), of which each read gives one.)
    pub fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        self.poll_taking(cx, |mut fifo| {
            let count = fifo.read(buffer)?;
            let is_all = count > 0 && rustix::io::ioctl_fionread(fifo).is_ok_and(|left| left == 0);
            Ok((count, if is_all { Left::Nothing } else { Left::Perhaps }))
        })
    }
}

impl<F: AsFd> Drop for Awaited<F> {
    fn drop(&mut self) {
        self.shared.lock().states.remove(&self.number);
        // Before it is closed: a copy of it elsewhere would keep it in the set.
        if let Err(error) = epoll::delete(&self.shared.set, &self.fd) {
            tracing::debug!(%error, "cannot stop waiting for a descriptor");
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes those whose descriptors changed; true if there may be more of them.
    fn wake(&self) -> io::Result<bool> {
        let mut events = Vec::with_capacity(AT_ONCE);
        epoll::wait(&self.set, spare_capacity(&mut events), Some(&Timespec::default()))?;
        let mut members = self.lock();
        let mut wakers = Vec::with_capacity(events.len());
        for event in &events {
            let Some(state) = members.states.get_mut(&event.data.u64()) else { continue };
            let has_ended = { event.flags }.intersects(EventFlags::HUP | EventFlags::ERR);
            let now = if has_ended || matches!(state, State::Ended) { State::Ended } else { State::Ready };
            if let State::Waiting(waker) = std::mem::replace(state, now) {
                wakers.extend(waker);
            }
        }
        drop(members);
        wakers.into_iter().for_each(Waker::wake);
        Ok(events.len() == AT_ONCE)
    }
}

/// Wakes members for ever.
async fn tell(shared: Arc<Shared>, registered: AsyncFd<Arc<OwnedFd>>) {
    // An error says that the runtime ends: nobody waits for anything then.
    while let Ok(mut guard) = registered.readable().await {
        loop {
            match shared.wake() {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    tracing::error!(%error, "cannot hear of descriptors");
                    break;
                }
            }
        }
        guard.clear_ready();
    }
}

#[expect(
    unsafe_code,
    reason = "tokio's only way to wait for an epoll set; the type below keeps the promise it asks for"
)]
fn register(set: Arc<OwnedFd>) -> io::Result<AsyncFd<Arc<OwnedFd>>> {
    // SAFETY: an OwnedFd is a valid, open descriptor until it is dropped and never changes its
    // number; the Arc inside the AsyncFd keeps it from being dropped before.
    unsafe { AsyncFd::register_with_interest(set, Interest::READABLE) }.map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    async fn readable<F: AsFd>(awaited: &Awaited<F>) -> bool {
        tokio::time::timeout(Duration::from_secs(5), poll_fn(|cx| awaited.poll(cx))).await.is_ok()
    }

    fn pair(hub: &Hub) -> (UnixStream, Awaited<UnixStream>) {
        let (theirs, ours) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (theirs, hub.add(ours).unwrap())
    }

    /// The next byte.
    async fn read(awaited: &Awaited<UnixStream>) -> u8 {
        let mut byte = [0];
        let reading = poll_fn(|cx| awaited.poll_with(cx, |mut stream| stream.read(&mut byte)));
        let count = tokio::time::timeout(Duration::from_secs(5), reading).await.unwrap().unwrap();
        assert_eq!(count, 1);
        byte[0]
    }

    #[tokio::test]
    async fn everybody_in_the_set_hears_of_their_own_and_of_nobody_elses() {
        let hub = Hub::new().unwrap();
        let mut pairs: Vec<_> = (0..=3 * AT_ONCE).map(|_| pair(&hub)).collect();
        for round in 0..3 {
            for (theirs, _) in pairs.iter_mut().skip(1) {
                theirs.write_all(&[round, round + 10]).unwrap();
            }
            for (_, ours) in pairs.iter().skip(1) {
                // Two of one change: the set tells it once.
                assert_eq!((read(ours).await, read(ours).await), (round, round + 10));
            }
        }
        let (_, quiet) = &pairs[0];
        assert!(poll_fn(|cx| Poll::Ready(quiet.poll(cx).is_pending())).await);
    }

    #[tokio::test]
    async fn what_comes_while_a_read_finds_nothing_is_not_missed() {
        let hub = Hub::new().unwrap();
        let (mut theirs, ours) = pair(&hub);
        theirs.write_all(b"1").unwrap();
        assert_eq!(read(&ours).await, b'1');
        let mut tries = 0;
        let late = poll_fn(|cx| {
            ours.poll_with(cx, |mut stream| {
                let found = stream.read(&mut [0]);
                tries += 1;
                if tries == 1 {
                    theirs.write_all(b"2").unwrap();
                }
                found
            })
        });
        assert!(matches!(tokio::time::timeout(Duration::from_secs(5), late).await, Ok(Ok(1))));
        assert_eq!(tries, 2);
    }

    fn pipe(hub: &Hub) -> (File, Awaited<File>) {
        let (ours, theirs) = std::io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&ours, true).unwrap();
        (File::from(OwnedFd::from(theirs)), hub.add(File::from(OwnedFd::from(ours))).unwrap())
    }

    /// What is read next into so much room.
    async fn read_up_to(room: usize, awaited: &Awaited<File>) -> Vec<u8> {
        let mut buffer = vec![0; room];
        let reading = poll_fn(|cx| awaited.poll_read(cx, &mut buffer));
        let count = tokio::time::timeout(Duration::from_secs(60), reading).await.unwrap().unwrap();
        buffer.truncate(count);
        buffer
    }

    #[tokio::test]
    async fn who_took_all_there_was_waits_and_who_did_not_has_more() {
        let hub = Hub::new().unwrap();
        let (mut theirs, ours) = pipe(&hub);
        for _ in 0..3 {
            theirs.write_all(b"123").unwrap();
            assert_eq!(read_up_to(2, &ours).await, b"12");
            assert!(ours.may_have_more());
            assert_eq!(read_up_to(2, &ours).await, b"3");
            assert!(!ours.may_have_more());
        }
    }

    #[tokio::test]
    async fn packets_are_all_read_though_each_read_gives_one() {
        let hub = Hub::new().unwrap();
        let (mut theirs, ours) = pipe(&hub);
        rustix::fs::fcntl_setfl(&theirs, rustix::fs::OFlags::DIRECT).unwrap();
        theirs.write_all(b"12").unwrap();
        theirs.write_all(b"3").unwrap();
        assert_eq!(read_up_to(64, &ours).await, b"12");
        assert!(ours.may_have_more());
        assert_eq!(read_up_to(64, &ours).await, b"3");
        assert!(!ours.may_have_more());
    }

    #[tokio::test]
    async fn an_end_that_was_told_before_the_last_bytes_were_read_is_not_missed() {
        let hub = Hub::new().unwrap();
        let (mut theirs, ours) = pipe(&hub);
        theirs.write_all(b"last").unwrap();
        drop(theirs);
        assert_eq!(read_up_to(64, &ours).await, b"last");
        assert!(ours.may_have_more());
        assert_eq!(read_up_to(64, &ours).await, b"");
    }

    #[tokio::test]
    async fn an_end_is_heard_of_and_who_leaves_the_set_leaves_nothing_in_it() {
        let hub = Hub::new().unwrap();
        let (theirs, ours) = pair(&hub);
        drop(theirs);
        assert!(readable(&ours).await);
        drop(ours);
        assert!(hub.shared.lock().states.is_empty());
    }
}
