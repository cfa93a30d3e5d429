//! `mcpsup completions`: the script that lets a shell ask us how a line goes on.
//!
//! The script holds no list: the shell runs `mcpsup` with `VARIABLE` set for every Tab, so that
//! user names complete and an upgrade needs no new script.

use clap::Command;
use clap_complete::CompleteEnv;
use clap_complete::env::Shells;

use super::Outcome;
use super::print::Print;

/// Set by the script; not `COMPLETE`, so that nobody else's variable can turn us into a completer.
const VARIABLE: &str = "MCPSUP_COMPLETE";

/// The shells that are known to clap.
const SHELLS: [&str; 5] = ["bash", "elvish", "fish", "powershell", "zsh"];

/// Which shell.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
bash:  mcpsup completions bash > ~/.local/share/bash-completion/completions/mcpsup
zsh:   mcpsup completions zsh  > a file named _mcpsup in a directory of $fpath
fish:  mcpsup completions fish > ~/.config/fish/completions/mcpsup.fish")]
pub struct Args {
    /// For which shell
    #[arg(value_parser = SHELLS)]
    pub shell: String,
}

/// What answers a shell.
pub fn engine<F: Fn() -> Command>(command: F) -> CompleteEnv<'static, F> {
    CompleteEnv::with_factory(command).var(VARIABLE).bin("mcpsup").completer("mcpsup")
}

/// Does it.
///
/// # Errors
///
/// When stdout cannot be written.
pub fn run(args: &Args, print: &Print) -> anyhow::Result<Outcome> {
    let mut script = Vec::new();
    if let Some(shell) = Shells::builtins().completer(&args.shell) {
        shell.write_registration(VARIABLE, "mcpsup", "mcpsup", "mcpsup", &mut script)?;
    }
    print.bytes(&script)?;
    Ok(Outcome::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_that_is_offered_has_a_script() {
        for name in SHELLS {
            assert!(Shells::builtins().completer(name).is_some(), "{name}");
        }
        assert_eq!(Shells::builtins().names().count(), SHELLS.len());
    }
}
