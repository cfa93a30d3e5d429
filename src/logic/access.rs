//! Who may do what.
//!
//! Three questions are answered here. At a door: does this request come from where it may, by its
//! Host and Origin headers ([`Hosts`]; DNS rebinding: a page of some site makes the browser's
//! name for that site point at the loopback address, and then speaks to the door as if it were
//! the site); and may whoever sends it use what is behind ([`Guard`]). At the control socket: may
//! this caller see and steer that instance ([`Caller`]).
//!
//! A uid stands for one user or for none: [`identities`] says for whom.
//!
//! Nothing here looks anything up: who the caller is comes from the kernel, through the edge.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::logic::token::Judged;
use crate::model::config::Access;
use crate::model::{Config, UserName};

/// Names by which a door may be called.
///
/// A rebound request still carries the attacker's *name* in Host and Origin, so names are compared
/// and ports are not: `ssh -L 8080:localhost:3456` and a browser tool on another local port are
/// honest.
#[derive(Debug, Clone, Copy)]
pub struct Hosts<'a> {
    /// Where the door listens. An unspecified address (`0.0.0.0`) names nothing: then the names
    /// by which others reach this host have to be in `extra`.
    pub listen: IpAddr,
    /// `[door] hosts`: names or addresses, without a port.
    pub extra: &'a [String],
}

impl Hosts<'_> {
    /// True if a request with this Host header is meant for this door. Absent is not (RFC 9112
    /// §3.2 demands one); nor is a value with user info, a path or a port that is no number.
    #[must_use]
    pub fn host_ok(&self, host: Option<&str>) -> bool {
        host.and_then(name_of).is_some_and(|name| self.knows(name))
    }

    /// True if a page of this Origin may speak to this door. Absent is fine: programs send none.
    /// `null` (a sandboxed frame, a local file) could be anybody and is refused.
    #[must_use]
    pub fn origin_ok(&self, origin: Option<&str>) -> bool {
        let Some(origin) = origin else { return true };
        let Some((scheme, rest)) = origin.split_once("://") else {
            return false;
        };
        let web = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
        web && self.host_ok(Some(rest))
    }

    fn knows(&self, name: &str) -> bool {
        if name.eq_ignore_ascii_case("localhost") {
            return true;
        }
        let listed = |known: &String| match (address(known), address(name)) {
            (Some(known), Some(ip)) => known == ip,
            (None, None) => known.eq_ignore_ascii_case(name),
            (Some(_), None) | (None, Some(_)) => false,
        };
        let own = |ip: IpAddr| {
            let loopback = [IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])];
            loopback.contains(&ip) || (ip == self.listen && !ip.is_unspecified())
        };
        address(name).is_some_and(own) || self.extra.iter().any(listed)
    }
}

/// The name of `name[:port]`, IPv6 addresses in brackets.
fn name_of(authority: &str) -> Option<&str> {
    let (name, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let end = rest.find(']')? + 2;
            authority.split_at(end)
        }
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let port = port.strip_prefix(':').unwrap_or(port);
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']');
    let good = !name.is_empty() && name.bytes().all(plain) && port.bytes().all(|b| b.is_ascii_digit());
    good.then_some(name)
}

/// An address as it is written in a Host header, or bare as in a configuration.
fn address(name: &str) -> Option<IpAddr> {
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    bare.unwrap_or(name).parse().ok()
}

/// Who calls at the control socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// Sees and steers everything.
    Admin,
    /// An ordinary user of the host, by uid.
    User(u32),
}

impl Caller {
    /// Who a peer is: root, the daemon's own uid and members of the `mcpsup` group are
    /// administrators. `uid` comes from the kernel (`SO_PEERCRED`), never from the caller.
    #[must_use]
    pub const fn of(uid: u32, daemon_uid: u32, in_group: bool) -> Self {
        if uid == 0 || uid == daemon_uid || in_group { Self::Admin } else { Self::User(uid) }
    }

    /// True if the caller may see and steer an instance whose user is `owner`. `None`: the user
    /// has no uid of their own (the name is no account, or the run shares the daemon's uid or
    /// another user's), so no uid identifies them.
    #[must_use]
    pub fn may_see(self, owner: Option<u32>) -> bool {
        match self {
            Self::Admin => true,
            Self::User(uid) => owner == Some(uid),
        }
    }
}

/// Who gets in at one door.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Guard {
    /// What the configuration says.
    pub access: Access,
    /// The uid that is the user's and nobody else's; see [`identities`].
    pub owner: Option<u32>,
    /// Root gets in where a uid is enough: the daemon is root's.
    pub admits_root: bool,
}

/// Why somebody does not get in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// Somebody else's socket, or nobody's any more, and no token.
    Stranger,
    /// A token is needed here, and there was none.
    NoToken,
    /// What was presented is no token of this user for this door.
    WrongToken,
    /// It was one.
    ExpiredToken,
}

impl Denied {
    /// For the log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stranger => "not the owner's connection",
            Self::NoToken => "no token",
            Self::WrongToken => "wrong token",
            Self::ExpiredToken => "expired token",
        }
    }
}

impl Guard {
    /// True if it matters here whose socket a client's is.
    #[must_use]
    pub const fn asks_uid(&self) -> bool {
        matches!(self.access, Access::Owner) && (self.owner.is_some() || self.admits_root)
    }

    /// True if a connection of this uid needs no token. `None`: nobody knows whose it is.
    #[must_use]
    pub fn knows(&self, peer: Option<u32>) -> bool {
        match (self.access, peer) {
            (Access::Open, _) => true,
            (Access::Owner, Some(0)) => self.admits_root,
            (Access::Owner, Some(uid)) => self.owner == Some(uid),
            (Access::Owner, None) | (Access::Token, _) => false,
        }
    }

    /// Whether a request may pass: `peer` is whose connection it came over, `token` what became of
    /// what it presented.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn admits(&self, peer: Option<u32>, token: Judged) -> Result<(), Denied> {
        if self.knows(peer) {
            return Ok(());
        }
        match token {
            Judged::Right => Ok(()),
            Judged::Wrong => Err(Denied::WrongToken),
            Judged::Expired => Err(Denied::ExpiredToken),
            // A token would do at either door. Who is plainly somebody else is told so; where no uid
            // identifies the user, that a token is what is missing.
            Judged::None if self.owner.is_some() && self.access == Access::Owner => Err(Denied::Stranger),
            Judged::None => Err(Denied::NoToken),
        }
    }
}

/// What an administrator should know of who can reach what a configuration describes.
#[must_use]
pub fn notes(config: &Config) -> Vec<String> {
    let mut notes = Vec::new();
    for (name, server) in &config.servers {
        if server.access == Access::Open {
            notes.push(format!(
                "server \"{name}\" says access = \"open\": every user of this host can use everybody's"
            ));
        }
        if server.listens() {
            notes.push(format!(
                "processes of server \"{name}\" listen on ports of their own: a program of any user of this host that finds one reaches it without passing the door"
            ));
        }
    }
    if !config.ports.listen.is_loopback() {
        let listen = config.ports.listen;
        notes.push(format!(
            "doors listen on {listen}, without TLS: tokens and contents can be read on the way"
        ));
    }
    notes
}

/// What a uid says: whose it is alone. `uids` are those by which each user is known on this host, and
/// those under which something of theirs runs: a uid with several users identifies none of them
/// (PRODUCT §7), for a process of one could else pass for another. Root is everybody's and nobody's.
/// The order of what comes out says nothing.
pub fn identities<'a>(uids: impl Iterator<Item = (&'a UserName, u32)>) -> HashMap<u32, Option<&'a UserName>> {
    let mut known = HashMap::with_capacity(uids.size_hint().0);
    for (user, uid) in uids.filter(|(_, uid)| *uid != 0) {
        let whose = known.entry(uid).or_insert(Some(user));
        if *whose != Some(user) {
            *whose = None;
        }
    }
    known
}

/// True if `uid` is the uid of several users: then it identifies none of them (PRODUCT §7), because
/// a process of one would see and steer what is another's.
#[must_use]
pub fn is_shared<'a>(uid: u32, users: impl Iterator<Item = (&'a UserName, Option<u32>)>) -> bool {
    let mut theirs = users.filter(|(_, owner)| *owner == Some(uid)).map(|(user, _)| user);
    theirs.next().is_some_and(|first| theirs.any(|user| user != first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_that_several_users_have_is_shared_and_one_with_several_servers_is_not() {
        let [alice, bob]: [UserName; 2] = ["alice", "bob"].map(|name| name.parse().unwrap());
        let users = [(&alice, Some(900)), (&alice, Some(900)), (&bob, Some(901)), (&bob, None)];
        assert!(!is_shared(900, users.into_iter()));
        assert!(is_shared(900, users.into_iter().chain([(&bob, Some(900))])));
    }

    #[test]
    fn a_uid_stands_for_one_user_or_for_none() {
        let [alice, bob]: [UserName; 2] = ["alice", "bob"].map(|name| name.parse().unwrap());
        let known = identities(
            [(&alice, 900), (&alice, 900), (&bob, 901), (&alice, 902), (&bob, 902), (&bob, 0)].into_iter(),
        );
        assert_eq!(known, HashMap::from([(900, Some(&alice)), (901, Some(&bob)), (902, None)]));
    }

    #[test]
    fn a_door_knows_its_owner_and_nobody_else() {
        let guard = Guard { access: Access::Owner, owner: Some(900), admits_root: true };
        assert_eq!(guard.admits(Some(900), Judged::None), Ok(()));
        assert_eq!(guard.admits(Some(0), Judged::None), Ok(()));
        for stranger in [Some(901), Some(u32::MAX), None] {
            assert_eq!(guard.admits(stranger, Judged::None), Err(Denied::Stranger));
            assert_eq!(guard.admits(stranger, Judged::Wrong), Err(Denied::WrongToken));
            assert_eq!(guard.admits(stranger, Judged::Expired), Err(Denied::ExpiredToken));
            assert_eq!(guard.admits(stranger, Judged::Right), Ok(()));
        }
    }

    #[test]
    fn root_is_let_in_by_roots_daemon_alone() {
        for owner in [Some(900), Some(0), None] {
            let guard = Guard { access: Access::Owner, owner, admits_root: false };
            assert!(guard.admits(Some(0), Judged::None).is_err(), "{owner:?}");
        }
    }

    #[test]
    fn where_no_uid_identifies_a_user_a_token_is_asked_for() {
        let guard = Guard { access: Access::Owner, owner: None, admits_root: false };
        assert_eq!(guard.admits(Some(900), Judged::None), Err(Denied::NoToken));
        assert_eq!(guard.admits(None, Judged::Right), Ok(()));
    }

    #[test]
    fn a_door_that_asks_for_a_token_asks_everybody() {
        let guard = Guard { access: Access::Token, owner: Some(900), admits_root: true };
        for peer in [Some(900), Some(0), Some(901), None] {
            assert_eq!(guard.admits(peer, Judged::None), Err(Denied::NoToken));
            assert_eq!(guard.admits(peer, Judged::Right), Ok(()));
        }
    }

    #[test]
    fn an_open_door_is_open() {
        let guard = Guard { access: Access::Open, owner: None, admits_root: false };
        assert_eq!(guard.admits(None, Judged::Wrong), Ok(()));
    }

    const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn hosts(extra: &[String]) -> Hosts<'_> {
        Hosts { listen: LOCAL, extra }
    }

    #[test]
    fn a_door_answers_to_the_names_of_this_machine_on_any_port() {
        for good in
            ["localhost", "LocalHost:3456", "127.0.0.1", "127.0.0.1:3456", "[::1]", "[::1]:80", "localhost:"]
        {
            assert!(hosts(&[]).host_ok(Some(good)), "{good}");
        }
    }

    #[test]
    fn a_rebound_name_is_refused() {
        for bad in [
            "",
            ":3456",
            "evil.example",
            "evil.example:3456",
            "localhost.evil.example",
            "evil.example@localhost",
            "localhost@evil.example",
            "localhost:3456@evil.example",
            "localhost:34x",
            "localhost/x",
            "localhost ",
            " localhost",
            "localhost,evil.example",
            "127.0.0.1.evil.example",
            "127.0.0.2",
            "127.1",
            "2130706433",
            "0.0.0.0",
            "[::]",
            "[::1",
            "::1",
            "[::1]x",
            "[::1]]",
            "[localhost]",
            "localhost.",
            "l\u{f6}calhost",
        ] {
            assert!(!hosts(&[]).host_ok(Some(bad)), "{bad:?}");
        }
        assert!(!hosts(&[]).host_ok(None));
    }

    #[test]
    fn configured_names_and_the_listening_address_are_known() {
        let extra = ["mcp.Example.org".to_owned(), "fd00::1".to_owned()];
        let hosts = Hosts { listen: IpAddr::from([10, 0, 0, 5]), extra: &extra };

        for good in ["MCP.example.org:443", "10.0.0.5:3456", "[fd00::1]:3456", "[FD00:0::1]"] {
            assert!(hosts.host_ok(Some(good)), "{good}");
        }
        assert!(!hosts.host_ok(Some("example.org")));
    }

    #[test]
    fn listening_everywhere_does_not_make_every_name_right() {
        let hosts = Hosts { listen: IpAddr::from([0, 0, 0, 0]), extra: &[] };

        assert!(!hosts.host_ok(Some("0.0.0.0:3456")));
        assert!(!hosts.host_ok(Some("10.0.0.5:3456")));
        assert!(hosts.host_ok(Some("localhost")));
    }

    #[test]
    fn only_pages_of_this_machine_may_speak_to_a_door() {
        for good in [None, Some("http://localhost:6274"), Some("https://127.0.0.1"), Some("HTTP://[::1]:1")] {
            assert!(hosts(&[]).origin_ok(good), "{good:?}");
        }
        for bad in [
            "",
            "null",
            "localhost",
            "http://",
            "http://evil.example",
            "https://localhost.evil.example",
            "http://localhost:3456/path",
            "http://localhost@evil.example",
            "file://localhost",
            "chrome-extension://localhost",
            "http://http://localhost",
        ] {
            assert!(!hosts(&[]).origin_ok(Some(bad)), "{bad:?}");
        }
    }

    #[test]
    fn a_user_sees_their_own_instances_and_an_administrator_everybodys() {
        let alice = Caller::of(1001, 990, false);

        assert!(alice.may_see(Some(1001)));
        assert!(!alice.may_see(Some(1002)));
        assert!(!alice.may_see(None));
        for admin in [Caller::of(0, 990, false), Caller::of(990, 990, false), Caller::of(1001, 990, true)] {
            assert_eq!(admin, Caller::Admin);
            assert!(admin.may_see(None) && admin.may_see(Some(1002)));
        }
    }
}
