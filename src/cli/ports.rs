//! `mcpsup ports`: the port map, from the daemon or, where none runs, from its file.

use anyhow::Context;

use super::Outcome;
use super::session::Session;
use super::table::{Cell, lay_out};
use crate::control::client::ClientError;
use crate::model::portmap::PortMap;
use crate::system::files;

/// How.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print it as JSON
    #[arg(long)]
    pub json: bool,
}

/// Does it.
///
/// # Errors
///
/// When there is neither a daemon nor a file.
pub fn run(args: &Args, session: &Session) -> anyhow::Result<Outcome> {
    let map = map(session)?;
    if args.json {
        session.print.json(&map, false)?;
    } else {
        let rows: Vec<Vec<Cell>> = rows(&map);
        session.print.lines(&lay_out(&rows, session.print.width(), &session.print), false)?;
    }
    Ok(Outcome::Done)
}

/// The port map: the daemon's, or the one it left.
///
/// # Errors
///
/// When there is neither.
pub fn map(session: &Session) -> anyhow::Result<PortMap> {
    match session.client().and_then(|client| client.ports()) {
        Ok(map) => Ok(map),
        Err(gone @ ClientError::Unreachable { .. }) => {
            // What the last daemon left: the ports are the users' all the same.
            let Ok(map) = left(session) else { return Err(gone.into()) };
            session.print.aside("the daemon is not running; this is what it left");
            Ok(map)
        }
        Err(error) => Err(error.into()),
    }
}

/// The port map that a daemon left.
///
/// # Errors
///
/// When there is none, or it cannot be understood.
pub fn left(session: &Session) -> anyhow::Result<PortMap> {
    let path = session.port_map();
    let bytes = files::read_bounded(&path, files::LARGEST)?;
    serde_json::from_slice(&bytes).with_context(|| format!("cannot read {}", path.display()))
}

fn rows(map: &PortMap) -> Vec<Vec<Cell>> {
    let head = ["USER", "SERVER", "PORT", "STATE", "URL"].map(Cell::new);
    let rows = map.instances.iter().map(|entry| {
        vec![
            Cell::new(entry.user.as_str()),
            Cell::new(entry.server.as_str()),
            Cell::new(entry.port.to_string()),
            Cell::new(entry.state.as_str()),
            Cell::new(entry.url.clone()),
        ]
    });
    std::iter::once(head.into()).chain(rows).collect()
}
