//! From a request's line and body to what is asked; no I/O. The table is in
//! [`protocol`](super::protocol).

use std::str::FromStr;
use std::time::Duration;

use hyper::{Method, StatusCode};

use super::protocol::{Request, Target};
use crate::model::{Secret, Wish};

/// What can be asked, for whoever asked something else.
pub const ROUTES: &str = "GET /v1/status, POST /v1/start, POST /v1/stop, POST /v1/restart, \
                          GET /v1/ports, GET /v1/logs, POST /v1/token, DELETE /v1/users/NAME, POST /v1/reload, \
                          POST /v1/set, POST /v1/unset, POST /v1/enable, POST /v1/disable, \
                          POST /v1/mcp/USER/SERVER";

/// The longest a request for a later status waits.
pub const MAX_WAIT: Duration = Duration::from_secs(60);

/// The most lines of a log that are given at once.
pub const MAX_LINES: usize = 100_000;

/// How many lines of a log are given if nothing is said.
const LINES: usize = 100;

/// A request, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// One question, one answer.
    Once(Request),
    /// The status once its generation is later than `after`, or when `wait` is over.
    StatusAfter {
        /// Whose.
        target: Target,
        /// A later generation than this one.
        after: u64,
        /// At most [`MAX_WAIT`].
        wait: Duration,
    },
    /// An instance's log.
    Logs {
        /// Whose.
        target: Target,
        /// How many lines to begin with, at most [`MAX_LINES`].
        lines: usize,
        /// Go on with what is written later.
        follow: bool,
    },
}

/// Where the ways to the instances begin.
const MCP: &str = "/v1/mcp";

/// Whose instance a path leads to; `None` if to none. Names may be left out from the end.
///
/// # Errors
///
/// 400 for what is no name, and for anything that an instance's own path or query would be.
#[must_use]
pub fn instance(path: &str, query: Option<&str>) -> Option<Result<Target, Misunderstanding>> {
    let rest = path.strip_prefix(MCP)?;
    if !rest.is_empty() && !rest.starts_with('/') {
        return None;
    }
    let mut names = rest.split('/').skip(1);
    let mut target = || {
        Query(query.unwrap_or_default()).only(&[])?;
        // No user's name; so is the caller meant whose server is named.
        let user = names.next().filter(|name| *name != "-").map(str::parse).transpose();
        let server = names.next().map(str::parse).transpose();
        if names.next().is_some() {
            return Err(wrong(format!("cannot understand {path}; there is {MCP}/USER/SERVER")));
        }
        Ok(Target {
            user: user.map_err(|error| wrong(format!("cannot understand the user: {error}")))?,
            server: server.map_err(|error| wrong(format!("cannot understand the server: {error}")))?,
            all: false,
        })
    };
    Some(target())
}

/// Why it was not understood: the status of the answer, and its text.
pub type Misunderstanding = (StatusCode, String);

/// Understands a request.
///
/// # Errors
///
/// 400, 404 or 405 and what to ask instead.
pub fn route(method: &Method, path: &str, query: Option<&str>, body: &[u8]) -> Result<Ask, Misunderstanding> {
    let query = Query(query.unwrap_or_default());
    let wants = |expected: Method| {
        if *method == expected {
            return Ok(());
        }
        let text = format!("cannot {method} {path}; there is {ROUTES}");
        Err((StatusCode::METHOD_NOT_ALLOWED, text))
    };
    let posted = || {
        wants(Method::POST)?;
        query.only(&[])?;
        target_of(body)
    };
    // What changes the caller's own file, or a named user's: a variable of it, or a server.
    let named = || {
        wants(Method::POST)?;
        query.only(&["user", "name"])?;
        let name = query.get("name").ok_or_else(|| wrong("say ?name=NAME".to_owned()))?;
        Ok((query.target()?.user, name.to_owned()))
    };
    let chosen = || {
        wants(Method::POST)?;
        query.only(&["user", "server"])?;
        let Target { user, server, .. } = query.target()?;
        Ok((user, server.ok_or_else(|| wrong("say ?server=SERVER".to_owned()))?))
    };
    if let Some(name) = path.strip_prefix("/v1/users/") {
        wants(Method::DELETE)?;
        query.only(&[])?;
        let user = name.parse().map_err(|error| wrong(format!("cannot remove a user: {error}")))?;
        return Ok(Ask::Once(Request::Remove(user)));
    }
    match path {
        "/v1/status" => {
            wants(Method::GET)?;
            query.only(&["user", "server", "after", "wait"])?;
            let target = query.target()?;
            let wait = Duration::from_secs(query.number("wait")?.unwrap_or(0)).min(MAX_WAIT);
            Ok(match query.number("after")? {
                Some(after) => Ask::StatusAfter { target, after, wait },
                None => Ask::Once(Request::Status(target)),
            })
        }
        "/v1/ports" => {
            wants(Method::GET)?;
            query.only(&[])?;
            Ok(Ask::Once(Request::Ports))
        }
        "/v1/logs" => {
            wants(Method::GET)?;
            query.only(&["user", "server", "lines", "follow"])?;
            let lines = query.number("lines")?.unwrap_or(LINES);
            if lines > MAX_LINES {
                return Err(wrong(format!("cannot give {lines} lines; {MAX_LINES} is the most")));
            }
            let follow = query.number("follow")?.unwrap_or(false);
            Ok(Ask::Logs { target: query.target()?, lines, follow })
        }
        "/v1/start" => Ok(Ask::Once(Request::Start(posted()?))),
        "/v1/stop" => Ok(Ask::Once(Request::Stop(posted()?))),
        "/v1/restart" => Ok(Ask::Once(Request::Restart(posted()?))),
        "/v1/token" => {
            wants(Method::POST)?;
            query.only(&["lasting", "renew"])?;
            let (lasting, renew) = (query.number("lasting")?, query.number("renew")?);
            let (lasting, renew) = (lasting.unwrap_or(false), renew.unwrap_or(false));
            Ok(Ask::Once(Request::Token { target: target_of(body)?, lasting, renew }))
        }
        "/v1/reload" => {
            wants(Method::POST)?;
            query.only(&[])?;
            Ok(Ask::Once(Request::Reload))
        }
        SET => {
            let (user, name) = named()?;
            let value = str::from_utf8(body);
            let value = value.map_err(|_| wrong("cannot take a value that is not UTF-8".to_owned()))?;
            Ok(Ask::Once(Request::Wish(user, Wish::Set { name, value: Secret::new(value) })))
        }
        "/v1/unset" => named().map(|(user, name)| Ask::Once(Request::Wish(user, Wish::Unset { name }))),
        "/v1/enable" => chosen().map(|(user, it)| Ask::Once(Request::Wish(user, Wish::Enable(it)))),
        "/v1/disable" => chosen().map(|(user, it)| Ask::Once(Request::Wish(user, Wish::Disable(it)))),
        _ => Err((StatusCode::NOT_FOUND, format!("there is no {path}; there is {ROUTES}"))),
    }
}

/// Where a body is a secret.
pub const SET: &str = "/v1/set";

fn wrong(text: String) -> Misunderstanding {
    (StatusCode::BAD_REQUEST, text)
}

/// No body means the caller's own instances, as an empty object does.
fn target_of(body: &[u8]) -> Result<Target, Misunderstanding> {
    let body = body.trim_ascii();
    if body.is_empty() {
        return Ok(Target::default());
    }
    // serde would take a list as well, with nobody's names in it.
    if !body.starts_with(b"{") {
        return Err(wrong("cannot understand the request's body: expected {\"user\": …}".to_owned()));
    }
    let target: Target = serde_json::from_slice(body)
        .map_err(|error| wrong(format!("cannot understand the request's body: {error}")))?;
    if target.all && (target.user.is_some() || target.server.is_some()) {
        return Err(wrong("cannot mean all and one; leave out \"all\" or the names".to_owned()));
    }
    Ok(target)
}

/// A query string. Names and numbers need no percent-encoding, so there is none.
struct Query<'a>(&'a str);

impl Query<'_> {
    fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        let parts = self.0.split('&').filter(|part| !part.is_empty());
        parts.map(|part| part.split_once('=').unwrap_or((part, "")))
    }

    fn only(&self, known: &[&str]) -> Result<(), Misunderstanding> {
        match self.pairs().find(|(key, _)| !known.contains(key)) {
            None => Ok(()),
            Some((key, _)) if known.is_empty() => {
                Err(wrong(format!("cannot understand {key:?}; nothing is asked here after '?'")))
            }
            Some((key, _)) => Err(wrong(format!("cannot understand {key:?}; there is {}", known.join(", ")))),
        }
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.pairs().find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    fn number<T: FromStr>(&self, key: &str) -> Result<Option<T>, Misunderstanding> {
        let read =
            |value: &str| value.parse().map_err(|_| wrong(format!("cannot understand {value:?} as {key}")));
        self.get(key).map(read).transpose()
    }

    fn target(&self) -> Result<Target, Misunderstanding> {
        let user = self.get("user").map(str::parse).transpose();
        let server = self.get("server").map(str::parse).transpose();
        Ok(Target {
            user: user.map_err(|error| wrong(format!("cannot understand the user: {error}")))?,
            server: server.map_err(|error| wrong(format!("cannot understand the server: {error}")))?,
            all: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(path: &str, query: &str) -> Result<Ask, Misunderstanding> {
        route(&Method::GET, path, Some(query), b"")
    }

    fn status(result: &Result<Ask, Misunderstanding>) -> u16 {
        result.as_ref().err().map_or(200, |(status, _)| status.as_u16())
    }

    #[test]
    fn a_question_says_whose() {
        let target = Target { user: Some("alice".parse().unwrap()), server: None, all: false };
        assert_eq!(get("/v1/status", "user=alice"), Ok(Ask::Once(Request::Status(target.clone()))));
        assert_eq!(
            get("/v1/logs", "user=alice&lines=7&follow=true"),
            Ok(Ask::Logs { target, lines: 7, follow: true })
        );
    }

    #[test]
    fn nobody_waits_longer_than_a_minute() {
        let Ok(Ask::StatusAfter { after, wait, .. }) = get("/v1/status", "after=7&wait=9999") else {
            panic!("not understood");
        };
        assert_eq!((after, wait), (7, MAX_WAIT));
    }

    #[test]
    fn an_unknown_route_is_answered_with_the_known_ones() {
        let answer = get("/v2/status", "");
        assert_eq!(status(&answer), 404);
        assert!(answer.unwrap_err().1.contains("POST /v1/restart"));
        assert_eq!(status(&get("/v1/start", "")), 405);
    }

    #[test]
    fn every_route_that_is_named_is_there_and_stands_in_the_table_and_none_else() {
        let mut named = std::collections::BTreeSet::new();
        for route_of in ROUTES.split(", ") {
            let (method, path) = route_of.split_once(' ').unwrap();
            let method: Method = method.parse().unwrap();
            named.insert(path);
            if path.starts_with(MCP) {
                assert!(instance(path, None).is_some());
            } else {
                assert!(!matches!(status(&route(&method, path, None, b"")), 404 | 405), "{route_of}");
            }
        }
        let table = include_str!("protocol.rs").lines().filter_map(|line| line.strip_prefix("//! | "));
        let first = table.filter_map(|row| row.split(" | ").next());
        let words = first.flat_map(|cell| cell.split(['`', ' ', ','])).filter(|word| word.starts_with("/v1"));
        assert_eq!(words.collect::<std::collections::BTreeSet<_>>(), named);
    }

    #[test]
    fn what_is_not_understood_is_not_ignored() {
        for query in ["usr=alice", "user=../x", "user=a&after=x", "after=1&wait=-1", "server="] {
            assert_eq!(status(&get("/v1/status", query)), 400, "{query}");
        }
        assert_eq!(status(&get("/v1/logs", "lines=100001")), 400);
        assert_eq!(status(&get("/v1/logs", "follow=1")), 400);
        for body in ["[]", "{\"usr\":\"x\"}", "{\"user\":\"a/b\"}", "{\"all\":true,\"user\":\"a\"}", "\0"] {
            let answer = route(&Method::POST, "/v1/stop", None, body.as_bytes());
            assert_eq!(status(&answer), 400, "{body}");
        }
        for name in ["", "..", "a/b", "%2e"] {
            let path = format!("/v1/users/{name}");
            assert_eq!(status(&route(&Method::DELETE, &path, None, b"")), 400, "{name}");
        }
    }

    #[test]
    fn a_way_to_an_instance_is_its_two_names() {
        let target = |path, query| instance(path, query);
        let alice: Target = Target { user: Some("alice".parse().unwrap()), ..Target::default() };
        let notes = Target { server: Some("notes".parse().unwrap()), ..alice.clone() };
        assert_eq!(target("/v1/mcp/alice/notes", None), Some(Ok(notes)));
        assert_eq!(target("/v1/mcp/alice", None), Some(Ok(alice)));
        let own = Target { server: Some("notes".parse().unwrap()), ..Target::default() };
        assert_eq!(target("/v1/mcp/-/notes", None), Some(Ok(own)));
        assert_eq!(target("/v1/mcp", Some("")), Some(Ok(Target::default())));
        for other in ["/v1/mcpx", "/v1/mc", "/v1/status", "/mcp/alice/notes"] {
            assert_eq!(target(other, None), None, "{other}");
        }
        for wrong in [
            "/v1/mcp/",
            "/v1/mcp/alice/",
            "/v1/mcp/alice/notes/",
            "/v1/mcp/alice/notes/mcp",
            "/v1/mcp/../notes",
        ] {
            assert!(matches!(target(wrong, None), Some(Err((StatusCode::BAD_REQUEST, _)))), "{wrong}");
        }
        assert!(matches!(target("/v1/mcp/alice", Some("user=bob")), Some(Err(_))));
    }

    #[test]
    fn a_value_is_the_body_as_it_came_and_stands_in_no_message() {
        let ask = |query: &str, body: &[u8]| route(&Method::POST, SET, Some(query), body);
        let value = "a \"b\"\n{}%20";
        let wish = Wish::Set { name: "X".to_owned(), value: Secret::new(value) };
        let alices = Some("alice".parse().unwrap());
        assert_eq!(ask("user=alice&name=X", value.as_bytes()), Ok(Ask::Once(Request::Wish(alices, wish))));
        for (query, body) in
            [("", &b"hunter2"[..]), ("name=X&valeu=hunter2", b""), ("name=X", b"hunter2\xff")]
        {
            let (status, text) = ask(query, body).unwrap_err();
            assert!(status == StatusCode::BAD_REQUEST && !text.contains("hunter2"), "{text}");
        }
        let enable = route(&Method::POST, "/v1/enable", Some("server=maps"), b"");
        assert_eq!(enable, Ok(Ask::Once(Request::Wish(None, Wish::Enable("maps".parse().unwrap())))));
        assert_eq!(status(&route(&Method::POST, "/v1/disable", Some("name=X"), b"")), 400);
        assert_eq!(status(&route(&Method::GET, "/v1/unset", Some("name=X"), b"")), 405);
    }

    #[test]
    fn an_empty_body_means_the_caller() {
        let answer = route(&Method::POST, "/v1/start", None, b" \n");
        assert_eq!(answer, Ok(Ask::Once(Request::Start(Target::default()))));
    }
}
