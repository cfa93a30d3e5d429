//! Ports over time: who keeps, who is refused, who moves.

use super::*;

fn id(text: &str) -> InstanceId {
    let (user, server) = text.split_once('/').unwrap_or((text, "notes"));
    InstanceId::new(user.parse().unwrap(), server.parse().unwrap())
}

fn ranges(range: &str, backend_range: &str) -> config::Ports {
    config::Ports {
        listen: [127, 0, 0, 1].into(),
        range: range.parse().unwrap(),
        backend_range: backend_range.parse().unwrap(),
    }
}

#[allow(clippy::unnecessary_wraps, reason = "it stands where there may be no pin")]
fn pin(port: u16) -> Option<Pin> {
    let (name_of_setting, file) = ("MCPSUP_PORT".to_owned(), "env.d/x.env".to_owned());
    Some(Pin { port, name_of_setting, file, line: 2, privileged: false })
}

struct Table {
    ports: Ports,
    ranges: config::Ports,
    blocked: BTreeSet<u16>,
}

impl Table {
    fn new() -> Self {
        Self { ports: Ports::default(), ranges: ranges("4100-4109", "20000-20009"), blocked: BTreeSet::new() }
    }

    /// Doors, or problems, of these.
    fn assign(&mut self, wanted: &[(&str, Option<Pin>)]) -> Vec<Result<u16, String>> {
        let asked: Vec<_> = wanted
            .iter()
            .map(|(name, pin)| Asked { id: id(name), pin: pin.clone(), listens: true })
            .collect();
        let answers = self.ports.assign(&self.ranges, &asked, &self.blocked);
        assert_eq!(answers.len(), wanted.len());
        let door = |given: &Result<Given, Problem>| match given {
            Ok(given) => Ok(given.door),
            Err(problem) => Err(problem.to_string()),
        };
        wanted.iter().map(|(name, _)| door(&answers[&id(name)])).collect()
    }
}

#[test]
fn who_does_not_listen_has_no_backend_and_gives_back_the_one_it_had() {
    let mut table = Table::new();
    assert_eq!(table.assign(&[("alice", None)]), [Ok(4100)]);
    assert_eq!(table.ports.backend(&id("alice")), Some(20000));
    let asked = [Asked { id: id("alice"), pin: None, listens: false }];
    let answers = table.ports.assign(&table.ranges, &asked, &table.blocked);
    assert_eq!(answers[&id("alice")], Ok(Given { door: 4100, backend: None }));
    assert_eq!(table.ports.backend(&id("alice")), None);
    assert_eq!(table.assign(&[("bob", None)]), [Ok(4101)]);
    assert_eq!(table.ports.backend(&id("bob")), Some(20000));
}

#[test]
fn a_port_once_given_stays_whoever_comes_and_goes() {
    let mut table = Table::new();
    assert_eq!(table.assign(&[("bob", None)]), [Ok(4100)]);
    assert_eq!(table.assign(&[("alice", None), ("bob", None)]), [Ok(4101), Ok(4100)]);
    table.assign(&[]);
    assert_eq!(table.assign(&[("carol", None), ("alice", None)]), [Ok(4102), Ok(4101)]);
    table.ranges = ranges("5000-5009", "20000-20009");
    assert_eq!(table.assign(&[("alice", None), ("dave", None)]), [Ok(4101), Ok(5000)]);
    table.ports.remove_user(&"alice".parse().unwrap());
    table.ranges = ranges("4100-4109", "20000-20009");
    assert_eq!(table.assign(&[("erin", None)]), [Ok(4101)]);
}

#[test]
fn the_table_is_the_same_after_it_was_kept() {
    let mut table = Table::new();
    table.assign(&[("bob", None), ("alice/a", pin(4105)), ("alice/b", None)]);
    let json = serde_json::to_string(&table.ports).unwrap();
    assert_eq!(serde_json::from_str::<Ports>(&json).unwrap(), table.ports);
    assert!(
        json.starts_with(r#"{"version":1,"instances":[{"user":"alice","server":"a","door":4105,"#),
        "{json}"
    );
    for bad in [
        r#"{"version":2,"instances":[]}"#,
        r#"{"version":1,"instances":[{"user":"a","server":"s","door":1,"backend":1}]}"#,
        r#"{"version":1,"instances":[{"user":"../a","server":"s","door":1}]}"#,
    ] {
        assert!(serde_json::from_str::<Ports>(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_pin_moves_the_door_and_the_port_stays_when_the_pin_goes() {
    let mut table = Table::new();
    assert_eq!(table.assign(&[("alice", None)]), [Ok(4100)]);
    assert_eq!(table.assign(&[("alice", pin(4107))]), [Ok(4107)]);
    assert_eq!(table.assign(&[("alice", None), ("bob", None)]), [Ok(4107), Ok(4100)]);
}

#[test]
fn a_pin_on_somebody_elses_port_names_its_owner_and_changes_nothing() {
    let mut table = Table::new();
    table.assign(&[("alice", None), ("bob", None)]);
    let refusal = "env.d/x.env:2: MCPSUP_PORT: port 4100 is alice/notes's; choose another".to_owned();
    assert_eq!(table.assign(&[("bob", pin(4100)), ("alice", None)]), [Err(refusal.clone()), Ok(4100)]);
    assert_eq!(table.ports.door(&id("bob")), Some(4101));
    // Also while alice's file is gone.
    assert_eq!(table.assign(&[("zoe", pin(4100))]), [Err(refusal)]);
    assert_eq!(table.ports.door(&id("zoe")), None);
}

#[test]
fn of_two_pins_on_one_port_the_first_name_keeps_it() {
    let mut table = Table::new();
    let answers = table.assign(&[("bob", pin(4105)), ("alice", pin(4105))]);
    assert_eq!(answers[1], Ok(4105));
    assert!(answers[0].as_ref().unwrap_err().contains("port 4105 is alice/notes's"));
}

#[test]
fn a_pin_may_take_the_port_that_another_pin_leaves() {
    let mut table = Table::new();
    table.assign(&[("alice", None), ("bob", None)]);
    assert_eq!(table.assign(&[("alice", pin(4101)), ("bob", pin(4102))]), [Ok(4101), Ok(4102)]);
}

#[test]
fn pins_may_change_places_in_one_save_and_break_off_where_one_cannot_move() {
    let mut table = Table::new();
    table.assign(&[("alice", None), ("bob", None), ("carol", None), ("dave", None)]);
    let circle = [("alice", pin(4101)), ("bob", pin(4102)), ("carol", pin(4100)), ("dave", None)];
    assert_eq!(table.assign(&circle), [Ok(4101), Ok(4102), Ok(4100), Ok(4103)]);

    // Carol waits for dave, who stays; so nobody of the circle can move.
    let broken = [("alice", pin(4102)), ("bob", pin(4100)), ("carol", pin(4103)), ("dave", None)];
    let answers = table.assign(&broken);
    assert!(answers[..3].iter().all(Result::is_err), "{answers:?}");
    assert_eq!(
        ["alice", "bob", "carol"].map(|name| table.ports.door(&id(name))),
        [Some(4101), Some(4102), Some(4100)]
    );
}

#[test]
fn only_a_file_of_root_may_leave_the_range_and_none_may_enter_the_backends() {
    let mut table = Table::new();
    let refusal = table.assign(&[("alice", pin(443))]).remove(0).unwrap_err();
    assert!(
        refusal.ends_with(
            "port 443 lies outside [ports] range; in a file that root does not own, choose one in 4100-4109"
        ),
        "{refusal}"
    );
    let by_root = pin(443).map(|pin| Pin { privileged: true, ..pin });
    assert_eq!(table.assign(&[("alice", by_root)]), [Ok(443)]);
    let backend = pin(20005).map(|pin| Pin { privileged: true, ..pin });
    assert!(
        table
            .assign(&[("bob", backend)])
            .remove(0)
            .unwrap_err()
            .contains("lies in [ports] backend_range (20000-20009)")
    );
}

#[test]
fn an_exhausted_range_says_what_to_widen() {
    let mut table = Table::new();
    table.ranges = ranges("4100-4100", "20000-20009");
    let answers = table.assign(&[("alice", None), ("zoe", None)]);
    assert_eq!(answers[1], Err("mcpsup.toml: no port left for \"zoe\": 4100-4100 are all taken; widen [ports] range in mcpsup.toml".to_owned()));
    table.ranges = ranges("4100-4109", "20000-20000");
    let answers = table.assign(&[("alice", None), ("zoe", None)]);
    assert!(
        answers[1].as_ref().unwrap_err().contains("20000-20000 are all taken; widen [ports] backend_range")
    );
    // Her door is hers all the same.
    assert_eq!(table.ports.door(&id("zoe")), Some(4101));
}

#[test]
fn ports_taken_on_this_host_are_not_given() {
    let mut table = Table::new();
    table.blocked = BTreeSet::from([4100, 20000]);
    assert_eq!(table.assign(&[("alice", None)]), [Ok(4101)]);
    assert_eq!(table.ports.backend(&id("alice")), Some(20001));
}

#[test]
fn a_backend_is_nobodys_door_and_nobodys_pin_and_can_be_moved() {
    let mut table = Table::new();
    table.ranges = ranges("20000-20001", "4100-4109");
    table.assign(&[("alice", None)]);
    table.ranges = ranges("4100-4109", "20000-20002");
    table.assign(&[("bob", None), ("carol", None)]);
    assert_eq!(table.ports.door(&id("alice")), Some(20000));
    assert_eq!(table.ports.door(&id("bob")), Some(4101), "4100 is alice's backend");
    assert_eq!(table.ports.backend(&id("bob")), Some(20001));
    assert_eq!(table.ports.backend(&id("carol")), Some(20002));
    let ports = &mut table.ports;
    assert_eq!(ports.move_backend(&table.ranges, &id("bob"), &BTreeSet::new()), None);
    ports.remove_user(&"carol".parse().unwrap());
    assert_eq!(ports.move_backend(&table.ranges, &id("bob"), &BTreeSet::new()), Some(20002));
    assert_eq!(ports.move_backend(&table.ranges, &id("bob"), &BTreeSet::from([20001])), None);
    assert_eq!(ports.move_backend(&table.ranges, &id("nobody"), &BTreeSet::new()), None);
}

#[test]
fn a_thousand_users_each_get_two_ports_of_their_own() {
    let mut table = Table::new();
    table.ranges = ranges("3456-5999", "20000-29999");
    let wanted: Vec<_> =
        (0..1000).map(|number| Asked { id: id(&format!("u{number}")), pin: None, listens: true }).collect();
    let answers = table.ports.assign(&table.ranges, &wanted, &BTreeSet::new());
    let all: BTreeSet<_> = answers
        .values()
        .flat_map(|given| {
            let given = given.as_ref().unwrap();
            [given.door, given.backend.unwrap()]
        })
        .collect();
    assert_eq!(all.len(), 2000);
}

#[test]
fn a_gift_that_is_taken_back_is_given_again_elsewhere() {
    let mut table = Table::new();
    assert_eq!(table.assign(&[("alice", None), ("bob", None)]), [Ok(4100), Ok(4101)]);

    table.ports.take_back(&id("alice"));
    table.blocked.insert(4100);

    assert_eq!(table.assign(&[("alice", None), ("bob", None)]), [Ok(4102), Ok(4101)]);
}
