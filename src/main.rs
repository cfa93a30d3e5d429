//! Arguments → command → exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    // The launcher, and who asks for accounts, is this program too, so that an upgrade on disk cannot skew
    // the two. They stay out of the command line: their orders never come as arguments.
    let verb = std::env::args_os().nth(1);
    match verb.as_deref().and_then(std::ffi::OsStr::to_str) {
        Some("launch") => mcpsup::system::launch::main(),
        Some("accounts") => mcpsup::system::account::apart::main(),
        Some("try-cage") => mcpsup::system::launch::try_cage(),
        Some(_) | None => mcpsup::cli::main(),
    }
}
