"""The four workloads one after another, and the page of what they measured: `make bench`, `make bench-peers`.

usage: run.py [--peers] [--quick] [--only w1,w4] [--page docs/benchmarks.md] [--port 11001]
Without --peers: mcpsup and the floors. With it: everything that is installed beside them (README.md). --quick shows in three
minutes that all of it works; its figures mean nothing. Ports from --port on are used, 4000 of them, and those that README.md names."""
import argparse, os, subprocess, sys, tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
OURS = {"w1": "floor-minisup,mcpsup,mcpsup-uncaged", "w2": "floor-minisup,mcpsup", "w3": "floor-minibridge,mcpsup,mcpsup-isolated", "w4": "direct,floor-minidoor,mcpsup,mcpsup-token"}
SCRIPTS = {"w1": "w1_restart.py", "w2": "w2_scale.py", "w3": "w3_bridge.py", "w4": "w4_door.py"}
QUICK = {"w1": "--rounds 5 --slow-rounds 3 --burst 3", "w2": "--n 50 --idle 3 --settle 1", "w3": "--secs 1 --reps 1 --parts load,idle", "w4": "--users 20 --secs 1 --reps 1"}
WHOLE = {"w1": "", "w2": "--n 100,1000 --adds 9", "w3": "--reps 3", "w4": ""}

ap = argparse.ArgumentParser()
ap.add_argument("--peers", action="store_true"); ap.add_argument("--quick", action="store_true"); ap.add_argument("--only", default="w1,w2,w3,w4")
ap.add_argument("--page", default=HERE.parent / "docs/benchmarks.md"); ap.add_argument("--port", type=int, default=11001)
a = ap.parse_args()
out = Path(os.environ.setdefault("BENCH_OUT", tempfile.mkdtemp(prefix="bench-")))
failed = []
for w in a.only.split(","):
    words = [sys.executable, HERE / SCRIPTS[w], "--name", w, "--port", str(a.port), *(QUICK if a.quick else WHOLE)[w].split()]
    if not a.peers: words += ["--only", OURS[w]]
    print("==", *words[1:], flush=True)
    if subprocess.run(words).returncode: failed.append(w)
if failed: sys.exit(f"failed: {', '.join(failed)}; nothing is written. What there is, is in {out}")
subprocess.run([sys.executable, HERE / "report.py", *(["--quick"] if a.quick else []), out / "results", a.page], check=True)
