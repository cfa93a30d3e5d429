# A hostile server of bob's under the unit as it is shipped, against alice's, the daemon, its launcher
# and the machine: what gets through is what is expected of this kernel, attack by attack.
# tests/it/cage.rs has the same in every tier, without systemd and with newer kernels.

person alice
person bob
install_mcpsup
configure '[server.intruder]
command   = ["/opt/mcp/intruder", "--port", "{port}"]
transport = "http"
limits    = { memory = "256M", tasks = 64 }'
save alice 'TOKEN=alices-own-token'
save bob 'TOKEN=bobs-own-token'
systemctl start mcpsup
essential "both come up" until_so 90 eval 'state_is alice up && state_is bob up'
check "they are kept apart by accounts, in cgroups" eval '
    has "$(mcpsup status -v)" "an account for each .accounts." && has "$(mcpsup status -v)" "killed whole: cgroup"'
show "what is not kept here" eval 'mcpsup status -v | grep "not kept"'
tool_of alice 3456 prepare >/dev/null
pid=$(field alice pid)
port=$(tr '\0' '\n' </proc/"$pid"/cmdline | sed -n 3p)
run=$(field alice run)
own=/var/lib/mcpsup/instances/alice/intruder
mkdir -m 777 /srv/commons

# attack NAME KIND PATH PID PORT: what bob's server says became of it.
attack() {
    tool_of bob 3457 attack "{\"attack\": \"$1\", \"path\": \"${2:-}\", \"pid\": ${3:-0}, \"port\": ${4:-0}}" 2>&1
}
closed() {
    local sentence=$1 said
    shift
    said=$(attack "$@")
    check "closed: $sentence" has "$said" '^closed'
}
open() {
    local sentence=$1 said
    shift
    said=$(attack "$@")
    check "open, as status -v says: $sentence" has "$said" '^open'
}

for kind in read write stat chmod touch; do closed "$kind alice.env" "$kind" /etc/mcpsup/env.d/alice.env; done
closed "find alice in env.d" find /etc/mcpsup/env.d/alice.env
closed "watch env.d" watch /etc/mcpsup/env.d
closed "add to env.d" write /etc/mcpsup/env.d/mallory
closed "read alice's state" read $own/secret
closed "find her file in it" find $own/secret
closed "add to it" write $own/planted
closed "find the daemon's ports" find /var/lib/mcpsup/ports.json
closed "add to the daemon's state" write /var/lib/mcpsup/planted
closed "find alice's run among the records" find "/run/mcpsup/runs/$run"
closed "find alice's log" find /var/log/mcpsup/alice/intruder.log
closed "the control socket, from inside a run" "unix socket" /run/mcpsup/control.sock
closed "systemd's own socket for notices" "unix socket" /run/systemd/private
closed "alice's Unix socket" "unix socket" $own/socket
closed "alice's file in /tmp" read "/tmp/mcpsup-intruder-$port"
closed "write elsewhere" write /srv/commons/planted
closed "let alice out of her limits" write "/sys/fs/cgroup$(cut -d: -f3 /proc/"$pid"/cgroup)/cgroup.procs"
closed "join alice's group" "join a cgroup" "/sys/fs/cgroup$(cut -d: -f3 /proc/"$pid"/cgroup)"
closed "begin a process in it" "begin in a cgroup" "/sys/fs/cgroup$(cut -d: -f3 /proc/"$pid"/cgroup)"
closed "raise one's own limits" write "/sys/fs/cgroup$(cut -d: -f3 /proc/"$(field bob pid)"/cgroup)/memory.max"
for victim in "alice's server:$pid" "the daemon:$(daemon_pid)" "the launcher:$(pgrep -f 'exe launch')"; do
    for kind in environ memory root descriptors cmdline process_vm_readv ptrace pidfd_getfd signal limits priority processors; do
        closed "$kind of ${victim%:*}" $kind "" "${victim#*:}"
    done
done
for kind in keyring "shared memory" io_uring "user namespace" "new privileges" "core dump"; do closed "$kind" "$kind"; done
# Of Landlock this kernel has ABI 2; those below take 4 and 6.
open "alice's abstract socket" "abstract socket" "" 0 "$port"
open "listen on a port of others" listen "" 0 $((port + 100))
open "alice's own port, past her door" tcp "" 0 "$port"
check "both are still up" eval 'state_is alice up && state_is bob up && still alice $pid'
