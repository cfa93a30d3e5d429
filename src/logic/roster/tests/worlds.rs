//! Many users at once.

use super::*;
use crate::logic::ports::Asked;

/// A small generator of its own (xorshift64*), so that a failing world can be told by its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % sides
    }

    /// A file, or none; `number` is the user's own, so that no two ask for one port.
    fn file(&mut self, number: usize) -> Option<String> {
        const LINES: [&str; 12] = [
            "TOKEN=tok-1234567",
            "TOKEN=bad",
            "OTHER=some-long-value",
            "MCPSUP_SERVERS=more",
            "MCPSUP_SERVERS=mroe",
            "MCPSUP_ENABLED=false",
            "MCPSUP_PORT_NOTES=490@",
            "MCPSUP_PORT_MORE=3000@",
            "MCPSUP_RUN_AS=svc",
            "nonsense",
            "LD_PRELOAD=x",
            "MCPSUP_WHAT=1",
        ];
        (self.roll(6) > 0).then(|| {
            let mut lines: Vec<&str> = Vec::new();
            for _ in 0..self.roll(4) {
                let line = LINES[usize::try_from(self.roll(LINES.len() as u64)).unwrap()];
                if !lines.iter().any(|it| it.split('=').next() == line.split('=').next()) {
                    lines.push(line);
                }
            }
            if self.roll(3) > 0 && !lines.iter().any(|it| it.starts_with("TOKEN")) {
                lines.push(LINES[0]);
            }
            lines.join("\n").replace('@', &number.to_string())
        })
    }
}

#[test]
fn what_happens_to_one_user_is_the_same_whether_or_not_the_others_exist() {
    let names = ["alice", "bob", "carol", "dave", "svc"];
    let more = Server { for_all: false, port_env: None, ..server() };
    let servers = [("notes", server()), ("more", more)];
    for seed in 1..300 {
        let mut dice = Dice(0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(seed));
        let world = || {
            let mut world = World::new();
            world.roster.set_config(Ok(config(&servers)));
            world.account("svc", 900);
            // Which ports are given depends on who came first; from then on they are theirs.
            let ids = names.iter().flat_map(|name| {
                servers.iter().map(|(server, _)| InstanceId::new(user(name), server.parse().unwrap()))
            });
            let wanted: Vec<_> = ids.map(|id| Asked { id, pin: None, listens: true }).collect();
            world.ports.assign(&config(&servers).ports, &wanted, &BTreeSet::new());
            world
        };
        let mut together = world();
        let mut alone: Vec<_> = names.iter().map(|_| world()).collect();
        for step in 0..6 {
            let uid = if dice.roll(4) == 0 { 1001 } else { 0 };
            let files: Vec<_> = (0..).zip(names).map(|(number, name)| (name, dice.file(number))).collect();
            let present: Vec<_> = files
                .iter()
                .filter(|(_, text)| text.is_some())
                .map(|(name, text)| (*name, text.as_deref()))
                .collect();
            together.uid = uid;
            together.files(&present);
            let all = together.all();
            for (name, world) in names.iter().zip(&mut alone) {
                let of = |all: &BTreeMap<InstanceId, Listed>| {
                    all.iter()
                        .filter(|(id, _)| id.user.as_str() == *name)
                        .map(|(id, it)| (id.clone(), it.clone()))
                        .collect::<Vec<_>>()
                };
                world.uid = uid;
                world.files(&present.iter().copied().filter(|(it, _)| it == name).collect::<Vec<_>>());
                assert_eq!(of(&all), of(&world.all()), "seed {seed}, step {step}, {name}");
            }
        }
    }
}

#[test]
fn one_more_among_a_thousand_users_derives_only_that_one() {
    let mut world = World::new();
    let names: Vec<_> = (0..1000).map(|number| format!("u{number}")).collect();
    let mut files: Vec<_> = names.iter().map(|name| (name.as_str(), Some(GOOD))).collect();
    world.files(&files);
    let before = world.all();
    for (_, text) in &mut files {
        *text = None;
    }
    files.push(("zoe", Some(GOOD)));
    world.files(&files);
    let after = world.all();
    assert_eq!(after.len(), 1001);
    for (id, listed) in &before {
        assert!(Arc::ptr_eq(&spec(listed), &spec(&after[id])));
    }
}
