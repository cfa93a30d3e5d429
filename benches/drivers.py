"""Supervisor contenders for W1 and W2. One class each; see Driver for the interface.

To plug a new contender: subclass Driver, implement prepare/start/add (and override stop, roots,
settled where the default does not fit), append the class to ALL. Nothing else changes."""
import json, os, re, shutil, signal, subprocess, time
from pathlib import Path
import lib
from lib import TOOLS, run, spawn


class Driver:
    name = "?"
    variants = ("default", "fast")     # settings flavours: what the peer ships with / fastest restart it allows
    slow = False                       # polls: restart takes >0.3 s, kills are overlapped in W1
    max_n = 10 ** 9                    # largest N the contender can hold (documented or hard limit)
    dynamic = True                     # can add an instance while running
    note = ""

    def __init__(self, work, target, log, variant="default"):
        self.w, self.target, self.log, self.variant = Path(work), str(target), str(log), variant
        self.fast = variant == "fast"
        self.p = None
        self.w.mkdir(parents=True, exist_ok=True)

    # -- to implement -----------------------------------------------------------------
    @classmethod
    def version(cls): return "?"       # raise or return None when the contender is not installed
    def prepare(self, ports): ...      # write all configuration for these ports
    def start(self): ...               # start the supervisor, do not wait for the instances
    def add(self, port): ...           # configuration change + whatever the peer needs to notice it
    # -- usual answers ------------------------------------------------------------------
    def roots(self):                   # pids of the supervisor's own top processes
        return [self.p.pid] if self.p else []
    def begin_stop(self):              # ask for an orderly stop of everything, do not wait
        if self.p and self.p.poll() is None: os.kill(self.p.pid, signal.SIGTERM)
    def reap(self):
        if self.p: self.p.poll()
    def argv(self, port): return [self.target, str(port), self.log]
    def out(self): return open(self.w / "sup.out", "ab")


class Minisup(Driver):
    """Floor: vfork+exec straight after waitpid, in C."""
    name = "floor-minisup"; variants = ("fast",)
    @classmethod
    def version(cls): return "src/minisup.c"
    def prepare(self, ports): (self.w / "list").write_text("".join(f"{p}\n" for p in ports))
    def start(self): self.p = spawn([lib.BIN / "minisup", self.w / "list", self.target, self.log])
    def add(self, port):
        with open(self.w / "list", "a") as f: f.write(f"{port}\n")
        os.kill(self.p.pid, signal.SIGHUP)


class Runit(Driver):
    name = "runit"; variants = ("default",); max_n = 1000   # runsvdir(8): limit of 1000 subdirectories
    @classmethod
    def version(cls):
        return shutil.which("runsvdir") and run(["dpkg-query", "-W", "-f", "${Version}", "runit"]).stdout
    def _unit(self, port):
        d = self.w / "defs" / f"u{port}"; d.mkdir(parents=True)
        (d / "run").write_text("#!/bin/sh\nexec " + " ".join(self.argv(port)) + "\n"); (d / "run").chmod(0o755)
        (self.w / "sv" / f"u{port}").symlink_to(d)
    def prepare(self, ports):
        (self.w / "sv").mkdir(exist_ok=True)
        for p in ports: self._unit(p)
    def start(self): self.p = spawn(["runsvdir", "-P", self.w / "sv"], stdout=self.out(), stderr=subprocess.STDOUT)
    def add(self, port): self._unit(port)         # runsvdir looks every 5 s, there is no faster way
    def begin_stop(self): os.kill(self.p.pid, signal.SIGHUP)


class S6(Driver):
    name = "s6"; slow = True; variants = ("default",)
    @classmethod
    def version(cls):
        return shutil.which("s6-svscan") and run(["dpkg-query", "-W", "-f", "${Version}", "s6"]).stdout
    def _unit(self, port):
        d = self.w / "defs" / f"u{port}"; d.mkdir(parents=True)
        (d / "run").write_text("#!/bin/sh\nexec " + " ".join(self.argv(port)) + "\n"); (d / "run").chmod(0o755)
        (self.w / "scan" / f"u{port}").symlink_to(d)
    def prepare(self, ports):
        (self.w / "scan").mkdir(exist_ok=True)
        for p in ports: self._unit(p)
        self.n = len(ports)
    def start(self): self.p = spawn(["s6-svscan", "-c", max(500, 2 * self.n + 50), self.w / "scan"], stdout=self.out(), stderr=subprocess.STDOUT)
    def add(self, port):
        self._unit(port)
        run(["s6-svscanctl", "-a", self.w / "scan"])
    # s6-svscan's SIGTERM: TERM to every s6-supervise, which brings its service down


class Mcpsup(Driver):
    """mcpsup itself: one env file per instance. The target's port is the backend port, which is given out in
    order of names from a range that holds just the ports of the run, so user u10001 gets port 10001."""
    name = "mcpsup"; variants = ("default",); doors = 5101
    BIN = lib.MCPSUP
    daemon, before = "", ()
    @classmethod
    def version(cls): return cls.BIN.exists() and run([cls.BIN, "--version"]).stdout.strip()
    def _unit(self, port):
        new = self.w / f"new-{port}"
        new.write_text("MCPSUP_ENABLED=true\n"); new.chmod(0o600); new.rename(self.w / "env.d" / f"u{port:05}.env")
    def prepare(self, ports):
        (self.w / "env.d").mkdir(mode=0o700, exist_ok=True)
        (self.w / "mcpsup.toml").write_text(f"""[ports]
range = "{self.doors}-{self.doors + 2700}"
backend_range = "{min(ports)}-{max(ports) + 64}"
{self.daemon}[server.target]
command = ["{self.target}", "{{port}}", "{self.log}"]
transport = "http"
ready = {{ probe = "tcp" }}
restart = {{ stable = "1s" }}
allow = {{ write = ["{Path(self.log).parent}"] }}
""")
        for p in ports: self._unit(p)
    def start(self):
        self.p = spawn([*self.before, self.BIN, "--config", self.w / "mcpsup.toml", "daemon"], stdout=self.out(), stderr=subprocess.STDOUT)
    def add(self, port): self._unit(port)


class Uncaged(Mcpsup):
    """mcpsup where a run gets no cage: no cgroup, namespace, Landlock or seccomp. As root, accounts remain."""
    name = "mcpsup-uncaged"; doors = 8001; daemon = '[daemon]\ncontainment = "session"\n'
    before = (lib.BIN / "uncaged",)


ALL = [Minisup, Runit, S6, Mcpsup]


def available(more=()):
    got, missing = [], []
    for d in [*ALL, *more]:
        try: v = d.version()
        except Exception as e: v = None
        (got.append((d, v)) if v else missing.append(d.name))
    return got, missing
