"""W3: stdio MCP server behind a bridge to Streamable HTTP, against direct stdio.

usage: w3_bridge.py [--servers echo[,everything,time]] [--conc 1,8,64] [--secs 3] [--reps 2] [--only a,b] [--parts load,idle,sessions]
load:     tools/call closed loop, one MCP session shared by CONC keep-alive connections; for the echo server also one session
          per connection ('own'). Contenders are interleaved; medians of the repetitions are reported. As root all of it once
          more while no processor sleeps ('awake', see lib.awake).
idle:     100 sessions, each with a connection and an open SSE stream, and nobody says anything: memory of the bridge's own process
          for each, and how often it wakes up in 20 s.
sessions: memory and processes at 0, 1, 21 open sessions; idle CPU; leftovers after 100 connect/leave cycles, where clients
          leave (a) with DELETE, (b) by dropping the connection, an SSE GET stream open or not.
Peers are found below BENCH_TOOLS (node/node_modules, venv-mcp) and left out where they are not."""
import argparse, http.client, json, os, socket, statistics, subprocess, sys, time
from pathlib import Path
import lib
from lib import TOOLS, spawn, now

ap = argparse.ArgumentParser()
ap.add_argument("--servers", default="echo"); ap.add_argument("--conc", default="1,8,64")
ap.add_argument("--secs", type=float, default=3); ap.add_argument("--reps", type=int, default=2); ap.add_argument("--only", default="")
ap.add_argument("--parts", default="load,idle,sessions"); ap.add_argument("--cycles", type=int, default=100); ap.add_argument("--name", default="w3")
ap.add_argument("--port", type=int, default=11001); ap.add_argument("--proto", default="2025-06-18")
a = ap.parse_args()
lib.build(); LG = lib.BIN / "loadgen"
NODE = TOOLS / "node/node_modules"
SERVERS = {
    "echo": dict(cmd=[str(lib.BIN / "echomcp")], tool="echo", args={"message": "hello"}, expect="xxxx"),
    "everything": dict(cmd=["node", str(NODE / "@modelcontextprotocol/server-everything/dist/index.js"), "stdio"], tool="echo", args={"message": "hello"}, expect="hello"),
    "time": dict(cmd=[str(TOOLS / "venv-mcp/bin/mcp-server-time"), "--local-timezone", "UTC"], tool="get_current_time", args={"timezone": "UTC"}, expect="UTC"),
}


def rpc(tool, args): return json.dumps(dict(jsonrpc="2.0", id=0, method="tools/call", params=dict(name=tool, arguments=args))).replace('"id": 0', '"id":%I')


class Bridge:
    name = "?"; mode = "mcp"; stateless = False; parts = ("load", "sessions", "idle")
    def __init__(self, server, port, work): self.s, self.port, self.w = SERVERS[server], port, Path(work)
    def argv(self): ...
    def env(self): return dict(os.environ)
    def path(self): return "/mcp"
    @classmethod
    def version(cls): return "?"
    def start(self, timeout=60):
        self.w.mkdir(parents=True, exist_ok=True); t = now()
        self.p = spawn(self.argv(), env=self.env(), cwd=self.w, stdout=open(self.w / "out", "ab"), stderr=subprocess.STDOUT)
        end = time.monotonic() + timeout
        while time.monotonic() < end and self.p.poll() is None:
            try: socket.create_connection(("127.0.0.1", self.port), 1).close(); return (now() - t) / 1e9
            except OSError: time.sleep(0.02)
        raise RuntimeError(f"{self.name} did not start: " + (self.w / "out").read_text()[-300:])
    def stop(self): lib.end_pids(list(lib.descendants([self.p.pid])), wait=3); self.p.poll()
    def pids(self): return list(lib.descendants([self.p.pid]))


class Floor(Bridge):
    name = "floor-minibridge"; stateless = True; parts = ("load",)
    def argv(self): return [lib.BIN / "minibridge", self.port, "--", *self.s["cmd"]]
class SgStateful(Bridge):
    name = "supergateway-stateful"
    @classmethod
    def version(cls): return json.loads((NODE / "supergateway/package.json").read_text())["version"]
    def argv(self):
        return ["node", NODE / "supergateway/dist/index.js", "--stdio", " ".join(self.s["cmd"]), "--outputTransport", "streamableHttp", "--stateful", "--port", self.port, "--logLevel", "none"]
class SgStateless(SgStateful):
    name = "supergateway-stateless"; stateless = True
    def argv(self): return [x for x in super().argv() if x != "--stateful"]
class McpProxy(Bridge):
    name = "mcp-proxy"
    @classmethod
    def version(cls): return lib.run([TOOLS / "venv-mcp/bin/mcp-proxy", "--version"]).stdout.strip()
    def argv(self): return [TOOLS / "venv-mcp/bin/mcp-proxy", "--port", self.port, "--log-level", "ERROR", "--", *self.s["cmd"]]
class McpProxyStateless(McpProxy):
    name = "mcp-proxy-stateless"; stateless = True
    def argv(self): return [TOOLS / "venv-mcp/bin/mcp-proxy", "--port", self.port, "--log-level", "ERROR", "--stateless", "--", *self.s["cmd"]]
class Mcpsup(Bridge):
    """mcpsup itself: one user, one stdio server, its door on the port."""
    name = "mcpsup"; sessions = "shared"; access = ""
    BIN = lib.MCPSUP
    @classmethod
    def version(cls): return cls.BIN.exists() and lib.run([cls.BIN, "--version"]).stdout.strip()
    def argv(self):
        env = self.w / "env.d"; env.mkdir(mode=0o700, exist_ok=True)
        (env / "bench.env").write_text("MCPSUP_ENABLED=true\n"); (env / "bench.env").chmod(0o600)
        (self.w / "mcpsup.toml").write_text(f"""[ports]
range = "{self.port}-{self.port}"
[server.bench]
command = {json.dumps([str(x) for x in self.s["cmd"]])}
transport = "stdio"
sessions = "{self.sessions}"
max_sessions = 512
""")
        return [self.BIN, "--config", self.w / "mcpsup.toml", "daemon"]
class McpsupIsolated(Mcpsup):
    name = "mcpsup-isolated"; sessions = "isolated"
ALL = [Floor, SgStateful, SgStateless, McpProxy, McpProxyStateless, Mcpsup, McpsupIsolated]


def load(b, conc, own=False):
    s = b.s
    if b.p.poll() is not None:      # the bridge itself died: count it, start it again
        b.died = getattr(b, "died", 0) + 1; b.start(); time.sleep(1)
    cmd = [LG, "http" if b.mode == "rest" else "mcp", b.port, b.path(), conc, a.secs, "--warm", "1", "--proto", a.proto, "--expect", s["expect"],
           "--body", json.dumps(s["args"]) if b.mode == "rest" else rpc(s["tool"], s["args"])]
    if b.mode != "rest": cmd += ["--stateless"] if b.stateless else ([] if own else ["--shared"])
    if not b.stateless and b.mode != "rest": cmd += ["--delete"]
    c0 = cpu_s(b); r = json.loads(lib.run(cmd, timeout=a.secs + 60).stdout.splitlines()[-1])
    # CPU of the bridge and its children per answer, from answers per second over the whole run: robust against a busy machine
    r["cpu_us"] = (cpu_s(b) - c0) * 1e6 / max(1, r["n"] * (a.secs + 1) / a.secs)
    return r


def cpu_s(b):
    """CPU seconds of the bridge tree; children already reaped count through the bridge's cutime+cstime."""
    t = 0.0
    for p in b.pids(): t += lib.cpu_ctx(p)[0] / 1e9
    try:
        with open(f"/proc/{b.p.pid}/stat") as f: x = f.read().rsplit(")", 1)[1].split(); t += (int(x[13]) + int(x[14])) / lib.HZ
    except OSError: pass
    return t


def direct(server, conc):
    s = SERVERS[server]
    r = lib.run([LG, "stdio", conc, a.secs, "--warm", "1", "--proto", a.proto, "--expect", s["expect"], "--body", rpc(s["tool"], s["args"]), "--", *s["cmd"]], timeout=a.secs + 60)
    return json.loads(r.stdout.splitlines()[-1])


class Session:
    """One MCP client session over raw sockets."""
    def __init__(self, b, stream=False):
        self.b, self.sid, self.get = b, None, None
        self.c = http.client.HTTPConnection("127.0.0.1", b.port, timeout=30)
        r, body = self.post(dict(jsonrpc="2.0", id=1, method="initialize", params=dict(protocolVersion=a.proto, capabilities={}, clientInfo=dict(name="s", version="1"))))
        self.sid = r.getheader("mcp-session-id")
        self.post(dict(jsonrpc="2.0", method="notifications/initialized"))
        r, body = self.post(dict(jsonrpc="2.0", id=2, method="tools/call", params=dict(name=b.s["tool"], arguments=b.s["args"])))
        self.ok = b.s["expect"].encode() in body
        if stream and self.sid:
            self.get = socket.create_connection(("127.0.0.1", b.port), 10)
            self.get.sendall(f"GET {b.path()} HTTP/1.1\r\nHost: 127.0.0.1:{b.port}\r\nAccept: text/event-stream\r\nMcp-Session-Id: {self.sid}\r\nMCP-Protocol-Version: {a.proto}\r\n\r\n".encode())
    def hdr(self):
        h = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        if self.sid: h.update({"Mcp-Session-Id": self.sid, "MCP-Protocol-Version": a.proto})
        return h
    def post(self, o):
        self.c.request("POST", self.b.path(), json.dumps(o), self.hdr()); r = self.c.getresponse(); return r, r.read()
    def delete(self):
        if self.sid:
            self.c.close()                       # servers close idle keep-alive connections after some seconds: dial anew
            self.c.request("DELETE", self.b.path(), headers=self.hdr()); self.c.getresponse().read()
        self.drop()
    def drop(self):
        for s in (self.get, self.c.sock):
            if s: s.close()


def snap(b):
    ps = b.pids(); m = [lib.mem_kib(p) for p in ps]
    return dict(procs=len(ps), pss_mib=sum(x[1] for x in m) / 1024, rss_mib=sum(x[0] for x in m) / 1024)


def sessions(B, server, port):
    b = B(server, port, lib.OUT / f"w3-{os.getpid()}" / f"{B.name}-{server}-sess"); r = dict(bridge=B.name, server=server)
    try:
        r["ready_s"] = b.start(); time.sleep(2); r["at0"] = snap(b)
        if b.mode == "rest":
            return r
        t = now(); s = Session(b); r["first_session_ms"] = (now() - t) / 1e6; r["first_ok"] = s.ok; time.sleep(1); r["at1"] = snap(b)
        c0 = {p: lib.threads(p) for p in b.pids()}; time.sleep(8); used = [lib.spent(c0[p], lib.threads(p)) for p in c0]
        r["idle_cpu_ms_per_s"] = sum(one[0] for one in used) / 8e6; r["idle_vctx_per_s"] = sum(one[2] for one in used) / 8
        more = [Session(b) for _ in range(20)]; time.sleep(1); r["at21"] = snap(b)
        for x in more: x.delete()
        s.delete(); time.sleep(3); r["after_delete"] = snap(b)
        n = a.cycles if server == "echo" else max(10, a.cycles // 10)
        r["cycles"] = n
        for kind, stream in (("delete", False), ("drop", False), ("drop_stream", True)):
            t = now(); bad = 0
            for _ in range(n):
                try:
                    x = Session(b, stream); bad += not x.ok
                    if stream: time.sleep(0.01)
                    x.delete() if kind == "delete" else x.drop()
                except Exception as e: bad += 1; r[f"err_{kind}"] = repr(e)[:200]
            dt = (now() - t) / 1e9; time.sleep(5); r[f"after_{kind}"] = dict(snap(b), s=dt, bad=bad)
    except Exception as e: r["error"] = repr(e)[:300]
    finally:
        try: b.stop()
        except Exception: pass
    return r


def idle(B, server, port, n=100, secs=20):
    b = B(server, port, lib.OUT / f"w3-{os.getpid()}" / f"{B.name}-{server}-idle"); r = dict(bridge=B.name, server=server, n=n)
    try:
        b.start(); time.sleep(2); first = Session(b); first.delete(); time.sleep(1); before = lib.mem_kib(b.p.pid)
        held = [Session(b, True) for _ in range(n)]; time.sleep(12); after = lib.mem_kib(b.p.pid)    # by then its spare threads have ended
        c0 = lib.threads(b.p.pid); time.sleep(secs); used = lib.spent(c0, lib.threads(b.p.pid))
        r.update(ok=sum(x.ok for x in held), kib_each=round((after[2] - before[2]) / n, 1) if after[2] else None, cpu_ms_per_s=used[0] / secs / 1e6, wakeups_per_s=used[2] / secs)
        for x in held: x.drop()
    except Exception as e: r["error"] = repr(e)[:300]
    finally:
        try: b.stop()
        except Exception: pass
    return r


got = []
for B in ALL:
    if a.only and B.name not in a.only.split(","): continue
    try: v = B.version(); v and got.append((B, v))
    except Exception as e: print("missing", B.name, repr(e)[:100])
print([(B.name, v) for B, v in got], "load", os.getloadavg(), flush=True)
if not got: sys.exit(f"none of these is there: {a.only or ', '.join(B.name for B in ALL)}")
out = dict(versions={B.name: v for B, v in got}, load=[], idle=[], sessions=[])
concs = list(map(int, a.conc.split(",")))
if "load" in a.parts.split(","):
    for server in a.servers.split(","):
        bs, port = [], a.port
        for B, v in got:
            port += 1; b = B(server, port, lib.OUT / f"w3-{os.getpid()}" / f"{B.name}-{server}")
            try: b.start(); bs.append(b)
            except Exception as e: print("no start", B.name, server, repr(e)[:300])
        time.sleep(2); acc = {}
        def put(k, f):
            try: acc.setdefault(k, []).append(f())
            except Exception as e: acc.setdefault(k, []).append(dict(rps=0, errors=-1, p50_us=0, p99_us=0, n=0, first_error=repr(e)[:200]))
        for rep in range(a.reps):
            for conc in concs:
                put(("direct-stdio", "shared", conc), lambda: direct(server, conc))
                for b in bs:
                    put((b.name, "shared", conc), lambda: load(b, conc))
                    if server == "echo" and conc > 1 and b.mode == "mcp" and not b.stateless: put((b.name, "own", conc), lambda: load(b, conc, True))
                with lib.awake() as awake:
                    if awake: put(("direct-stdio", "awake", conc), lambda: direct(server, conc))
                    for b in bs if awake else []: put((b.name, "awake", conc), lambda: load(b, conc))
        for b in bs:
            if getattr(b, "died", 0): print("DIED", b.name, server, b.died); out.setdefault("died", []).append((b.name, server, b.died))
            b.stop()
        for (n, kind, conc), rs in acc.items():
            m = lambda k: statistics.median(r[k] for r in rs)
            row = dict(server=server, bridge=n, sessions=kind, conc=conc, rps=m("rps"), p50_us=m("p50_us"), p99_us=m("p99_us"), min_us=statistics.median(r.get("min_us", 0) for r in rs), cpu_us=statistics.median(r.get("cpu_us", 0) for r in rs), errors=sum(r["errors"] for r in rs), err=[r["first_error"] for r in rs if r["first_error"]][:1], rps_all=[r["rps"] for r in rs])
            out["load"].append(row)
            print(f"{server:10} {n:24} {kind:6} c={conc:3} rps {row['rps']:9.0f} p50 {row['p50_us']/1e3:9.3f} p99 {row['p99_us']/1e3:9.3f} min {row['min_us']/1e3:8.3f} ms cpu/req {row['cpu_us']/1e3:8.3f} ms err {row['errors']} {row['err']}", flush=True)
        lib.save(a.name, out)
if "idle" in a.parts.split(","):
    for i, (B, v) in enumerate(got):
        if "idle" in B.parts and not B.stateless:
            r = idle(B, "echo", a.port + 60 + i); out["idle"].append(r); print(json.dumps(r), flush=True); lib.save(a.name, out)
if "sessions" in a.parts.split(","):
    for server in a.servers.split(","):
        for i, (B, v) in enumerate((B, v) for B, v in got if "sessions" in B.parts):
            r = sessions(B, server, a.port + 100 + i); out["sessions"].append(r); print(json.dumps(r), flush=True); lib.save(a.name, out)
