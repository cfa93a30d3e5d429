"""Writes what the four workloads measured as a page: machine, versions, date, and a table for each.

usage: report.py [--quick] RESULTS [PAGE]
RESULTS holds w1.json to w4.json, and w1_user.json; what is not there is left out. PAGE: docs/benchmarks.md. --quick: says that it was a try.
`run.py` calls it. The figures come from the files alone, the machine is the one that this runs on."""
import json, os, platform, statistics, subprocess, sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
NAMES = {"floor-minisup": "floor (C)", "floor-minibridge": "floor (C)", "floor-minidoor": "floor (C)", "mcpsup-isolated": "mcpsup, a process per session", "mcpsup-uncaged": "mcpsup, without its cage", "mcpsup-token": "mcpsup, by token",
         "direct": "nothing", "direct-stdio": "nothing (a pipe)"}


def number(x, digits=3):
    """Three digits that count, and never an exponent."""
    if x is None or x != x: return ""
    if x == 0: return "0"
    whole = len(str(int(abs(x))))
    return f"{x:,.{max(0, digits - whole)}f}".replace(",", " ") if abs(x) >= 1 else f"{x:.{digits}f}".rstrip("0").rstrip(".") or "0"


def name(row): return NAMES.get(row, row)


def table(heads, rows):
    rows = [[str(cell) for cell in row] for row in rows]
    return ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads), *("| " + " | ".join(row) + " |" for row in rows), ""]


def machine():
    said = lambda *words: subprocess.run(words, capture_output=True, text=True, cwd=HERE).stdout.strip()
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.machine())
    memory = int(next(line for line in open("/proc/meminfo") if line.startswith("MemTotal")).split()[1]) / 1024 / 1024
    system = next((line.split("=")[1].strip().strip('"') for line in open("/etc/os-release") if line.startswith("PRETTY_NAME")), "?") if os.path.exists("/etc/os-release") else "?"
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", ":/", ":!/docs/benchmarks.md"], cwd=HERE).returncode
    polls = Path("/sys/module/haltpoll/parameters/guest_halt_poll_ns")
    sleeps = f"; an idle processor sleeps after {int(polls.read_text()) // 1000} µs (haltpoll.guest_halt_poll_ns; Linux's own value is 200000, which is 200 µs)" if polls.exists() else ""
    return [
        f"* machine: {os.cpu_count()} processors ({model}), {memory:.1f} GiB, Linux {platform.release().split('-')[0]}, {system}{sleeps}",
        f"* as {'root' if os.geteuid() == 0 else 'an ordinary user'}; commit {said('git', 'rev-parse', '--short', 'HEAD') or '?'}{' and changes' if changed else ''}",
    ]


def w1(data):
    yield "## A server is killed"
    yield ""
    yield "From `kill -9` of a server to its successor listening, in ms. *Settled*: it had run for a while. *At once*: killed 50 ms after it listened, again and again, so that waits between crashes show."
    yield ""
    of = lambda row, regime: row.get(regime, {}).get("listen", {})
    yield from table(["", "settings", "settled, median", "worst", "of", "at once, median", "worst"], [
        [name(r["name"]), r["variant"], *(number(of(r, "settled").get(k)) for k in ("median", "max")), of(r, "settled").get("n", ""), *(number(of(r, "burst").get(k)) for k in ("median", "max"))]
        for r in data["rows"]])


def w1_user(data):
    yield "The same where mcpsup is an ordinary user's and not root's:"
    yield ""
    yield from list(w1(data))[4:]


def w2(data):
    yield "## Many servers"
    yield ""
    yield "Started and listening; memory of everything that the supervisor keeps running beside them (PSS), wake-ups and processor time while nobody does anything; one more, from the change of a file to its listening (median); all stopped."
    yield ""
    middle = lambda xs: statistics.median(x for x in xs if x is not None) if isinstance(xs, list) and any(x is not None for x in xs) else None
    yield from table(["", "servers", "started, s", "memory of each, KiB", "wake-ups/s", "processor, ms/s", "one more, ms", "stopped, s", ""], [
        [name(r["name"]), r["n"], number(r.get("start_s")), number(r.get("pss_kib_per")), number(r.get("idle_vctx_per_s")), number(r.get("idle_cpu_ms_per_s")),
         number(middle(r.get("add_s")) and middle(r.get("add_s")) * 1000), number(r.get("stop_s")), r.get("note") or ""]
        for r in data["rows"]])


def w3(data):
    yield "## A server on standard input and output, behind a bridge"
    yield ""
    yield "`tools/call`, closed loop, keep-alive, to an echo server in C; the contenders take turns, the middle one of the repetitions. Processor time is of the bridge and its servers. *Awake*: while no processor sleeps (`/dev/cpu_dma_latency`); one that sleeps between two halves of a call takes its time to wake up, in a virtual machine above all."
    yield ""
    for server in dict.fromkeys(r["server"] for r in data.get("load", [])):
        yield from table([f"{server}", "sessions", "connections", "calls/s", "p50, ms", "p99, ms", "processor of a call, ms", "errors"], [
            [name(r["bridge"]), {"shared": "one", "own": "one each", "awake": "one, awake"}[r["sessions"]], r["conc"], number(r["rps"]), *(number(r[k] / 1000) for k in ("p50_us", "p99_us", "cpu_us")), r["errors"]]
            for r in data["load"] if r["server"] == server])
    if data.get("idle"):
        yield f"{data['idle'][0]['n']} sessions that say nothing, each with its stream open:"
        yield ""
        yield from table(["", "memory of the bridge for each, KiB", "wake-ups/s", "processor, ms/s"], [
            [name(r["bridge"]), "less than before" if (r.get("kib_each") or 0) < 0 else number(r.get("kib_each")), *(number(r.get(k)) for k in ("wakeups_per_s", "cpu_ms_per_s"))] if "error" not in r else [name(r["bridge"]), "failed: " + r["error"][:60], "", ""]
            for r in data["idle"]])
    if data.get("sessions"):
        yield "Processes and memory (PSS, MiB) of the bridge with its servers: at the beginning, with 21 sessions, after they were deleted, and after so many clients had come and left by `DELETE`, by dropping the connection, or with an open stream:"
        yield ""
        both = lambda r, k: f"{r[k]['procs']}, {number(r[k]['pss_mib'])}" if isinstance(r.get(k), dict) else ""
        yield from table(["", "server", "none", "21", "deleted", "clients", "DELETE", "dropped", "dropped, stream"], [
            [name(r["bridge"]), r["server"], *(both(r, k) for k in ("at0", "at21", "after_delete")), r.get("cycles", ""), *(both(r, f"after_{k}") for k in ("delete", "drop", "drop_stream"))]
            for r in data["sessions"]])


def w4(data):
    yield "## The way to a user's own HTTP server"
    yield ""
    yield f"{data['users']} users with a server each, every connection another user's: a POST of some 200 bytes, answered with 1 KiB, closed loop, keep-alive. *Processor* is of what lies between. mcpsup's daemon keeps the users' servers running too, and its memory is shown with that."
    yield ""
    yield from table(["", "connections", "calls/s", "p50, ms", "p99, ms", "processor of a call, ms", "errors"], [
        [name(r["name"]), r["conc"], number(r["rps"]), *(number(r[k] / 1000) for k in ("p50_us", "p99_us", "cpu_us")), r["errors"]] for r in data["load"]])
    events = {r["name"]: r for r in data.get("sse", [])}
    yield from table(["", "event through a stream, p50, ms", "p99", "memory for each user, KiB", "one user more, ms", "calls that went wrong", "with an unknown token"], [
        [name(r["name"]), *(number(events[r["name"]][k] / 1000) if r["name"] in events else "" for k in ("p50_us", "p99_us")), number(r["pss_kib"] / data["users"]) if "pss_kib" in r else "",
         number(statistics.median(r["add_ms"])) if r.get("add_ms") else "", r["wrong"], r.get("unknown_token", "")] for r in data["rest"]])


def page(results, quick):
    parts = {w.__name__: (w, json.loads((results / f"{w.__name__}.json").read_text())) for w in (w1, w1_user, w2, w3, w4) if (results / f"{w.__name__}.json").exists()}
    if not parts: sys.exit(f"no results in {results}")
    versions = {}
    for _, data in parts.values():
        versions.update(data.get("versions") or {r["name"]: r.get("version") for r in data.get("rows", []) if r.get("version")})
    missing = sorted({m for _, data in parts.values() for m in data.get("missing", [])})
    yield "# Benchmarks"
    yield ""
    yield "Written by `make bench` or `make bench-peers` ([how](../benches/README.md)), not by hand. Figures of different machines do not compare; nor do those of a busy one with those of a quiet one."
    yield ""
    if quick:
        yield "**A quick run on a busy machine, to show that the scripts work: no figure below means anything.**"
        yield ""
    yield f"* measured until {max(data.get('at', '') for _, data in parts.values())}; load of the machine then {max(data.get('load_at_end', 0) for _, data in parts.values()):.1f}, the workloads' own included"
    yield from machine()
    by_version = lambda n, v: f"{n} {v}".replace("mcpsup mcpsup", "mcpsup") if not n.startswith(("floor", "direct", "mcpsup-")) else None
    yield f"* versions: {', '.join(filter(None, (by_version(n, v) for n, v in versions.items())))}{'; not installed: ' + ', '.join(missing) if missing else ''}. *Floor* is a few lines of C that do only what cannot be left out"
    yield ""
    for write, data in parts.values(): yield from write(data)


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word != "--quick"]
    to = Path(words[1] if len(words) > 1 else HERE.parent / "docs/benchmarks.md")
    text = "\n".join(page(Path(words[0]), "--quick" in sys.argv)).rstrip("\n") + "\n"
    to.write_text(text)
    print("wrote", to)
