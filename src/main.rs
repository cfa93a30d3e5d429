//! Arguments → command → exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    // The launcher is this program too, so that an upgrade on disk cannot skew the two. It stays
    // out of the command line: its orders never come as arguments.
    if std::env::args_os().nth(1).is_some_and(|verb| verb == "launch") {
        return mcpsup::system::launch::main();
    }
    mcpsup::cli::main()
}
