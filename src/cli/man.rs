//! `mcpsup man`: the manual, made from the same words as the help.

use std::path::PathBuf;

use anyhow::Context;
use clap::{CommandFactory, ValueHint};

use super::Outcome;
use super::args::Cli;
use super::print::Print;
use crate::system::files;

/// Where to.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write one page per verb into this directory instead
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub dir: Option<PathBuf>,
}

/// Does it.
///
/// # Errors
///
/// When the pages cannot be written.
pub fn run(args: &Args, print: &Print) -> anyhow::Result<Outcome> {
    let command = Cli::command();
    if let Some(dir) = &args.dir {
        files::make_way(dir)?;
        clap_mangen::generate_to(command, dir)
            .with_context(|| format!("cannot write the manual into {}", dir.display()))?;
    } else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page)?;
        print.bytes(&page)?;
    }
    Ok(Outcome::Done)
}
