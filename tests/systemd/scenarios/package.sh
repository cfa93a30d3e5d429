# The Debian package on a bare Debian, from dpkg -i to purge: a newcomer's first user, a real MCP client
# with the file that was written for it, an upgrade under it, and what is left in the end.
# `make test-package` makes what this brings.
#
# brings: target/test-package/*

first=$(echo "$PAYLOAD"/mcpsup_*-1_*.deb) second=$(echo "$PAYLOAD"/mcpsup_*-2_*.deb)
# What of ours is anywhere, but for what came with this test and what belongs to people.
left() {
    find / -xdev \( -path "$PAYLOAD" -o -path /proc -o -path /home -o -path /opt \) -prune -o -name '*mcpsup*' -print
    find /run /sys/fs/cgroup \( -path "$PAYLOAD" \) -prune -o -name '*mcpsup*' -print
    getent group mcpsup
    systemctl list-units --all --no-legend 'mcpsup*'
}

person alice
person bob
install -D -m 755 -t /opt/mcp "$PAYLOAD/bin/notes"
install_inspector

check "dpkg -i installs it, with nothing else to fetch" dpkg -i "$first"
check "nothing is enabled and nothing runs until somebody wants it" \
    same "$(systemctl is-enabled mcpsup) $(systemctl is-active mcpsup)" "disabled inactive"
check "the group is there" getent group mcpsup
check "the unit starts the program of the package" same "$(systemctl show -P ExecStart mcpsup | sed 's/.*path=\([^ ]*\).*/\1/')" /usr/bin/mcpsup
check "systemd has nothing to say about the unit" same "$(systemd-analyze verify --man=no mcpsup.service 2>&1)" ""

cat >/etc/mcpsup/mcpsup.toml <<'END'
[server.notes]
command   = ["/opt/mcp/notes"]
transport = "http"
port_env  = "NOTES_PORT"
env       = { NOTES_USER = "{user}", NOTES_DIR = "{state_dir}" }

[server.notes.credential.NOTES_TOKEN]
description = "token of your notes account"
END

check "systemctl enable --now mcpsup" systemctl enable --now mcpsup
check "mcpsup add alice, at a terminal" at_terminal root "mcpsup add alice" NOTES_TOKEN nt_alices-own-token
show "it says" seen
check "nobody who looks on sees the token" not grep -q alices-own-token /tmp/seen
check "alice is up" until_so 60 state_is alice up
check "alice has the first port of the range" same "$(field alice port)" 3456
save bob 'NOTES_TOKEN=nt_bobs-own-token'
check "bob is up as soon as his file is there" until_so 60 state_is bob up
show "mcpsup status" mcpsup status

cd /home/alice || exit
show "mcpsup client alice --write, as alice" as alice mcpsup client --write
show ".mcp.json" cat .mcp.json
show "MCP Inspector" inspect alice notes --version
listed=$(inspect alice notes --method tools/list 2>&1)
check "MCP Inspector lists alice's tools with that file" has "$listed" '"whoami"'
called=$(inspect alice notes --method tools/call --tool-name whoami 2>&1)
show "MCP Inspector calls whoami" echo "$called"
check "MCP Inspector calls a tool as alice" has "$called" 'alice'
chmod 755 /home/alice && chmod 644 .mcp.json
refused=$(inspect bob notes --method tools/list 2>&1)
check "MCP Inspector does not come in as bob at alice's port" has "$refused" '403'

upgrade_under_servers "an upgrade" dpkg -i "$second"

check "a removal" dpkg -r mcpsup
check "ends the servers" eval 'for pid in $servers; do gone $pid || exit 1; done'
check "and the daemon" not pgrep -x mcpsup
check "and keeps the files" same "$(digest)" "$files"
check "an installation after that" dpkg -i "$second"
check "is enabled as it was" same "$(systemctl is-enabled mcpsup)" enabled
check "and starts" systemctl start mcpsup
check "alice is where she was" until_so 60 eval 'state_is alice up && [ "$(field alice port)" = 3456 ]'

check "a purge" dpkg -P mcpsup
check "leaves nothing" same "$(left)" ""
check "leaves nothing for systemd to complain of" same "$(systemctl --failed --no-legend)" ""
show "what is left in alice's home" ls -A /home/alice
