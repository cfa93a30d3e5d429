//! Has the linker keep what an idle daemon does not run apart from what it does (`apart.ld`).
//!
//! Only where the linker is the usual one of the target, LLVM's or GNU's: others do not know `INSERT`.
//! Whoever names a linker or gives it arguments arranges the program themselves.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=apart.ld");
    let is = |name: &str, value: &str| env::var_os(name).is_some_and(|found| found == value);
    let is_usual = is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu");
    let flags = env::var_os("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    let flags = flags.to_string_lossy();
    let is_theirs = env::var_os("RUSTC_LINKER").is_some() || flags.contains("link");
    // Only a release is one section for each function, which is what the list names.
    if is_usual && !is_theirs && is("PROFILE", "release") {
        let dir = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default();
        println!("cargo::rustc-link-arg-bins=-Wl,-T,{}/apart.ld", dir.to_string_lossy());
    }
}
