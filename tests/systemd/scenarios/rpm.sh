# The RPM package under a real systemd, from rpm -i to rpm -e. The guest is a Debian, so what the package needs
# (systemd, libc) is not in rpm's database and is not asked for; nor is there SELinux, nor dnf.
# `make test-package` makes what this brings.
#
# brings: target/test-package/*.rpm

first=$(echo "$PAYLOAD"/mcpsup-*-1.*.rpm) second=$(echo "$PAYLOAD"/mcpsup-*-2.*.rpm)
with_rpm() { rpm --force-debian --nodeps "$@"; }

person alice
person bob
install -D -m 755 "$PAYLOAD/bin/lines" /opt/mcp/bin/tickets
# As Fedora and its like have it: a package's service waits until somebody wants it.
mkdir -p /etc/systemd/system-preset
echo 'disable *' >/etc/systemd/system-preset/99-default.preset

essential "rpm -i" with_rpm -i "$first"
check "rpm -V: every file is as it was packed" same "$(rpm -V --nodeps mcpsup 2>&1)" ""
check "nothing is enabled and nothing runs until somebody wants it" \
    same "$(systemctl is-enabled mcpsup) $(systemctl is-active mcpsup)" "disabled inactive"
check "the group is there" getent group mcpsup
check "env.d is there, and closed" same "$(stat -c '%a %U' /etc/mcpsup/env.d)" "700 root"
check "the unit starts the program of the package" same "$(systemctl show -P ExecStart mcpsup | sed 's/.*path=\([^ ]*\).*/\1/')" /usr/bin/mcpsup
check "systemd has nothing to say about the unit" same "$(systemd-analyze verify --man=no mcpsup.service 2>&1)" ""
check "mcpsup init" mcpsup init --user alice --start -- /opt/mcp/bin/tickets
essential "alice is up" state_is alice up
check "mcpsup add bob" eval 'mcpsup add bob --from - </dev/null'
check "bob is up" until_so 60 state_is bob up
check "alice has it in her client, and there it answers" as alice sh -c 'cd && mcpsup client --write && mcpsup client --check'

upgrade_under_servers "rpm -U, to the next release" with_rpm -U "$second"

check "rpm -e" with_rpm -e mcpsup
check "ends the servers" eval 'for pid in $servers; do gone $pid || exit 1; done'
check "and the daemon" not pgrep -x mcpsup
check "keeps the configuration and the credentials" same "$(digest)" "$files"
check "leaves nothing else of the package's" \
    same "$(find /usr /etc/systemd /run /sys/fs/cgroup -xdev \( -path "$PAYLOAD" \) -prune -o -name '*mcpsup*' -print)" ""
check "leaves nothing for systemd to complain of" same "$(systemctl --failed --no-legend)" ""
check "an installation after that" with_rpm -i "$second"
check "waits to be started" same "$(systemctl is-enabled mcpsup) $(systemctl is-active mcpsup)" "disabled inactive"
check "systemctl enable --now mcpsup" systemctl enable --now mcpsup
check "everybody is where they were" until_so 60 eval '[ "$(field alice port) $(field bob port)" = "3456 3457" ] && state_is alice up && state_is bob up'
