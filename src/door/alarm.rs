//! One timer for all that a connection waits for.
//!
//! A request is waited for, its body, and its answer, each with a limit that is nearly never met. A timer of
//! tokio's for each would be set and taken back three times a request, and one that is due before all others
//! makes the runtime wake itself: a write and an `epoll_wait` more.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// Rings not later than the first moment that somebody waits for. It is set anew only to ring earlier; who is
/// woken too early sets it for themselves.
///
/// All who wait with one are of one task: it wakes the one that looked last.
#[derive(Debug, Clone, Default)]
pub(super) struct Alarm(Arc<Mutex<Option<Pin<Box<Sleep>>>>>);

impl Alarm {
    /// What comes of `wanted`, or nothing if that takes longer than until `end`.
    pub(super) async fn limit<T>(&self, end: Instant, wanted: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            come = wanted => Some(come),
            () = self.until(end) => None,
        }
    }

    fn until(&self, end: Instant) -> Until {
        Until { alarm: self.clone(), end }
    }

    /// Ready when `end` has come.
    pub(super) fn poll(&self, end: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let mut timer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(end)));
        loop {
            if timer.is_elapsed() || timer.deadline() > end {
                timer.as_mut().reset(end);
            }
            ready!(timer.as_mut().poll(cx));
            // It may have been set for something that was due earlier.
            if timer.deadline() >= end {
                return Poll::Ready(());
            }
        }
    }
}

/// One wait.
struct Until {
    alarm: Alarm,
    end: Instant,
}

impl Future for Until {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.alarm.poll(self.end, cx)
    }
}

impl hyper::rt::Sleep for Until {}

/// For what hyper waits for.
impl hyper::rt::Timer for Alarm {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, end: std::time::Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(self.until(end.into()))
    }

    fn now(&self) -> std::time::Instant {
        Instant::now().into_std()
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::pin::pin;
    use std::task::Waker;

    use super::*;

    /// In one task, as a connection is.
    fn in_a_task(what: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        // A wake-up that is lost would leave it waiting for ever.
        let limited = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), what).await });
        limited.expect("it rings");
    }

    fn after(millis: u64) -> Instant {
        Instant::now() + Duration::from_millis(millis)
    }

    async fn ends_at(alarm: &Alarm, end: Instant) {
        assert_eq!(alarm.limit(end, pending::<()>()).await, None);
        assert!(Instant::now() >= end, "it rang early");
    }

    #[test]
    fn each_wait_ends_at_its_own_time_whichever_was_begun_first() {
        in_a_task(async {
            for [one, other] in [[10, 30], [30, 10], [10, 10]] {
                let alarm = Alarm::default();
                tokio::join!(ends_at(&alarm, after(one)), ends_at(&alarm, after(other)));
                // It has rung, and rings again.
                ends_at(&alarm, after(5)).await;
                ends_at(&alarm, Instant::now()).await;
            }
        });
    }

    #[test]
    fn a_wait_that_is_over_does_not_ring_for_the_next() {
        in_a_task(async {
            let alarm = Alarm::default();
            let sooner = after(10);
            let mut cx = Context::from_waker(Waker::noop());
            assert!(pin!(alarm.until(sooner)).poll(&mut cx).is_pending());
            ends_at(&alarm, after(30)).await;
            // What comes is taken however late it is.
            assert_eq!(alarm.limit(sooner, ready(1)).await, Some(1));
        });
    }
}
