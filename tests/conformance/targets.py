"""What is tested: the server itself, and the places where mcpsup stands before it."""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from suite import SETS

CHECKOUT = Path(__file__).resolve().parents[2]
# How long anything may take to be up, or to be gone.
LIMIT = 60
# Ports at a time: some for doors, the rest for processes behind them.
BLOCK = 20
# Below the ephemeral ports, and clear of those that the other tests take.
BLOCKS = range(5000, 10800, BLOCK)


@dataclass
class Programs:
    target: Path
    mcpsup: Path
    server: Path


@dataclass
class Target:
    what: str
    # Starts it in a scratch directory, has its end called at the end, and says its URL.
    start: Callable
    sets: tuple = SETS


def build():
    """Builds what is tested, as `cargo test` builds it."""
    target = Path(os.environ.get("CARGO_TARGET_DIR") or "target")
    target = target if target.is_absolute() else CHECKOUT / target
    cargo = [os.environ.get("CARGO", "cargo"), "build", "--locked", "--quiet"]
    subprocess.run([*cargo, "--bin", "mcpsup", "--example", "conformance"], cwd=CHECKOUT, check=True)
    return Programs(target, target / "debug" / "mcpsup", target / "debug" / "examples" / "conformance")


def direct(programs, scratch, started):
    """The server on a port of its own."""
    port = block(started) + 1
    with open(scratch / "server.log", "w") as log:
        server = subprocess.Popen([programs.server, "http", "--port", str(port)], stdin=subprocess.DEVNULL, stderr=log)
    started.callback(end, server)
    until("the server listens", lambda: listens(port), server)
    return f"http://127.0.0.1:{port}/mcp"


def behind(server):
    """The server as mcpsup.toml has it in `server`, behind a door of a daemon of its own."""

    def start(programs, scratch, started):
        first = block(started)
        # By this name what the daemon started is found again. A copy, for root's daemon runs it as a
        # uid of alice's own, which may not get to the checkout.
        program = scratch / "server"
        shutil.copy(programs.server, program)
        program.chmod(0o755)
        scratch.chmod(0o711)
        config = scratch / "mcpsup.toml"
        config.write_text(
            f'[ports]\nrange = "{first + 1}-{first + BLOCK // 2 - 1}"\n'
            f'backend_range = "{first + BLOCK // 2}-{first + BLOCK - 1}"\n\n'
            f'[server.conformance]\n{server.replace("SERVER", str(program))}\naccess = "open"\n'
            f'[daemon]\n{os.environ.get("MCPSUP_TEST_DAEMON", "").replace(";", chr(10))}\n'
        )
        credentials = scratch / "env.d"
        credentials.mkdir(mode=0o700)
        (credentials / "alice.env").touch(mode=0o600)
        mcpsup = [programs.mcpsup, "--config", config]

        def ask(*words):
            asked = subprocess.run([*mcpsup, *words], env=clean(), capture_output=True, text=True, timeout=2 * LIMIT)
            if asked.returncode:
                raise RuntimeError(f"mcpsup {' '.join(words)}: {(asked.stdout + asked.stderr).strip()}")
            return asked.stdout

        ask("check")
        started.callback(sweep, program)
        with open(scratch / "daemon.log", "w") as log:
            daemon = subprocess.Popen([*mcpsup, "daemon"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=clean())
        started.callback(end, daemon)
        until("the daemon opens its control socket", (scratch / "run" / "control.sock").is_socket, daemon)
        ask("start", "--all", "--timeout", f"{LIMIT}s")
        return json.loads(ask("ports", "--json"))["instances"][0]["url"]

    return start


def stdio(sessions, *more):
    words = json.dumps(["SERVER", "stdio", *more])
    return behind(f'command = {words}\ntransport = "stdio"\nsessions = "{sessions}"')


TARGETS = {
    "direct": Target("the server itself over HTTP", direct),
    "http-door": Target(
        "behind a door, speaking HTTP itself",
        behind('command = ["SERVER", "http"]\ntransport = "http"\nport_env = "PORT"'),
    ),
    "shared": Target("behind the bridge, one process", stdio("shared")),
    "isolated": Target("behind the bridge, a process per session", stdio("isolated")),
    "legacy-shared": Target("as shared; knows nothing of 2026-07-28", stdio("shared", "--legacy"), SETS[:1]),
    "legacy-isolated": Target("as isolated; knows nothing of 2026-07-28", stdio("isolated", "--legacy"), SETS[:1]),
}


def block(started):
    """The first of a block of ports, listened on for as long as the block is ours."""
    for first in random.sample(BLOCKS, len(BLOCKS)):
        claim = socket.socket()
        started.callback(claim.close)
        try:
            claim.bind(("127.0.0.1", first))
            claim.listen()
            return first
        except OSError:
            claim.close()
    raise RuntimeError("every block of ports is taken")


def clean():
    """The environment without what a service manager would tell a daemon of its places."""
    theirs = ("RUNTIME_DIRECTORY", "STATE_DIRECTORY", "LOGS_DIRECTORY", "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "MCPSUP_CONFIG")
    return {name: value for name, value in os.environ.items() if name not in theirs}


def listens(port):
    try:
        with socket.create_connection(("127.0.0.1", port), 1):
            return True
    except OSError:
        return False


def until(what, predicate, process):
    """Waits until it is so; not for a process that has ended."""
    give_up_at = time.monotonic() + LIMIT
    while not predicate():
        if process.poll() is not None:
            raise RuntimeError(f"it ended with status {process.returncode} before {what}")
        if time.monotonic() > give_up_at:
            raise RuntimeError(f"not within {LIMIT} s: {what}")
        time.sleep(0.02)


def end(process):
    """Asks it to end, and then ends it."""
    process.terminate()
    try:
        process.wait(LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise RuntimeError(f"process {process.pid} did not end within {LIMIT} s of SIGTERM") from None


def sweep(program):
    """Ends what a daemon left behind, which it should not have."""
    left = [process for process in Path("/proc").glob("[0-9]*") if runs(process, program)]
    for process in left:
        os.kill(int(process.name), signal.SIGKILL)
    if left:
        raise RuntimeError(f"the daemon left {len(left)} processes behind")


def runs(process, program):
    try:
        state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        return state not in "ZX" and (process / "cmdline").read_bytes().startswith(bytes(program) + b"\0")
    except OSError:
        return False
