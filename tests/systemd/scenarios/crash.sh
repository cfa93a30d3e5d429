# A daemon that is killed, hangs, or finds other files than it left: the servers and their ports stay.

person alice
person bob
install_mcpsup
configure "$NOTES"
for name in alice bob carol; do save $name "NOTES_TOKEN=$name-secret-credential"; done
systemctl start mcpsup
all_up() { state_is alice up && state_is bob up && state_is carol up; }
essential "everybody's server comes up" until_so 60 all_up
alice=$(field alice pid) bob=$(field bob pid) carol=$(field carol pid)
same_pids() { still alice "$alice" && still bob "$bob" && still carol "$carol"; }
another_than() { [ "$(daemon_pid)" != "$1" ] && [ "$(daemon_pid)" != 0 ] && mcpsup status; }

before=$(daemon_pid)
knocking 3456 3457 3458
kill -9 "$before"
check "a daemon that is killed is started again by systemd" until_so 30 another_than "$before"
check "every server is the same process" same_pids
knocks=$(knocked)
check "no connection was refused meanwhile ($knocks)" has "$knocks" '^tries [1-9][0-9]+ refused 0$'
check "the launcher of the dead one is gone" until_so 10 eval '[ "$(pgrep -fc "exe launch")" = 1 ]'
check "and no unit has failed" same "$(systemctl --failed --no-legend)" ""

# Five times within a second: a start limit would give it up.
for _ in 1 2 3 4 5 6; do
    before=$(daemon_pid)
    kill -9 "$before"
    until_so 30 another_than "$before" >/dev/null
done
check "it is not given up, however often it is killed" same "$(property mcpsup ActiveState)" active
check "every server is the same process" same_pids

# The watchdog.
before=$(daemon_pid)
# No more than wait in line for a daemon that takes none.
PAUSE=0.2 knocking 3456
kill -STOP "$before"
check "a daemon that hangs is killed by the watchdog and started again" until_so 90 another_than "$before"
check "the journal says why" has "$(journalctl -u mcpsup)" 'Watchdog timeout'
check "every server is the same process" same_pids
knocks=$(knocked)
check "no connection was refused meanwhile ($knocks)" has "$knocks" '^tries [1-9][0-9]* refused 0$'
before=$(daemon_pid)
sleep 70
check "an idle daemon feeds it, for longer than it waits" same "$(daemon_pid)" "$before"

# Nobody else's, while there is no daemon.
mkdir -p /run/systemd/system/mcpsup.service.d
printf '[Service]\nRestartSec=20s\n' >/run/systemd/system/mcpsup.service.d/slow.conf
systemctl daemon-reload
listen_as() {
    as "$1" perl -MIO::Socket::INET -e 'IO::Socket::INET->new(LocalAddr => "127.0.0.1", LocalPort => $ARGV[0], Listen => 5, ReuseAddr => 1, ReusePort => $ARGV[1]) or die "$!\n"; print "listens\n"' "$2" "$3"
}
kill -9 "$(daemon_pid)"
until_so 10 eval '[ "$(property mcpsup SubState)" = auto-restart ]'
check "there is no daemon" not mcpsup status
check "bob cannot listen on alice's port" not listen_as bob 3456 0
check "nor with SO_REUSEPORT" not listen_as bob 3456 1
check "and could, were it nobody's" listen_as bob 3500 0

# What is changed meanwhile: bob moves, carol's port is asked for by nobody's file, the descriptors know it.
save bob 'NOTES_TOKEN=bob-secret-credential
NOTES_PORT=3700'
rm /run/systemd/system/mcpsup.service.d/slow.conf
systemctl daemon-reload
systemctl restart mcpsup
until_so 60 all_up
check "bob's door is where his file says now" eval 'until_so 60 state_is bob up && same "$(field bob port)" 3700'
check "the one he had is closed" not perl -MIO::Socket::INET -e 'exit !IO::Socket::INET->new(PeerAddr => "127.0.0.1", PeerPort => 3457)'
check "which the journal says" has "$(journalctl -u mcpsup)" 'kept socket closed name="bob/notes@3457"'
check "and systemd has let go of it" same "$(property mcpsup NFileDescriptorStore)" 3
check "alice's server is the same process" still alice "$alice"
check "who is removed gives the port back" eval 'mcpsup remove --yes carol && until_so 30 eval "[ \"\$(property mcpsup NFileDescriptorStore)\" = 2 ]"'
check "and somebody else can have it" listen_as bob 3458 0

# No daemon at all, and a stop: nothing may be left.
printf '[Service]\nRestartSec=60s\n' >/run/systemd/system/mcpsup.service.d/slow.conf
systemctl daemon-reload
kill -9 "$(daemon_pid)"
until_so 10 eval '[ "$(property mcpsup SubState)" = auto-restart ]'
check "the servers live without a daemon" kill -0 "$alice"
systemctl stop mcpsup
check "stopped without a daemon, no server is left" until_so 20 not pgrep -l notes
check "and no group" not ls -d /sys/fs/cgroup/system.slice/mcpsup*
check "nobody listens" not grep -E ':3456' <<<"$(ss -ltn)"
rm -r /run/systemd/system/mcpsup.service.d
systemctl daemon-reload
check "it starts again" eval 'systemctl start mcpsup && until_so 60 state_is alice up'

# A hand-made unit without a file descriptor store.
sed -e '/FileDescriptorStoreMax/d' -e '/FDSTORE/d' /usr/local/lib/systemd/system/mcpsup.service >/run/systemd/system/mcpsup.service
systemctl daemon-reload && systemctl restart mcpsup
check "where nobody keeps the doors, status -v names the window" has "$(mcpsup status -v)" "note: while the daemon is restarted, users' ports are nobody's"
check "the journal is free of secrets" not grep -E 'secret-credential' <<<"$(journalctl -b)"
