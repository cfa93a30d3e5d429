//! Who has which port, for good.
//!
//! A port, once given, stays its instance's: over crashes, restarts, a deleted file, other
//! people's comings and goings, and a changed range. Only [`Ports::remove_user`] frees it, and a
//! pin moves it. Nothing here knows whether a port can be bound: what is known to be taken on
//! this host is an argument.

mod table;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::model::config;
use crate::model::port::PortRange;
use crate::model::{InstanceId, Problem, UserName, Whom, pack};

use table::Kept;

/// The table, as kept in the state directory.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "Kept", into = "Kept")]
pub struct Ports {
    rows: BTreeMap<InstanceId, Row>,
}

/// What one instance has been given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    door: u16,
    /// `None` while none was left to give.
    backend: Option<u16>,
}

/// An instance's ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Given {
    /// Where clients connect.
    pub door: u16,
    /// Where its process listens, if it is to listen.
    pub backend: Option<u16>,
}

/// An instance that is to have ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Which.
    pub id: InstanceId,
    /// Where its door shall be.
    pub pin: Option<Pin>,
    /// Its process listens: it needs a port for that.
    pub listens: bool,
}

/// A port that a user's file asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// The door's port.
    pub port: u16,
    /// The variable that says so: `MCPSUP_PORT`.
    pub name_of_setting: String,
    /// The file it stands in.
    pub file: String,
    /// Its line.
    pub line: u32,
    /// Root owns the file: the port need not lie in the range.
    pub privileged: bool,
}

impl Pin {
    fn problem(&self, text: impl std::fmt::Display) -> Problem {
        Problem::new(&*self.file, format!("{}: {text}", self.name_of_setting)).at_line(self.line)
    }
}

impl Ports {
    /// The ports of every instance in `wanted`, or why it has none.
    ///
    /// Pins come first, in the order of names; then what was given before; then the lowest free
    /// ports, without those in `blocked` (taken on this host by others). An instance whose pin is
    /// refused keeps the door it had. Who is not in `wanted` keeps what they have.
    pub fn assign(
        &mut self,
        ranges: &config::Ports,
        wanted: &[Asked],
        blocked: &BTreeSet<u16>,
    ) -> BTreeMap<InstanceId, Result<Given, Problem>> {
        for asked in wanted.iter().filter(|asked| !asked.listens) {
            // It was an http server, and is none any more.
            if let Some(row) = self.rows.get_mut(&asked.id) {
                row.backend = None;
            }
        }
        let listening: BTreeSet<&InstanceId> =
            wanted.iter().filter(|asked| asked.listens).map(|asked| &asked.id).collect();
        let wanted: BTreeMap<&InstanceId, Option<&Pin>> =
            wanted.iter().map(|asked| (&asked.id, asked.pin.as_ref())).collect();
        let refused = self.follow_pins(ranges, &wanted);
        let mut taken = Taken::of(self);
        // Backends must not take what is pinned, even by somebody who could not get it yet.
        wanted.values().flatten().for_each(|pin| taken.add(pin.port));
        let mut doors = Free { range: ranges.range, from: ranges.range.first };
        let mut free = Free { range: ranges.backend_range, from: ranges.backend_range.first };
        let mut answers = BTreeMap::new();
        for (id, pin) in &wanted {
            let backends = listening.contains(id).then_some(&mut free);
            let answer = self.give(id, *pin, &mut doors, backends, &mut taken, blocked);
            let answer = match refused.get(id) {
                Some(problem) => Err(problem.clone()),
                None => answer,
            };
            answers.insert((*id).clone(), answer);
        }
        answers
    }

    /// Moves doors to where they are pinned, and says which pins cannot be followed.
    fn follow_pins<'a>(
        &mut self,
        ranges: &config::Ports,
        wanted: &BTreeMap<&'a InstanceId, Option<&Pin>>,
    ) -> BTreeMap<&'a InstanceId, Problem> {
        let mut refused = BTreeMap::new();
        let mut open: Vec<(&InstanceId, &Pin)> = Vec::new();
        for (id, pin) in wanted.iter().filter_map(|(id, pin)| pin.map(|pin| (*id, pin))) {
            if self.door(id) == Some(pin.port) {
                continue;
            }
            match out_of_range(pin, ranges) {
                Some(problem) => drop(refused.insert(id, problem)),
                None => open.push((id, pin)),
            }
        }
        // A door that moves away frees the port that another is pinned to, in a circle too. So all
        // are taken to move, and whoever cannot for one that stays, stays: again, while there is one.
        let taken = Taken::of(self);
        let mut stay = Vec::new();
        loop {
            let mut left = Taken([0; 1024]);
            open.iter().filter_map(|(id, _)| self.door(id)).for_each(|door| left.add(door));
            let mut promised = Taken([0; 1024]);
            let before = open.len();
            open.retain(|(id, pin)| {
                let can = (!taken.has(pin.port) || left.has(pin.port)) && !promised.has(pin.port);
                if can {
                    promised.add(pin.port);
                } else {
                    stay.push((*id, *pin));
                }
                can
            });
            if open.len() == before {
                break;
            }
        }
        for (id, pin) in open {
            let backend = self.backend(id);
            self.rows.insert(id.clone(), Row { door: pin.port, backend });
        }
        if !stay.is_empty() {
            let holders = self.holders();
            for (id, pin) in stay {
                let holder = holders.get(&pin.port).map_or_else(String::new, ToString::to_string);
                refused.insert(id, pin.problem(format!("port {} is {holder}'s; choose another", pin.port)));
            }
        }
        refused
    }

    fn holders(&self) -> BTreeMap<u16, &InstanceId> {
        let both = |(id, row): (_, &Row)| [Some((row.door, id)), row.backend.map(|port| (port, id))];
        self.rows.iter().flat_map(both).flatten().collect()
    }

    fn give(
        &mut self,
        id: &InstanceId,
        pin: Option<&Pin>,
        doors: &mut Free,
        backends: Option<&mut Free>,
        taken: &mut Taken,
        blocked: &BTreeSet<u16>,
    ) -> Result<Given, Problem> {
        let door = match (self.rows.get(id), pin) {
            (Some(row), _) => row.door,
            // Its pin was refused and it never had a door: it gets none until the pin is mended.
            (None, Some(pin)) => {
                return Err(pin.problem(format!("port {} cannot be given", pin.port)));
            }
            (None, None) => doors.next(taken, blocked).ok_or_else(|| none_left(id, doors.range, "range"))?,
        };
        let row = self.rows.entry(id.clone()).or_insert(Row { door, backend: None });
        if let (None, Some(free)) = (row.backend, backends) {
            let backend = free.next(taken, blocked);
            row.backend = Some(backend.ok_or_else(|| none_left(id, free.range, "backend_range"))?);
        }
        Ok(Given { door, backend: row.backend })
    }

    /// Gives `id` another backend port, none of `avoid`; `None` if there is none or it has no
    /// ports at all. For a port that somebody else on this host has taken.
    pub fn move_backend(
        &mut self,
        ranges: &config::Ports,
        id: &InstanceId,
        avoid: &BTreeSet<u16>,
    ) -> Option<u16> {
        let mut taken = Taken::of(self);
        let row = self.rows.get_mut(id)?;
        let range = ranges.backend_range;
        // Upwards from the one that was taken, so that a squatter is not met again at once.
        let from = row.backend.filter(|port| range.contains(*port)).unwrap_or(range.first);
        let port = Free { range, from }
            .next(&mut taken, avoid)
            .or_else(|| Free { range, from: range.first }.next(&mut taken, avoid))?;
        row.backend = Some(port);
        Some(port)
    }

    /// Makes the table as small as it can be.
    pub fn pack(&mut self) {
        pack(&mut self.rows);
    }

    /// Undoes a gift of ports that nobody has heard of yet. For a door that turned out to be a
    /// stranger's.
    pub fn take_back(&mut self, id: &InstanceId) {
        self.rows.remove(id);
    }

    /// Frees all ports of `user`: `mcpsup remove`.
    pub fn remove_user(&mut self, user: &UserName) {
        self.rows.retain(|id, _| id.user != *user);
    }

    /// The door of `id`, if it was ever given one.
    #[must_use]
    pub fn door(&self, id: &InstanceId) -> Option<u16> {
        self.rows.get(id).map(|row| row.door)
    }

    /// The backend port of `id`, if it has one.
    #[must_use]
    pub fn backend(&self, id: &InstanceId) -> Option<u16> {
        self.rows.get(id).and_then(|row| row.backend)
    }

    /// The part of the table that is `whom`'s, to see what becomes of it.
    #[must_use]
    pub fn part(&self, whom: &Whom) -> Self {
        Self { rows: whom.of(&self.rows).map(|(id, row)| (id.clone(), *row)).collect() }
    }

    /// Every instance of `whom` that has a door, and its port.
    pub fn doors_of<'a>(&'a self, whom: &'a Whom) -> impl Iterator<Item = (&'a InstanceId, u16)> {
        whom.of(&self.rows).map(|(id, row)| (id, row.door))
    }

    /// Every instance that has a door, sorted by user and server, and its port.
    pub fn doors(&self) -> impl Iterator<Item = (&InstanceId, u16)> {
        self.rows.iter().map(|(id, row)| (id, row.door))
    }
}

fn out_of_range(pin: &Pin, ranges: &config::Ports) -> Option<Problem> {
    if ranges.backend_range.contains(pin.port) {
        let range = ranges.backend_range;
        let text = format!(
            "port {} lies in [ports] backend_range ({range}), where servers listen; choose one in {}",
            pin.port, ranges.range
        );
        return Some(pin.problem(text));
    }
    if !pin.privileged && !ranges.range.contains(pin.port) {
        let text = format!(
            "port {} lies outside [ports] range; in a file that root does not own, choose one in {}",
            pin.port, ranges.range
        );
        return Some(pin.problem(text));
    }
    None
}

fn none_left(id: &InstanceId, range: PortRange, key: &str) -> Problem {
    let text = format!(
        "no port left for \"{}\": {range} are all taken; widen [ports] {key} in mcpsup.toml",
        id.user
    );
    Problem::new("mcpsup.toml", text)
}

/// One bit per port.
struct Taken([u64; 1024]);

impl Taken {
    fn of(ports: &Ports) -> Self {
        let mut taken = Self([0; 1024]);
        for row in ports.rows.values() {
            taken.add(row.door);
            row.backend.into_iter().for_each(|port| taken.add(port));
        }
        taken
    }

    fn add(&mut self, port: u16) {
        self.0[usize::from(port / 64)] |= 1 << (port % 64);
    }

    fn has(&self, port: u16) -> bool {
        self.0[usize::from(port / 64)] & (1 << (port % 64)) != 0
    }
}

/// What is left of a range, from below; ports before `from` were found taken.
struct Free {
    range: PortRange,
    from: u16,
}

impl Free {
    fn next(&mut self, taken: &mut Taken, blocked: &BTreeSet<u16>) -> Option<u16> {
        let port = (self.from..=self.range.last).find(|port| !taken.has(*port) && !blocked.contains(port))?;
        taken.add(port);
        self.from = port;
        Some(port)
    }
}
