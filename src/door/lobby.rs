//! Those who have come to a door and have not shown yet that they may pass, at all doors together.
//!
//! Whoever may connect could else hold every descriptor of the daemon, a few at each of many doors.
//! Whose connection says by itself that they may pass is not counted; who passes by a token is not any
//! more.
//!
//! Nobody is turned away here. Where there is no room, the one that has shown nothing for longest goes,
//! of those of whom there are most: who comes with a token shows it at once, and is served before it is
//! seen that their place was given to another.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

/// Of one uid, and of all. A program that bears tokens for many users waits no longer than it takes to
/// read the head of its request.
pub(super) const MOST_OF_ONE: usize = 64;
pub(super) const MOST: usize = 512;

/// How long somebody may show nothing.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Who waits at which door.
#[derive(Debug, Default)]
pub(super) struct Lobby(Mutex<Room>);

#[derive(Debug, Default)]
struct Room {
    /// In the order they came.
    waiting: BTreeMap<u64, Silent>,
    /// At which door those are whose place was given to another, until they have gone.
    leaving: BTreeMap<u64, DoorKey>,
    came: u64,
    /// The uids by which somebody is known. Others have half of the room: one person may have as many
    /// uids as a container takes.
    known: BTreeSet<u32>,
}

/// Which door: a number that no other door has.
pub(super) type DoorKey = usize;

#[derive(Debug)]
struct Silent {
    /// `None` are those of whom nobody knows whose they are.
    uid: Option<u32>,
    door: DoorKey,
    place: Arc<Place>,
}

#[derive(Debug, Default)]
struct Place {
    has_shown: AtomicBool,
    is_given_away: Notify,
}

/// A place in the lobby, given back when dropped.
#[derive(Debug)]
pub(super) struct Waiting {
    lobby: Arc<Lobby>,
    number: u64,
    place: Arc<Place>,
}

impl Lobby {
    /// A place at a door where `most` may wait, if need be in the stead of somebody else.
    pub(super) fn enter(self: &Arc<Self>, uid: Option<u32>, door: DoorKey, most: usize) -> Waiting {
        let mut room = self.room();
        while let Some(number) = room.one_too_many(uid, door, most) {
            if let Some(gone) = room.waiting.remove(&number) {
                room.leaving.insert(number, gone.door);
                gone.place.is_given_away.notify_one();
            }
        }
        room.came += 1;
        let (number, place) = (room.came, Arc::<Place>::default());
        room.waiting.insert(number, Silent { uid, door, place: Arc::clone(&place) });
        Waiting { lobby: Arc::clone(self), number, place }
    }

    /// How many at this door have to go and are not gone yet.
    pub(super) fn leaving(&self, door: DoorKey) -> usize {
        self.room().leaving.values().filter(|at| **at == door).count()
    }

    /// By which uids somebody is known from now on.
    pub(super) fn know(&self, uids: BTreeSet<u32>) {
        self.room().known = uids;
    }

    fn room(&self) -> MutexGuard<'_, Room> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Room {
    /// Who has to go before one more of `uid` comes to `door`.
    fn one_too_many(&self, uid: Option<u32>, door: DoorKey, most_at_door: usize) -> Option<u64> {
        let is_known = |who: Option<u32>| who.is_some_and(|who| self.known.contains(&who));
        let kind = is_known(uid);
        self.crowd(MOST_OF_ONE, |silent| silent.uid == uid)
            .or_else(|| self.crowd(most_at_door.max(1), |silent| silent.door == door))
            .or_else(|| self.crowd(MOST / 2, |silent| is_known(silent.uid) == kind))
    }

    /// If there are `most` of these: who came first of the uid that has most of them.
    fn crowd(&self, most: usize, is_one: impl Fn(&Silent) -> bool) -> Option<u64> {
        let mut by_uid: HashMap<Option<u32>, (usize, u64)> = HashMap::new();
        for (number, silent) in self.waiting.iter().filter(|(_, silent)| is_one(silent)) {
            by_uid.entry(silent.uid).or_insert((0, *number)).0 += 1;
        }
        let all: usize = by_uid.values().map(|(count, _)| count).sum();
        let first = by_uid.into_values().max_by_key(|(count, first)| (*count, u64::MAX - first));
        first.filter(|_| all >= most).map(|(_, first)| first)
    }
}

impl Waiting {
    /// They may pass, so they wait no more.
    pub(super) fn is_over(&self) {
        if !self.place.has_shown.swap(true, Ordering::Relaxed) {
            let mut room = self.lobby.room();
            room.waiting.remove(&self.number);
            room.leaving.remove(&self.number);
        }
    }

    /// Comes when they have to go: their `patience` is over, or their place was given to another. Never
    /// for who has shown that they may pass.
    pub(super) fn has_to_go(&self, patience: Duration) -> impl Future<Output = ()> + Send + use<> {
        let place = Arc::clone(&self.place);
        async move {
            tokio::select! {
                () = place.is_given_away.notified() => {}
                () = sleep(patience) => {}
            }
            if place.has_shown.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.is_over();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    fn has_to_go(waiting: &Waiting) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        let has_to = pin!(waiting.has_to_go(PATIENCE)).poll(&mut cx).is_ready();
        if has_to {
            // Asked again, it is to be the same.
            waiting.place.is_given_away.notify_one();
        }
        has_to
    }

    fn fill(lobby: &Arc<Lobby>, uid: u32, door: DoorKey, count: usize) -> Vec<Waiting> {
        (0..count).map(|_| lobby.enter(Some(uid), door, MOST)).collect()
    }

    #[tokio::test]
    async fn who_shows_nothing_gives_way_to_the_next_of_the_same_uid_and_to_nobody_elses() {
        let lobby = Arc::new(Lobby::default());
        let others = fill(&lobby, 1000, 1, 3);
        let mut waiting = fill(&lobby, 900, 1, MOST_OF_ONE);
        let next = lobby.enter(Some(900), 2, MOST);
        assert!(has_to_go(&waiting[0]) && !has_to_go(&waiting[1]) && !has_to_go(&next));
        assert_eq!((lobby.leaving(1), lobby.leaving(2)), (1, 0));
        // Whoever shows at last that they may pass stays.
        let late = lobby.enter(Some(900), 2, MOST);
        waiting[1].is_over();
        assert!(!has_to_go(&waiting[1]) && !others.iter().any(has_to_go));
        waiting.clear();
        drop((next, late, others));
        let room = lobby.room();
        assert!(room.waiting.is_empty() && room.leaving.is_empty(), "nobody is counted for ever");
    }

    #[tokio::test]
    async fn who_shows_nothing_for_long_has_to_go() {
        let lobby = Arc::new(Lobby::default());
        let waiting = lobby.enter(None, 1, MOST);
        waiting.has_to_go(Duration::from_millis(1)).await;
        waiting.is_over();
        let goes = waiting.has_to_go(Duration::from_millis(1));
        assert!(tokio::time::timeout(Duration::from_millis(50), goes).await.is_err());
    }

    #[tokio::test]
    async fn many_uids_leave_room_at_each_door_and_for_those_who_are_known() {
        let lobby = Arc::new(Lobby::default());
        lobby.know((2000..2010).collect());
        let mut waiting: Vec<_> = (1000..1020).flat_map(|uid| fill(&lobby, uid, 1, MOST_OF_ONE)).collect();
        waiting.push(lobby.enter(Some(3000), 1, MOST));
        let stays = |waiting: &[Waiting]| waiting.iter().filter(|one| !has_to_go(one)).count();
        assert_eq!(stays(&waiting), MOST / 2, "strangers have half of the room");
        assert!(!has_to_go(waiting.last().unwrap()), "and who has few is not the one who goes");
        let known = fill(&lobby, 2000, 1, MOST_OF_ONE);
        assert_eq!(stays(&waiting) + stays(&known), MOST / 2 + MOST_OF_ONE);
        // At a door with room for two, the second of the same uid goes when another comes.
        let two = fill(&lobby, 2001, 7, 2);
        let other = lobby.enter(Some(2002), 7, 2);
        assert!(has_to_go(&two[0]) && !has_to_go(&two[1]) && !has_to_go(&other));
        assert!(!known.iter().any(has_to_go));
    }
}
