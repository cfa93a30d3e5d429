# What a server may use: memory.max, cpu.max and pids.max, each in force, and what comes of reaching it.

person alice
person bob
install_mcpsup
cat >/opt/mcp/hog.sh <<'S'
# Eats memory until it is stopped.
exec perl -e 'my @all; while (1) { push @all, "x" x 10_000_000; select undef, undef, undef, 0.02 }'
S
cat >/opt/mcp/bomb.sh <<'S'
# A server that forks without end, beside what it should do.
/opt/mcp/unruly --port "$1" &
sleep 2
bomb() { while :; do bomb & done; }
bomb 2>/dev/null
S
cat >/opt/mcp/busy.sh <<'S'
/opt/mcp/unruly --port "$1" &
for _ in 1 2; do (while :; do :; done) & done
wait
S
configure '[ports]
range = "3456-3499"
[server.calm]
command   = ["/opt/mcp/unruly", "--port", "{port}"]
transport = "http"
limits    = { memory = "512M", cpu = "50%", tasks = 64, open_files = 100000 }
[server.hog]
command   = ["/bin/sh", "/opt/mcp/hog.sh", "{port}"]
transport = "http"
for_all   = false
limits    = { memory = "64M", tasks = 16 }
restart   = { first_wait = "2s", max_wait = "20s" }
[server.bomb]
command   = ["/bin/bash", "/opt/mcp/bomb.sh", "{port}"]
transport = "http"
for_all   = false
limits    = { memory = "256M", tasks = 40 }
[server.busy]
command   = ["/bin/bash", "/opt/mcp/busy.sh", "{port}"]
transport = "http"
for_all   = false
limits    = { cpu = "20%" }'
save alice 'ANY=value-of-alices'
systemctl start mcpsup
calm() { [ "$(field alice/calm state)" = up ]; }
essential "alice's server comes up" until_so 60 calm
alice=$(field alice/calm pid)
group=/sys/fs/cgroup$(cut -d: -f3 /proc/"$alice"/cgroup)
check "memory.max is what the configuration says" same "$(cat "$group"/memory.max)" $((512 << 20))
check "cpu.max too" same "$(cat "$group"/cpu.max)" "50000 100000"
check "pids.max too" same "$(cat "$group"/pids.max)" 64
check "and open_files, of more than most have" \
    same "$(prlimit --pid "$alice" --nofile --noheadings -o SOFT,HARD | tr -s ' ' | sed 's/^ //')" "100000 100000"
check "no limit is said to be missing" not grep 'not enforced' <<<"$(mcpsup status -v)"
port=$(field alice/calm port)

# Memory.
save bob 'ANY=value-of-bobs
MCPSUP_SERVERS=hog'
note_of_hog() { mcpsup status bob | grep -q 'killed: over its 64M memory limit'; }
check "a server that eats memory is killed, and status says why" until_so 90 note_of_hog
show "mcpsup status" mcpsup status
check "the neighbour's is the same process" still alice/calm "$alice"
check "and answers" tool_of alice "$port" pid
check "the daemon was not restarted for it" same "$(property mcpsup NRestarts)" 0
check "nor has the unit of all runs ended" same "$(property mcpsup-runs ActiveState)/$(property mcpsup-runs SubState)" active/exited

# Processes.
save bob 'ANY=value-of-bobs
MCPSUP_SERVERS=bomb'
bomb_group() { echo /sys/fs/cgroup"$(cut -d: -f3 /proc/"$(field bob/bomb pid)"/cgroup)"; }
held() { [ "$(cat "$(bomb_group)"/pids.current)" -le 40 ] && grep -q '^max [1-9]' "$(bomb_group)"/pids.events; }
check "a fork bomb is held at pids.max" until_so 90 held
show "its group" eval 'cd $(bomb_group); grep . pids.max pids.current pids.events'
check "the neighbour's is the same process" still alice/calm "$alice"
check "and answers" tool_of alice "$port" pid
check "the machine has room for others" eval 'for i in $(seq 20); do /bin/true || exit 1; done'
check "the bomb is stopped, whole" eval 'mcpsup stop bob/bomb && until_so 30 not pgrep -f bomb.sh'

# Processor time.
save bob 'ANY=value-of-bobs
MCPSUP_SERVERS=busy'
essential "a busy server comes up" until_so 120 eval '[ "$(field bob/busy state)" = up ]'
usage() { sed -n "s/^$1 //p" /sys/fs/cgroup"$(cut -d: -f3 /proc/"$(field bob/busy pid)"/cgroup)"/cpu.stat; }
before=$(usage usage_usec)
sleep 10
used=$(($(usage usage_usec) - before))
check "it gets a fifth of one processor, not two ($((used / 100000)) %)" eval '[ $used -gt 500000 ] && [ $used -lt 3000000 ]'
check "because it is throttled" eval '[ "$(usage nr_throttled)" -gt 10 ]'
check "the neighbour's is the same process" still alice/calm "$alice"
check "stop ends all of it" eval 'systemctl stop mcpsup && not pgrep -l "unruly|bash.*mcp" && not ls -d /sys/fs/cgroup/system.slice/mcpsup*'
