"""W4: what lies between a client and the user's own HTTP server: nothing, a door of mcpsup, or a gateway of others.

usage: w4_door.py [--users 100] [--conc 1,8,64] [--secs 3] [--reps 3] [--only a,b] [--sse 16] [--adds 5]
Each user has a process of tinyhttp. A call is a POST of some 200 bytes that is answered with 1 KiB, closed loop, keep-alive, and
every connection is another user's. mcpsup's users have a port each, and it asks whose connection that is (as root), or for a
token; the gateways have one port, and choose by token (configurable-http-proxy: by path).
Also: do all calls come to the right server, and is a wrong token refused; what an event takes to come through a stream; memory of
what stands between, per user; one more user, until a call of theirs is answered (mcpsup starts their server too).
To plug in another: subclass Between, append to ALL."""
import argparse, http.client, json, os, shutil, signal, socket, statistics, subprocess, time
from pathlib import Path
import lib
from lib import TOOLS, now, spawn

ap = argparse.ArgumentParser()
ap.add_argument("--users", type=int, default=100); ap.add_argument("--conc", default="1,8,64"); ap.add_argument("--secs", type=float, default=3)
ap.add_argument("--reps", type=int, default=3); ap.add_argument("--only", default=""); ap.add_argument("--sse", type=int, default=16)
ap.add_argument("--adds", type=int, default=5); ap.add_argument("--port", type=int, default=23000); ap.add_argument("--name", default="w4")
a = ap.parse_args()
lib.build()
SERVER, LOADGEN, MOST = lib.BIN / "tinyhttp", lib.BIN / "loadgen", a.users + a.adds
BODY = '{"jsonrpc":"2.0","id":%I,"method":"tools/call","params":{"name":"echo","arguments":{"message":"' + "m" * 93 + '"}}}'
WORK = lib.OUT / f"w4-{os.getpid()}"


def token(user): return f"tok{user}"


class Between:
    """Something between clients and servers. `ports` from `first` on are clients'; users' servers listen from `servers` on."""
    name = "?"; one_port = True; path = "/mcp"; refuses = 401; ours = False
    def __init__(self, first, servers):
        self.first, self.servers, self.users, self.work = first, servers, a.users, WORK / self.name
        self.work.mkdir(parents=True); self.process = None
    @classmethod
    def version(cls): return None
    def prepare(self): ...
    def start(self):
        self.prepare(); t = now()
        self.process = spawn(self.argv(), cwd=self.work, stdout=open(self.work / "out", "ab"), stderr=subprocess.STDOUT)
        self.wait(); self.ready(); return (now() - t) / 1e9
    def wait(self):
        end = time.monotonic() + 60
        while time.monotonic() < end and self.process.poll() is None:
            try: socket.create_connection(("127.0.0.1", self.first), 1).close(); return
            except OSError: time.sleep(0.02)
        raise RuntimeError((self.work / "out").read_text()[-300:])
    def ready(self): ...
    def add(self): raise NotImplementedError
    def stop(self):
        if self.process: lib.end_pids([self.process.pid], wait=20); self.process.poll()
    def pids(self): return [p for p in lib.descendants([self.process.pid]) if not lib.exe(p).endswith("/tinyhttp")] if self.process else []
    def server(self, user): return self.servers + user
    def tokens(self): return [token(user) for user in range(self.users)]
    def words(self):
        known = self.work / "tokens"; known.write_text("".join(t + "\n" for t in self.tokens())); known.chmod(0o600)
        return ["--users", self.users, *([] if self.one_port else ["--ports", self.users]), *(["--tokens", known] if self.tokens() else [])]
    def call(self, user, bearer=None):
        """(status, the port of the server that answered)"""
        c = http.client.HTTPConnection("127.0.0.1", self.first + (0 if self.one_port else user), timeout=10)
        tokens = self.tokens(); bearer = bearer or (tokens and tokens[user])
        c.request("POST", self.path.replace("%U", str(user)), BODY.replace("%I", "7"), {"Content-Type": "application/json", "Accept": "application/json, text/event-stream", **({"Authorization": f"Bearer {bearer}"} if bearer else {})})
        r = c.getresponse(); text = r.read(); c.close()
        return r.status, json.loads(text)["result"]["port"] if r.status == 200 else None


class Direct(Between):
    """Nothing between them."""
    name = "direct"; one_port = False; refuses = None
    @classmethod
    def version(cls): return "src/tinyhttp.c"
    def start(self): self.first = self.servers; return 0
    def tokens(self): return []
class Minidoor(Between):
    name = "floor-minidoor"; one_port = False; refuses = None
    @classmethod
    def version(cls): return "src/minidoor.c"
    def argv(self): return [lib.BIN / "minidoor", self.first, self.users, self.servers]
    def tokens(self): return []
class Mcpsup(Between):
    """Each user's door on a port of its own; the daemon starts their servers."""
    name = "mcpsup"; one_port = False; access = "owner"; refuses = None; ours = True
    @classmethod
    def version(cls): return os.geteuid() == 0 and lib.MCPSUP.exists() and lib.run([lib.MCPSUP, "--version"]).stdout.strip()
    def save(self, user):
        new = self.work / "new"; new.write_text(f"MCPSUP_PORT={self.first + user}\n"); new.chmod(0o600); new.rename(self.work / "env.d" / f"u{user:04}.env")
    def prepare(self):
        (self.work / "env.d").mkdir(mode=0o700)
        (self.work / "mcpsup.toml").write_text(f"""[ports]
range = "{self.first}-{self.first + MOST}"
backend_range = "{self.servers}-{self.servers + 2 * MOST}"
[server.bench]
command = ["{SERVER}", "{{port}}"]
transport = "http"
access = "{self.access}"
ready = {{ probe = "tcp" }}
""")
        for user in range(self.users): self.save(user)
    def argv(self): return [lib.MCPSUP, "--config", self.work / "mcpsup.toml", "daemon"]
    def ask(self, *words): return lib.run([lib.MCPSUP, "--config", self.work / "mcpsup.toml", *words]).stdout
    def wait(self):
        end = time.monotonic() + 60
        while time.monotonic() < end:
            states = [i["state"] for i in json.loads(self.ask("ports", "--json") or '{"instances": []}')["instances"]]
            if states.count("up") == self.users: return
            time.sleep(0.1)
        raise RuntimeError((self.work / "out").read_text()[-300:])
    def add(self): self.save(self.users); self.users += 1
    def server(self, user): return None
    def tokens(self): return []
class McpsupToken(Mcpsup):
    """The same where a token is asked for, always."""
    name = "mcpsup-token"; access = "token"; refuses = 401
    @classmethod
    def version(cls): return lib.MCPSUP.exists() and lib.run([lib.MCPSUP, "--version"]).stdout.strip()
    def __init__(self, *words): super().__init__(*words); self.known = []
    def tokens(self):
        while len(self.known) < self.users:
            said = self.ask("headers", f"u{len(self.known):04}")
            if not said: time.sleep(0.001); continue
            self.known.append(json.loads(said)["Authorization"].split()[1])
        return self.known
class Haproxy(Between):
    name = "haproxy"
    @classmethod
    def version(cls): return shutil.which("haproxy") and lib.run(["haproxy", "-v"]).stdout.split()[2]
    def prepare(self):
        (self.work / "map").write_text("".join(f"{token(u)} u{u}\n" for u in range(self.users)))
        ways = "".join(f"backend u{u}\n http-reuse always\n server s 127.0.0.1:{self.servers + u}\n" for u in range(self.users))
        # Without http-no-delay, events are held back to be sent together.
        (self.work / "conf").write_text(f"global\n nbthread 1\ndefaults\n mode http\n option http-no-delay\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n"
            f"frontend f\n bind 127.0.0.1:{self.first}\n http-request set-var(txn.u) req.hdr(authorization),word(2,' '),map_str({self.work}/map)\n"
            f" http-request deny deny_status 401 unless {{ var(txn.u) -m found }}\n use_backend %[var(txn.u)]\n{ways}")
    def argv(self): return ["haproxy", "-f", self.work / "conf"]
class Nginx(Between):
    name = "nginx"
    @classmethod
    def version(cls): return shutil.which("nginx") and lib.run(["nginx", "-v"]).stderr.split("/")[1].strip()
    def prepare(self):
        w, users = self.work, range(self.users)
        ways = "".join(f"upstream u{u} {{ server 127.0.0.1:{self.servers + u}; keepalive 16; keepalive_requests 1000000; }}\n" for u in users)
        paths = " ".join(f"{kind}_temp_path {w}/t;" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        (w / "conf").write_text(f"""worker_processes 1; daemon off; pid {w}/pid; error_log {w}/err warn; events {{ worker_connections 4096; }}
http {{ access_log off; {paths} map_hash_bucket_size 128; map_hash_max_size 65536; keepalive_requests 1000000;
map $http_authorization $way {{ default ""; {" ".join(f'"Bearer {token(u)}" u{u};' for u in users)} }}
{ways}server {{ listen 127.0.0.1:{self.first} backlog=1024; location / {{ if ($way = "") {{ return 401; }}
proxy_pass http://$way; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host; proxy_buffering off; }} }} }}
""")
    def argv(self): return ["nginx", "-p", self.work, "-c", self.work / "conf"]
    def add(self): self.users += 1; self.prepare(); os.kill(self.process.pid, signal.SIGHUP)
class Chp(Between):
    """JupyterHub's proxy: by path, no token; a REST call for each route."""
    name = "configurable-http-proxy"; path = "/user/%U/mcp"; refuses = None
    AT = TOOLS / "node/node_modules/configurable-http-proxy"
    @classmethod
    def version(cls): return json.loads((cls.AT / "package.json").read_text())["version"]
    def argv(self): return ["node", self.AT / "bin/configurable-http-proxy", "--ip", "127.0.0.1", "--port", self.first, "--api-ip", "127.0.0.1", "--api-port", self.first + 1, "--log-level", "error"]
    def route(self, user):
        c = http.client.HTTPConnection("127.0.0.1", self.first + 1, timeout=10)
        c.request("POST", f"/api/routes/user/{user}", json.dumps(dict(target=f"http://127.0.0.1:{self.servers + user}")), {"Content-Type": "application/json"})
        if c.getresponse().status != 201: raise RuntimeError("no route")
    def ready(self):
        time.sleep(0.5)
        for user in range(self.users): self.route(user)
    def add(self): self.route(self.users); self.users += 1


ALL = [Direct, Minidoor, Mcpsup, McpsupToken, Haproxy, Nginx, Chp]


def load(it, mode, conc, secs):
    before = {p: lib.cpu_ctx(p)[0] for p in it.pids()}
    words = [LOADGEN, mode, it.first, it.path, conc, secs, "--warm", "0.5", "--body", BODY, *it.words(), *(["--expect", '"port":'] if mode == "http" else [])]
    r = json.loads(lib.run(words, timeout=secs + 60).stdout.splitlines()[-1])
    r["cpu_us"] = sum(lib.cpu_ctx(p)[0] - ns for p, ns in before.items()) / 1e3 / max(1, r["n"] * (secs + 0.5) / secs)
    return r


chosen, versions = [], {}
for kind in ALL:
    try: found = kind.version()
    except Exception: found = None
    if found and (not a.only or kind.name in a.only.split(",")): chosen.append(kind); versions[kind.name] = found
    elif not found: print("missing:", kind.name)
# The servers of everybody but mcpsup, which starts its own.
theirs = [spawn([SERVER, a.port + u]) for u in range(MOST)]; time.sleep(0.5)
out, first, runs = dict(versions=versions, users=a.users, load=[], sse=[], rest=[]), a.port + MOST, []
for kind in chosen:
    it = kind(first, first + MOST + 1 if kind.ours else a.port); first += (4 if kind.ours else 1) * (MOST + 8)
    try: started = it.start()
    except Exception as e: print("no start:", kind.name, repr(e)[:400]); it.stop(); continue
    runs.append(it); row = dict(name=it.name, start_s=started)
    answers = [it.call(u) for u in range(a.users)]
    row["wrong"] = sum(status != 200 or it.server(u) not in (None, port) for u, (status, port) in enumerate(answers)) + (a.users - len({port for _, port in answers}))
    if it.refuses: row["unknown_token"] = it.call(0, "nobody")[0]
    it.row = row; out["rest"].append(row)
    print(f"{it.name:24} {versions[it.name]}: wrong {row['wrong']} of {a.users}, unknown token -> {row.get('unknown_token', '-')}", flush=True)
kept = {}
for _ in range(a.reps):
    for conc in map(int, a.conc.split(",")):
        for it in runs: kept.setdefault((it.name, conc), []).append(load(it, "http", conc, a.secs))
for (name, conc), rs in kept.items():
    middle = lambda key: statistics.median(r[key] for r in rs)
    row = dict(name=name, conc=conc, **{key: middle(key) for key in ("rps", "min_us", "p50_us", "p99_us", "cpu_us")}, errors=sum(r["errors"] for r in rs), first_error=next((r["first_error"] for r in rs if r["first_error"]), ""))
    out["load"].append(row)
    print(f"{name:24} c={conc:3} {row['rps']:8.0f}/s p50 {row['p50_us']:8.1f} p99 {row['p99_us']:9.1f} cpu {row['cpu_us']:6.1f} us errors {row['errors']} {row['first_error']}", flush=True)
for it in runs if a.sse else []:
    r = load(it, "sse", a.sse, 4); out["sse"].append(dict(name=it.name, **{k: r[k] for k in ("rps", "p50_us", "p99_us", "errors", "first_error")}))
    print(f"{it.name:24} events/s {r['rps']:.0f} p50 {r['p50_us']:.1f} p99 {r['p99_us']:.1f} us {r['first_error']}", flush=True)
for it in runs:
    if it.process: it.row["pss_kib"] = sum(lib.mem_kib(p)[1] for p in it.pids())
    try:
        it.row["add_ms"] = []
        for _ in range(a.adds):
            user, t = it.users, now(); it.add()
            while True:
                try:
                    if it.call(user)[0] == 200: break
                except (OSError, http.client.HTTPException): pass
                if now() - t > 10e9: raise RuntimeError("no way after 10 s")
                time.sleep(0.001)
            it.row["add_ms"].append((now() - t) / 1e6)
    except NotImplementedError: del it.row["add_ms"]
    except RuntimeError as e: it.row["add_error"] = str(e)
    print(it.row, flush=True)
for it in runs: it.stop()
lib.end_pids([p.pid for p in theirs]); lib.save(a.name, out)
