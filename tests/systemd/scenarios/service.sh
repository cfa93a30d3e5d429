# One daemon with two users: its start, what systemd knows of it, reload, restart, stop.

person alice
person bob
install_mcpsup
configure "$NOTES"
save alice 'NOTES_TOKEN=alices-secret-credential'
save bob 'NOTES_TOKEN=bobs-secret-credential'

check "the group is there" getent group mcpsup
check "systemd-analyze verify has nothing to say" \
    same "$(systemd-analyze verify --man=no /usr/local/lib/systemd/system/mcpsup{,-runs}.service 2>&1)" ""
analysis=$(systemd-analyze security --no-pager mcpsup.service)
exposure=$(sed -n 's/.*Overall exposure level for .*: \([0-9.]*\) .*/\1/p' <<<"$analysis")
check "its exposure, $exposure, is not more than it was" perl -e 'exit !($ARGV[0] > 0 && $ARGV[0] <= 4.8)' "$exposure"
unexplained() {
    local point words why bad=0
    why=$(grep '^#' /usr/local/lib/systemd/system/mcpsup.service)
    while read -r point; do
        # CapabilityBoundingSet=~CAP_SYS_(NICE|RESOURCE), RestrictNamespaces=~user, ProtectHome=
        words=${point%%=*}=
        [[ $point != *CAP_* ]] || words=$(grep -oE 'CAP_[A-Z_]+' <<<"${point//(*/}" | head -1)
        grep -qF "$words" <<<"$why" || { echo "$point ($words)"; bad=1; }
    done < <(grep '✗' <<<"$analysis" | tr -s ' ' | cut -d' ' -f2)
    return $bad
}
check "and mcpsup.service says why of each point that is open" unexplained
show "systemd-analyze security" eval 'grep -v "✓" <<<"$analysis"'

check "systemctl enable --now mcpsup" systemctl enable --now mcpsup
check "it is enabled for the next boot" systemctl is-enabled mcpsup
check "READY=1: when systemctl is back, mcpsup status answers" mcpsup status
essential "both users' servers come up" until_so 60 eval 'state_is alice up && state_is bob up'
check "STATUS= says so" until_so 5 eval '[ "$(property mcpsup StatusText)" = "2 up" ]'
show "systemctl status" systemctl status --no-pager -n 3 mcpsup mcpsup-runs
show "mcpsup status -v" mcpsup status -v
show "the tree" systemd-cgls --no-pager --xattr=no --cgroup-id=no -l /system.slice/mcpsup.service
show "the tree" systemd-cgls --no-pager --xattr=no --cgroup-id=no -l /system.slice/mcpsup-runs.service

alice=$(field alice pid) bob=$(field bob pid)
check "alice's server runs as alice" same "$(stat -c %U /proc/$alice)" alice
check "bob's server runs as bob" same "$(stat -c %U /proc/$bob)" bob
check "each is in a group of its own below mcpsup-runs.service" \
    has "$(cut -d: -f3 /proc/$alice/cgroup; cut -d: -f3 /proc/$bob/cgroup)" '^/system.slice/mcpsup-runs.service/.*/run-[0-9]+$'
check "nothing of the service manager's is in a server's environment" \
    not grep -aqE '^(NOTIFY_SOCKET|WATCHDOG_|LISTEN_|FDSTORE|INVOCATION_ID|CREDENTIALS_DIRECTORY)' <(tr '\0' '\n' </proc/$alice/environ)
launcher=$(pgrep -f 'exe launch')
check "nor in the launcher's, which has none" same "$(tr '\0' '\n' </proc/"$launcher"/environ)" ""
check "alice's client is told who she is" has "$(tool_of alice 3456 whoami 2>&1)" alice
check "bob's is refused at her door" not tool_of bob 3456 whoami
check "the journal names that refusal" has "$(journalctl -u mcpsup)" "door refused.*uid=\"?$(id -u bob)"

# The group mcpsup, by which dave may what root may; erin is in none.
person dave
person erin
usermod -aG mcpsup dave
by() { as "$1" env PATH="$PATH" mcpsup "${@:2}" 2>&1; }
check "one of the group mcpsup sees everybody's" eval 'said=$(by dave status) && has "$said" "^alice .* up " && has "$said" "^bob .* up "'
check "and restarts anybody's" eval 'by dave restart bob && ! still bob $bob'
bob=$(field bob pid)
check "who is not sees nobody's" eval 'said=$(by erin status); has "$said" "no instance of yours" && ! grep -qE "alice|bob" <<<"$said"'
for words in "status alice" "restart alice" "stop alice" "logs alice"; do
    check "nor is mcpsup $words for her" eval 'said=$(by erin $words); same "$?" 4 && has "$said" "alice is not yours to see or steer"'
done
check "nor reload" eval 'said=$(by erin reload); same "$?" 4'
check "and alice has what she had" still alice "$alice"

check "systemd keeps both doors" same "$(property mcpsup NFileDescriptorStore)" 2
check "status -v does not say that ports are nobody's" not grep "nobody's" <<<"$(mcpsup status -v)"

# The key of sealed files, as a credential: there is none yet, and the daemon runs all the same.
given() { ls -A /run/credentials/mcpsup.service; }
check "the daemon runs where it is given no credential" same "$(given)" ""
install -d -m 700 /etc/credstore
key=$(head -c 40 /dev/urandom | base64 -w0)
(umask 077; echo "$key" >/etc/credstore/mcpsup.seal.key)
systemctl restart mcpsup
dir=$(tr '\0' '\n' </proc/"$(daemon_pid)"/environ | sed -n 's/^CREDENTIALS_DIRECTORY=//p')
check "one at /etc/credstore is laid before it" same "$dir $(cat "$dir"/*)" "/run/credentials/mcpsup.service $key"
show "as systemd does it" eval 'ls -ld "$dir" "$dir"/*; findmnt -no FSTYPE,OPTIONS "$dir"'
check "nobody else can read it" eval '! as alice ls "$dir" && ! as alice cat "$dir/mcpsup.seal.key"'
check "nor is any in what a run sees" same "$(nsenter -t "$alice" -m ls -A /run/credentials && echo none)" none
systemd-creds encrypt --name=mcpsup.seal.key /etc/credstore/mcpsup.seal.key /etc/mcpsup/seal.key.cred 2>/dev/null
rm /etc/credstore/mcpsup.seal.key
mkdir -p /run/systemd/system/mcpsup.service.d
printf '[Service]\nLoadCredentialEncrypted=mcpsup.seal.key:/etc/mcpsup/seal.key.cred\n' >/run/systemd/system/mcpsup.service.d/key.conf
systemctl daemon-reload
check "one that is encrypted as well" eval 'systemctl restart mcpsup && same "$(cat "$dir"/*)" "$key"'
rm -r /run/systemd/system/mcpsup.service.d /etc/mcpsup/seal.key.cred
systemctl daemon-reload
check "and each server goes on" eval 'systemctl restart mcpsup && still alice $alice && still bob $bob'
check "and without one again" same "$(given)" ""

# Reload.
save carol 'NOTES_TOKEN=carols-secret-credential'
check "systemctl reload" systemctl reload mcpsup
check "it is active again afterwards" same "$(property mcpsup ActiveState)/$(property mcpsup SubState)" active/running
check "and every server goes on" eval 'still alice $alice && still bob $bob'
check "a third user's comes up, under a uid of its own" until_so 60 state_is carol up
check "STATUS= counts three" until_so 5 eval '[ "$(property mcpsup StatusText)" = "3 up" ]'
echo 'nonsense' >>/etc/mcpsup/mcpsup.toml
check "systemctl reload fails where mcpsup.toml is broken" not systemctl reload mcpsup
check "the journal says where" has "$(journalctl -u mcpsup)" '/etc/mcpsup/mcpsup.toml:[0-9]+:[0-9]+: '
check "and a broken mcpsup.toml touches no server" eval 'still alice $alice && still bob $bob'
check "STATUS= says it" until_so 5 eval '[ "$(property mcpsup StatusText)" = "3 up; mcpsup.toml is refused, mcpsup check says why" ]'
show "systemctl status" eval 'systemctl status --no-pager -n 3 mcpsup | cut -c1-140'
check "the daemon is active, as before" same "$(property mcpsup ActiveState)/$(property mcpsup SubState)" active/running
configure "$NOTES"
check "once it is right, systemctl reload succeeds" systemctl reload mcpsup
check "and STATUS= says no more of it" until_so 5 eval '[ "$(property mcpsup StatusText)" = "3 up" ]'
check "SIGHUP reloads as well" eval 'systemctl kill --kill-whom=main -s HUP mcpsup && until_so 10 systemctl is-active mcpsup'

# Restart.
carol=$(field carol pid) before=$(daemon_pid)
knocking 3456 3457 3458
check "systemctl restart" systemctl restart mcpsup
check "it is another daemon" not same "$(daemon_pid)" "$before"
check "every server is the same process" eval 'still alice $alice && still bob $bob && still carol $carol'
check "the next daemon found them" same "$(journalctl -u mcpsup _PID="$(daemon_pid)" | grep -c 'instance found again')" 3
check "again, ten times" eval 'for i in $(seq 10); do systemctl restart mcpsup || exit 1; done'
check "and still the same" eval 'still alice $alice && still bob $bob && still carol $carol'
knocks=$(knocked)
check "no connection was refused meanwhile ($knocks)" has "$knocks" '^tries [1-9][0-9]+ refused 0$'
check "a call of a tool works as before" has "$(tool_of alice 3456 whoami 2>&1)" alice
check "systemd keeps the doors, each once" same "$(property mcpsup NFileDescriptorStore)" 3

# A request that waits during a restart is answered.
check "who calls while there is no daemon is answered" eval '
    (for i in $(seq 8); do tool_of alice 3456 whoami || echo FAILED; done) >calls 2>&1 & caller=$!
    systemctl restart mcpsup; wait $caller; show calls cat calls; ! grep -q "refused" calls'

# Stop.
check "systemctl stop" systemctl stop mcpsup
check "no process is left" not pgrep -l 'mcpsup|notes'
check "no group is left" not ls -d /sys/fs/cgroup/system.slice/mcpsup* /sys/fs/cgroup/mcpsup
check "nothing is left in /run" not ls -d /run/mcpsup
check "nobody listens" not grep -E ':34[5-9]' <<<"$(ss -ltn)"
check "the unit has not failed" same "$(property mcpsup Result)/$(property mcpsup-runs ActiveState)" success/inactive
check "it starts again, with the same ports" eval 'systemctl start mcpsup && until_so 60 state_is alice up && [ "$(field alice port)" = 3456 ]'

check "the journal is free of secrets" not grep -E 'secret-credential' <<<"$(journalctl -b)"
check "and so is everything that systemd tells of the unit" not grep -E 'secret-credential' <<<"$(systemctl show mcpsup mcpsup-runs)"
