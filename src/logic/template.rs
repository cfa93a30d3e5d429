//! Texts with holes: `"notes-{user}"` → `"notes-alice"`.
//!
//! A hole that is not known is refused when mcpsup.toml is read, so nothing can be left standing
//! in a command line. Whether a hole is allowed where it stands (`{env:…}` in `command`) is
//! [`logic::config`](crate::logic::config)'s to say; this file neither knows nor asks.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use crate::logic::envfile;
use crate::model::config::{Piece, Template};
use crate::model::env::Variables;
use crate::model::spec::socket_in;
use crate::model::{Secret, ServerName, SessionName, UserName};

/// Why a text is not a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotATemplate {
    /// `{x}`, which nothing fills.
    #[error(
        "unknown template \"{{{0}}}\"; known are {{user}}, {{server}}, {{port}}, {{socket}}, {{state_dir}}, {{runtime_dir}}, {{session}} and {{env:NAME}}, and a brace that is meant is written {{{{ or }}}}"
    )]
    Unknown(String),
    /// `{env:…}` with something that no env file's variable is called.
    #[error(
        "{{env:NAME}} takes the name of a variable of the user's file, [A-Za-z_][A-Za-z0-9_]*, and none of mcpsup's own (MCPSUP_…)"
    )]
    NotAVariable,
    /// A brace without its partner.
    #[error("a brace without its partner; a brace that is meant is written {{{{ or }}}}")]
    LoneBrace,
}

impl NotATemplate {
    /// The same without the piece of text it quotes, for texts that may hold a secret.
    #[must_use]
    pub fn unquoted(self) -> Self {
        match self {
            Self::Unknown(_) => Self::Unknown("…".to_owned()),
            same @ (Self::NotAVariable | Self::LoneBrace) => same,
        }
    }
}

/// Reads a template: `{user}`, `{server}`, `{port}`, `{socket}`, `{state_dir}`, `{runtime_dir}`, `{session}`,
/// `{env:NAME}`; `{{` and `}}` are braces.
///
/// # Errors
///
/// At the first hole that nothing fills and at the first brace without its partner.
pub fn parse(text: &str) -> Result<Template, NotATemplate> {
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        literal.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("{{") {
            literal.push('{');
            rest = after;
        } else if let Some(after) = rest.strip_prefix("}}") {
            literal.push('}');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('{').and_then(|r| r.split_once('}')) {
            if !literal.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut literal).into()));
            }
            pieces.push(hole(name)?);
            rest = after;
        } else {
            return Err(NotATemplate::LoneBrace);
        }
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        pieces.push(Piece::Text(literal.into()));
    }
    Ok(Template(pieces))
}

fn hole(name: &str) -> Result<Piece, NotATemplate> {
    match name {
        "user" => Ok(Piece::User),
        "server" => Ok(Piece::Server),
        "port" => Ok(Piece::Port),
        "socket" => Ok(Piece::Socket),
        "state_dir" => Ok(Piece::StateDir),
        "runtime_dir" => Ok(Piece::RuntimeDir),
        "session" => Ok(Piece::Session),
        other => match other.strip_prefix("env:") {
            Some(name) if envfile::is_process_name(name) => Ok(Piece::Env(name.to_owned())),
            Some(_) => Err(NotATemplate::NotAVariable),
            None => Err(NotATemplate::Unknown(shortened(other))),
        },
    }
}

/// A piece of somebody's text, fit for a message: at most 32 characters, nothing that moves a
/// terminal's cursor.
fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(32).flat_map(char::escape_debug).collect();
    if text.chars().nth(32).is_some() {
        short.push('…');
    }
    short
}

/// What stands for `{session}` in the process that is for none.
const NO_SESSION: &str = "main";

/// What the holes of one instance's templates are filled with.
#[derive(Debug, Clone, Copy)]
pub struct Holes<'a> {
    /// `{user}`
    pub user: &'a UserName,
    /// `{server}`
    pub server: &'a ServerName,
    /// `{port}`: the backend port, where there is one. The configuration has `{port}` only there.
    pub port: Option<u16>,
    /// `{session}`
    pub session: Option<SessionName>,
    /// `{state_dir}`
    pub state_dir: &'a Path,
    /// `{runtime_dir}`
    pub runtime_dir: &'a Path,
    /// Where `{env:NAME}` is looked up: the user's own file.
    pub vars: &'a Variables,
}

/// A template asks for a variable that the user's file does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the file does not set {0}, which the server's {{env:{0}}} asks for")]
pub struct MissingVariable(
    /// The variable's name.
    pub Box<str>,
);

/// The template with its holes filled: secret, because `{env:…}` may be among them.
///
/// What is filled in is never read as a template again. A directory's bytes that are not UTF-8
/// come out as U+FFFD: command lines and variables are text here.
///
/// # Errors
///
/// With the first variable that the user's file does not set.
pub fn fill(template: &Template, holes: &Holes<'_>) -> Result<Secret, MissingVariable> {
    if let [Piece::Text(text)] = &*template.0 {
        return Ok(Secret::from(Arc::clone(text)));
    }
    let parts = template.0.iter().map(|piece| {
        Ok(match piece {
            Piece::Text(text) => Cow::Borrowed(&**text),
            Piece::User => Cow::Borrowed(holes.user.as_str()),
            Piece::Server => Cow::Borrowed(holes.server.as_str()),
            Piece::Port => Cow::Owned(holes.port.map_or_else(String::new, |port| port.to_string())),
            Piece::Session => match holes.session {
                Some(session) => Cow::Owned(session.to_string()),
                None => Cow::Borrowed(NO_SESSION),
            },
            Piece::Socket => Cow::Owned(socket_in(holes.runtime_dir).to_string_lossy().into_owned()),
            Piece::StateDir => holes.state_dir.to_string_lossy(),
            Piece::RuntimeDir => holes.runtime_dir.to_string_lossy(),
            Piece::Env(name) => match holes.vars.get(name) {
                Some(variable) => Cow::Borrowed(variable.value.reveal()),
                None => return Err(MissingVariable(name.as_str().into())),
            },
        })
    });
    // Gathered first, so that the text is put together in one allocation: a buffer that grows
    // leaves copies of a secret behind.
    let parts: Vec<Cow<'_, str>> = parts.collect::<Result<_, _>>()?;
    Ok(Secret::new(parts.concat()))
}

/// True if the template holds `{port}`.
#[must_use]
pub fn mentions_port(template: &Template) -> bool {
    template.0.contains(&Piece::Port)
}

/// The variables that its `{env:NAME}` ask for.
pub fn variables(template: &Template) -> impl Iterator<Item = &str> {
    template.0.iter().filter_map(|piece| match piece {
        Piece::Env(name) => Some(name.as_str()),
        Piece::Text(_)
        | Piece::User
        | Piece::Server
        | Piece::Port
        | Piece::Socket
        | Piece::StateDir
        | Piece::RuntimeDir
        | Piece::Session => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::env::Variable;

    fn filled(text: &str, vars: &[(&str, &str)]) -> Result<String, MissingVariable> {
        let vars = vars
            .iter()
            .map(|(name, value)| Variable { name: (*name).into(), value: Secret::new(*value), line: 1 })
            .collect();
        let holes = Holes {
            user: &"alice".parse().unwrap(),
            server: &"notes".parse().unwrap(),
            port: Some(20_001),
            session: None,
            state_dir: Path::new("/var/lib/mcpsup/run/alice/notes"),
            runtime_dir: Path::new("/run/mcpsup/alice/notes"),
            vars: &Variables(vars),
        };
        fill(&parse(text).unwrap(), &holes).map(|secret| secret.reveal().to_owned())
    }

    #[test]
    fn every_known_hole_is_filled() {
        assert_eq!(
            filled("{user} {server} {port} {state_dir} {runtime_dir} {session} {env:A}", &[("A", "x")]),
            Ok("alice notes 20001 /var/lib/mcpsup/run/alice/notes /run/mcpsup/alice/notes main x".to_owned())
        );
    }

    #[test]
    fn doubled_braces_are_braces() {
        assert_eq!(filled("{{user}} {{{user}}} }}{{", &[]), Ok("{user} {alice} }{".to_owned()));
        assert_eq!(filled("", &[]), Ok(String::new()));
    }

    #[test]
    fn what_a_user_writes_is_never_read_as_a_template() {
        assert_eq!(filled("{env:A}{env:A}", &[("A", "{port}{{")]), Ok("{port}{{{port}{{".to_owned()));
    }

    #[test]
    fn a_variable_that_is_not_there_is_named() {
        let error = filled("x{env:TOKEN}", &[("OTHER", "s")]).unwrap_err();
        assert_eq!(error, MissingVariable("TOKEN".into()));
        assert!(error.to_string().contains("TOKEN"), "{error}");
    }

    #[test]
    fn what_nothing_fills_is_refused() {
        let unknown = |hole: &str| Err(NotATemplate::Unknown(hole.to_owned()));
        assert_eq!(parse("{usr}"), unknown("usr"));
        assert_eq!(parse("{}"), unknown(""));
        assert_eq!(parse("{ user }"), unknown(" user "));
        assert_eq!(parse("{User}"), unknown("User"));
        assert_eq!(parse("{a{user}"), unknown("a{user"));
        for lone in ["{", "}", "a{user", "a}b", "{{}", "{user}}"] {
            assert_eq!(parse(lone), Err(NotATemplate::LoneBrace), "{lone}");
        }
        for bad in ["{env:}", "{env:A-B}", "{env:1A}", "{env:MCPSUP_PORT}", "{env: A}"] {
            assert_eq!(parse(bad), Err(NotATemplate::NotAVariable), "{bad}");
        }
    }

    #[test]
    fn a_refusal_cannot_move_the_cursor_and_can_be_had_without_the_text() {
        let error = parse(&format!("{{\u{1b}[2J{}}}", "x".repeat(100))).unwrap_err();
        assert!(!error.to_string().contains('\u{1b}'), "{error}");
        assert!(!error.to_string().contains(&"x".repeat(40)), "{error}");
        assert!(!error.unquoted().to_string().contains('x'));
    }
}
