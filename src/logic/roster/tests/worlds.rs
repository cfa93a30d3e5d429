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
            "MCPSUP_RUN_AS=svc@",
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
            // Of each their own: who share one are kept from each other.
            for (number, uid) in (0..5).zip(900..) {
                world.account(&format!("svc{number}"), uid);
            }
            // Which ports and uids are given depends on who came first; from then on they are theirs.
            for (name, uid) in names.iter().zip(70_000..) {
                world.uids.found(&user(name), uid);
            }
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

/// What those of whom something changed are told is what everybody would be told, whatever the
/// sequence: files that come, break, ask for each other's ports and go, and ports that run out.
#[test]
fn asking_those_who_changed_gives_what_asking_everybody_gives() {
    let names = ["alice", "bob", "carol", "dave", "svc"];
    let more = Server { for_all: false, port_env: None, ..server() };
    let (mut narrow, mut shared) = (0, 0);
    for seed in 1..600 {
        let mut dice = Dice(0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(seed));
        let mut described = config(&[("notes", server()), ("more", more.clone())]);
        if seed % 2 == 0 {
            described.ports.range = "4900-4905".parse().unwrap();
            described.ports.backend_range = "20000-20004".parse().unwrap();
        }
        let world = || {
            let mut world = World::new();
            world.roster.set_config(Ok(described.clone()));
            world
        };
        let (mut some, mut every) = (world(), world());
        let mut listed = BTreeMap::new();
        let mut here = BTreeSet::new();
        for step in 0..12 {
            let whole = dice.roll(3) == 0;
            // Accounts are looked up again where everything is looked at.
            if whole && dice.roll(6) == 0 {
                for world in [&some, &every] {
                    for (name, uid) in [("svc", 900), ("svc0", 901), ("svc1", 902), ("svc2", 903)] {
                        world.account(name, uid);
                    }
                }
            }
            let mut files = BTreeMap::new();
            for name in names {
                let is_here = here.contains(name);
                let number = usize::try_from(dice.roll(3)).unwrap();
                let text = if dice.roll(3) == 0 { dice.file(number) } else { None };
                if text.is_some() || (whole && is_here && dice.roll(6) > 0) {
                    here.insert(name);
                    files.insert(name, text);
                } else if whole {
                    here.remove(name);
                }
            }
            let files: Vec<_> = files.iter().map(|(name, text)| (*name, text.as_deref())).collect();
            let mut changed = some.look(whole, &files);
            every.look(whole, &files);
            if dice.roll(8) == 0 {
                some.roster.set_config(Ok(described.clone()));
                every.roster.set_config(Ok(described.clone()));
            }
            if whole {
                let all = dice.roll(2) == 0;
                changed.extend(some.look_up_again(all));
                every.look_up_again(all);
            }
            let whom = some.roster.whom(changed);
            narrow += usize::from(matches!(&whom, Whom::Users(users) if !users.is_empty()));
            let new = some.of(&whom);
            listed.retain(|id: &InstanceId, _| !whom.has(&id.user));
            listed.extend(new);
            let displaced = some.roster.displaced();
            shared += displaced.len();
            if !displaced.is_empty() {
                let whom = some.roster.whom(displaced);
                listed.extend(some.of(&whom));
                assert_eq!(some.roster.displaced(), BTreeSet::new());
            }
            assert_eq!(listed, every.all(), "seed {seed}, step {step}");
            assert_eq!(some.ports, every.ports, "seed {seed}, step {step}");
            assert_eq!(some.roster.problems(), every.roster.problems(), "seed {seed}, step {step}");
        }
    }
    assert!(narrow > 500, "{narrow} looks showed that less than everything is enough");
    assert!(shared > 20, "{shared} were displaced by others");
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
