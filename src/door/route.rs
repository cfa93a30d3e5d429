//! Where a door leads, told by the loop and followed by every connection of the door.
//!
//! It is a `tokio::sync::watch` cut down to what a door needs: there is one for every instance, and
//! a watch channel takes three times the memory.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::Route;

/// The side that says where the door leads. Dropping it says that nobody will say so any more.
#[derive(Debug)]
pub struct Lead(Arc<Shared>);

/// The side that is led.
#[derive(Debug, Clone)]
pub struct Follow {
    shared: Arc<Shared>,
    /// The turn that was seen last.
    seen: u32,
}

#[derive(Debug)]
struct Shared {
    now: Mutex<Now>,
    turned: Notify,
}

#[derive(Debug)]
struct Now {
    route: Route,
    /// Counts the changes; it may wrap, for it is only compared with one that was seen lately.
    turn: u32,
    is_led: bool,
}

impl Lead {
    /// A route that nobody follows yet.
    #[must_use]
    pub fn new(route: Route) -> Self {
        let now = Mutex::new(Now { route, turn: 0, is_led: true });
        Self(Arc::new(Shared { now, turned: Notify::new() }))
    }

    /// Somebody who is led from here on.
    #[must_use]
    pub fn follow(&self) -> Follow {
        let seen = self.0.now().turn;
        Follow { shared: Arc::clone(&self.0), seen }
    }

    /// Points somewhere; those who follow hear of it if it is somewhere else.
    pub fn point(&self, route: Route) {
        let mut now = self.0.now();
        let is_news = !now.route.leads_like(&route);
        now.route = route;
        if is_news {
            now.turn = now.turn.wrapping_add(1);
            drop(now);
            self.0.turned.notify_waiters();
        }
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.0.now().is_led = false;
        self.0.turned.notify_waiters();
    }
}

impl Follow {
    /// Where the door leads, whether that is news or not.
    #[must_use]
    pub fn now(&self) -> Route {
        self.shared.now().route.clone()
    }

    /// Where the door leads; from here on only another route is news.
    pub fn look(&mut self) -> Route {
        let now = self.shared.now();
        self.seen = now.turn;
        now.route.clone()
    }

    /// Waits until the route is another than the one seen last; false if nobody leads any more.
    pub async fn changed(&mut self) -> bool {
        loop {
            // Made before the look, so that a change between the two is not missed.
            let turned = self.shared.turned.notified();
            let (turn, is_led) = {
                let now = self.shared.now();
                (now.turn, now.is_led)
            };
            if turn != self.seen {
                self.seen = turn;
                return true;
            }
            if !is_led {
                return false;
            }
            turned.await;
        }
    }
}

impl Shared {
    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Route {
    /// True if who is led by the one need not turn round for the other.
    fn leads_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Ready(one), Self::Ready(other)) => one.run == other.run,
            (Self::Waiting, Self::Waiting) => true,
            (Self::Closed(one), Self::Closed(other)) => one == other,
            (Self::Ready(_) | Self::Waiting | Self::Closed(_), _) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(why: &str) -> Route {
        Route::Closed(why.to_owned())
    }

    #[tokio::test]
    async fn a_change_is_heard_of_once_though_nobody_waited_for_it() {
        let lead = Lead::new(Route::Waiting);
        let mut follow = lead.follow();
        lead.point(closed("one"));
        lead.point(closed("two"));
        assert!(follow.changed().await);
        assert!(matches!(follow.now(), Route::Closed(why) if why == "two"));

        drop(lead);
        assert!(!follow.changed().await);
    }

    #[tokio::test]
    async fn the_same_route_again_is_no_news() {
        let lead = Lead::new(Route::Waiting);
        let mut follow = lead.follow();
        lead.point(Route::Waiting);
        let (is_led, ()) = tokio::join!(follow.changed(), async { lead.point(closed("now")) });
        assert!(is_led);
        assert!(matches!(follow.look(), Route::Closed(why) if why == "now"));
    }

    #[tokio::test]
    async fn a_route_that_was_looked_at_is_no_news() {
        let lead = Lead::new(Route::Waiting);
        let mut follow = lead.follow();
        lead.point(closed("now"));
        follow.look();
        drop(lead);
        assert!(!follow.changed().await);
    }
}
