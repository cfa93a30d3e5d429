#!/usr/bin/env python3
"""MCP's conformance suite against mcpsup: `make conformance`.

    run.py [TARGET ...]      all of them, or those that are named; `direct` always comes first
    run.py --list            says what there is

The same server (examples/conformance) is tested directly and in every place where mcpsup stands
between it and its clients (targets.py). Nothing may fail anywhere, and nothing that passes directly
may be missing behind mcpsup: there is no list of expected failures.

Needs Rust, Python, and npm for the suite itself (suite.py). Several runs can go side by side. What
it starts it ends, however it ends.
"""

import contextlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from suite import SETS, Suite
from targets import TARGETS, build

DIRECT = "direct"


def chosen(arguments):
    """The targets to test; the first is what the others are compared with."""
    if unknown := [name for name in arguments if name not in TARGETS]:
        sys.exit(f"conformance: no target {', '.join(unknown)}; there are {', '.join(TARGETS)}")
    return [name for name in TARGETS if name == DIRECT or not arguments or name in arguments]


def test(name, suite, programs, out):
    """Runs every set that the target is for; one result per set, `None` where it could not run."""
    target = TARGETS[name]
    sets = [each for each in SETS if each in target.sets]
    scratch = Path(tempfile.mkdtemp(prefix="mcpsup-conformance."))
    try:
        with contextlib.ExitStack() as started:
            url = target.start(programs, scratch, started)
            results = {each: suite.run(url, each, out / name / each) for each in sets}
            # Some checks that lower a result wait 1.5 s and no longer, which a busy machine may not keep.
            # What fails, fails.
            for each in (each for each in sets if results[each].lowered and not results[each].failed):
                print(f"conformance: {name}, {each}: less passed than could; once more", flush=True)
                results[each] = suite.run(url, each, out / name / f"{each}-again")
            if any(result.failed or result.lowered for result in results.values()):
                show_logs(scratch)
            return results
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        print(f"conformance: {name}: {error}", file=sys.stderr)
        show_logs(scratch)
        return dict.fromkeys(sets)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def show_logs(scratch):
    for log in sorted(scratch.rglob("*.log")):
        if text := log.read_text(errors="replace").strip():
            print(f"--- the end of {log.relative_to(scratch)}", *text.splitlines()[-40:], sep="\n", file=sys.stderr)


def report(results):
    """Prints the table; true if all is well."""
    well = True
    print(f"\n{'TARGET':<18}{'SET':<12}{'PASSED':>7}{'FAILED':>7}{'SECONDS':>9}  NOTE")
    for name, sets in results.items():
        for each, result in sets.items():
            direct = results[DIRECT].get(each)
            note = ""
            if result is None:
                note = "did not run"
            elif result.failed:
                note = "fails"
            elif direct is None or result.passed < direct.passed:
                note = f"fewer than directly ({direct.passed if direct else '?'})"
            well &= not note
            columns = ("-", "-", "-") if result is None else (result.passed, result.failed, f"{result.seconds:.1f}")
            print(f"{name:<18}{each:<12}{columns[0]:>7}{columns[1]:>7}{columns[2]:>9}  {note}".rstrip())
    return well


def main():
    arguments = sys.argv[1:]
    if "--list" in arguments:
        for name, target in TARGETS.items():
            print(f"{name:<18}{' '.join(target.sets):<24}{target.what}")
        return 0
    names = chosen(arguments)
    # Ended from outside, it still ends what it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    programs = build()
    suite = Suite.installed(programs.target)
    out = programs.target / "conformance" / f"out-{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 1000:03}"
    well = report({name: test(name, suite, programs, out) for name in names})
    if well:
        shutil.rmtree(out, ignore_errors=True)
        return 0
    print(f"\nconformance: what the suite saw is in {out}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
