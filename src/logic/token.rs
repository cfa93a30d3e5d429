//! Tokens: what a request bears that does not come over its user's own socket.
//!
//! Each user has one that lasts, made of 256 random bits. It is seldom handed out: what programs are
//! given is a short-lived one, which is the time of its end and a MAC of that under the lasting one,
//! for all of a user's doors or for one. So nothing is kept of those, and a new lasting one ends
//! them all.
//!
//! Nothing here reads a clock: `now` is seconds since 1970, on the wall clock, because a token must
//! end though the machine was started again.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::model::{InstanceId, Secret, ServerName, UserName};

/// How long a short-lived token is good for, in seconds: a day's work, because some clients ask
/// their helper only when they connect.
pub const LIFE: u64 = 12 * 60 * 60;

/// How a lasting token begins: secret scanners know a thing by its beginning.
const LASTING: &str = "mcpsup_";
/// How a short-lived one does.
const SHORT: &str = "mcpsup-until_";

/// What became of what a request presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judged {
    /// Nothing was presented.
    None,
    /// A token of this user for this door.
    Right,
    /// No such thing.
    Wrong,
    /// It was one, until its time was over.
    Expired,
}

/// A user's lasting token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token(Secret);

impl Token {
    /// Made of random bytes.
    #[must_use]
    pub fn new(random: &[u8; 32]) -> Self {
        Self(Secret::new(format!("{LASTING}{}", URL_SAFE_NO_PAD.encode(random))))
    }

    /// One that was kept; `None` if it is none.
    #[must_use]
    pub fn kept(text: Secret) -> Option<Self> {
        let random = URL_SAFE_NO_PAD.decode(text.reveal().strip_prefix(LASTING)?).ok()?;
        (random.len() == 32).then_some(Self(text))
    }

    /// The token itself.
    #[must_use]
    pub const fn text(&self) -> &Secret {
        &self.0
    }

    /// One for the doors of `user`, or for that of one server, that is good until [`LIFE`] from now.
    #[must_use]
    pub fn short(&self, user: &UserName, server: Option<&ServerName>, now: u64) -> Secret {
        let end = now.saturating_add(LIFE);
        let mac = self.mac(user, server, end).finalize().into_bytes();
        Secret::new(format!("{SHORT}{end}.{}", URL_SAFE_NO_PAD.encode(mac)))
    }

    /// Whether `presented` opens the door of `id`. How long that takes says nothing of the token.
    #[must_use]
    pub fn judge(&self, id: &InstanceId, presented: &str, now: u64) -> Judged {
        let Some(rest) = presented.strip_prefix(SHORT) else {
            // Two MACs under the two keys are the same where the keys are; their lengths do not show.
            let is_it = said(presented).verify(&said(self.0.reveal()).finalize().into_bytes()).is_ok();
            return if is_it { Judged::Right } else { Judged::Wrong };
        };
        let Some((end, mac)) = rest.split_once('.') else { return Judged::Wrong };
        let (Ok(end), Ok(mac)) = (end.parse::<u64>(), URL_SAFE_NO_PAD.decode(mac)) else {
            return Judged::Wrong;
        };
        let is_of = |server| self.mac(&id.user, server, end).verify_slice(&mac).is_ok();
        match is_of(Some(&id.server)) | is_of(None) {
            true if now < end => Judged::Right,
            true => Judged::Expired,
            false => Judged::Wrong,
        }
    }

    fn mac(&self, user: &UserName, server: Option<&ServerName>, end: u64) -> Hmac<Sha256> {
        let mut mac = keyed(self.0.reveal());
        // A slash is in no name, and a time is nothing but digits.
        mac.update(format!("short 1 {user}/{} {end}", server.map_or("", ServerName::as_str)).as_bytes());
        mac
    }
}

fn said(token: &str) -> Hmac<Sha256> {
    let mut mac = keyed(token);
    mac.update(b"lasting 1");
    mac
}

/// Under a key of any length (RFC 2104).
fn keyed(key: &str) -> Hmac<Sha256> {
    use sha2::Digest as _;
    let mut block = zeroize::Zeroizing::new([0; 64]);
    if key.len() > block.len() {
        block[..32].copy_from_slice(&Sha256::digest(key.as_bytes()));
    } else {
        block[..key.len()].copy_from_slice(key.as_bytes());
    }
    Hmac::new(&(*block).into())
}

/// What an Authorization header presents: the token of `Bearer TOKEN` (RFC 6750), in whatever case
/// the first word is written; `None` for any other scheme.
#[must_use]
pub fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> InstanceId {
        let (user, server) = text.split_once('/').unwrap();
        InstanceId::new(user.parse().unwrap(), server.parse().unwrap())
    }

    #[test]
    fn a_token_is_its_users_and_nobody_elses() {
        let (alice, bob) = (Token::new(&[1; 32]), Token::new(&[2; 32]));
        let text = alice.text().reveal();
        assert_eq!(alice.judge(&id("alice/notes"), text, 0), Judged::Right);
        assert_eq!(bob.judge(&id("bob/notes"), text, 0), Judged::Wrong);
        for wrong in ["", "mcpsup_", &text[..text.len() - 1], &format!("{text}x"), &text.to_uppercase()] {
            assert_eq!(alice.judge(&id("alice/notes"), wrong, 0), Judged::Wrong, "{wrong}");
        }
    }

    #[test]
    fn a_short_lived_token_opens_its_doors_until_its_time_is_over() {
        let token = Token::new(&[1; 32]);
        let (alice, notes) = (&id("alice/notes").user, &id("alice/notes").server);
        let all = token.short(alice, None, 1000);
        let one = token.short(alice, Some(notes), 1000);
        for (short, door, judged) in [
            (&all, "alice/notes", Judged::Right),
            (&all, "alice/mail", Judged::Right),
            (&one, "alice/notes", Judged::Right),
            (&one, "alice/mail", Judged::Wrong),
            // Had the two users one token.
            (&all, "bob/notes", Judged::Wrong),
            (&one, "bob/notes", Judged::Wrong),
        ] {
            assert_eq!(token.judge(&id(door), short.reveal(), 1000 + LIFE - 1), judged, "{door}");
        }
        assert_eq!(token.judge(&id("alice/notes"), one.reveal(), 1000 + LIFE), Judged::Expired);
        assert_eq!(Token::new(&[2; 32]).judge(&id("alice/notes"), all.reveal(), 1000), Judged::Wrong);
    }

    #[test]
    fn the_end_of_a_short_lived_token_cannot_be_moved() {
        let token = Token::new(&[1; 32]);
        let door = id("alice/notes");
        let short = token.short(&door.user, None, 1000);
        let (end, mac) = short.reveal().strip_prefix(SHORT).unwrap().split_once('.').unwrap();
        for wrong in [
            format!("{SHORT}{}.{mac}", u64::MAX),
            format!("{SHORT}0{end}1.{mac}"),
            format!("{SHORT}{end}."),
            format!("{SHORT}{end}.{}", &mac[..20]),
            format!("{SHORT}.{mac}"),
            format!("{SHORT}-1.{mac}"),
            format!("{SHORT}{end}"),
        ] {
            assert_eq!(token.judge(&door, &wrong, 1000), Judged::Wrong, "{wrong}");
        }
    }

    #[test]
    fn what_was_kept_is_a_token_or_nothing() {
        let token = Token::new(&[7; 32]);
        assert_eq!(Token::kept(token.text().clone()), Some(token));
        for other in ["", "mcpsup_", "mcpsup_AAAA", "hunter2"] {
            assert_eq!(Token::kept(Secret::new(other)), None, "{other}");
        }
    }

    #[test]
    fn a_header_presents_a_token_by_its_scheme() {
        assert_eq!(bearer("Bearer abc"), Some("abc"));
        assert_eq!(bearer("bEARER   abc "), Some("abc"));
        for other in ["", "abc", "Basic abc", "Bearer", "BearerX abc"] {
            assert_eq!(bearer(other), None, "{other}");
        }
    }
}
