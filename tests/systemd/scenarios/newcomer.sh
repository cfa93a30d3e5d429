# The first minutes with a bare Debian, the package, and README.md: what it shows of "On a host" and of "For your
# users", typed at terminals by an administrator with sudo and by the users; then a client, sealed credentials, and
# the same by flags.
# `make test-package` makes what this brings.
#
# brings: target/test-package/*

person admin
person alice
person bob
echo "127.0.0.1 localhost $(hostname)" >/etc/hosts
echo 'admin ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/admin
# The page's server of one's own.
install -D -m 755 "$PAYLOAD/bin/lines" /opt/mcp/bin/tickets
install_inspector
package=$(echo "$PAYLOAD"/mcpsup_*-1_*.deb)
modes() { (cd /etc/mcpsup && stat -c '%a %U %n' . mcpsup.toml env.d env.d/*); }

essential "the package" dpkg -i "$package"
began=$SECONDS
check "sudo mcpsup init, at a terminal" at_terminal admin "sudo mcpsup init" \
    "which of them, or the command of your own:" /opt/mcp/bin/tickets \
    "whose server is the first (their account's name):" alice \
    "start the daemon now? [yes]" ""
echo "# that took $((SECONDS - began)) s"
show "it says" seen
check "it has started the service, as it says" has "$(seen)" '^started mcpsup.service, now and after each boot$'
check "now and for each boot" same "$(systemctl is-active mcpsup) $(systemctl is-enabled mcpsup)" "active enabled"
check "it ends with alice's server, up on the first port" has "$(seen)" '^alice +tickets +up +3456 '
check "and with what alice does next" has "$(seen)" '^then, for alice.s AI client: mcpsup client alice --write$'
essential "it is up" state_is alice up
check "and runs as alice" same "$(stat -c %U "/proc/$(field alice pid)")" alice
check "what it wrote is root's, and what is secret is closed" same "$(modes)" "755 root .
644 root mcpsup.toml
700 root env.d
600 root env.d/alice.env
600 root env.d/example"
check "once more, it writes over nothing" not at_terminal admin "sudo mcpsup init"
check "and says so" has "$(seen)" 'cannot write /etc/mcpsup/mcpsup.toml: it is there already'

# "For your users", by alice.
cd /home/alice || exit
check "alice has it in her client, and there it answers" at_terminal alice "mcpsup client --write && mcpsup client --check"
show "it says" seen
check "at her port, without a token in the file" has "$(cat .mcp.json)" '"url": "http://127.0.0.1:3456/mcp"'
listed=$(inspect alice tickets --method tools/list 2>&1)
check "MCP Inspector lists the tools with that file" has "$listed" '"tools"'

# "Afterwards", by the administrator: a credential that everybody needs.
at_terminal admin "printf '%s\n' '[server.tickets.credential.TICKETS_TOKEN]' 'description = \"token of your tickets account\"' 'pattern = \"^tk_\"' |
    sudo tee -a /etc/mcpsup/mcpsup.toml"
check "sudo mcpsup check says that alice has none" not at_terminal admin "sudo mcpsup check"
show "it says" seen
server=$(field alice pid)
check "sudo mcpsup reload" at_terminal admin "sudo mcpsup reload"
show "it says" seen
check "alice's server is the same process all the same" same "$(field alice pid)" "$server"
check "sudo mcpsup add bob" at_terminal admin "sudo mcpsup add bob" TICKETS_TOKEN tk_bobs-own-token
show "it says" seen
check "alice sets hers, and has her server with it" at_terminal alice "mcpsup set TICKETS_TOKEN" TICKETS_TOKEN: tk_alices-own-token
show "it says" seen
check "alice's environment has it" grep -qz TICKETS_TOKEN=tk_alices-own-token "/proc/$(field alice pid)/environ"
check "alice restarts it, sees how it is and what it wrote" at_terminal alice "mcpsup status && mcpsup restart && mcpsup logs"
show "it says" seen
check "alice sees nothing of bob's" not grep -q bob /tmp/seen
check "sudo mcpsup doctor finds nothing wrong" at_terminal admin "sudo mcpsup doctor"
show "it says" seen
check "who has neither a server nor a right to others' is told so" at_terminal admin "mcpsup status"
show "it says" seen
usermod -aG mcpsup admin
check "one of the group mcpsup sees everybody's" at_terminal admin "mcpsup status"
check "by their names" eval 'has "$(seen)" "^alice .* up " && has "$(seen)" "^bob .* up "'

# Sealed, by the host's own key.
check "sudo mcpsup seal bob" at_terminal admin "sudo mcpsup seal bob"
show "it says" seen
check "no credential of bob's lies open" not grep -rq tk_bobs-own-token /etc/mcpsup /var/lib/mcpsup /run/mcpsup /var/log/mcpsup
systemctl restart mcpsup
check "a new daemon opens it" at_terminal admin "sudo mcpsup restart bob"
check "and bob's server has it" grep -qz TICKETS_TOKEN=tk_bobs-own-token "/proc/$(field bob pid)/environ"
check "the journal is free of secrets" not grep -E 'own-token' <<<"$(journalctl -b)"

# The same by flags, and the service started as the page says.
check "all of it away" dpkg -P mcpsup
essential "and the package again" dpkg -i "$package"
check "sudo mcpsup init, by flags" at_terminal admin "sudo mcpsup init --user bob -- /opt/mcp/bin/tickets" "start the daemon now?" no
show "it says" seen
check "it says how to start the service" has "$(seen)" '^next: start the daemon: systemctl enable --now mcpsup$'
check "sudo systemctl enable --now mcpsup" at_terminal admin "sudo systemctl enable --now mcpsup"
check "bob is up" until_so 60 state_is bob up
