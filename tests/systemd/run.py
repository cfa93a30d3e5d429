#!/usr/bin/env python3
"""mcpsup under a real systemd with cgroup v2, in a virtual machine: `make test-systemd`.

    run.py [SCENARIO ...]    all of them, or those that are named
    run.py --list            says what there is
    run.py --missing         says what has to be installed for it, if anything (exit status 77)
    run.py --report FILE     also writes down what was seen
    run.py --as-built        builds nothing

A scenario is a file in scenarios/: a bash script that runs as root in a small Debian of its own,
fresh for each. To add one:

    scenarios/mine.sh
        # brings: target/debian/*.deb       files of the checkout (globs), found in $PAYLOAD in the guest
        install_mcpsup                      what `make install` does, and servers in /opt/mcp; or do it yourself
        check "a sentence that is true" command and arguments
        check "another" eval '[ "$(mcpsup status | wc -l)" = 3 ]'
        until_so 30 command …               waits for it; what `check` is to be told in time: check "…" until_so 30 …
        reboot_now                          ends this boot; the script begins again with $BOOT one higher

Every `check` is one line of TAP. A scenario has failed if one of them did, if it ended early, or if
the machine did. What is at hand in there is in lib.sh; the guest has no network but its loopback.

The machine is QEMU's, without acceleration: it needs no privilege but root's for debootstrap, once,
and some 20 s for a boot and 10 times as long as usual for what is done in it. MCPSUP_QEMU_CPU and
MCPSUP_QEMU_ACCEL choose otherwise. The disk image is kept in target/vm until one of the two lines in image.py
that describe it changes.
"""

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from pathlib import Path

import image

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SCENARIOS = HERE / "scenarios"
EXAMPLES = ["notes", "unruly", "intruder", "call", "lines"]
# A scenario that takes longer hangs. A loaded machine is five times slower than an idle one.
LIMIT = int(os.environ.get("MCPSUP_VM_LIMIT", "900"))


def target():
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))


def build(as_it_is):
    """Our program as users get it, and the servers of examples/."""
    cargo = [os.environ.get("CARGO", "cargo"), "build", "--locked"]
    if not as_it_is:
        subprocess.run([*cargo, "--release"], cwd=ROOT, check=True)
        subprocess.run([*cargo, *(word for name in EXAMPLES for word in ("--example", name))], cwd=ROOT, check=True)
    programs = {"mcpsup": target() / "release/mcpsup"}
    return programs | {name: target() / "debug/examples" / name for name in EXAMPLES}


def brought(scenario):
    """What a scenario's `# brings:` lines name: each pattern with its files."""
    lines = scenario.read_text().splitlines()
    patterns = [word for line in lines if line.startswith("# brings:") for word in line.split()[2:]]
    return {pattern: sorted(ROOT.glob(pattern)) for pattern in patterns}


def unbuilt(scenario):
    """What of that is not there."""
    return ", ".join(pattern for pattern, files in brought(scenario).items() if not files)


def installed(program, scratch):
    """What `make install` installs of it, below a directory."""
    words = ["make", "-s", "--no-print-directory", "install", f"DESTDIR={scratch}", f"PROGRAM={program}", "PREFIX=/usr/local"]
    subprocess.run(words, cwd=ROOT, check=True)
    return scratch


def payload(scenario, programs, file):
    """Everything that goes into the guest, as a raw tar on a disk of its own."""
    with tarfile.open(file, "w") as tar:
        for name, program in programs.items():
            tar.add(program, f"bin/{name}")
        with tempfile.TemporaryDirectory(prefix="mcpsup-vm.") as scratch:
            tar.add(installed(programs["mcpsup"], scratch), "installed")
        tar.add(HERE / "lib.sh", "lib.sh")
        tar.add(scenario, "scenario.sh")
        for path in (path for files in brought(scenario).values() for path in files):
            tar.add(path, path.name)
    with open(file, "ab") as padded:
        padded.truncate(-(-file.stat().st_size // 4096) * 4096)


def qemu(disk, kernel, tar, console):
    drives = [(disk, "r", "on"), (tar, "p", "off")]
    command = [
        os.environ.get("QEMU", image.QEMU), "-M", "q35", "-smp", "2", "-m", "1G", "-nodefaults", "-display", "none",
        "-cpu", os.environ.get("MCPSUP_QEMU_CPU", "Nehalem"),
        "-accel", os.environ.get("MCPSUP_QEMU_ACCEL", "tcg,thread=multi"),
        "-kernel", str(kernel), "-append", image.COMMAND_LINE, "-device", "nvme,serial=mcpsup",
        "-serial", f"file:{console}", "-serial", "stdio",
    ]  # fmt: skip
    for number, (path, name, snapshot) in enumerate(drives, 1):
        # Writes live as long as the machine: they are there after a reboot, and nowhere after its end.
        options = f"if=none,id={name},file={path},format=raw,cache=unsafe"
        options += ",snapshot=on" if snapshot == "on" else ",readonly=on"
        command += ["-drive", options, "-device", f"nvme-ns,drive={name},nsid={number}"]
    return command


class Outcome:
    """What one scenario showed."""

    def __init__(self, name):
        self.name, self.lines, self.passed, self.failed, self.ended, self.seconds = name, [], 0, 0, False, 0.0

    def hear(self, line):
        self.lines.append(line)
        self.passed += line.startswith("ok - ")
        self.failed += line.startswith("not ok - ")
        self.ended |= line == f"1..{self.passed + self.failed}"

    @property
    def is_well(self):
        return self.ended and self.passed > 0 and not self.failed


def run(scenario, programs, disk, kernel):
    outcome = Outcome(scenario.stem)
    print(f"# {outcome.name}", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mcpsup-vm.") as scratch:
        tar, console = Path(scratch) / "payload.tar", Path(scratch) / "console"
        payload(scenario, programs, tar)
        machine = subprocess.Popen(
            qemu(disk, kernel, tar, console), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace"
        )
        timer = threading.Timer(LIMIT, machine.kill)
        timer.start()
        try:
            for line in machine.stdout:
                line = line.rstrip("\r\n")
                print(line, flush=True)
                outcome.hear(line)
            machine.wait()
        finally:
            timer.cancel()
            machine.kill()
            machine.wait()
        outcome.seconds = time.monotonic() - began
        if not outcome.ended:
            text = console.read_text(errors="replace") if console.exists() else ""
            why = "took too long" if outcome.seconds >= LIMIT else "ended early"
            print(f"# {outcome.name}: {why}; the end of the machine's console:", *text.splitlines()[-30:], sep="\n# ")
    print(f"# {outcome.name}: {outcome.passed} ok, {outcome.failed} not ok, {outcome.seconds:.0f} s\n", flush=True)
    return outcome


def commit():
    """What was tried, where this is a checkout."""
    asked = ["git", "-C", ROOT, "rev-parse", "--short", "HEAD"]
    said = subprocess.run(asked, capture_output=True, text=True) if shutil.which("git") else None
    return f", commit {said.stdout.strip()}" if said and said.returncode == 0 else ""


def report(outcomes, file, title, by):
    """Writes down what was seen, for the documents."""
    version = subprocess.run([os.environ.get("QEMU", image.QEMU), "--version"], capture_output=True, text=True).stdout
    facts = next((line for outcome in outcomes for line in outcome.lines if line.startswith("# guest: ")), "# guest: ?")
    page = [
        f"# {title}, as last seen",
        "",
        f"What `{by}` said, written by `tests/systemd/run.py --report`; not edited by hand.",
        "",
        f"* {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}{commit()}",
        f"* guest: {facts.removeprefix('# guest: ')}",
        f"* machine: {version.splitlines()[0]} without acceleration, on {platform.system()} {platform.machine()}, {os.cpu_count()} processors",
    ]
    for outcome in outcomes:
        page += ["", f"## {outcome.name}", ""]
        page += [f"{outcome.passed} ok, {outcome.failed} not ok, {outcome.seconds:.0f} s", "", "```text"]
        page += [line for line in outcome.lines if not line.startswith("# guest: ")] + ["```"]
    Path(file).write_text("\n".join(page) + "\n")


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("scenarios", nargs="*")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--missing", action="store_true")
    parser.add_argument("--report")
    parser.add_argument("--title", default="mcpsup under systemd")
    parser.add_argument("--by", default="make test-systemd")
    parser.add_argument("--as-built", action="store_true")
    asked = parser.parse_args()
    there = {path.stem: path for path in sorted(SCENARIOS.glob("*.sh"))}
    if asked.list:
        print(*there, sep="\n")
        return
    if lacking := image.missing():
        print(f"systemd: {lacking}", file=sys.stderr)
        sys.exit(77)
    if asked.missing:
        return
    if unknown := [name for name in asked.scenarios if name not in there]:
        sys.exit(f"systemd: no scenario {', '.join(unknown)}; there are {', '.join(there)}")
    programs = build(asked.as_built)
    disk, kernel = image.made(ROOT / "target/vm")
    chosen = [path for name, path in there.items() if not asked.scenarios or name in asked.scenarios]
    for path in [path for path in chosen if unbuilt(path)]:
        why = f"systemd: {path.stem} brings {unbuilt(path)}, and there is no such file"
        if asked.scenarios:
            sys.exit(f"{why}; is it built?")
        print(f"{why}: left out", flush=True)
        chosen.remove(path)
    outcomes = [run(path, programs, disk, kernel) for path in chosen]
    if asked.report:
        report(outcomes, asked.report, asked.title, asked.by)
    bad = [outcome.name for outcome in outcomes if not outcome.is_well]
    print(f"systemd: {sum(outcome.passed for outcome in outcomes)} checks hold" + (f"; failed: {', '.join(bad)}" if bad else ""))
    sys.exit(1 if bad else 0)


main()
