//! Has the linker keep what an idle daemon does not run apart from what it does (`apart.ld`).
//!
//! Only where the linker is the usual one of the target, LLVM's or GNU's: others do not know `INSERT`.
//! Whoever names a linker or gives it arguments arranges the program themselves.
//!
//! And has it pack what the loader does to the program before it runs, a sixth of a megabyte that would
//! all be read, where the program is for this host and its C library knows that form.

use std::env;
use std::process::Command;

/// The first glibc that loads packed relocations (`DT_RELR`; NEWS of 2.36).
const PACKS: (u32, u32) = (2, 36);

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
        let is_for_us = env::var_os("HOST") == env::var_os("TARGET");
        if is_for_us && glibc().is_some_and(|version| version >= PACKS) {
            println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
        }
    }
}

/// The version of this host's glibc, if it says so.
#[expect(clippy::disallowed_methods, reason = "a build starts no server")]
fn glibc() -> Option<(u32, u32)> {
    let said = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let said = String::from_utf8(said.stdout).ok()?;
    let (major, minor) = said.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
