//! What can be said on the command line. Each verb's own words stand in its file.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueHint};

use super::{
    add, check, client, completions, connect, doctor, edit, headers, init, logs, man, ports, reload, remove,
    seal, status, steer, wish,
};

/// The exit status, for every page of help.
const EXIT_STATUS: &str = "Exit status: 0 done, 1 refused or failed, 2 wrong use, \
                           3 no daemon, 4 not permitted.";

/// Runs everybody's MCP servers on a shared host: one env file in, one supervised server process
/// and one port for good out.
#[derive(Debug, Parser)]
#[command(name = "mcpsup", version, after_help = EXIT_STATUS, max_term_width = 100)]
pub struct Cli {
    /// Which mcpsup.toml.
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath,
          help = "mcpsup.toml; everything else lies beside it [env: MCPSUP_CONFIG]")]
    pub config: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

impl Cli {
    /// `mcpsup daemon` as units and scripts say it, with `--config FILE` before the verb or without.
    /// Anything else, and every mistake, is for the parser.
    ///
    /// The daemon stays for good, and so does whatever it once touched: the parser's program text
    /// and what it leaves on the heap.
    #[must_use]
    pub fn plain_daemon(words: &[OsString]) -> Option<Self> {
        let (config, verb) = match words {
            [_, verb] => (None, verb),
            [_, option, file, verb] if option == "--config" && !file.is_empty() => (Some(file.into()), verb),
            _ => return None,
        };
        (verb == "daemon").then_some(Self { config, verb: Verb::Daemon })
    }
}

/// The verbs, in the order of PRODUCT §5.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run the supervisor in the foreground
    Daemon,
    /// Begin: choose a server and a first user, and have it run; or only files to begin with
    Init(init::Args),
    /// Read every file, report every problem, start nothing
    Check(check::Args),
    /// Find what is wrong, from the files to the client, and say what mends it
    Doctor(doctor::Args),
    /// Start what is stopped, and try at once what is waiting for its next try
    Start(steer::Args),
    /// Stop, and stay stopped until `start`, over restarts of the daemon too
    Stop(steer::Args),
    /// End what runs and start it anew
    Restart(steer::Args),
    /// Show what runs, where, since when, and what is wrong
    Status(status::Args),
    /// Show what an instance wrote
    Logs(logs::Args),
    /// Ask for a user's credentials, check them and write their env file
    Add(add::Args),
    /// Edit a user's env file; it is put in place only if it is right
    Edit(edit::Args),
    /// Delete a user's env file, stop everything of theirs and free their ports
    Remove(remove::Args),
    /// Show the port map
    Ports(ports::Args),
    /// Print what an AI client's configuration needs for a user
    Client(client::Args),
    /// Speak MCP on stdin and stdout with an instance, for clients that speak only that
    Connect(connect::Args),
    /// Print the header with which a client comes in at a user's door, as JSON
    Headers(headers::Args),
    /// Set a credential of your own: typed and not shown, or from the standard input
    Set(wish::Variable),
    /// Remove a credential of your own
    Unset(wish::Gone),
    /// Choose a server that is not for everybody
    Enable(wish::Server),
    /// Leave a server that was chosen
    Disable(wish::Server),
    /// Encrypt a user's env file at rest
    Seal(seal::Args),
    /// Make the daemon read every file again (as SIGHUP does)
    Reload(reload::Args),
    /// Print the script that completes commands and user names in a shell
    Completions(completions::Args),
    /// Print the manual
    Man(man::Args),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parses(line: &str) -> bool {
        Cli::try_parse_from(line.split(' ')).is_ok()
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_lines_of_the_contract_are_understood() {
        for line in [
            "mcpsup daemon",
            "mcpsup init",
            "mcpsup check",
            "mcpsup start alice",
            "mcpsup start alice/notes --no-wait",
            "mcpsup stop --all --timeout 2m",
            "mcpsup restart",
            "mcpsup status alice --json",
            "mcpsup status --watch -v",
            "mcpsup logs alice/notes -f -n 100",
            "mcpsup add alice --from /dev/stdin --force",
            "mcpsup edit alice",
            "mcpsup remove alice --yes",
            "mcpsup ports --json",
            "mcpsup connect alice/notes",
            "mcpsup connect",
            "mcpsup headers",
            "mcpsup headers alice/notes",
            "mcpsup headers alice --lasting --renew",
            "mcpsup client alice --stdio",
            "mcpsup remove alice --no-wait --timeout 2m",
            "mcpsup reload",
            "mcpsup doctor",
            "mcpsup doctor alice --json -v",
            "mcpsup init --json",
            "mcpsup init --server github --user alice --from - --start",
            "mcpsup init --name x --port-env PORT --user alice -- /opt/x --dir {state_dir}",
            "mcpsup set NOTES_TOKEN",
            "mcpsup set NOTES_TOKEN --user alice --no-wait",
            "mcpsup unset NOTES_TOKEN --json",
            "mcpsup enable maps",
            "mcpsup disable maps --user alice",
            "mcpsup seal alice --with systemd-creds",
            "mcpsup add alice --json",
            "mcpsup edit alice --json",
            "mcpsup remove alice --yes --json",
            "mcpsup reload --json",
            "mcpsup completions bash",
            "mcpsup man --dir /usr/share/man/man1",
            "mcpsup --config /srv/mcpsup.toml status",
            "mcpsup status --config /srv/mcpsup.toml",
        ] {
            assert!(parses(line), "{line}");
        }
    }

    #[test]
    fn what_cannot_mean_anything_is_wrong_use() {
        for line in [
            "mcpsup unset NOTES_TOKEN --no-wait",
            "mcpsup unset NOTES_TOKEN --timeout 2m",
            "mcpsup",
            "mcpsup start alice --all",
            "mcpsup start ../x",
            "mcpsup start alice/",
            "mcpsup start alice/b/c",
            "mcpsup start alice --timeout 60",
            "mcpsup logs alice -n 100001",
            "mcpsup add",
            "mcpsup add alice/notes",
            "mcpsup completions cmd.exe",
            "mcpsup set",
            "mcpsup set A 1",
            "mcpsup enable a/b",
            "mcpsup seal",
        ] {
            assert!(!parses(line), "{line}");
        }
    }

    #[test]
    fn a_daemon_that_is_said_plainly_is_the_one_the_parser_would_have_read() {
        for line in
            ["mcpsup daemon", "mcpsup --config /srv/mcpsup.toml daemon", "mcpsup --config daemon daemon"]
        {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let plain = Cli::plain_daemon(&words).unwrap();
            let parsed = Cli::try_parse_from(words).unwrap();
            assert!(matches!(plain.verb, Verb::Daemon) && matches!(parsed.verb, Verb::Daemon), "{line}");
            assert_eq!(plain.config, parsed.config, "{line}");
        }
        for line in
            ["mcpsup status", "mcpsup daemon --help", "mcpsup --config daemon", "mcpsup daemon --config x"]
        {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            assert!(Cli::plain_daemon(&words).is_none(), "{line}");
        }
    }

    #[test]
    fn a_verb_that_is_not_there_yet_is_not_listed() {
        let command = Cli::command();
        let listed: Vec<_> = command.get_subcommands().map(clap::Command::get_name).collect();
        for verb in ["launch", "token", "audit"] {
            assert!(!listed.contains(&verb), "{verb}");
        }
    }
}
