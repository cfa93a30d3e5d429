//! A process that dies comes back behind the same door.

use mcpsup::model::status::StateName;

use crate::host::{Host, end, is_alive};

#[test]
fn a_killed_server_answers_again_at_the_same_door_and_nobody_else_is_touched() {
    let mut host = Host::with_notes();
    host.save("alice", "NOTES_TOKEN=alices-own-token\n");
    host.save("bob", "NOTES_TOKEN=bobs-own-token\n");
    host.start();
    host.until_all_up(2);
    let (alice, bob) = (host.instance("alice"), host.instance("bob"));
    assert!(host.call("alice", "whoami", "{}").unwrap().contains("alice"));

    let pid = i32::try_from(alice.pid.unwrap()).unwrap();
    end(alice.pid.unwrap());
    // What a dying process may have taken is not sent twice, but answered with 502.
    host.until("it is dead", || !is_alive(pid));

    assert!(host.call("alice", "whoami", "{}").unwrap().contains("alice"));
    let again = host.until_state("alice", StateName::Up);
    assert_eq!(again.port, alice.port);
    assert!(again.run > alice.run);
    assert_eq!(host.instance("bob").run, bob.run);
}
