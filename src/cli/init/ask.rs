//! The questions of `mcpsup init`, each with what is taken for no answer.

use anyhow::bail;

use super::{Args, Plan, chosen, missing, of_ones_own, ready};
use crate::cli::session::Session;
use crate::logic::config;
use crate::model::UserName;
use crate::system::{account, terminal};

/// Asks for what the flags do not say.
pub(super) fn plan(args: &Args, session: &Session) -> anyhow::Result<Plan> {
    let (text, install) = match (&args.server, args.command.as_slice()) {
        (Some(name), _) => chosen(name)?,
        (None, []) => server(session)?,
        (None, command) => (of_ones_own(args.name.as_ref(), command, args.port_env.as_deref())?, None),
    };
    if !args.force {
        program(&text, install.as_deref(), session)?;
    }
    let user = match &args.user {
        Some(user) => user.clone(),
        None => user(session)?,
    };
    let is_running = session.own_client().is_ok();
    let starts = args.start || !is_running && yes("start the daemon now?", true, session)?;
    Ok(Plan { text, install, user: Some(user), starts })
}

/// One line of the person at the terminal; an empty one is `usual`.
fn line(question: &str, usual: &str, session: &Session) -> anyhow::Result<String> {
    let shown = if usual.is_empty() { String::new() } else { format!(" [{usual}]") };
    session.print.ask(&format!("{question}{shown} "));
    let Some(typed) = terminal::read_shown()? else {
        session.print.answered();
        bail!("nothing is written: the input was ended")
    };
    let typed = typed.trim();
    Ok(if typed.is_empty() { usual } else { typed }.to_owned())
}

fn yes(question: &str, usual: bool, session: &Session) -> anyhow::Result<bool> {
    loop {
        let answer = line(question, if usual { "yes" } else { "no" }, session)?;
        match answer.to_lowercase().as_str() {
            "y" | "yes" => return Ok(true),
            "n" | "no" => return Ok(false),
            _ => session.print.aside("yes or no"),
        }
    }
}

/// Which server: one that is ready, or a command.
fn server(session: &Session) -> anyhow::Result<(String, Option<String>)> {
    session.print.aside("Servers that mcpsup knows:");
    for ready in ready::all() {
        session.print.aside(&format!("  {:18} {}", ready.name, ready.about()));
    }
    loop {
        let answer = line("which of them, or the command of your own:", "", session)?;
        if answer.is_empty() {
            continue;
        }
        if ready::find(&answer).is_some() {
            return Ok(chosen(&answer)?);
        }
        let words = match words(&answer) {
            Ok(words) => words,
            Err(why) => {
                session.print.aside(why);
                continue;
            }
        };
        if words.len() == 1 && !answer.contains('/') {
            session
                .print
                .aside(&format!("mcpsup knows no server \"{answer}\"; a command begins with a path"));
            continue;
        }
        let made = of_ones_own(None, &words, None).map_err(|error| error.to_string());
        match made.and_then(|text| match config::parse(&text, "mcpsup.toml") {
            Ok(_) => Ok(text),
            Err(problems) => Err(problems.first().map(ToString::to_string).unwrap_or_default()),
        }) {
            Ok(text) => return Ok((text, None)),
            Err(why) => session.print.aside(&why),
        }
    }
}

/// Is its program there? If not, it is to be installed first, or somebody knows better.
fn program(text: &str, install: Option<&str>, session: &Session) -> anyhow::Result<()> {
    let Ok(config) = config::parse(text, "mcpsup.toml") else { return Ok(()) };
    while let Some(named) = missing(&config, session) {
        session.print.aside(&format!("{named} is not there"));
        if let Some(install) = install {
            session.print.aside(&format!("install it, in another terminal: {install}"));
        }
        match line("try again, or go on without it?", "again", session)?.to_lowercase().as_str() {
            "again" | "a" | "try again" => {}
            "on" | "go on" | "g" => return Ok(()),
            _ => session.print.aside("\"again\", or \"go on\""),
        }
    }
    Ok(())
}

fn user(session: &Session) -> anyhow::Result<UserName> {
    let uid = account::own_uid();
    let own = account::name_of(uid).filter(|_| uid != 0).unwrap_or_default();
    loop {
        match line("whose server is the first (their account's name):", &own, session)?.parse() {
            Ok(user) => return Ok(user),
            Err(why) => session.print.aside(&format!("{why}")),
        }
    }
}

/// A line as a shell would take it apart: blanks part words, quotes keep them.
fn words(text: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for letter in text.chars() {
        match (quote, letter) {
            (Some(open), letter) if letter == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None, letter) if letter.is_whitespace() => words.extend(word.take()),
            (Some(_) | None, letter) => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    if quote.is_some() { Err("a quote is never closed") } else { Ok(words) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_keep_words_together() {
        let all = |text| words(text).unwrap();
        assert_eq!(
            all("/opt/x --port {port}  'a b' \"c d\"e ''"),
            ["/opt/x", "--port", "{port}", "a b", "c de", ""]
        );
        assert!(words("/opt/x 'a").is_err());
        assert_eq!(all("  "), Vec::<String>::new());
    }

    #[test]
    fn a_server_of_ones_own_is_one_that_the_daemon_reads() {
        for (name, command, port) in [
            (None, "/opt/x/my-server.py --stdio", None),
            (None, "/opt/x --port {port}", None),
            (Some("a.b"), "/opt/x 'quo\"ted \\ words'", Some("PORT")),
        ] {
            let name = name.map(|name| name.parse().unwrap());
            let text = of_ones_own(name.as_ref(), &words(command).unwrap(), port).unwrap();
            let read = config::parse(&text, "mcpsup.toml");
            assert!(read.is_ok(), "{read:?}\n{text}");
        }
    }
}
