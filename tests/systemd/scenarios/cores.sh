# kernel.core_pattern pipes cores to a program, as systemd-coredump and apport have it: whatever of ours
# is aborted, no byte of it reaches that program.

person alice
person bob
install_mcpsup
configure "$NOTES"
save alice 'NOTES_TOKEN=alices-secret-credential'
systemctl start mcpsup
up() { until_so 60 state_is alice up; }
essential "alice's server comes up" up

mkdir -m 700 /srv/cores
cat >/opt/mcp/take <<'S'
#!/bin/sh
cat >/srv/cores/$1.part && mv /srv/cores/$1.part /srv/cores/$1
S
chmod 755 /opt/mcp/take
# What systemd-coredump sets as well.
echo 2 >/proc/sys/fs/suid_dumpable
echo '|/opt/mcp/take %P' >/proc/sys/kernel/core_pattern
# Its name and not its path is in a core; so is the credential, if it is that server's.
holds() { until_so 60 test -e "/srv/cores/$1" && grep -aq "$2" "/srv/cores/$1"; }
abort() { kill -ABRT "$1" && until_so 60 gone "$1"; }
# The kernel says so when it is asked for a core and gives none for that limit (fs/coredump.c).
refusals() { dmesg | grep -c "($1) has RLIMIT_CORE set to 1"; }
refused() { local name=$1 times=$2; until_so 60 eval '[ "$(refusals "$name")" -ge "$times" ]'; }
# A core that was piped before is written by now: this one comes after it, and is there.
nothing_of() {
    sh -c 'ulimit -c unlimited; exec sleep 300' &
    local later=$!
    until_so 60 eval '[ "$(cat /proc/$later/comm)" = sleep ]'
    abort $later
    until_so 60 test -e "/srv/cores/$later" || return 1
    rm "/srv/cores/$later"
    same "$(ls /srv/cores)" "" || return 1
    [ $# = 0 ] || not test -e "/srv/cores/$1"
}

# That it would be seen, and that a limit of 0 is none.
for limit in unlimited 0; do
    pid=$(field alice pid)
    prlimit --pid "$pid" --core="$limit"
    abort "$pid"
    check "with a limit of $limit alice's credential is in the core of her server" holds "$pid" alices-secret-credential
    rm -f "/srv/cores/$pid"
    check "and the server is started again" eval 'up && not same "$(field alice pid)" "$pid"'
done

pid=$(field alice pid)
check "with the limit it has" same "$(prlimit --pid "$pid" --core --noheadings -o SOFT,HARD | tr -s ' ' | sed 's/^ //')" "1 1"
for signal in ABRT QUIT TRAP; do
    up
    pid=$(field alice pid)
    before=$(refusals notes)
    kill -$signal "$pid"
    until_so 60 gone "$pid"
    check "the kernel makes none of it at SIG$signal" refused notes $((before + 1))
    check "and no byte comes" nothing_of "$pid"
done

pid=$(daemon_pid)
abort "$pid"
check "nor of the daemon that is aborted" nothing_of "$pid"
check "systemd starts it again" until_so 60 eval 'state_is alice up && not same "$(daemon_pid)" "$pid"'
pid=$(daemon_pid)
prlimit --pid "$pid" --core=unlimited
abort "$pid"
check "nor if somebody has taken its limit away: it is not dumpable" nothing_of "$pid"
check "systemd starts it again" until_so 60 eval 'state_is alice up && not same "$(daemon_pid)" "$pid"'
pid=$(pgrep -f 'exe launch')
abort "$pid"
check "nor of its launcher" nothing_of "$pid"

# Who types a credential, at a terminal.
before=$(refusals mcpsup)
(ulimit -c unlimited; { until_so 60 grep -qs NOTES_TOKEN /tmp/seen; echo -n bobs-secret; sleep 60; } |
    script -qefc "mcpsup add bob" /tmp/seen >/dev/null) &
until_so 60 grep -qs NOTES_TOKEN /tmp/seen
pid=$(pgrep -f '^mcpsup add bob')
abort "$pid"
check "nor of mcpsup add" refused mcpsup $((before + 1))
check "and no byte comes" nothing_of "$pid"

# Somebody without root, with a daemon of their own.
systemctl stop mcpsup
uid=$(id -u alice)
loginctl enable-linger alice
essential "alice has a service manager" until_so 60 systemctl is-active "user@$uid"
own() { as alice env XDG_RUNTIME_DIR=/run/user/"$uid" PATH="$PATH" "$@"; }
check "mcpsup init" own mcpsup init
own sh -c 'cat >~/.config/mcpsup/mcpsup.toml' <<<"$NOTES"
own sh -c 'umask 077; echo NOTES_TOKEN=alices-secret-credential >~/.config/mcpsup/env.d/work.env'
own systemctl --user start mcpsup
of() { own mcpsup status work --json | perl -0777 -ne 'print $1 if /"'"$1"'"\s*:\s*"?([^",}\s]*)/'; }
essential "her own daemon has her server up" until_so 120 eval '[ "$(of state)" = up ]'
# The first process of its namespace is ours, and would not hear of it.
pid=$(pgrep -o -P "$(of pid)") before=$(refusals notes)
abort "$pid"
check "the kernel makes no core of that either" refused notes $((before + 1))
check "and no byte comes" nothing_of "$pid"
pid=$(own systemctl --user show -P MainPID mcpsup)
abort "$pid"
check "nor of that daemon" nothing_of "$pid"
